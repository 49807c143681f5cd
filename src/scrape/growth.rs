//! By how much a server's counts have grown, each series for itself: that one replica has begun anew is not
//! to be hidden by what the others count. Pure.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::names::{Quantity, Timing};
use super::reading::Reading;

/// The most series of a count that are remembered when they are no longer on the page.
const MOST_SERIES: usize = 10_000;

/// What was counted since the first look.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Whether there was a look.
    begun: bool,
    counts: BTreeMap<Quantity, Count<f64>>,
    histograms: BTreeMap<Timing, Count<Histogram>>,
    grown: BTreeMap<Quantity, f64>,
    /// Looks at which something had begun anew.
    pub restarts: u32,
}

/// How far the counts were at a look.
pub type Mark = BTreeMap<Quantity, (f64, u32)>;

/// The series of a count.
#[derive(Clone, Debug, Default)]
struct Count<T> {
    /// What each showed when it was last on the page.
    last: BTreeMap<String, T>,
    /// How often one has begun anew.
    restarts: u32,
}

/// What only grows, but where its server begins anew.
trait Grows: Clone + Default {
    /// What was added since `before`; `None` where it has begun anew.
    fn since(&self, before: &Self) -> Option<Self>;
    fn add(&mut self, other: &Self);
}

impl Grows for f64 {
    fn since(&self, before: &Self) -> Option<Self> {
        (before <= self).then_some(self - before)
    }

    fn add(&mut self, other: &Self) {
        *self += other.max(0.0);
    }
}

impl Grows for Histogram {
    fn since(&self, before: &Self) -> Option<Self> {
        Histogram::since(self, before)
    }

    fn add(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl<T: Grows> Count<T> {
    /// What was counted since the look before. A series that is new has counted all of it since, for many
    /// servers name a count only once there is something to count; at the first look nothing is known of it.
    fn add<'a>(&mut self, series: impl Iterator<Item = (&'a str, T)>, first: bool) -> T {
        let mut grown = T::default();
        let mut there = BTreeMap::new();
        for (name, now) in series {
            match self.last.get(name).map(|before| now.since(before)) {
                Some(Some(new)) => grown.add(&new),
                Some(None) => {
                    // What it had counted before it began anew is lost; it has counted what it shows.
                    self.restarts += 1;
                    grown.add(&now);
                }
                None if first => {}
                None => grown.add(&now),
            }
            there.insert(name.to_owned(), now);
        }
        if MOST_SERIES < self.last.len() {
            self.last.clear();
        }
        self.last.append(&mut there);
        grown
    }

    /// The server has begun anew and names nothing yet.
    fn forget(&mut self) {
        self.restarts += u32::from(!self.last.is_empty());
        self.last.clear();
    }
}

impl Growth {
    /// Adds a look, and gives what the histograms have counted since the one before.
    pub fn add(&mut self, reading: &Reading) -> BTreeMap<Timing, Histogram> {
        let before = self.all_restarts();
        let first = !std::mem::replace(&mut self.begun, true);
        if reading.is_empty() {
            self.counts.values_mut().for_each(Count::forget);
            self.histograms.values_mut().for_each(Count::forget);
        }
        for (quantity, series) in reading.counts() {
            let new = self.counts.entry(quantity).or_default().add(series, first);
            *self.grown.entry(quantity).or_default() += new;
        }
        let mut new = BTreeMap::new();
        for (timing, series) in reading.histograms() {
            let histogram = self.histograms.entry(timing).or_default().add(series, first);
            if !histogram.is_empty() {
                new.insert(timing, histogram);
            }
        }
        self.restarts += u32::from(before < self.all_restarts());
        new
    }

    fn all_restarts(&self) -> u32 {
        let counts = self.counts.values().map(|count| count.restarts);
        counts.chain(self.histograms.values().map(|count| count.restarts)).sum()
    }

    /// What was counted of a quantity since the first look.
    pub fn of(&self, quantity: Quantity) -> f64 {
        self.grown.get(&quantity).copied().unwrap_or_default()
    }

    /// How far the counts are.
    pub fn mark(&self) -> Mark {
        let counts = self.counts.iter();
        counts.map(|(quantity, count)| (*quantity, (self.of(*quantity), count.restarts))).collect()
    }

    /// What was counted of a quantity since then; `None` where a series has begun anew, and some of it is lost.
    pub fn since(&self, mark: &Mark, quantity: Quantity) -> Option<f64> {
        let (before, restarts) = mark.get(&quantity).copied().unwrap_or_default();
        let count = self.counts.get(&quantity)?;
        (count.restarts == restarts).then(|| self.of(quantity) - before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::Page;
    use super::*;

    fn look(growth: &mut Growth, page: &str) -> BTreeMap<Timing, Histogram> {
        growth.add(&Reading::of(&Page::parse(page).samples))
    }

    /// Tokens and first tokens of two replicas.
    fn replicas(tokens: [u32; 2], ttfts: [u32; 2]) -> String {
        let lines = [0, 1].map(|replica| {
            let (tokens, ttfts) = (tokens[replica], ttfts[replica]);
            format!(
                "vllm:generation_tokens_total{{engine=\"{replica}\"}} {tokens}\n\
                 vllm:num_requests_running{{engine=\"{replica}\"}} {tokens}\n\
                 vllm:time_to_first_token_seconds_sum{{engine=\"{replica}\"}} {ttfts}\n\
                 vllm:time_to_first_token_seconds_count{{engine=\"{replica}\"}} {ttfts}\n"
            )
        });
        lines.concat()
    }

    #[test]
    fn the_restart_of_one_replica_is_not_hidden_by_the_growth_of_another() {
        let mut growth = Growth::default();
        assert!(look(&mut growth, &replicas([1000, 5000], [10, 50])).is_empty());
        let mark = growth.mark();
        // The first replica has begun anew; together they show 800 tokens more.
        let new = look(&mut growth, &replicas([300, 6500], [2, 90]));
        assert_eq!(growth.of(Quantity::GenerationTokens), 300.0 + 1500.0);
        assert_eq!(growth.since(&mark, Quantity::GenerationTokens), None);
        assert_eq!(growth.restarts, 1);
        assert_eq!(new[&Timing::Ttft].figures().unwrap().count, 2 + 40);
        let mark = growth.mark();
        look(&mut growth, &replicas([310, 6505], [2, 90]));
        assert_eq!(growth.since(&mark, Quantity::GenerationTokens), Some(15.0));
        assert_eq!(growth.of(Quantity::GenerationTokens), 1815.0);
        assert_eq!(growth.restarts, 1);
    }

    #[test]
    fn a_replica_that_is_off_the_page_for_a_while_is_counted_on() {
        let mut growth = Growth::default();
        look(&mut growth, &replicas([1000, 5000], [0, 0]));
        look(&mut growth, "vllm:generation_tokens_total{engine=\"1\"} 5100\n");
        look(&mut growth, &replicas([1200, 5300], [0, 0]));
        assert_eq!(growth.of(Quantity::GenerationTokens), 200.0 + 300.0);
        assert_eq!(growth.restarts, 0);
    }

    #[test]
    fn a_server_that_names_nothing_any_more_has_begun_anew() {
        let mut growth = Growth::default();
        look(&mut growth, &replicas([100, 100], [1, 1]));
        look(&mut growth, "");
        assert_eq!(growth.restarts, 1);
        look(&mut growth, &replicas([150, 10], [1, 1]));
        assert_eq!(growth.of(Quantity::GenerationTokens), 160.0);
        assert_eq!(growth.restarts, 1);
    }

    #[test]
    fn a_length_of_a_queue_falls_without_a_restart() {
        let mut growth = Growth::default();
        for running in [5, 0] {
            look(&mut growth, &format!("vllm:num_requests_running {running}\n"));
        }
        assert_eq!(growth.restarts, 0);
    }
}
