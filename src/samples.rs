//! Many samples of one latency, and the statistics of them. Pure.

use hdrhistogram::Histogram;

use crate::metric::Statistic;
use crate::statistics::Confidence;
use crate::statistics::interval::{self, Scale};

/// Samples of one latency in milliseconds.
#[derive(Clone, Debug)]
pub enum Samples {
    /// One per request, each kept: sorted.
    Exact(Vec<f64>),
    /// A pool of gaps, over all requests.
    Pool(Pool),
}

/// A pool of gaps: a histogram of 3 significant digits, and the exact sums beside it.
#[derive(Clone, Debug)]
pub struct Pool {
    histogram: Histogram<u64>,
    sum_ms: f64,
    sum_of_squares_ms2: f64,
    min_ms: f64,
    max_ms: f64,
}

/// Range of the histogram, ns: 1 µs to 1 h.
const POOL_LOW_NS: u64 = 1_000;
const POOL_HIGH_NS: u64 = 3_600_000_000_000;
const POOL_DIGITS: u8 = 3;

impl Pool {
    /// No gaps yet.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(POOL_LOW_NS, POOL_HIGH_NS, POOL_DIGITS);
        Self {
            histogram: histogram.expect("the bounds are constants that the histogram allows"),
            sum_ms: 0.0,
            sum_of_squares_ms2: 0.0,
            min_ms: f64::INFINITY,
            max_ms: 0.0,
        }
    }

    /// Adds `count` gaps of the same length.
    pub fn record(&mut self, gap: std::time::Duration, count: u64) {
        let ns = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX).min(POOL_HIGH_NS);
        self.histogram
            .record_n(ns, count)
            .expect("a value is never above the histogram's upper bound");
        let ms = gap.as_secs_f64() * 1e3;
        self.sum_ms += ms * count as f64;
        self.sum_of_squares_ms2 += ms * ms * count as f64;
        self.min_ms = self.min_ms.min(ms);
        self.max_ms = self.max_ms.max(ms);
    }

    /// Adds all gaps of another pool.
    fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all pools have the same bounds");
        self.sum_ms += other.sum_ms;
        self.sum_of_squares_ms2 += other.sum_of_squares_ms2;
        self.min_ms = self.min_ms.min(other.min_ms);
        self.max_ms = self.max_ms.max(other.max_ms);
    }

    /// The upper ends of the histogram's filled buckets, in milliseconds, and their counts. Enough to
    /// merge the pools of several runs.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to() as f64 / 1e6, bucket.count_at_value()))
    }

    /// The percentile; `infinite` more gaps are taken to be longer than all.
    fn percentile(&self, percent: f64, infinite: u64) -> f64 {
        let count = self.histogram.len() + infinite;
        // The histogram answers by rank; the rank of the percentile among all of them.
        let rank = ((percent / 100.0 * count as f64).ceil() as u64).max(1);
        if self.histogram.len() < rank {
            return f64::INFINITY;
        }
        let quantile = rank as f64 / self.histogram.len() as f64;
        let ns = self.histogram.value_at_quantile(quantile);
        (ns as f64 / 1e6).clamp(self.min_ms, self.max_ms)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Samples {
    /// Samples of single requests, in milliseconds, in any order.
    pub fn exact(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self::Exact(samples)
    }

    /// The samples of several parts together. `None` of no part, or of parts that are kept in unlike ways.
    pub fn merged(parts: &[&Self]) -> Option<Self> {
        match parts.first()? {
            Self::Exact(_) => {
                let samples = parts.iter().map(|part| match part {
                    Self::Exact(samples) => Some(samples.as_slice()),
                    Self::Pool(_) => None,
                });
                Some(Self::exact(samples.collect::<Option<Vec<_>>>()?.concat()))
            }
            Self::Pool(_) => {
                let mut whole = Pool::new();
                for part in parts {
                    let Self::Pool(pool) = part else { return None };
                    whole.add(pool);
                }
                Some(Self::Pool(whole))
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        match self {
            Self::Exact(samples) => samples.len() as u64,
            Self::Pool(pool) => pool.histogram.len(),
        }
    }

    /// The statistic; `None` where there is no sample.
    pub fn statistic(&self, statistic: Statistic) -> Option<f64> {
        self.statistic_with_infinite(statistic, 0)
    }

    /// The statistic of these samples and `infinite` more that are infinitely long.
    pub fn statistic_with_infinite(&self, statistic: Statistic, infinite: u64) -> Option<f64> {
        let finite = self.count();
        if finite + infinite == 0 {
            return None;
        }
        let any_infinite = 0 < infinite;
        Some(match statistic {
            Statistic::Percentile(percent) => self.percentile(percent, infinite),
            Statistic::Min if finite == 0 => f64::INFINITY,
            Statistic::Min => self.min(),
            Statistic::Max | Statistic::Mean | Statistic::StdDev if any_infinite => f64::INFINITY,
            Statistic::Max => self.max(),
            Statistic::Mean => self.mean(),
            Statistic::StdDev => self.std_dev(),
        })
    }

    fn percentile(&self, percent: f64, infinite: u64) -> f64 {
        match self {
            Self::Exact(samples) => interpolate(samples, infinite as usize, percent),
            Self::Pool(pool) => pool.percentile(percent, infinite),
        }
    }

    fn min(&self) -> f64 {
        match self {
            Self::Exact(samples) => samples[0],
            Self::Pool(pool) => pool.min_ms,
        }
    }

    fn max(&self) -> f64 {
        match self {
            Self::Exact(samples) => samples[samples.len() - 1],
            Self::Pool(pool) => pool.max_ms,
        }
    }

    fn mean(&self) -> f64 {
        let sum = match self {
            Self::Exact(samples) => samples.iter().sum::<f64>(),
            Self::Pool(pool) => pool.sum_ms,
        };
        sum / self.count() as f64
    }

    /// Of the population, as numpy's default.
    fn std_dev(&self) -> f64 {
        let (mean, count) = (self.mean(), self.count() as f64);
        let variance = match self {
            Self::Exact(samples) => {
                samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / count
            }
            Self::Pool(pool) => (pool.sum_of_squares_ms2 / count - mean * mean).max(0.0),
        };
        variance.sqrt()
    }

    /// The interval of the statistic by `trials`, which are independent of each other as the samples of one
    /// are not: that of a typical trial for a percentile of requests, of all gaps for one of a pool, of the
    /// trials' mean for a mean. `None` with fewer than three trials.
    pub fn interval_by_trials(&self, statistic: Statistic, trials: &[&Self]) -> Option<[f64; 2]> {
        let confidence = Confidence::DEFAULT;
        let each =
            || trials.iter().map(|trial| trial.statistic(statistic)).collect::<Option<Vec<_>>>();
        if trials.len() < 3 {
            return None;
        }
        let interval = match (statistic, self) {
            (Statistic::Percentile(_), Self::Exact(_)) => {
                interval::of_percentile(&each()?, confidence)?.1?
            }
            (Statistic::Percentile(_), Self::Pool(_)) => {
                let without = |left_out: usize| {
                    let others = [&trials[..left_out], &trials[left_out + 1..]].concat();
                    Self::merged(&others)?.statistic(statistic)
                };
                let without: Option<Vec<f64>> = (0..trials.len()).map(without).collect();
                let whole = self.statistic(statistic)?;
                interval::of_pool(whole, &without?, Scale::Log, confidence)?
            }
            (Statistic::Mean, _) => interval::of_trials(&each()?, Scale::Log, confidence)?,
            _ => return None,
        };
        Some([interval.low, interval.high])
    }

    /// The interval that holds the statistic of the process behind the samples with 95 % confidence,
    /// if the samples are independent. `None` for a pool, whose gaps are not, and where there are
    /// too few samples.
    ///
    /// A percentile's by order statistics (no assumption about the distribution); a mean's by its
    /// standard error, from 30 samples on.
    pub fn interval(&self, statistic: Statistic) -> Option<[f64; 2]> {
        let Self::Exact(samples) = self else { return None };
        match statistic {
            Statistic::Percentile(percent) => {
                let (low, high) = interval_ranks(samples.len(), percent / 100.0)?;
                Some([samples[low], samples[high]])
            }
            Statistic::Mean if 30 <= samples.len() => {
                let n = samples.len() as f64;
                let error = self.std_dev() * (n / (n - 1.0)).sqrt() / n.sqrt();
                Some([self.mean() - 1.96 * error, self.mean() + 1.96 * error])
            }
            _ => None,
        }
    }
}

/// Linear interpolation between order statistics, as numpy's default; the last `infinite` samples,
/// which are not in `sorted`, are infinite.
fn interpolate(sorted: &[f64], infinite: usize, percent: f64) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::INFINITY);
    let rank = percent / 100.0 * (sorted.len() + infinite - 1) as f64;
    let (below, fraction) = (rank.floor() as usize, rank.fract());
    if fraction == 0.0 {
        return at(below);
    }
    let (low, high) = (at(below), at(below + 1));
    if high.is_infinite() { high } else { low + (high - low) * fraction }
}

/// The 0-based ranks of the order statistics that enclose the `quantile` with 95 % confidence, at most
/// 2.5 % on either side. `None` where `n` samples have no such ranks.
fn interval_ranks(n: usize, quantile: f64) -> Option<(usize, usize)> {
    let tail = 0.025;
    // Bin(n, quantile), summed from 0 upwards; logarithms, since (1-q)^n underflows for large n.
    let (ln_q, ln_p) = (quantile.ln(), (1.0 - quantile).ln());
    let mut ln_term = n as f64 * ln_p;
    let mut cumulative = 0.0;
    let (mut low, mut high) = (None, None);
    for k in 0..n {
        cumulative += ln_term.exp();
        // P(fewer than k + 1 samples below the quantile) = P(it is below the sample of rank k + 1).
        if cumulative <= tail {
            low = Some(k);
        }
        if high.is_none() && 1.0 - tail <= cumulative {
            high = Some(k);
        }
        ln_term += ((n - k) as f64 / (k + 1) as f64).ln() + ln_q - ln_p;
    }
    Some((low?, high?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    /// The expected values are numpy's: `np.percentile([1, 2, 4, 8, 16], ...)`, `np.std`.
    #[test]
    fn statistics_are_those_of_numpy() {
        let samples = Samples::exact(vec![16.0, 1.0, 8.0, 2.0, 4.0]);
        for (statistic, expected) in [
            ("p50", 4.0),
            ("p90", 12.8),
            ("p99", 15.68),
            ("mean", 6.2),
            ("std_dev", 5.4552726787943415),
            ("min", 1.0),
            ("max", 16.0),
        ] {
            let value = samples.statistic(statistic.parse().unwrap()).unwrap();
            assert!(close(value, expected), "{statistic}: {value}");
        }
    }

    #[test]
    fn no_sample_has_no_statistic() {
        let none = Samples::exact(Vec::new());
        assert_eq!(none.statistic(Statistic::Mean), None);
        assert_eq!(none.statistic(Statistic::Percentile(99.0)), None);
        assert_eq!(Samples::Pool(Pool::new()).statistic(Statistic::Max), None);
    }

    #[test]
    fn infinite_samples_are_longer_than_all() {
        let samples = Samples::exact((1..=98).map(f64::from).collect());
        let with_two = |statistic: &str| {
            samples.statistic_with_infinite(statistic.parse().unwrap(), 2).unwrap()
        };
        assert!(close(with_two("p50"), 50.5));
        assert_eq!(with_two("p99"), f64::INFINITY);
        assert_eq!(with_two("mean"), f64::INFINITY);
        assert_eq!(with_two("min"), 1.0);
        let none = Samples::exact(Vec::new());
        assert_eq!(
            none.statistic_with_infinite(Statistic::Percentile(50.0), 3),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn a_pool_knows_its_mean_exactly_and_its_percentiles_to_three_digits() {
        let mut pool = Pool::new();
        let mut exact = Vec::new();
        for n in 1..=10_000u64 {
            let gap = Duration::from_micros(n * 7);
            pool.record(gap, 1);
            exact.push(gap.as_secs_f64() * 1e3);
        }
        let (pool, exact) = (Samples::Pool(pool), Samples::exact(exact));
        for statistic in ["mean", "std_dev", "min", "max", "p50", "p90", "p99", "p99.9"] {
            let statistic = statistic.parse().unwrap();
            let (got, expected) =
                (pool.statistic(statistic).unwrap(), exact.statistic(statistic).unwrap());
            assert!((got / expected - 1.0).abs() < 1.1e-3, "{statistic}: {got} {expected}");
        }
    }

    #[test]
    fn a_pool_counts_infinite_gaps_at_its_end() {
        let mut pool = Pool::new();
        pool.record(Duration::from_millis(10), 99);
        let pool = Samples::Pool(pool);
        let p99 =
            |infinite| pool.statistic_with_infinite(Statistic::Percentile(99.0), infinite).unwrap();
        assert!((p99(1) - 10.0).abs() < 0.1, "{}", p99(1));
        assert_eq!(p99(2), f64::INFINITY);
    }

    #[test]
    fn a_percentile_has_an_interval_from_enough_samples_on() {
        // The smallest n with a two-sided 95 % interval.
        for (percent, n) in [(50.0, 6), (90.0, 36), (95.0, 72), (99.0, 368)] {
            let of = |n: usize| {
                Samples::exact((0..n).map(|k| k as f64).collect())
                    .interval(Statistic::Percentile(percent))
            };
            assert!(of(n).is_some(), "p{percent} of {n}");
            assert_eq!(of(n - 1), None, "p{percent} of {}", n - 1);
        }
        let thousand = Samples::exact((0..1000).map(f64::from).collect());
        let [low, high] = thousand.interval(Statistic::Percentile(99.0)).unwrap();
        assert!(low < 989.0 && 990.0 < high && 980.0 < low, "{low} {high}");
    }

    #[test]
    fn the_interval_of_a_percentile_covers_it_as_often_as_it_says() {
        use rand::{RngExt as _, SeedableRng as _};
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
        let (trials, n) = (2000, 200);
        let covered = (0..trials)
            .filter(|_| {
                let samples = Samples::exact((0..n).map(|_| rng.random::<f64>()).collect());
                let [low, high] = samples.interval(Statistic::Percentile(90.0)).unwrap();
                low <= 0.9 && 0.9 <= high
            })
            .count();
        let share = covered as f64 / f64::from(trials);
        assert!((0.945..0.985).contains(&share), "{share}");
    }

    #[test]
    fn with_trials_an_interval_is_of_what_lies_between_them() {
        // Each trial is steady, and they differ: only the trials know of the noise.
        let trial =
            |center: f64| Samples::exact((0..200).map(|n| center + f64::from(n) / 1e3).collect());
        let trials: Vec<Samples> = [98.0, 101.0, 99.0, 103.0, 100.0].map(trial).into();
        let of: Vec<&Samples> = trials.iter().collect();
        let all = Samples::merged(&of).unwrap();
        let [low, high] = all.interval_by_trials(Statistic::Percentile(50.0), &of).unwrap();
        assert!(low <= 98.2 && 103.0 <= high, "{low} {high}");
        assert_eq!(all.interval_by_trials(Statistic::Percentile(50.0), &of[..2]), None);
        let pool = |ms: u64| {
            let mut pool = Pool::new();
            pool.record(std::time::Duration::from_millis(ms), 1000);
            Samples::Pool(pool)
        };
        let pools: Vec<Samples> = [10, 12, 11, 10, 12].map(pool).into();
        let of: Vec<&Samples> = pools.iter().collect();
        let whole = Samples::merged(&of).unwrap();
        let [low, high] = whole.interval_by_trials(Statistic::Mean, &of).unwrap();
        assert!(low < 11.0 && 11.0 < high && 9.0 < low && high < 13.0, "{low} {high}");
        assert!(whole.interval_by_trials(Statistic::Percentile(90.0), &of).is_some());
    }
}
