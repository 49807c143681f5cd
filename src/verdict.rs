//! Objectives and statistics in, a verdict out. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evidence::{Certainty, Judged, Looks, Requests};
use crate::metric::{Quantity, Scalar, Statistic};
use crate::slo::Slo;
use crate::statistics::Confidence;
use crate::statistics::percentile_limit::Quantile;
use crate::summary::{Summary, too_few};

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every objective was met and the measurement is valid.
    Pass,
    /// At least one objective was missed.
    SloMissed,
    /// Worse than what it was compared with, beyond doubt and by more than what matters.
    Regressed,
    /// The figures cannot be trusted, or say too little for an objective; and no objective was missed that
    /// can be judged without them.
    Invalid,
}

impl Verdict {
    /// The name in tables and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::SloMissed => "slo missed",
            Self::Regressed => "regressed",
            Self::Invalid => "invalid",
        }
    }
}

/// One objective and what the case made of it.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The objective.
    pub slo: Slo,
    /// The value, failed requests counted as infinitely slow; `None` where it is not known.
    pub value: Option<f64>,
    /// What follows.
    pub finding: Finding,
    /// How sure that is; `None` where nothing was found.
    pub judged: Option<Judged>,
    /// It was missed by failed requests alone: no figure decides it, and so no doubt in figures undoes it.
    pub by_failures: bool,
}

impl Judgement {
    /// Whether it could be the other way.
    pub fn is_undecided(&self) -> bool {
        let certainty = self.judged.map(|judged| judged.certainty);
        matches!(certainty, Some(Certainty::Undecided { .. }))
    }
}

/// Whether an objective was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// Nobody can say; why.
    Unknown(String),
}

/// Judges each objective by the `summary` of `requests`.
pub fn judge(
    slos: &[Slo],
    summary: &Summary,
    requests: &Requests<'_>,
    looks: Looks,
) -> Vec<Judgement> {
    slos.iter()
        .map(|slo| {
            let value = summary.quantity(slo.quantity);
            let finding = finding(slo, value, summary);
            let judged = match (&finding, value) {
                (Finding::Met | Finding::Missed, Some(value)) => {
                    Some(requests.judge(slo, value, Confidence::DEFAULT, looks))
                }
                _ => None,
            };
            let by_failures = finding == Finding::Missed && is_by_failures(slo, value, summary);
            Judgement { slo: slo.clone(), value, finding, judged, by_failures }
        })
        .collect()
}

/// Whether an objective that was missed would have been missed by the failed requests alone, however fast the
/// others were.
fn is_by_failures(slo: &Slo, value: Option<f64>, summary: &Summary) -> bool {
    let error_ratio = summary.scalars.get(&Scalar::ErrorRatio).copied().unwrap_or_default();
    match slo.quantity {
        Quantity::Latency(..) => value.is_some_and(f64::is_infinite),
        Quantity::Scalar(Scalar::ErrorRatio) => true,
        Quantity::Scalar(Scalar::GoodputRatio) => !slo.is_met_by(1.0 - error_ratio),
        Quantity::Scalar(_) | Quantity::Gauge(..) => false,
    }
}

fn finding(slo: &Slo, value: Option<f64>, summary: &Summary) -> Finding {
    let Some(value) = value else { return Finding::Unknown(summary.missing(slo.quantity)) };
    if value.is_infinite() && !slo.is_met_by(value) {
        // Failed requests decide it, however few there are of others.
        return Finding::Missed;
    }
    if let Quantity::Latency(latency, statistic) = slo.quantity
        && let Some(reason) = too_few(statistic, summary.samples(latency))
    {
        return Finding::Unknown(match floor(statistic) {
            Some(floor) => format!(
                "undecided: a limit on {statistic} needs {floor} requests and there are {}",
                summary.samples(latency)
            ),
            None => reason,
        });
    }
    if slo.is_met_by(value) { Finding::Met } else { Finding::Missed }
}

/// How many requests it takes to settle a limit on a percentile at all.
fn floor(statistic: Statistic) -> Option<u64> {
    let Statistic::Percentile(percent) = statistic else { return None };
    Some(Quantile::new(percent / 100.0)?.floor(Confidence::DEFAULT))
}

/// The verdict that the judgements add up to. Figures that cannot be trusted (`doubted`) neither pass nor fail
/// a case; nor, where the plan is `strict`, does what is undecided. Requests that failed are no figures: an
/// objective that they alone miss is missed whatever the client was doing.
pub fn verdict(judgements: &[Judgement], doubted: bool, strict: bool) -> Verdict {
    let counts = |judgement: &&Judgement| !(strict && judgement.is_undecided());
    let missed = |judgement: &Judgement| judgement.finding == Finding::Missed;
    let unknown = |judgement: &Judgement| matches!(judgement.finding, Finding::Unknown(_));
    if judgements.iter().filter(counts).any(|judgement| judgement.by_failures) {
        Verdict::SloMissed
    } else if doubted {
        Verdict::Invalid
    } else if judgements.iter().filter(counts).any(missed) {
        Verdict::SloMissed
    } else if judgements.iter().any(|judgement| unknown(judgement) || !counts(&judgement)) {
        Verdict::Invalid
    } else {
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed, ms};
    use crate::slo::Goodput;
    use crate::summary::tests::counted;

    fn judged(slos: &[&str], completed_requests: usize, failures: usize) -> Vec<Judgement> {
        let goodput = Some(Goodput { ttft: Some(ms(50)), tpot: None, e2e: None });
        let mut requests = vec![counted(completed(&[60, 70]), 2); completed_requests];
        requests.extend(vec![counted(failed(Failure::Http(503)), 0); failures]);
        let slos: Vec<Slo> = slos.iter().map(|text| text.parse().unwrap()).collect();
        let whole = 0..requests.len();
        let summary = Summary::new(&requests, goodput);
        judge(&slos, &summary, &Requests::new(&requests, vec![whole], goodput), Looks::One)
    }

    #[test]
    fn a_case_passes_if_every_objective_is_met() {
        let judgements =
            judged(&["ttft.p99 < 51ms", "tpot.mean < 11ms", "error_ratio == 0"], 100, 0);
        assert_eq!(verdict(&judgements, false, false), Verdict::Pass);
        assert_eq!(verdict(&[], false, false), Verdict::Pass);
    }

    #[test]
    fn one_missed_objective_is_enough() {
        let judgements = judged(&["ttft.p99 < 50ms", "tpot.mean < 11ms"], 100, 0);
        assert_eq!(judgements[0].finding, Finding::Missed);
        assert_eq!(judgements[1].finding, Finding::Met);
        assert_eq!(verdict(&judgements, false, false), Verdict::SloMissed);
    }

    #[test]
    fn a_server_does_not_pass_by_refusing() {
        // Two of a hundred refused: the 99th percentile is infinite.
        let judgements = judged(&["ttft.p99 < 10s"], 98, 2);
        assert_eq!(judgements[0].finding, Finding::Missed);
        assert_eq!(judgements[0].value, Some(f64::INFINITY));
        let judgements = judged(&["ttft.p50 < 10s"], 0, 10);
        assert_eq!(judgements[0].finding, Finding::Missed);
    }

    #[test]
    fn too_few_samples_decide_nothing() {
        let judgements = judged(&["ttft.p99 < 51ms"], 99, 0);
        let Finding::Unknown(reason) = &judgements[0].finding else { panic!("{judgements:?}") };
        assert_eq!(reason, "undecided: a limit on p99 needs 299 requests and there are 99");
        assert_eq!(verdict(&judgements, false, false), Verdict::Invalid);
        let judgements = judged(&["ttft.p99 < 51ms", "error_ratio == 0"], 50, 1);
        assert_eq!(
            verdict(&judgements, false, false),
            Verdict::SloMissed,
            "a miss outweighs a doubt"
        );
    }

    #[test]
    fn numbers_that_cannot_be_trusted_neither_pass_nor_fail() {
        for slo in ["ttft.p99 < 51ms", "ttft.p99 < 50ms"] {
            assert_eq!(verdict(&judged(&[slo], 100, 0), true, false), Verdict::Invalid);
        }
    }

    #[test]
    fn what_failed_requests_alone_miss_is_missed_also_where_figures_are_in_doubt() {
        // The completed ones have a TTFT of 50 ms, which is good.
        for (slo, failures, expected) in [
            ("error_ratio == 0", 1, Verdict::SloMissed),
            ("error_ratio < 5%", 6, Verdict::SloMissed),
            ("error_ratio < 5%", 4, Verdict::Invalid),
            ("ttft.p99 < 10s", 2, Verdict::SloMissed),
            ("ttft.p50 < 1ms", 2, Verdict::Invalid),
            ("ttft.mean < 10s", 1, Verdict::SloMissed),
            ("chunk_gap.p95 < 10s", 10, Verdict::SloMissed),
            ("goodput_ratio > 95%", 6, Verdict::SloMissed),
            ("goodput_ratio > 95%", 4, Verdict::Invalid),
            ("request_throughput > 1e9", 50, Verdict::Invalid),
        ] {
            let judgements = judged(&[slo], 100 - failures, failures);
            assert_eq!(verdict(&judgements, true, false), expected, "{slo}, {failures} failed");
        }
        let slow = judged(&["ttft.p50 < 1ms", "error_ratio == 0"], 99, 1);
        assert_eq!(verdict(&slow, true, true), Verdict::SloMissed);
    }

    #[test]
    fn an_unknown_quantity_is_no_pass() {
        let judgements = judged(&["kv_cache_usage.max < 0.9"], 100, 0);
        assert!(matches!(judgements[0].finding, Finding::Unknown(_)));
        assert_eq!(verdict(&judgements, false, false), Verdict::Invalid);
    }
}
