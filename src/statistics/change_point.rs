//! Where in a history of values the level changed: for a report, not for a gate.
//!
//! A gate compares with yesterday, so it never sees a server that gets 0.5 % slower with each commit. A
//! history does. The values are cut where the ranks on both sides differ most; if as large a difference
//! comes in fewer than α of all shuffled histories, the cut is a change point, and both sides are searched
//! in the same way (binary segmentation).
//!
//! It is the rank statistic of Pettitt, "A non-parametric approach to the change-point problem", Applied
//! Statistics 28 (1979), standardised so that late changes count too, with the permutation test of Matteson &
//! James, "A nonparametric approach for multiple change point analysis of multivariate data", Journal of the
//! American Statistical Association 109 (2014), which MongoDB's and DataStax's detectors use. Ranks, since one
//! wild run must change nothing, however wild.
//!
//! A stationary history gives a false alarm with probability α, whatever its distribution, if its values
//! are independent.

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::Confidence;

/// What the report asks for. A history is looked at after every run, so that one in twenty would be a false
/// alarm every month.
pub const CONFIDENCE: Confidence = Confidence(0.99);

/// The least values on either side: of fewer, a level cannot be told from a few odd runs.
const MIN_SEGMENT: usize = 5;
/// How many shuffled histories each cut is held against. With the true one they are 1,000, so that p-values
/// are thousandths.
const SHUFFLES: usize = 999;
/// The same history gives the same change points.
const SEED: u64 = 0;

/// A change of the level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePoint {
    /// The first value at the new level.
    pub index: usize,
    /// The median from the change point before it, or the start, up to here.
    pub before: f64,
    /// The median from here to the next change point, or the end.
    pub after: f64,
}

impl ChangePoint {
    /// By how much the level changed, in percent of what it was.
    pub fn percent(self) -> f64 {
        (self.after / self.before - 1.0) * 100.0
    }
}

/// The change points of a history, oldest value first, in their order. A slow slide shows as a few steps on
/// the way.
pub fn change_points(history: &[f64], confidence: Confidence) -> Vec<ChangePoint> {
    let mut cuts = Vec::new();
    let mut rng = ChaCha12Rng::seed_from_u64(SEED);
    cut(history, 0, confidence.alpha(), &mut rng, &mut cuts);
    if cuts.is_empty() {
        return Vec::new();
    }
    cuts.sort_unstable();
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([history.len()]);
    let levels: Vec<f64> =
        starts.zip(ends).map(|(start, end)| median(&history[start..end])).collect();
    cuts.iter()
        .zip(levels.windows(2))
        .map(|(index, levels)| ChangePoint { index: *index, before: levels[0], after: levels[1] })
        .collect()
}

/// Adds the change points of a part of the history that begins at `offset`.
fn cut(part: &[f64], offset: usize, alpha: f64, rng: &mut ChaCha12Rng, cuts: &mut Vec<usize>) {
    if part.len() < 2 * MIN_SEGMENT {
        return;
    }
    let mut ranks = ranks(part);
    let Some((index, difference)) = greatest_difference(&ranks) else { return };
    let as_large = (0..SHUFFLES)
        .filter(|_| {
            ranks.shuffle(rng);
            greatest_difference(&ranks).is_some_and(|(_, shuffled)| difference <= shuffled)
        })
        .count();
    // The true history is one of them.
    if (as_large + 1) as f64 / (SHUFFLES + 1) as f64 <= alpha {
        cuts.push(offset + index);
        cut(&part[..index], offset, alpha, rng, cuts);
        cut(&part[index..], offset + index, alpha, rng, cuts);
    }
}

/// Where the sums of ranks on both sides are furthest from what they would be without a change, in standard
/// deviations (but for a factor that is the same everywhere). `None` where all values are the same.
fn greatest_difference(ranks: &[f64]) -> Option<(usize, f64)> {
    let n = ranks.len();
    let mean = (n as f64 + 1.0) / 2.0;
    let mut sum = 0.0;
    let mut greatest = None;
    for (rank, index) in ranks.iter().zip(1..) {
        sum += rank - mean;
        if index < MIN_SEGMENT || n < index + MIN_SEGMENT {
            continue;
        }
        let difference = f64::abs(sum) / ((index * (n - index)) as f64).sqrt();
        if 0.0 < difference && greatest.is_none_or(|(_, most)| most < difference) {
            greatest = Some((index, difference));
        }
    }
    greatest
}

/// The rank of each value, from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut rank = 1.0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let count = equal.len() as f64;
        for index in equal {
            ranks[*index] = rank + (count - 1.0) / 2.0;
        }
        rank += count;
    }
    ranks
}

/// Of at least one value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution as _, StandardNormal};

    use super::*;

    /// Values about the levels, with a noise of 3 %.
    fn noisy(levels: impl IntoIterator<Item = f64>, rng: &mut ChaCha12Rng) -> Vec<f64> {
        let noise = |rng: &mut ChaCha12Rng| -> f64 { StandardNormal.sample(rng) };
        levels.into_iter().map(|level| level * (1.0 + 0.03 * noise(rng))).collect()
    }

    fn found(history: &[f64]) -> Vec<ChangePoint> {
        change_points(history, CONFIDENCE)
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let levels = [100.0; 30].into_iter().chain([110.0; 20]);
        let changes = found(&noisy(levels, &mut rng));
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(changes[0].index.abs_diff(30) <= 2, "{changes:?}");
        assert!((changes[0].percent() - 10.0).abs() < 3.0, "{changes:?}");
    }

    #[test]
    fn up_and_down_again_are_two_changes() {
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let levels = [100.0; 30].into_iter().chain([115.0; 20]).chain([100.0; 30]);
        let changes = found(&noisy(levels, &mut rng));
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert!(0.0 < changes[0].percent() && changes[1].percent() < 0.0, "{changes:?}");
    }

    #[test]
    fn a_slow_slide_over_twenty_commits_is_seen() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let runs = 40;
        let seen = (0..runs)
            .filter(|_| {
                // Half a percent per commit, a sixth of the noise.
                let slide = (0..20).map(|commit| 100.0 * 1.005_f64.powi(commit));
                let changes = found(&noisy([100.0; 20].into_iter().chain(slide), &mut rng));
                changes.last().is_some_and(|last| last.after / changes[0].before > 1.04)
            })
            .count();
        assert!(runs * 9 / 10 <= seen, "{seen} of {runs}");
    }

    #[test]
    fn stationary_noise_gives_a_false_alarm_in_one_of_twenty_at_most() {
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        for length in [20, 60, 200] {
            let runs = 60;
            let alarms = (0..runs)
                .filter(|_| !found(&noisy(vec![100.0; length], &mut rng)).is_empty())
                .count();
            assert!(alarms <= runs / 20, "{alarms} of {runs} at {length} values");
        }
    }

    #[test]
    fn a_few_wild_runs_change_nothing() {
        let mut rng = ChaCha12Rng::seed_from_u64(5);
        let mut history = noisy([100.0; 60], &mut rng);
        assert_eq!(found(&history), []);
        for index in [11, 35, 36, 50] {
            history[index] = 1e6;
        }
        assert_eq!(found(&history), []);
    }

    #[test]
    fn what_is_short_or_never_changes_has_no_change_point() {
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0]), []);
        assert_eq!(found(&[7.0; 50]), []);
    }

    #[test]
    fn the_same_history_gives_the_same_change_points() {
        let mut rng = ChaCha12Rng::seed_from_u64(6);
        let history = noisy((0..60).map(|commit| 100.0 + f64::from(commit) / 5.0), &mut rng);
        assert_eq!(found(&history), found(&history));
    }
}
