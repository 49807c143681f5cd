//! A run in few numbers, as many for ten million events as for ten thousand: what charts are drawn of.
//! Pure.

mod curve;
mod gap_heat;
mod timeline;
mod waterfall;

pub use curve::{Bars, CURVE_POINTS, bars, curve};
pub use gap_heat::GapHeat;
pub use timeline::timeline;
pub use waterfall::Waterfall;

/// Bins of equal width.
#[derive(Clone, Copy, Debug)]
struct Bins {
    from: f64,
    width: f64,
    count: usize,
}

impl Bins {
    /// So many bins over a range; one that holds everything where the range has no width.
    fn over(from: f64, to: f64, count: usize) -> Self {
        let width = (to - from) / count.max(1) as f64;
        if width.is_finite() && 0.0 < width {
            return Self { from, width, count: count.max(1) };
        }
        Self { from, width: 1.0, count: 1 }
    }

    /// The bin of a value: the first or the last for one outside.
    fn of(self, value: f64) -> usize {
        let bin = ((value - self.from) / self.width).floor();
        (bin.max(0.0) as usize).min(self.count - 1)
    }

    /// Where a bin begins; where the last one ends for the one behind it.
    fn edge(self, bin: usize) -> f64 {
        self.from + self.width * bin as f64
    }

    fn edges(self) -> impl Iterator<Item = f64> {
        (0..=self.count).map(move |bin| self.edge(bin))
    }
}
