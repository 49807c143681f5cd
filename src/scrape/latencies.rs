//! What a server's own histograms have counted, look by look. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use super::names::Timing;

/// The most looks that are told from each other: an hour at the usual interval. Of more, neighbours are taken
/// together.
const MOST_LOOKS: usize = 3600;

/// What was counted between looks at a server.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    looks: Vec<Look>,
}

#[derive(Clone, Debug)]
struct Look {
    /// When it was, s.
    at_s: f64,
    /// What was counted since the look before.
    new: BTreeMap<Timing, Histogram>,
}

impl Latencies {
    /// Adds a look, and what was counted since the one before.
    pub fn push(&mut self, at: Duration, new: BTreeMap<Timing, Histogram>) {
        self.looks.push(Look { at_s: at.as_secs_f64(), new });
        self.thin();
    }

    /// All that was counted.
    pub fn total(&self) -> BTreeMap<Timing, Histogram> {
        let mut total = BTreeMap::new();
        self.looks.iter().for_each(|look| merge(&mut total, &look.new));
        total
    }

    /// What was counted between the looks that are nearest to two times; where those are one, between the looks
    /// around them.
    #[must_use]
    pub fn within(&self, from_s: f64, to_s: f64) -> Self {
        let Some(end) = self.looks.len().checked_sub(1) else { return Self::default() };
        let (mut first, mut last) = (self.nearest(from_s), self.nearest(to_s));
        if last <= first {
            first = self.looks.partition_point(|look| look.at_s <= from_s).saturating_sub(1);
            last = self.looks.partition_point(|look| look.at_s < to_s).min(end);
        }
        let mut looks = self.looks[first..=last.max(first)].to_vec();
        // That was counted before.
        looks[0].new.clear();
        Self { looks }
    }

    /// The look that is nearest to a time, of which there is one.
    fn nearest(&self, at_s: f64) -> usize {
        let after = self.looks.partition_point(|look| look.at_s < at_s);
        let Some(before) = after.checked_sub(1) else { return after };
        match self.looks.get(after) {
            Some(next) if next.at_s - at_s < at_s - self.looks[before].at_s => after,
            _ => before,
        }
    }

    /// The same at other times.
    #[must_use]
    pub fn moved(mut self, by_s: f64) -> Self {
        self.looks.iter_mut().for_each(|look| look.at_s += by_s);
        self
    }

    /// Adds what was counted later.
    pub fn append(&mut self, mut next: Self) {
        self.looks.append(&mut next.looks);
        self.thin();
    }

    fn thin(&mut self) {
        while MOST_LOOKS < self.looks.len() {
            // Nothing was counted by the first.
            let (first, others) = self.looks.split_at(1);
            let pairs = others.chunks(2).map(|pair| {
                let mut new = BTreeMap::new();
                pair.iter().for_each(|look| merge(&mut new, &look.new));
                Look { at_s: pair[pair.len() - 1].at_s, new }
            });
            self.looks = first.iter().cloned().chain(pairs).collect();
        }
    }
}

fn merge(all: &mut BTreeMap<Timing, Histogram>, new: &BTreeMap<Timing, Histogram>) {
    for (timing, histogram) in new {
        all.entry(*timing).or_default().merge(histogram);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A look each second, and how many first tokens of a second were counted by then since the look before.
    pub(crate) fn counted(counts: &[u32]) -> Latencies {
        let mut latencies = Latencies::default();
        for (second, count) in (0..).zip(counts) {
            let mut histogram = Histogram::default();
            histogram.add_count(f64::from(*count));
            histogram.add_sum(f64::from(*count) * 1e3);
            latencies
                .push(Duration::from_secs(second), BTreeMap::from([(Timing::Ttft, histogram)]));
        }
        latencies
    }

    fn count(latencies: &Latencies) -> u64 {
        let total = latencies.total();
        total.get(&Timing::Ttft).and_then(Histogram::figures).map_or(0, |figures| figures.count)
    }

    #[test]
    fn a_stretch_of_time_is_counted_between_the_looks_nearest_to_its_ends() {
        let latencies = counted(&[0, 10, 200, 3000, 40_000]);
        assert_eq!(count(&latencies), 43_210);
        assert_eq!(count(&latencies.within(1.0, 3.0)), 3200);
        assert_eq!(count(&latencies.within(1.4, 2.6)), 3200);
        assert_eq!(count(&latencies.within(0.6, 3.4)), 3200);
        assert_eq!(count(&latencies.within(1.6, f64::INFINITY)), 43_000);
        assert_eq!(count(&latencies.within(-9.0, 9.0)), 43_210);
    }

    #[test]
    fn a_stretch_that_is_shorter_than_the_looks_are_apart_is_counted_between_those_around_it() {
        let latencies = counted(&[0, 10, 200, 3000]);
        assert_eq!(count(&latencies.within(1.2, 1.3)), 200);
        assert_eq!(count(&latencies.within(0.8, 1.3)), 210);
        assert_eq!(count(&latencies.within(7.0, 9.0)), 0);
        assert_eq!(count(&Latencies::default().within(0.0, 1.0)), 0);
    }

    #[test]
    fn what_follows_is_added_and_times_move() {
        let mut both = counted(&[0, 10, 200]).within(1.0, 2.0);
        both.append(counted(&[0, 3000, 40_000]).within(1.0, 2.0).moved(1.0));
        assert_eq!(count(&both), 40_200);
        assert_eq!(count(&both.within(2.0, 3.0)), 40_000);
    }

    #[test]
    fn of_many_looks_neighbours_are_taken_together_and_nothing_is_lost() {
        let latencies = counted(&[1; MOST_LOOKS + 2]);
        assert!(latencies.looks.len() <= MOST_LOOKS);
        assert_eq!(count(&latencies) as usize, MOST_LOOKS + 2);
        assert_eq!(count(&latencies.within(1000.0, 2000.0)), 1000);
    }
}
