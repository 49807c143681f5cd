//! A server's own histogram, and what can be told from it. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many requests, or gaps, were as fast as a bound or faster. Counts and bounds are in milliseconds'
/// terms whatever the server's unit was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// By upper bound, ms, the last of which is infinite; all that are not above the bound.
    buckets: Vec<(f64, f64)>,
    sum_ms: f64,
    count: f64,
}

/// What a histogram tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistogramFigures {
    /// How many there are.
    pub count: u64,
    /// The mean, ms: exact, for the server counts the sum.
    pub mean_ms: f64,
    /// The median.
    pub p50: Option<Estimate>,
    /// The 90th percentile.
    pub p90: Option<Estimate>,
    /// The 99th percentile.
    pub p99: Option<Estimate>,
}

/// A percentile as far as buckets give it away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// By linear interpolation within the bucket, ms; the last finite bound where the bucket has none.
    pub estimate_ms: f64,
    /// It is above this, ms.
    pub above_ms: f64,
    /// It is not above this, ms; `null` where the bucket has no end.
    pub at_most_ms: Option<f64>,
}

impl Histogram {
    /// Adds to the bucket of a bound.
    pub fn add_bucket(&mut self, bound_ms: f64, count: f64) {
        if bound_ms.is_nan() || count.is_nan() {
            return;
        }
        match self.buckets.binary_search_by(|(bound, _)| bound.total_cmp(&bound_ms)) {
            Ok(place) => self.buckets[place].1 += count,
            Err(place) => self.buckets.insert(place, (bound_ms, count)),
        }
    }

    /// Adds to the sum, ms.
    pub fn add_sum(&mut self, sum_ms: f64) {
        self.sum_ms += sum_ms;
    }

    /// Adds to the number.
    pub fn add_count(&mut self, count: f64) {
        self.count += count;
    }

    /// What was counted since `before`; `None` where the server has begun anew.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let alike = self.buckets.len() == before.buckets.len()
            && self.buckets.iter().zip(&before.buckets).all(|(now, then)| now.0 == then.0);
        if !alike || self.count < before.count {
            return None;
        }
        let pairs = self.buckets.iter().zip(&before.buckets);
        Some(Self {
            buckets: pairs.map(|(now, then)| (now.0, (now.1 - then.1).max(0.0))).collect(),
            sum_ms: (self.sum_ms - before.sum_ms).max(0.0),
            count: self.count - before.count,
        })
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.count <= 0.0
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            self.add_bucket(*bound, *count);
        }
        self.sum_ms += other.sum_ms;
        self.count += other.count;
    }

    /// What it tells; `None` where nothing was counted.
    pub fn figures(&self) -> Option<HistogramFigures> {
        (0.0 < self.count).then(|| HistogramFigures {
            count: self.count as u64,
            mean_ms: self.sum_ms / self.count,
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
        })
    }

    /// As Prometheus' [`histogram_quantile`] has it: values are taken to be spread evenly in a bucket, of
    /// which the first begins at 0.
    ///
    /// [`histogram_quantile`]: https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    fn quantile(&self, quantile: f64) -> Option<Estimate> {
        let &(last_bound, all) = self.buckets.last()?;
        if last_bound.is_finite() || all <= 0.0 {
            return None;
        }
        let rank = quantile * all;
        let place = self.buckets.iter().position(|(_, count)| rank <= *count)?;
        let (above_ms, below) = match place.checked_sub(1) {
            Some(before) => self.buckets[before],
            None => (0.0, 0.0),
        };
        let (bound, count) = self.buckets[place];
        if bound.is_infinite() {
            return Some(Estimate { estimate_ms: above_ms, above_ms, at_most_ms: None });
        }
        let share = if below < count { (rank - below) / (count - below) } else { 1.0 };
        let estimate_ms = above_ms + (bound - above_ms) * share;
        Some(Estimate { estimate_ms, above_ms, at_most_ms: Some(bound) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(buckets: &[(f64, f64)], sum_ms: f64) -> Histogram {
        let mut histogram = Histogram::default();
        for (bound, count) in buckets {
            histogram.add_bucket(*bound, *count);
        }
        histogram.add_sum(sum_ms);
        histogram.add_count(buckets.last().unwrap().1);
        histogram
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn a_percentile_is_interpolated_in_its_bucket() {
        let figures =
            histogram(&[(10.0, 0.0), (20.0, 80.0), (40.0, 98.0), (INF, 100.0)], 2000.0).figures();
        let figures = figures.unwrap();
        assert_eq!((figures.count, figures.mean_ms), (100, 20.0));
        let within = |estimate_ms, above_ms, at_most_ms| {
            Some(Estimate { estimate_ms, above_ms, at_most_ms: Some(at_most_ms) })
        };
        assert_eq!(figures.p50, within(16.25, 10.0, 20.0));
        assert_eq!(figures.p90, within(20.0 + 20.0 * 10.0 / 18.0, 20.0, 40.0));
        let beyond = Estimate { estimate_ms: 40.0, above_ms: 40.0, at_most_ms: None };
        assert_eq!(figures.p99, Some(beyond), "the last bucket has no end");
    }

    #[test]
    fn the_first_bucket_begins_at_zero() {
        let figures = histogram(&[(10.0, 4.0), (INF, 4.0)], 8.0).figures().unwrap();
        assert_eq!(figures.p50.unwrap().estimate_ms, 5.0);
        assert_eq!(figures.p50.unwrap().above_ms, 0.0);
    }

    #[test]
    fn nothing_counted_tells_nothing() {
        assert_eq!(Histogram::default().figures(), None);
        assert_eq!(histogram(&[(10.0, 0.0), (INF, 0.0)], 0.0).figures(), None);
    }

    #[test]
    fn a_difference_is_of_the_time_between() {
        let before = histogram(&[(10.0, 5.0), (INF, 6.0)], 100.0);
        let now = histogram(&[(10.0, 5.0), (INF, 9.0)], 190.0);
        assert_eq!(now.since(&before), Some(histogram(&[(10.0, 0.0), (INF, 3.0)], 90.0)));
        assert_eq!(before.since(&now), None, "the server began anew");
        let other = histogram(&[(20.0, 7.0), (INF, 9.0)], 190.0);
        assert_eq!(other.since(&before), None, "so has one with other buckets");
    }

    #[test]
    fn histograms_of_several_engines_are_added() {
        let mut both = histogram(&[(10.0, 1.0), (INF, 2.0)], 50.0);
        both.merge(&histogram(&[(10.0, 3.0), (INF, 3.0)], 10.0));
        assert_eq!(both, histogram(&[(10.0, 4.0), (INF, 5.0)], 60.0));
    }
}
