//! Intervals for means, rates, percentiles and pools.
//!
//! The unit is the *trial*. Requests of one run share a queue and tokens of one answer share a batch, so an
//! interval that takes them for independent is far too narrow: it covers the truth in a tenth of all runs
//! instead of 95 % (`cargo bench --bench verdicts`).
//!
//! With three or more trials:
//!
//! - [`of_trials`], for what has one value per trial and is a mean or a rate: Student's t.
//! - [`of_percentile`], for a percentile of a per-request metric: order statistics of the trials.
//! - [`of_pool`], for what is computed from all trials together (a percentile of all gaps, tokens over
//!   time): the jackknife, which leaves out one trial at a time.
//!
//! Why no bootstrap: of 5 trials it draws a variance that is 4/5 of the true one and compares with the
//! normal distribution, which together covers 85 % instead of 95 %.
//!
//! With one trial, [`blocks`] cuts it in time, and [`of_pool`] takes the blocks for trials. They know nothing
//! of what differs from one trial to the next.

use std::ops::Range;

use super::dependence::memory;
use super::{Confidence, Interval, binomial, mean_and_error, student};

/// The least units that say anything about their scatter.
const MIN_UNITS: usize = 3;

/// On which scale the values of the units lie evenly about their centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As they are: shares, values that may be 0 or below it.
    Linear,
    /// As logarithms: times and rates, which vary by factors. All must be positive.
    Log,
}

impl Scale {
    fn to(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.ln(),
        }
    }

    fn from(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.exp(),
        }
    }
}

/// The interval of what has one value per trial: mean ± t · s/√K. `None` with fewer than three trials, or
/// with a value that is not on the scale.
pub fn of_trials(values: &[f64], scale: Scale, confidence: Confidence) -> Option<Interval> {
    let values: Vec<f64> = values.iter().map(|value| scale.to(*value)).collect();
    let interval = student_interval(&values, confidence)?;
    Some(interval.map(|value| scale.from(value)))
}

/// The interval of a statistic of all trials together, from its value over all of them and its values over
/// all but one, each left out once. `None` with fewer than three trials, or with a value that is not on
/// the scale.
///
/// Trial `i` is worth K·θ − (K − 1)·θ₍₋ᵢ₎, and these pseudo-values are treated as [`of_trials`] treats
/// values (Tukey 1958; Miller, "The jackknife: a review", Biometrika 61 (1974)). For a percentile it is sound
/// because whole trials are left out, not single requests (Shao & Wu, Annals of Statistics 17 (1989)).
pub fn of_pool(
    whole: f64,
    without_each: &[f64],
    scale: Scale,
    confidence: Confidence,
) -> Option<Interval> {
    let count = without_each.len() as f64;
    let whole = scale.to(whole);
    let pseudo_values: Vec<f64> = without_each
        .iter()
        .map(|without| count * whole - (count - 1.0) * scale.to(*without))
        .collect();
    let interval = student_interval(&pseudo_values, confidence)?;
    Some(interval.map(|value| scale.from(value)))
}

fn student_interval(values: &[f64], confidence: Confidence) -> Option<Interval> {
    if values.len() < MIN_UNITS || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let (mean, error) = mean_and_error(values)?;
    let df = values.len() as f64 - 1.0;
    let half = student::quantile(1.0 - confidence.alpha() / 2.0, df) * error;
    Some(Interval { low: mean - half, high: mean + half })
}

/// How much less than the confidence asked for the range of all values may have, to be widened a little: of five
/// trials it has 93.75 %.
const SHORTFALL: f64 = 0.02;
/// So much of its width, on the scale of logarithms, such a range is widened by on either side. The range of five
/// values then covers the median of a normal or an exponential distribution in 95.0 %, that of the logarithm of an
/// exponential one in 95.2 %, and that of a Laplace distribution in 95.8 % (60,000 draws each).
const WIDENING: f64 = 0.04;

/// A percentile of a per-request metric over several trials: that of a typical trial, which is the median of
/// `each`, and its interval. `None` where there is no trial, or a value is no number; the interval is `None`
/// with fewer than three.
///
/// From five trials on the interval is by order statistics, which assumes nothing about the distribution:
/// all five trials are on one side of the true median with probability 2·2⁻⁵, so their range misses it that
/// often, and is widened by a little. With more trials it is interpolated between ranks (Hettmansperger &
/// Sheather, "Confidence intervals based on interpolated order statistics", Statistics & Probability Letters 4
/// (1986)). With three or four it is [`of_trials`] on logarithms.
///
/// Why not the percentile of all requests together: in a queue the few worst trials hold most of the tail,
/// and five trials seldom have one of them: [`of_pool`] covers that p99 in 84 % of all runs. And why not the
/// mean over the trials: a p90 is either with a queue or without, so its logarithms lie unevenly, and
/// Student's t covers their mean in 90 %.
pub fn of_percentile(each: &[f64], confidence: Confidence) -> Option<(f64, Option<Interval>)> {
    if each.is_empty() || each.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = each.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    let interval =
        median_interval(&sorted, confidence).or_else(|| of_trials(each, Scale::Log, confidence));
    Some((median, interval))
}

/// `None` where there are too few values to come near the confidence.
fn median_interval(sorted: &[f64], confidence: Confidence) -> Option<Interval> {
    let n = sorted.len();
    // How often the values of ranks d and n + 1 − d, counted from 1, enclose the median.
    let covered = |d: usize| 1.0 - 2.0 * binomial::at_most(d as u64 - 1, n as u64, 0.5);
    let level = confidence.level();
    let d = (1..=n / 2).rev().find(|d| level <= covered(*d));
    let Some(d) = d else {
        let range = Interval { low: *sorted.first()?, high: *sorted.last()? };
        return (1 < n && level - SHORTFALL <= covered(1)).then(|| widened(range));
    };
    let inner = if d < n / 2 { covered(d + 1) } else { 0.0 };
    let excess = (covered(d) - level) / (covered(d) - inner);
    let (count, rank) = (n as f64, d as f64);
    let weight = (count - rank) * excess / (rank + (count - 2.0 * rank) * excess);
    let between = |outer: f64, inner: f64| outer + (inner - outer) * weight;
    Some(Interval {
        low: between(sorted[d - 1], sorted[d]),
        high: between(sorted[n - d], sorted[n - d - 1]),
    })
}

/// The range, a little wider; as it is where it is not on the scale of logarithms.
fn widened(Interval { low, high }: Interval) -> Interval {
    if low <= 0.0 || !high.is_finite() {
        return Interval { low, high };
    }
    let factor = (high / low).powf(WIDENING);
    Interval { low: low / factor, high: high * factor }
}

/// More blocks than this bring little, and longer ones are safer (Schmeiser, "Batch size effects in the
/// analysis of simulation output", Operations Research 30 (1982), who finds ten to thirty).
const MAX_BLOCKS: usize = 10;
/// With fewer, the scatter between them is a guess.
const MIN_BLOCKS: usize = 5;
/// How many times longer a block is than the memory of its values. At 4, a tenth of the variance is lost where
/// the autocorrelation decays exponentially; at 2 it is a fifth.
const BLOCK_PER_MEMORY: usize = 4;
/// A block of fewer values has no percentile.
const MIN_BLOCK_LENGTH: usize = 10;
/// Fewer values are never cut into blocks.
pub const LEAST_IN_BLOCKS: usize = MIN_BLOCKS * MIN_BLOCK_LENGTH;

/// Cuts the values of one trial, in the order of their time, into blocks that are long enough to be taken
/// for independent. `None` where that leaves fewer than five.
///
/// A block is four times as long as the lag after which the values no longer resemble each other: the first one
/// that is followed by five lags with autocorrelations below 2·√(log₁₀ n / n), as in Politis & White,
/// "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23 (2004), whose
/// optimal length is for the bootstrap and shorter. There are at most ten blocks.
///
/// Use [`of_pool`] over them: blocks differ more than trials, so that the mean of their logarithms is not
/// the logarithm of the mean. It is the best that one trial can do and less than it says: behind a busy queue,
/// where a trial has a bad spell or has none, it covers the mean in 75 to 90 % of all runs, and
/// single requests do in 26 %.
pub fn blocks(values: &[f64]) -> Option<Vec<Range<usize>>> {
    let most = values.len() / (MIN_BLOCKS * BLOCK_PER_MEMORY);
    let length = (BLOCK_PER_MEMORY * memory(values, most)?)
        .max(MIN_BLOCK_LENGTH)
        .max(values.len().div_ceil(MAX_BLOCKS));
    let count = values.len() / length;
    (MIN_BLOCKS <= count).then(|| {
        let end = |block: usize| block * values.len() / count;
        (0..count).map(|block| end(block)..end(block + 1)).collect()
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;
    use rand_distr::{Distribution as _, StandardNormal};

    use super::*;

    fn close(interval: Interval, low: f64, high: f64) -> bool {
        (interval.low - low).abs() < 1e-4 && (interval.high - high).abs() < 1e-4
    }

    /// Values of which each keeps a share of the one before.
    fn remembering(share: f64, count: usize, rng: &mut ChaCha12Rng) -> Vec<f64> {
        let mut value = 0.0;
        let mut next = || {
            let noise: f64 = StandardNormal.sample(rng);
            value = share * value + noise * (1.0 - share * share).sqrt();
            value
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn three_trials_have_an_interval_and_two_have_none() {
        // 2 ± 4.30265 · 1/√3
        let interval = of_trials(&[1.0, 2.0, 3.0], Scale::Linear, Confidence::DEFAULT).unwrap();
        assert!(close(interval, -0.48413, 4.48413), "{interval:?}");
        assert_eq!(of_trials(&[1.0, 2.0], Scale::Linear, Confidence::DEFAULT), None);
    }

    #[test]
    fn on_the_scale_of_logarithms_the_interval_is_of_factors() {
        let e = std::f64::consts::E;
        let interval =
            of_trials(&[e, e.powi(2), e.powi(3)], Scale::Log, Confidence::DEFAULT).unwrap();
        assert!(close(interval.map(f64::ln), -0.48413, 4.48413), "{interval:?}");
        assert_eq!(of_trials(&[0.0, 1.0, 2.0], Scale::Log, Confidence::DEFAULT), None);
        assert_eq!(of_trials(&[1.0, f64::INFINITY, 2.0], Scale::Linear, Confidence::DEFAULT), None);
    }

    #[test]
    fn for_a_mean_the_jackknife_is_students_t() {
        let values = [3.0, 1.0, 4.0, 1.5, 9.0];
        let sum: f64 = values.iter().sum();
        let without: Vec<f64> = values.iter().map(|value| (sum - value) / 4.0).collect();
        let pool = of_pool(sum / 5.0, &without, Scale::Linear, Confidence::DEFAULT).unwrap();
        let trials = of_trials(&values, Scale::Linear, Confidence::DEFAULT).unwrap();
        assert!((pool.low - trials.low).abs() < 1e-9 && (pool.high - trials.high).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_over_trials_is_that_of_a_typical_one() {
        let (value, interval) =
            of_percentile(&[90.0, 2.0, 3.0, 1.0, 4.0], Confidence::DEFAULT).unwrap();
        assert_eq!(value, 3.0);
        // The range of five, and a little more.
        let factor = 90_f64.powf(WIDENING);
        assert!(close(interval.unwrap(), 1.0 / factor, 90.0 * factor), "{interval:?}");
        let (value, interval) = of_percentile(&[1.0, 3.0], Confidence::DEFAULT).unwrap();
        assert_eq!((value, interval), (2.0, None));
        let (_, interval) = of_percentile(&[1.0, 2.0, 3.0], Confidence::DEFAULT).unwrap();
        assert_eq!(interval, of_trials(&[1.0, 2.0, 3.0], Scale::Log, Confidence::DEFAULT));
        assert_eq!(of_percentile(&[], Confidence::DEFAULT), None);
    }

    #[test]
    fn more_trials_narrow_the_interval_of_a_percentile() {
        let of = |count: u32| {
            let each: Vec<f64> = (1..=count).map(f64::from).collect();
            of_percentile(&each, Confidence::DEFAULT).unwrap().1.unwrap()
        };
        // By hand: n = 10, d = 2, covered 0.97852 and 0.89062.
        let ten = of(10);
        assert!((ten.low - 2.65766).abs() < 1e-4, "{ten:?}");
        assert!((ten.low + ten.high - 11.0).abs() < 1e-9, "{ten:?}");
        let share = |count: u32| (of(count).high - of(count).low) / f64::from(count);
        assert!(share(6) < share(5) && share(10) < share(6) && share(40) < share(10));
    }

    #[test]
    fn the_interval_of_a_percentile_covers_it_whatever_the_distribution() {
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        for count in [5, 6, 8, 11, 20] {
            let covered = (0..2000)
                .filter(|_| {
                    let mut each = || -> f64 {
                        let normal: f64 = StandardNormal.sample(&mut rng);
                        (2.0 * normal).exp()
                    };
                    let each: Vec<f64> = (0..count).map(|_| each()).collect();
                    let interval = of_percentile(&each, Confidence::DEFAULT).unwrap().1;
                    interval.unwrap().contains(1.0)
                })
                .count();
            assert!((1840..1960).contains(&covered), "{covered} of 2000 with {count} trials");
        }
    }

    #[test]
    fn blocks_grow_with_the_memory_of_the_values() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        assert_eq!(blocks(&remembering(0.0, 3000, &mut rng)).unwrap().len(), MAX_BLOCKS);
        let slow = blocks(&remembering(0.98, 3000, &mut rng)).unwrap().len();
        assert!((MIN_BLOCKS..MAX_BLOCKS).contains(&slow), "{slow}");
        assert_eq!(blocks(&remembering(0.0, 49, &mut rng)), None, "too few for five blocks of ten");
        assert_eq!(blocks(&remembering(0.999, 500, &mut rng)), None, "one wave is no sample");
    }

    #[test]
    fn blocks_hold_every_value_once() {
        let values = remembering(0.5, 1003, &mut ChaCha12Rng::seed_from_u64(3));
        let blocks = blocks(&values).unwrap();
        assert_eq!((blocks[0].start, blocks[blocks.len() - 1].end), (0, 1003));
        assert!(blocks.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(blocks.iter().all(|block| block.len().abs_diff(blocks[0].len()) <= 1));
    }

    #[test]
    fn equal_values_make_blocks_without_scatter() {
        let blocks = blocks(&[5.0; 300]).unwrap();
        let means = vec![5.0; blocks.len()];
        let interval = of_trials(&means, Scale::Log, Confidence::DEFAULT).unwrap();
        assert!(close(interval, 5.0, 5.0));
    }

    #[test]
    fn the_mean_of_values_that_remember_is_covered_by_their_blocks_and_not_by_themselves() {
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let covers = |interval: Option<Interval>| interval.is_some_and(|i| i.contains(0.0));
        let (mut by_blocks, mut by_values) = (0, 0);
        for _ in 0..400 {
            let values = remembering(0.9, 2000, &mut rng);
            let mean = |range: Range<usize>| {
                values[range.clone()].iter().sum::<f64>() / range.len() as f64
            };
            let means: Vec<f64> = blocks(&values).unwrap().into_iter().map(mean).collect();
            by_blocks += i32::from(covers(of_trials(&means, Scale::Linear, Confidence::DEFAULT)));
            by_values += i32::from(covers(of_trials(&values, Scale::Linear, Confidence::DEFAULT)));
        }
        assert!((364..400).contains(&by_blocks), "{by_blocks} of 400");
        assert!(by_values < 240, "{by_values} of 400");
    }
}
