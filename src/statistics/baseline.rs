//! One server measured in sessions days apart: against stored baselines.
//!
//! Between sessions everything drifts together: other neighbours on the host, another temperature, another
//! driver. How much cannot be read off one session, however many trials it has, so the *session* is the
//! unit here, and what a metric did in the sessions before is the sample. A new session regressed if it lies
//! outside the interval in which the next one was to be expected:
//!
//! mean ± t(M − 1) · s · √(1 + 1/M), on logarithms
//!
//! (Student's prediction interval; Hahn & Meeker, *Statistical Intervals* (1991), 4.8; Bencher's `t_test` is
//! the same), and beyond what matters. All comparisons of the run are held against Holm's limits together.
//!
//! With fewer than [`MIN_SESSIONS`] sessions nothing is known about the drift. Then the tail percentiles are
//! advisory, since in a queue they double for little, and a median or mean gates only above a change that
//! is larger than the drift of a host that is fit to measure on at all.

use super::{
    Confidence, Effect, Interval, Outcome, Relevance, holm, mean_and_error, smallest_visible,
    student,
};

/// From so many sessions on, their scatter says what the next one may be.
pub const MIN_SESSIONS: usize = 5;

/// A change that the usual drift does not explain, unless the plan says another: 30 %. Where the speed of a
/// host drifts by 5 % from session to session, the median of a TTFT behind a queue drifts by 15 %, so that
/// 15 % would be a false alarm in one of five sessions, and 30 % is one in twenty (`cargo bench --bench
/// verdicts`).
pub const LARGE_EFFECT: f64 = 0.3;

/// What a metric came to in one session.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Session(f64);

impl Session {
    /// From its value in each trial: their geometric mean. `None` where there is none, or one that is not
    /// positive and finite.
    pub fn of_trials(values: &[f64]) -> Option<Self> {
        let are_positive = values.iter().all(|value| value.is_finite() && 0.0 < *value);
        let mean = values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64;
        (are_positive && !values.is_empty()).then_some(Self(mean))
    }

    /// The value.
    pub fn value(self) -> f64 {
        self.0.exp()
    }
}

/// What a metric came to in the sessions before, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct History(Vec<Session>);

impl History {
    /// In any order; the last 5 to 20 are best. `None` where there is no session.
    pub fn new(sessions: Vec<Session>) -> Option<Self> {
        (!sessions.is_empty()).then_some(Self(sessions))
    }
}

/// What kind of statistic a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A median, a mean or a rate.
    Center,
    /// A percentile in the tail: above the median.
    Tail,
}

/// One metric of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The sessions before.
    pub history: History,
    /// This one.
    pub current: Session,
    /// What it is.
    pub kind: Kind,
    /// What matters.
    pub relevance: Relevance,
    /// From where on a change gates with too few sessions: [`LARGE_EFFECT`].
    pub large_effect: f64,
}

/// What became of the metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// How much this session differs from those before; the interval is the one that a session of the same
    /// server has, around it.
    pub effect: Effect,
    /// What follows.
    pub finding: Finding,
}

/// How much an outcome counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// It may fail the build.
    Gates(Outcome),
    /// It is worth a word: there are too few sessions to trust it.
    Advises(Outcome),
}

impl Finding {
    /// Whether it fails the build.
    pub fn is_regression(self) -> bool {
        self == Self::Gates(Outcome::Regressed)
    }
}

/// How far the session is off those before.
struct Deviation {
    /// Log-ratio to the mean of those before.
    log_ratio: f64,
    /// The log-ratios that do not matter.
    irrelevant: Interval,
    scatter: Option<Scatter>,
}

/// What the next session's log-ratio is expected to scatter by.
struct Scatter {
    error: f64,
    df: f64,
}

impl Comparison {
    fn deviation(&self) -> Deviation {
        let logs: Vec<f64> = self.history.0.iter().map(|session| session.0).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let scatter = mean_and_error(&logs).filter(|_| MIN_SESSIONS <= logs.len()).map(
            // The error of the mean is s/√M, and s·√(1 + 1/M) = s/√M · √(M + 1).
            |(_, error)| Scatter { error: error * (count + 1.0).sqrt(), df: count - 1.0 },
        );
        Deviation {
            log_ratio: self.current.0 - mean,
            irrelevant: self.relevance.irrelevant(mean.exp()),
            scatter,
        }
    }

    /// What can be said without knowing the scatter.
    fn by_size(&self, deviation: &Deviation) -> Judgement {
        let large = Relevance {
            min_effect: self.relevance.min_effect.max(self.large_effect),
            ..self.relevance
        };
        let irrelevant = large.irrelevant((self.current.0 - deviation.log_ratio).exp());
        let outcome = if irrelevant.contains(deviation.log_ratio) {
            let smallest_visible_percent = super::percent(match large.better {
                super::Better::Lower => irrelevant.high,
                super::Better::Higher => irrelevant.low,
            });
            Outcome::Inconclusive { smallest_visible_percent }
        } else if self.relevance.is_worse(deviation.log_ratio) {
            Outcome::Regressed
        } else {
            Outcome::Improved
        };
        let finding = match self.kind {
            Kind::Center => Finding::Gates(outcome),
            Kind::Tail => Finding::Advises(outcome),
        };
        Judgement { effect: Effect::of_log_ratio(deviation.log_ratio, None), finding }
    }
}

impl Scatter {
    /// How often an unchanged server gives a session so far off, on one side.
    fn p_value(&self, log_ratio: f64) -> f64 {
        student::at_least(log_ratio.abs() / self.error, self.df)
    }

    fn interval(&self, log_ratio: f64, confidence: Confidence) -> Interval {
        let half = student::quantile(1.0 - confidence.alpha() / 2.0, self.df) * self.error;
        Interval { low: log_ratio - half, high: log_ratio + half }
    }
}

/// Judges all comparisons of a run together, in their order.
pub fn judge(comparisons: &[Comparison], confidence: Confidence) -> Vec<Judgement> {
    let deviations: Vec<Deviation> = comparisons.iter().map(Comparison::deviation).collect();
    let p_values: Vec<Option<f64>> = deviations
        .iter()
        .map(|deviation| Some(deviation.scatter.as_ref()?.p_value(deviation.log_ratio)))
        .collect();
    // What is not tested is no part of the family.
    let tested: Vec<f64> = p_values.iter().flatten().copied().collect();
    let alpha = confidence.alpha() / 2.0;
    let mut rejected = holm::rejected(&tested, alpha).into_iter();
    comparisons
        .iter()
        .zip(&deviations)
        .map(|(comparison, deviation)| {
            let Some(scatter) = &deviation.scatter else { return comparison.by_size(deviation) };
            let is_significant = rejected.next().unwrap_or(false);
            let (log_ratio, irrelevant) = (deviation.log_ratio, deviation.irrelevant);
            let interval = scatter.interval(log_ratio, confidence);
            let outcome = if !is_significant || irrelevant.contains(log_ratio) {
                let visible = smallest_visible(
                    scatter.error,
                    scatter.df,
                    alpha / tested.len() as f64,
                    &comparison.relevance,
                    irrelevant,
                );
                Outcome::without_change(interval, irrelevant, visible)
            } else if comparison.relevance.is_worse(log_ratio) {
                Outcome::Regressed
            } else {
                Outcome::Improved
            };
            Judgement {
                effect: Effect::of_log_ratio(log_ratio, Some(interval)),
                finding: Finding::Gates(outcome),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Better;

    const RELEVANCE: Relevance = Relevance { better: Better::Lower, min_effect: 0.05, floor: 0.0 };
    const STEADY: [f64; 5] = [100.0, 102.0, 99.0, 101.0, 98.5];

    fn comparison(history: &[f64], current: f64, kind: Kind) -> Comparison {
        let session = |value: f64| Session::of_trials(&[value]).unwrap();
        Comparison {
            history: History::new(history.iter().copied().map(session).collect()).unwrap(),
            current: session(current),
            kind,
            relevance: RELEVANCE,
            large_effect: LARGE_EFFECT,
        }
    }

    fn judged(history: &[f64], current: f64, kind: Kind) -> Finding {
        judge(&[comparison(history, current, kind)], Confidence::DEFAULT)[0].finding
    }

    #[test]
    fn five_sessions_say_where_the_next_one_is_expected() {
        use Kind::Tail;
        assert_eq!(judged(&STEADY, 110.0, Tail), Finding::Gates(Outcome::Regressed));
        assert_eq!(judged(&STEADY, 90.0, Tail), Finding::Gates(Outcome::Improved));
        assert_eq!(judged(&STEADY, 100.3, Tail), Finding::Gates(Outcome::Unchanged));
        assert!(matches!(
            judged(&STEADY, 103.0, Tail),
            Finding::Gates(Outcome::Inconclusive { .. })
        ));
    }

    #[test]
    fn sessions_that_scatter_hide_what_steady_ones_show() {
        let wild = [100.0, 115.0, 92.0, 108.0, 88.0];
        let Finding::Gates(Outcome::Inconclusive { smallest_visible_percent }) =
            judged(&wild, 112.0, Kind::Center)
        else {
            panic!("12 % more is nothing where the sessions differ by 12 %");
        };
        assert!(30.0 < smallest_visible_percent, "{smallest_visible_percent}");
    }

    #[test]
    fn with_four_sessions_a_tail_percentile_only_advises() {
        assert_eq!(judged(&STEADY[..4], 250.0, Kind::Tail), Finding::Advises(Outcome::Regressed));
        assert!(!judged(&STEADY[..4], 250.0, Kind::Tail).is_regression());
    }

    #[test]
    fn with_one_session_a_median_gates_above_a_large_effect_only() {
        assert_eq!(judged(&[100.0], 131.0, Kind::Center), Finding::Gates(Outcome::Regressed));
        assert_eq!(judged(&[100.0], 69.0, Kind::Center), Finding::Gates(Outcome::Improved));
        let Finding::Gates(Outcome::Inconclusive { smallest_visible_percent }) =
            judged(&[100.0], 129.0, Kind::Center)
        else {
            panic!("29 % may be drift");
        };
        assert!((smallest_visible_percent - 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_large_effect_below_the_floor_is_none() {
        let mut small = comparison(&[1.0], 1.5, Kind::Center);
        small.relevance.floor = 2.0;
        let judgement = judge(&[small], Confidence::DEFAULT)[0];
        assert!(matches!(judgement.finding, Finding::Gates(Outcome::Inconclusive { .. })));
        assert!((judgement.effect.percent - 50.0).abs() < 1e-9);
        assert_eq!(judgement.effect.interval, None);
    }

    #[test]
    fn comparisons_that_are_not_tested_make_it_no_harder_for_the_others() {
        let many: Vec<Comparison> = (0..50)
            .map(|_| comparison(&[100.0], 100.0, Kind::Tail))
            .chain([comparison(&STEADY, 110.0, Kind::Tail)])
            .collect();
        assert!(judge(&many, Confidence::DEFAULT)[50].finding.is_regression());
        let tested: Vec<Comparison> = (0..50)
            .map(|_| comparison(&STEADY, 100.0, Kind::Tail))
            .chain([comparison(&STEADY, 110.0, Kind::Tail)])
            .collect();
        assert!(!judge(&tested, Confidence::DEFAULT)[50].finding.is_regression());
    }

    #[test]
    fn a_session_is_the_geometric_mean_of_its_trials() {
        let session = Session::of_trials(&[50.0, 200.0]).unwrap();
        assert!((session.value() - 100.0).abs() < 1e-9);
        assert_eq!(Session::of_trials(&[]), None);
        assert_eq!(Session::of_trials(&[0.0, 1.0]), None);
        assert_eq!(Session::of_trials(&[f64::INFINITY]), None);
        assert_eq!(History::new(Vec::new()), None);
    }
}
