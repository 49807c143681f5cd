//! How the samples of a latency are distributed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Bins;
use crate::metric::Statistic;
use crate::samples::Samples;

/// Points of a curve: the quantiles at every half percent, the smallest and the largest sample with them.
pub const CURVE_POINTS: usize = 201;
/// The most bars.
const MAX_BARS: usize = 48;

/// A histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bars {
    /// Where each bar begins and, at the end, where the last one ends, ms. Of equal width on a logarithmic
    /// axis.
    pub edges_ms: Vec<f64>,
    /// Samples of each bar.
    pub counts: Vec<u64>,
}

/// The quantiles, ms; empty where there are no samples.
pub fn curve(samples: &Samples) -> Vec<f64> {
    let statistic = |point: usize| match point {
        0 => Statistic::Min,
        _ if point == CURVE_POINTS - 1 => Statistic::Max,
        _ => Statistic::Percentile(100.0 * point as f64 / (CURVE_POINTS - 1) as f64),
    };
    (0..CURVE_POINTS).filter_map(|point| samples.statistic(statistic(point))).collect()
}

/// The histogram of samples that were kept; `None` for none, or for such as are not above 0. A pool has one
/// already.
pub fn bars(samples: &Samples) -> Option<Bars> {
    let Samples::Exact(sorted) = samples else { return None };
    let (&low, &high) = (sorted.first()?, sorted.last()?);
    if low <= 0.0 {
        return None;
    }
    // As many as Sturges has it, twice: latencies have long tails.
    let count = 2 * (sorted.len().ilog2() as usize + 1);
    let bins = Bins::over(low.ln(), high.ln(), count.min(MAX_BARS));
    let mut counts = vec![0; bins.count];
    sorted.iter().for_each(|sample| counts[bins.of(sample.ln())] += 1);
    Some(Bars { edges_ms: bins.edges().map(f64::exp).collect(), counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u32) -> Samples {
        Samples::exact((1..=count).map(f64::from).collect())
    }

    #[test]
    fn a_curve_goes_from_the_smallest_to_the_largest_sample_by_way_of_the_median() {
        let curve = curve(&samples(1001));
        assert_eq!(curve.len(), CURVE_POINTS);
        assert_eq!((curve[0], curve[100], curve[198], curve[200]), (1.0, 501.0, 991.0, 1001.0));
        assert!(super::curve(&samples(0)).is_empty());
    }

    #[test]
    fn every_sample_is_in_a_bar() {
        let bars = bars(&samples(1000)).unwrap();
        assert_eq!(bars.counts.iter().sum::<u64>(), 1000);
        assert_eq!((bars.counts.len(), bars.edges_ms.len()), (20, 21));
        assert!((bars.edges_ms[0] - 1.0).abs() < 1e-9 && (bars.edges_ms[20] - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn samples_that_are_all_the_same_are_one_bar_and_zeros_have_none() {
        assert_eq!(bars(&Samples::exact(vec![5.0, 5.0])).unwrap().counts, [2]);
        assert_eq!(bars(&Samples::exact(vec![0.0, 5.0])), None);
        assert_eq!(bars(&samples(0)), None);
    }
}
