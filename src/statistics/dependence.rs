//! How long the values of one run, in the order of their time, resemble each other. Takes time in
//! proportion to their number; of more than ten thousand the means of stretches are taken.

use super::indicator;

/// Longer series are taken as the means of so many stretches: what decides a verdict lies far beyond one of them.
const MOST_GROUPS: usize = 10_000;

/// A series, or the means of its stretches.
struct Series {
    values: Vec<f64>,
    /// How many values each stands for.
    size: usize,
}

impl Series {
    /// Each less the mean of all.
    fn centred(values: &[f64]) -> Self {
        let size = values.len().div_ceil(MOST_GROUPS).max(1);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let of_group = |group: &[f64]| group.iter().sum::<f64>() / size as f64 - mean;
        Self { values: values.chunks_exact(size).map(of_group).collect(), size }
    }

    fn covariance(&self, lag: usize) -> f64 {
        let later = self.values.iter().skip(lag);
        self.values.iter().zip(later).map(|(one, other)| one * other).sum()
    }
}

/// The lag after which the values no longer resemble each other: the first that is followed by five lags with
/// autocorrelations below 2·√(log₁₀ n / n), as in Politis & White, "Automatic block-length selection for the dependent
/// bootstrap", Econometric Reviews 23 (2004). `None` where they still do after `most` of them.
pub fn memory(values: &[f64], most: usize) -> Option<usize> {
    const QUIET_LAGS: usize = 5;
    let series = Series::centred(values);
    let n = series.values.len() as f64;
    let (variance, noise) = (series.covariance(0), 2.0 * (n.log10() / n).sqrt());
    let mut quiet = 0;
    for lag in 1..=(most / series.size + QUIET_LAGS).min(series.values.len()) {
        // Without variance there is nothing to resemble.
        quiet = if noise * variance < series.covariance(lag).abs() { 0 } else { quiet + 1 };
        if quiet == QUIET_LAGS {
            return Some((lag - QUIET_LAGS) * series.size);
        }
    }
    None
}

/// How many of the values are worth one independent one, for their mean; at least 1.
///
/// The integrated autocorrelation time by the initial monotone positive sequence of Geyer, "Practical Markov chain
/// Monte Carlo", Statistical Science 7 (1992): the sums of two neighbouring autocovariances are added as long as they
/// are above zero, none as more than the one before it.
pub fn autocorrelation_time(values: &[f64]) -> f64 {
    let series = Series::centred(values);
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let n = values.len().max(1) as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    if variance <= 0.0 {
        return 1.0;
    }
    let mut before = f64::INFINITY;
    let mut sum = 0.0;
    for lag in (0..series.values.len()).step_by(2) {
        let pair = (series.covariance(lag) + series.covariance(lag + 1)).min(before);
        if pair <= 0.0 {
            break;
        }
        (before, sum) = (pair, sum + pair);
    }
    let long_run = (2.0 * sum - series.covariance(0)) / series.values.len() as f64;
    (long_run * series.size as f64 / variance).max(1.0)
}

/// How many of the latencies of a run are worth one independent one, for how many are above a limit: by which are
/// above the run's own 90th percentile. A bad spell shows there, also where it broke the limit of no request.
pub fn design_effect(values: &[f64]) -> f64 {
    const SHARE: f64 = 0.9;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (SHARE * sorted.len() as f64) as usize;
    let Some(limit) = sorted.get(place.min(sorted.len().saturating_sub(1))) else { return 1.0 };
    let any_above = sorted.last().is_some_and(|most| limit < most);
    let is_above = |value: &f64| limit < value || (!any_above && limit == value);
    let is_above: Vec<f64> = values.iter().map(|value| indicator(is_above(value))).collect();
    autocorrelation_time(&is_above)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;
    use rand_distr::{Distribution as _, StandardNormal};

    use super::*;

    /// Values of which each keeps a share of the one before.
    fn remembering(share: f64, count: usize) -> Vec<f64> {
        let (mut value, mut rng) = (0.0, ChaCha12Rng::seed_from_u64(7));
        let mut next = || {
            let noise: f64 = StandardNormal.sample(&mut rng);
            value = share * value + noise * (1.0 - share * share).sqrt();
            value
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_time_is_that_of_the_process_however_long_the_series() {
        for share in [0.0, 0.5, 0.9_f64] {
            let expected = (1.0 + share) / (1.0 - share);
            for count in [20_000, 1_000_000] {
                let time = autocorrelation_time(&remembering(share, count));
                assert!((time / expected - 1.0).abs() < 0.2, "{share} {count}: {time}, {expected}");
            }
        }
    }

    #[test]
    fn values_that_are_alike_or_few_are_worth_themselves() {
        for values in [&[][..], &[1.0], &[1.0; 100]] {
            assert_eq!((autocorrelation_time(values), design_effect(values)), (1.0, 1.0));
        }
        assert_eq!(design_effect(&[f64::INFINITY; 10]), 1.0);
    }

    #[test]
    fn a_drift_is_worth_a_few_values_and_has_no_end_of_its_memory() {
        let drift: Vec<f64> = (0..100_000).map(f64::from).collect();
        assert!(1e4 < autocorrelation_time(&drift));
        assert_eq!(memory(&drift, drift.len() / 20), None);
        assert_eq!(memory(&[1.0; 100], 5), Some(0));
    }
}
