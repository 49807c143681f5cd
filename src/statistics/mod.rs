//! How sure a figure is, and whether a difference is one. Pure: plain numbers in, findings out.
//!
//! Requests of one run share a queue, so they are not independent: a slow one makes its neighbours slow.
//! What is independent is the *trial*, a run of its own. Everything here that gives an interval takes one
//! number per trial (or, where there is one trial only, per block in time), never single requests or
//! tokens. The exception is a limit on a percentile, which counts requests over the limit.
//!
//! - [`percentile_limit`]: is a percentile within its limit, or can nobody say yet?
//! - [`sequential`]: the same, asked again and again while a run goes on.
//! - [`interval`]: the interval of a mean, a rate or a percentile.
//! - [`paired`]: two servers measured in turn, trial by trial.
//! - [`baseline`]: one server measured in sessions days apart.
//! - [`change_point`]: where in a history the level changed.
//!
//! `cargo bench --bench verdicts` shows on a simulated queue how often each is wrong.

mod binomial;
mod holm;
mod student;

pub mod baseline;
pub mod change_point;
pub mod dependence;
pub mod interval;
pub mod paired;
pub mod percentile_limit;
pub mod sequential;

/// How often a statement must be right: above 0.5 and below 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Confidence {
    /// 95 %.
    pub const DEFAULT: Self = Self(0.95);

    /// `None` unless the level is above 0.5 and below 1.
    pub fn new(level: f64) -> Option<Self> {
        (0.5 < level && level < 1.0).then_some(Self(level))
    }

    /// The level as a share of 1.
    pub fn level(self) -> f64 {
        self.0
    }

    /// How often the statement may be wrong.
    pub fn alpha(self) -> f64 {
        // Else 1 − 0.95 is a hair above 0.05.
        ((1.0 - self.0) * 1e12).round() / 1e12
    }
}

/// The values between which the truth lies, at the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Whether the value lies between the ends, or on one.
    pub fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    fn map(self, function: impl Fn(f64) -> f64) -> Self {
        Self { low: function(self.low), high: function(self.high) }
    }
}

/// Which way a metric gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// A latency.
    Lower,
    /// A throughput.
    Higher,
}

/// From where on a difference matters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relevance {
    /// Which way the metric gets better.
    pub better: Better,
    /// The smallest relative difference that matters: 0.05 for 5 %.
    pub min_effect: f64,
    /// The smallest difference that matters in the metric's own unit; 0 where any does.
    pub floor: f64,
}

impl Relevance {
    /// Whether the metric got worse (`true`) or better, by a log-ratio that is not 0.
    fn is_worse(&self, log_ratio: f64) -> bool {
        match self.better {
            Better::Lower => 0.0 < log_ratio,
            Better::Higher => log_ratio < 0.0,
        }
    }

    /// The log-ratios that do not matter, for a metric that was at `level`.
    fn irrelevant(&self, level: f64) -> Interval {
        let share = self.min_effect.max(self.floor / level);
        // A fall by 100 % or more cannot be: then no fall matters.
        Interval { low: (1.0 - share).max(0.0).ln(), high: share.ln_1p() }
    }
}

/// A relative change, in percent of what was: a latency of 110 ms after 100 ms is +10.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// The best guess.
    pub percent: f64,
    /// Its interval; `None` where too little was measured for one.
    pub interval: Option<Interval>,
}

impl Effect {
    fn of_log_ratio(log_ratio: f64, interval: Option<Interval>) -> Self {
        Self {
            percent: percent(log_ratio),
            interval: interval.map(|interval| interval.map(percent)),
        }
    }
}

fn percent(log_ratio: f64) -> f64 {
    log_ratio.exp_m1() * 100.0
}

/// What became of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Better, beyond doubt and by more than what matters.
    Improved,
    /// Worse, beyond doubt and by more than what matters.
    Regressed,
    /// Any change is smaller than what matters.
    Unchanged,
    /// Nobody can say: the interval holds changes that matter and changes that do not.
    Inconclusive {
        /// The smallest change for the worse, in percent, that would have been found in 8 of 10 such
        /// measurements.
        smallest_visible_percent: f64,
    },
}

impl Outcome {
    /// What an interval of log-ratios says where no change was established.
    fn without_change(interval: Interval, irrelevant: Interval, smallest_visible: f64) -> Self {
        if irrelevant.low <= interval.low && interval.high <= irrelevant.high {
            Self::Unchanged
        } else {
            Self::Inconclusive { smallest_visible_percent: smallest_visible }
        }
    }
}

/// How often a change of the size that is said to be visible is found.
const POWER: f64 = 0.8;

/// The smallest change for the worse, in percent, that a test by Student's t at `alpha` (one-sided) finds
/// with [`POWER`], but no smaller than what matters.
///
/// (t₁₋α + t₀.₈) · s, as in Bloom, "Minimum detectable effects", Evaluation Review 19 (1995).
fn smallest_visible(
    standard_error: f64,
    df: f64,
    alpha: f64,
    relevance: &Relevance,
    irrelevant: Interval,
) -> f64 {
    let multiple = student::quantile(1.0 - alpha, df) + student::quantile(POWER, df);
    match relevance.better {
        Better::Lower => percent((multiple * standard_error).max(irrelevant.high)),
        Better::Higher => percent((-multiple * standard_error).min(irrelevant.low)),
    }
}

/// Mean and standard error of the mean. `None` below two values.
fn mean_and_error(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    Some((mean, (squares / (n - 1.0) / n).sqrt()))
}

/// What is so or not, as a number: 1 or 0.
pub fn indicator(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidence_is_more_than_a_coin_and_less_than_a_promise() {
        assert_eq!(Confidence::new(0.5), None);
        assert_eq!(Confidence::new(1.0), None);
        assert_eq!(Confidence::new(f64::NAN), None);
        assert_eq!(Confidence::new(0.95), Some(Confidence::DEFAULT));
        assert_eq!(Confidence::DEFAULT.alpha(), 0.05);
    }

    #[test]
    fn a_difference_matters_if_it_is_beyond_the_minimum_effect_and_the_floor() {
        let relevance = Relevance { better: Better::Lower, min_effect: 0.05, floor: 2.0 };
        let share_up = |level| percent(relevance.irrelevant(level).high);
        assert!((share_up(1000.0) - 5.0).abs() < 1e-9, "5 % of 1000 ms are more than 2 ms");
        assert!((share_up(10.0) - 20.0).abs() < 1e-9, "2 ms are more than 5 % of 10 ms");
        assert_eq!(relevance.irrelevant(1.0).low, f64::NEG_INFINITY);
    }

    #[test]
    fn worse_is_as_the_metric_says() {
        let of = |better| Relevance { better, min_effect: 0.05, floor: 0.0 };
        assert!(of(Better::Lower).is_worse(0.1) && !of(Better::Lower).is_worse(-0.1));
        assert!(of(Better::Higher).is_worse(-0.1) && !of(Better::Higher).is_worse(0.1));
    }
}
