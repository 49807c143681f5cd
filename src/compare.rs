//! Trials of two servers, or of one server now and before, in; what became of each metric out. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::{Latency, Quantity, Statistic};
use crate::plan::Gate;
use crate::statistics::baseline::{self, History, Session};
use crate::statistics::change_point;
use crate::statistics::paired::{self, Pairs};
use crate::statistics::percentile_limit::Quantile;
use crate::statistics::{Better, Confidence, Effect, Outcome, Relevance};
use crate::summary::{Summary, too_few};

/// A difference below this matters to nobody, ms: of a latency of requests, and of one of tokens.
const FLOOR_MS: f64 = 1.0;
const TOKEN_FLOOR_MS: f64 = 0.2;

/// What one trial came to: a run of its own, with a seed of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Decided its prompts and arrivals.
    pub seed: u64,
    /// Requests that count.
    pub requests: usize,
    /// Those that completed.
    pub completed: u64,
    /// Those that did not.
    pub failed: u64,
    /// From the first `sent` to the last `ended`, s.
    pub duration_s: f64,
    /// Each metric that the trial has enough samples for, by name; ms for a latency.
    pub metrics: BTreeMap<String, f64>,
}

impl Trial {
    /// A trial of so many requests by its summary.
    pub fn new(seed: u64, requests: usize, summary: &Summary) -> Self {
        let mut metrics = BTreeMap::new();
        for (latency, samples) in &summary.latencies {
            let Ok(samples) = samples else { continue };
            for statistic in Statistic::COMPARED {
                if too_few(statistic, samples.count()).is_none()
                    && let Some(value) = samples.statistic(statistic)
                {
                    metrics.insert(Quantity::Latency(*latency, statistic).to_string(), value);
                }
            }
        }
        for (scalar, value) in &summary.scalars {
            metrics.insert(scalar.name().to_owned(), *value);
        }
        Self {
            seed,
            requests,
            completed: summary.completed,
            failed: summary.failed(),
            duration_s: summary.span.as_secs_f64(),
            metrics,
        }
    }
}

/// What became of the metrics of a case.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// `ab`, `aa` or `baseline`.
    pub kind: String,
    /// The case, or the baseline, that it is compared with.
    pub against: String,
    /// Pairs of trials; sessions of a baseline.
    pub pairs: usize,
    /// Whether a second round was made, because something looked worse.
    pub second_round: bool,
    /// Each metric.
    pub metrics: Vec<Compared>,
    /// The metrics that could not be compared, with the reason.
    pub not_compared: Vec<String>,
}

/// One metric now and before.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// Its name.
    pub metric: String,
    /// What it came to before, or of the other server: the geometric mean of the trials; ms for a latency.
    pub before: f64,
    /// What it comes to now.
    pub now: f64,
    /// The change, % of what was.
    pub effect_percent: f64,
    /// Its 95 % interval; `null` where too little was measured for one.
    pub interval_percent: Option<[f64; 2]>,
    /// `improved`, `regressed`, `unchanged` or `inconclusive`.
    pub outcome: String,
    /// Too few sessions are known for it to fail a build.
    pub advisory: bool,
    /// Of an inconclusive one: the smallest change for the worse that would have been found in 8 of 10 such
    /// measurements, %.
    pub smallest_visible_percent: Option<f64>,
    /// Changes up to this do not matter, %.
    pub min_effect_percent: f64,
}

impl Comparison {
    /// The metrics that got worse and may fail the build.
    pub fn regressions(&self) -> impl Iterator<Item = &Compared> {
        self.metrics.iter().filter(|metric| metric.outcome == "regressed" && !metric.advisory)
    }
}

/// One round of trials: those of A and those of B, pair by pair.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// Of A.
    pub a: &'a [Trial],
    /// Of B.
    pub b: &'a [Trial],
}

/// The metrics of the gate that both servers have in every trial, and what is missing of the others.
struct Comparable {
    quantities: Vec<Quantity>,
    missing: Vec<String>,
}

impl Comparable {
    fn of(gate: &Gate, trials: &[&[Trial]]) -> Self {
        let mut comparable = Self { quantities: Vec::new(), missing: Vec::new() };
        for &quantity in &gate.metrics {
            let name = quantity.to_string();
            let trials = || trials.iter().copied().flatten();
            let floor = floor(quantity);
            let least = trials().map(|trial| trial.completed).min().unwrap_or(0);
            if least < floor {
                comparable.missing.push(format!(
                    "{name}: a trial has {least} completed requests and it takes {floor}"
                ));
            } else if trials().all(|trial| trial.metrics.get(&name).is_some_and(|v| 0.0 < *v)) {
                comparable.quantities.push(quantity);
            } else {
                comparable.missing.push(format!("{name}: not every trial has it"));
            }
        }
        comparable
    }
}

/// How many completed requests a trial must have for a quantity to be compared: a percentile says nothing
/// below its floor.
fn floor(quantity: Quantity) -> u64 {
    match quantity {
        Quantity::Latency(Latency::Itl | Latency::ChunkGap, _)
        | Quantity::Scalar(_)
        | Quantity::Gauge(..) => 1,
        Quantity::Latency(_, Statistic::Percentile(percent)) => Quantile::new(percent / 100.0)
            .map_or(u64::MAX, |quantile| quantile.floor(Confidence::DEFAULT)),
        Quantity::Latency(..) => 1,
    }
}

fn values(trials: &[Trial], quantity: Quantity) -> Vec<f64> {
    let name = quantity.to_string();
    trials.iter().filter_map(|trial| trial.metrics.get(&name).copied()).collect()
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

fn relevance(gate: &Gate, quantity: Quantity) -> Relevance {
    let better = if quantity.is_better_lower() { Better::Lower } else { Better::Higher };
    let floor = match quantity {
        Quantity::Latency(Latency::Tpot | Latency::Itl | Latency::ChunkGap, _) => TOKEN_FLOOR_MS,
        Quantity::Latency(..) => FLOOR_MS,
        Quantity::Scalar(_) | Quantity::Gauge(..) => 0.0,
    };
    Relevance { better, min_effect: gate.min_effect_of(quantity), floor }
}

impl Compared {
    fn new(
        gate: &Gate,
        quantity: Quantity,
        before: f64,
        now: f64,
        effect: Effect,
        outcome: Outcome,
        advisory: bool,
    ) -> Self {
        let (outcome, smallest_visible_percent) = match outcome {
            Outcome::Improved => ("improved", None),
            Outcome::Regressed => ("regressed", None),
            Outcome::Unchanged => ("unchanged", None),
            Outcome::Inconclusive { smallest_visible_percent } => {
                ("inconclusive", Some(smallest_visible_percent))
            }
        };
        Self {
            metric: quantity.to_string(),
            before,
            now,
            effect_percent: effect.percent,
            interval_percent: effect.interval.map(|interval| [interval.low, interval.high]),
            outcome: outcome.to_owned(),
            advisory,
            smallest_visible_percent,
            min_effect_percent: gate.min_effect_of(quantity) * 100.0,
        }
    }
}

fn pairs(
    gate: &Gate,
    comparable: &mut Comparable,
    first: Round<'_>,
    second: Option<Round<'_>>,
) -> Vec<paired::Comparison> {
    let mut comparisons = Vec::new();
    let of = |round: Round<'_>, quantity| {
        Pairs::new(&values(round.a, quantity), &values(round.b, quantity))
    };
    comparable.quantities.retain(|&quantity| {
        let made = of(first, quantity)
            .and_then(|pairs| Ok((pairs, second.map(|round| of(round, quantity)).transpose()?)));
        match made {
            Ok((first, second)) => {
                let relevance = relevance(gate, quantity);
                comparisons.push(paired::Comparison { first, second, relevance });
                true
            }
            Err(error) => {
                comparable.missing.push(format!("{quantity}: {error}"));
                false
            }
        }
    });
    comparisons
}

/// Whether something looks worse after the first round, so that it takes a second one to say.
pub fn is_suspect(gate: &Gate, first: Round<'_>) -> bool {
    let mut comparable = Comparable::of(gate, &[first.a, first.b]);
    let comparisons = pairs(gate, &mut comparable, first, None);
    !paired::suspects(&comparisons, Confidence::DEFAULT).is_empty()
}

/// Compares trials made in turn. `others` is how many more comparisons the run makes: the more there are, the
/// more it takes for one to be beyond doubt.
pub fn in_turn(
    gate: &Gate,
    kind: &str,
    against: String,
    first: Round<'_>,
    second: Option<Round<'_>>,
    others: usize,
) -> Comparison {
    let mut all = vec![first.a, first.b];
    all.extend(second.iter().flat_map(|round| [round.a, round.b]));
    let mut comparable = Comparable::of(gate, &all);
    let comparisons = pairs(gate, &mut comparable, first, second);
    let judgements = paired::judge_among(&comparisons, others, Confidence::DEFAULT);
    let whole = |of: fn(Round<'_>) -> &[Trial], quantity| {
        let mut all = values(of(first), quantity);
        all.extend(second.iter().flat_map(|round| values(of(*round), quantity)));
        geometric_mean(&all)
    };
    let compared = comparable.quantities.iter().zip(judgements).map(|(&quantity, judgement)| {
        let before = whole(|round| round.a, quantity);
        let now = whole(|round| round.b, quantity);
        Compared::new(gate, quantity, before, now, judgement.effect, judgement.outcome, false)
    });
    Comparison {
        kind: kind.to_owned(),
        against,
        pairs: first.a.len() + second.map_or(0, |round| round.a.len()),
        second_round: second.is_some(),
        metrics: compared.collect(),
        not_compared: comparable.missing,
    }
}

/// Compares the trials of this session with those of sessions before, at least one.
pub fn with_sessions(
    gate: &Gate,
    against: String,
    sessions: &[&[Trial]],
    now: &[Trial],
) -> Comparison {
    let mut all = sessions.to_vec();
    all.push(now);
    let mut comparable = Comparable::of(gate, &all);
    let mut comparisons = Vec::new();
    comparable.quantities.retain(|&quantity| {
        let session = |trials: &&[Trial]| Session::of_trials(&values(trials, quantity));
        let history = sessions.iter().map(session).collect::<Option<Vec<_>>>();
        let history = history.and_then(History::new);
        let made = history.zip(session(&now));
        if let Some((history, current)) = made {
            comparisons.push(baseline::Comparison {
                history,
                current,
                kind: kind_of(quantity),
                relevance: relevance(gate, quantity),
                large_effect: gate.large_effect,
            });
            return true;
        }
        false
    });
    let judgements = baseline::judge(&comparisons, Confidence::DEFAULT);
    let compared = comparable.quantities.iter().zip(judgements).map(|(&quantity, judgement)| {
        let each: Vec<f64> =
            sessions.iter().map(|session| geometric_mean(&values(session, quantity))).collect();
        let (outcome, advisory) = match judgement.finding {
            baseline::Finding::Gates(outcome) => (outcome, false),
            baseline::Finding::Advises(outcome) => (outcome, true),
        };
        let (before, now) = (geometric_mean(&each), geometric_mean(&values(now, quantity)));
        Compared::new(gate, quantity, before, now, judgement.effect, outcome, advisory)
    });
    Comparison {
        kind: "baseline".to_owned(),
        against,
        pairs: sessions.len(),
        second_round: false,
        metrics: compared.collect(),
        not_compared: comparable.missing,
    }
}

/// What the trials of one session came to, by metric; ms for a latency. Of the metrics that each of them has.
pub fn levels(trials: &[Trial]) -> BTreeMap<String, f64> {
    let names = trials.first().into_iter().flat_map(|trial| trial.metrics.keys());
    names
        .filter_map(|name| {
            let values = trials.iter().map(|trial| trial.metrics.get(name).copied());
            let values: Vec<f64> = values.collect::<Option<_>>()?;
            Some((name.clone(), Session::of_trials(&values)?.value()))
        })
        .collect()
}

/// A change of level in a history.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// The metric.
    pub metric: String,
    /// The first session at the new level, by its date.
    pub since: String,
    /// The level before, the median of its sessions; ms for a latency.
    pub before: f64,
    /// And after.
    pub after: f64,
    /// How much it changed, %.
    pub percent: f64,
    /// Whether that is for the worse.
    pub worse: bool,
}

/// Where the sessions of a history, by their dates, changed their level.
pub fn changes(gate: &Gate, sessions: &[(&str, &[Trial])]) -> Vec<Change> {
    let mut changes = Vec::new();
    for &quantity in &gate.metrics {
        let of = |(date, trials): &(&str, &[Trial])| {
            let session = Session::of_trials(&values(trials, quantity))?;
            Some(((*date).to_owned(), session.value()))
        };
        let history: Vec<(String, f64)> = sessions.iter().filter_map(of).collect();
        let levels: Vec<f64> = history.iter().map(|(_, value)| *value).collect();
        for point in change_point::change_points(&levels, change_point::CONFIDENCE) {
            let percent = point.percent();
            changes.push(Change {
                metric: quantity.to_string(),
                since: history[point.index].0.clone(),
                before: point.before,
                after: point.after,
                percent,
                worse: (0.0 < percent) == quantity.is_better_lower(),
            });
        }
    }
    changes
}

fn kind_of(quantity: Quantity) -> baseline::Kind {
    match quantity {
        Quantity::Latency(_, Statistic::Percentile(percent)) if 50.0 < percent => {
            baseline::Kind::Tail
        }
        Quantity::Latency(_, Statistic::Max) => baseline::Kind::Tail,
        Quantity::Latency(..) | Quantity::Scalar(_) | Quantity::Gauge(..) => baseline::Kind::Center,
    }
}
