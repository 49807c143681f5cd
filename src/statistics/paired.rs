//! Two servers measured in turn: A B B A …, trial by trial, each pair with the same schedule, prompts and
//! seeds.
//!
//! What drifts between two sessions is the same for both servers of a pair, and so is what the workload
//! happens to be: both fall out of the ratio. The ratios of the pairs, as logarithms, are the sample; its
//! size is the number of pairs, however many requests each trial has.
//!
//! A regression must be
//!
//! 1. *significant*: by Student's t on the log-ratios, one-sided at α/2 (as a two-sided test at α), held
//!    against Holm's limits over all metrics and cases of the run;
//! 2. *relevant*: beyond the minimum effect and the floor of the metric;
//! 3. *confirmed*: found relevant in one more round by itself, and significant over both rounds
//!    together.
//!
//! The first round only chooses what to look at again, by an uncorrected and so a more sensitive test:
//! [`suspects`]. It cannot make a false alarm likelier than α/2: whatever it chose, the test over both rounds
//! must hold, and that fails so often in all runs, chosen or not. So the second round buys both, power and
//! fewer false alarms.
//!
//! Why t, and not the exact permutation of signs: of 5 pairs the smallest two-sided p-value of the latter
//! is 2/2⁵ = 0.06, so that it can never find anything. If the servers are equal, A and B of a pair can be
//! exchanged, so the log-ratios are symmetric about 0, and there t errs on the careful side (Efron,
//! "Student's t-test under symmetry conditions", Journal of the American Statistical Association 64
//! (1969)).

use super::{
    Confidence, Effect, Interval, Outcome, Relevance, holm, mean_and_error, smallest_visible,
    student,
};

/// The least pairs that say anything about their scatter.
const MIN_PAIRS: usize = 3;

/// The values of one metric in one round: one of each server per pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    log_ratios: Vec<f64>,
    log_a: Vec<f64>,
}

/// The values cannot be paired.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PairsError {
    /// A trial is missing.
    #[error("{a} trials of one server and {b} of the other make no pairs")]
    Uneven {
        /// Trials of A.
        a: usize,
        /// Trials of B.
        b: usize,
    },
    /// Too few for a scatter.
    #[error("{pairs} pairs of trials are too few: it takes {MIN_PAIRS}")]
    TooFew {
        /// How many there are.
        pairs: usize,
    },
    /// A value has no logarithm.
    #[error("{value} has no ratio to another value")]
    NotPositive {
        /// It.
        value: f64,
    },
}

impl Pairs {
    /// Pairs the `i`-th trial of A with the `i`-th of B.
    ///
    /// # Errors
    ///
    /// If there are fewer than three pairs, or a value that is not positive and finite.
    pub fn new(a: &[f64], b: &[f64]) -> Result<Self, PairsError> {
        if a.len() != b.len() {
            return Err(PairsError::Uneven { a: a.len(), b: b.len() });
        }
        if a.len() < MIN_PAIRS {
            return Err(PairsError::TooFew { pairs: a.len() });
        }
        if let Some(value) = a.iter().chain(b).find(|value| !(value.is_finite() && 0.0 < **value)) {
            return Err(PairsError::NotPositive { value: *value });
        }
        Ok(Self {
            log_ratios: a.iter().zip(b).map(|(a, b)| (b / a).ln()).collect(),
            log_a: a.iter().map(|a| a.ln()).collect(),
        })
    }
}

/// One metric of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The round that every case has.
    pub first: Pairs,
    /// The round of a case with a suspect.
    pub second: Option<Pairs>,
    /// What matters.
    pub relevance: Relevance,
}

/// What became of B against A.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// How much B differs from A, over all rounds.
    pub effect: Effect,
    /// What follows.
    pub outcome: Outcome,
}

/// A sample of log-ratios.
struct Sample {
    mean: f64,
    error: f64,
    df: f64,
    irrelevant: Interval,
}

impl Sample {
    fn of(rounds: &[&Pairs], relevance: &Relevance) -> Self {
        let all = |of: fn(&Pairs) -> &[f64]| -> Vec<f64> {
            rounds.iter().flat_map(|round| of(round).iter().copied()).collect()
        };
        let (log_ratios, log_a) = (all(|pairs| &pairs.log_ratios), all(|pairs| &pairs.log_a));
        // `Pairs` has at least three.
        let (mean, error) = mean_and_error(&log_ratios).unwrap_or((0.0, f64::INFINITY));
        let level = (log_a.iter().sum::<f64>() / log_a.len() as f64).exp();
        Self {
            mean,
            error,
            df: log_ratios.len() as f64 - 1.0,
            irrelevant: relevance.irrelevant(level),
        }
    }

    fn is_relevant(&self) -> bool {
        !self.irrelevant.contains(self.mean)
    }

    /// How often equal servers give a mean so far on the worse, or on the better side.
    fn p_value(&self, relevance: &Relevance, worse: bool) -> f64 {
        let t = self.mean / self.error;
        let rising_is_worse = relevance.is_worse(1.0);
        student::at_least(if worse == rising_is_worse { t } else { -t }, self.df)
    }

    fn interval(&self, confidence: Confidence) -> Interval {
        let half = student::quantile(1.0 - confidence.alpha() / 2.0, self.df) * self.error;
        Interval { low: self.mean - half, high: self.mean + half }
    }
}

impl Comparison {
    fn sample(&self) -> Sample {
        let rounds: Vec<&Pairs> = [&self.first].into_iter().chain(&self.second).collect();
        Sample::of(&rounds, &self.relevance)
    }

    fn is_suspect(&self, confidence: Confidence) -> bool {
        let sample = Sample::of(&[&self.first], &self.relevance);
        sample.is_relevant() && sample.p_value(&self.relevance, true) < confidence.alpha()
    }

    /// Whether the second round, by itself, is worse by what matters.
    fn is_confirmed(&self) -> bool {
        self.second.as_ref().is_some_and(|second| {
            let sample = Sample::of(&[second], &self.relevance);
            sample.is_relevant() && self.relevance.is_worse(sample.mean)
        })
    }
}

/// Which comparisons look worse after the first round, so that their cases need a second one before
/// [`judge`] can call any of them a regression.
pub fn suspects(comparisons: &[Comparison], confidence: Confidence) -> Vec<usize> {
    (0..comparisons.len()).filter(|index| comparisons[*index].is_suspect(confidence)).collect()
}

/// Judges all comparisons of a run together, in their order.
///
/// What has no second round cannot have regressed. An improvement needs none: it fails no build.
pub fn judge(comparisons: &[Comparison], confidence: Confidence) -> Vec<Judgement> {
    judge_among(comparisons, 0, confidence)
}

/// Judges some of the comparisons of a run, which makes `others` more: those are taken for the least
/// favourable ones, so that what is found is not more than all together would find.
pub fn judge_among(
    comparisons: &[Comparison],
    others: usize,
    confidence: Confidence,
) -> Vec<Judgement> {
    let alpha = confidence.alpha();
    let samples: Vec<Sample> = comparisons.iter().map(Comparison::sample).collect();
    // The two sides are families of their own, so that what improves makes no regression likelier.
    let significant = |worse: bool| {
        let mut p_values: Vec<f64> = comparisons
            .iter()
            .zip(&samples)
            .map(|(comparison, sample)| {
                // What was not looked at again is taken for no regression.
                if worse && comparison.second.is_none() {
                    1.0
                } else {
                    sample.p_value(&comparison.relevance, worse)
                }
            })
            .collect();
        p_values.extend(std::iter::repeat_n(1.0, others));
        holm::rejected(&p_values, alpha / 2.0)
    };
    let (worse, better) = (significant(true), significant(false));
    comparisons
        .iter()
        .zip(&samples)
        .enumerate()
        .map(|(index, (comparison, sample))| {
            let interval = sample.interval(confidence);
            let is_relevant = sample.is_relevant();
            let outcome = if worse[index] && is_relevant && comparison.is_confirmed() {
                Outcome::Regressed
            } else if better[index] && is_relevant {
                Outcome::Improved
            } else {
                let strictness = match comparison.second {
                    Some(_) => alpha / 2.0 / (comparisons.len() + others) as f64,
                    None => alpha,
                };
                let visible = smallest_visible(
                    sample.error,
                    sample.df,
                    strictness,
                    &comparison.relevance,
                    sample.irrelevant,
                );
                Outcome::without_change(interval, sample.irrelevant, visible)
            };
            Judgement { effect: Effect::of_log_ratio(sample.mean, Some(interval)), outcome }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Better;

    const RELEVANCE: Relevance = Relevance { better: Better::Lower, min_effect: 0.05, floor: 0.0 };

    /// Five pairs, B slower than A by the share, with a scatter of 1 % or so.
    fn pairs(share: f64) -> Pairs {
        let a = [100.0, 104.0, 97.0, 101.0, 99.0];
        let scatter = [1.01, 0.99, 1.0, 0.995, 1.005];
        let b: Vec<f64> = a.iter().zip(scatter).map(|(a, s)| a * s * (1.0 + share)).collect();
        Pairs::new(&a, &b).unwrap()
    }

    fn comparison(first: f64, second: Option<f64>, relevance: Relevance) -> Comparison {
        Comparison { first: pairs(first), second: second.map(pairs), relevance }
    }

    fn judged(comparison: Comparison) -> Judgement {
        judge(&[comparison], Confidence::DEFAULT)[0]
    }

    #[test]
    fn a_regression_is_suspected_first_and_fails_once_confirmed() {
        let first = comparison(0.1, None, RELEVANCE);
        assert_eq!(suspects(std::slice::from_ref(&first), Confidence::DEFAULT), [0]);
        assert!(matches!(judged(first).outcome, Outcome::Inconclusive { .. }));
        let judgement = judged(comparison(0.1, Some(0.1), RELEVANCE));
        assert_eq!(judgement.outcome, Outcome::Regressed);
        assert!((judgement.effect.percent - 10.0).abs() < 0.1, "{judgement:?}");
        let interval = judgement.effect.interval.unwrap();
        assert!(9.0 < interval.low && interval.high < 11.0, "{interval:?}");
    }

    #[test]
    fn what_the_second_round_does_not_show_is_no_regression() {
        let judgement = judged(comparison(0.1, Some(0.04), RELEVANCE));
        assert!(5.0 < judgement.effect.percent, "beyond the minimum over both rounds");
        assert!(matches!(judgement.outcome, Outcome::Inconclusive { .. }), "{judgement:?}");
    }

    #[test]
    fn a_small_change_is_none_however_certain() {
        let judgement = judged(comparison(0.02, Some(0.02), RELEVANCE));
        assert_eq!(judgement.outcome, Outcome::Unchanged);
        assert!(0.0 < judgement.effect.interval.unwrap().low, "it is certain");
        // 10 % of 100 ms are 10 ms.
        let floored = Relevance { floor: 15.0, ..RELEVANCE };
        assert_eq!(judged(comparison(0.1, Some(0.1), floored)).outcome, Outcome::Unchanged);
        assert!(suspects(&[comparison(0.1, None, floored)], Confidence::DEFAULT).is_empty());
    }

    #[test]
    fn an_improvement_needs_no_second_round() {
        assert_eq!(judged(comparison(-0.1, None, RELEVANCE)).outcome, Outcome::Improved);
    }

    #[test]
    fn more_throughput_is_better_and_less_is_worse() {
        let throughput = Relevance { better: Better::Higher, ..RELEVANCE };
        assert_eq!(judged(comparison(0.1, None, throughput)).outcome, Outcome::Improved);
        assert_eq!(judged(comparison(-0.1, Some(-0.1), throughput)).outcome, Outcome::Regressed);
        assert_eq!(
            suspects(
                &[comparison(0.1, None, throughput), comparison(-0.1, None, throughput)],
                Confidence::DEFAULT
            ),
            [1]
        );
    }

    #[test]
    fn what_scatters_is_inconclusive_and_says_what_it_could_have_seen() {
        let a = [100.0, 90.0, 120.0, 100.0, 95.0];
        let b = [115.0, 80.0, 118.0, 125.0, 90.0];
        let first = Pairs::new(&a, &b).unwrap();
        let comparison = Comparison { first, second: None, relevance: RELEVANCE };
        let Outcome::Inconclusive { smallest_visible_percent } = judged(comparison).outcome else {
            panic!("an interval of ±20 % says nothing about 5 %");
        };
        assert!((15.0..40.0).contains(&smallest_visible_percent), "{smallest_visible_percent}");
    }

    #[test]
    fn each_further_metric_makes_it_harder_for_the_others() {
        let a = [100.0; 5];
        let b = [103.0, 112.0, 118.0, 104.0, 109.0];
        let doubtful = || {
            let pairs = || Pairs::new(&a[..3], &b[..3]).unwrap();
            Comparison { first: pairs(), second: Some(pairs()), relevance: RELEVANCE }
        };
        let alone = judge(&[doubtful()], Confidence::DEFAULT);
        assert_eq!(alone[0].outcome, Outcome::Regressed);
        let mut many = vec![comparison(0.0, None, RELEVANCE); 29];
        many.push(doubtful());
        let among = judge(&many, Confidence::DEFAULT);
        assert!(matches!(among[29].outcome, Outcome::Inconclusive { .. }), "{:?}", among[29]);
    }

    #[test]
    fn servers_without_scatter_are_told_apart() {
        let same = Pairs::new(&[10.0; 5], &[10.0; 5]).unwrap();
        let equal = Comparison { first: same, second: None, relevance: RELEVANCE };
        assert_eq!(judged(equal).outcome, Outcome::Unchanged);
    }

    #[test]
    fn what_cannot_be_paired_is_refused() {
        assert_eq!(
            Pairs::new(&[1.0; 5], &[1.0; 4]).unwrap_err().to_string(),
            "5 trials of one server and 4 of the other make no pairs"
        );
        assert_eq!(Pairs::new(&[1.0; 2], &[1.0; 2]), Err(PairsError::TooFew { pairs: 2 }));
        for value in [0.0, -1.0, f64::INFINITY] {
            let result = Pairs::new(&[1.0; 3], &[1.0, value, 1.0]);
            assert_eq!(result, Err(PairsError::NotPositive { value }));
        }
    }
}
