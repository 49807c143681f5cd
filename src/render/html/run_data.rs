//! The numbers of the charts across cases: latency against rate, and against throughput. Pure.

use serde_json::{Value, json};

use super::Case;
use super::chart_data::short;
use crate::report::{Report, StepReport};
use crate::validity::Bound;
use crate::verdict::Verdict;

/// A case, or a step of one.
struct Point<'a> {
    /// What is compared with each other: all of the name but its load.
    group: &'a str,
    load: &'a str,
    /// How the requests came: at a rate, by so many users, or all at once.
    kind: &'static str,
    /// The rate that was asked for, or that came of it.
    rate: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    throughput: Option<f64>,
    verdict: Option<Verdict>,
}

impl<'a> Point<'a> {
    fn of_case(report: &'a Report) -> Self {
        let own = &report.servebench;
        let (group, load) = own.case.rsplit_once('@').unwrap_or((&own.case, ""));
        let requested = own.client.requested_rate_per_s;
        let kind = match (requested, report.max_concurrency) {
            _ if own.client.bound == Bound::Server && requested.is_none() => "at once",
            (Some(_), _) => "at a rate",
            (None, Some(_)) => "by users",
            (None, None) => "at once",
        };
        Self {
            group,
            load,
            kind,
            rate: requested.or(report.request_throughput),
            p50: report.median_ttft_ms,
            p99: report.p99_ttft_ms,
            throughput: report.output_throughput,
            verdict: own.verdict,
        }
    }

    fn of_step(report: &'a Report, step: &'a StepReport) -> Self {
        Self {
            load: &step.load,
            kind: if step.rate_per_s.is_some() { "at a rate" } else { "at once" },
            rate: step.rate_per_s.or(step.request_throughput),
            p50: step.ttft_ms_p50,
            p99: step.ttft_ms_p99,
            throughput: step.output_throughput,
            verdict: step.verdict,
            ..Self::of_case(report)
        }
    }

    fn of_report(report: &'a Report) -> Vec<Self> {
        match &report.servebench.search {
            None => vec![Self::of_case(report)],
            Some(search) => search.steps.iter().map(|step| Self::of_step(report, step)).collect(),
        }
    }

    /// What it brings and what it costs; `None` where that is not known or cannot be trusted.
    fn trade(&self) -> Option<(f64, f64)> {
        self.throughput.zip(self.p99).filter(|_| self.verdict != Some(Verdict::Invalid))
    }

    fn json(&self, on_front: bool) -> Value {
        let number = |value: Option<f64>| value.map_or(Value::Null, short);
        json!({
            "group": self.group,
            "load": self.load,
            "kind": self.kind,
            "rate": number(self.rate),
            "p50": number(self.p50),
            "p99": number(self.p99),
            "throughput": number(self.throughput),
            "verdict": self.verdict.map_or("interrupted", Verdict::name),
            "front": on_front,
        })
    }
}

/// The data of a run.
pub(super) fn of(cases: &[Case<'_>]) -> Value {
    let reports: Vec<&Report> = cases.iter().filter_map(|case| case.ending.report()).collect();
    let points: Vec<Point<'_>> =
        reports.iter().flat_map(|report| Point::of_report(report)).collect();
    let trades: Vec<Option<(f64, f64)>> = points.iter().map(Point::trade).collect();
    let knees = reports.iter().filter_map(|report| {
        let [below, above] = report.servebench.search.as_ref()?.knee_per_s?;
        let group = Point::of_case(report).group;
        Some(json!({ "group": group, "below": below, "above": above }))
    });
    json!({
        "points": points
            .iter()
            .zip(&trades)
            .map(|(point, trade)| point.json(trade.is_some_and(|it| is_on_front(it, &trades))))
            .collect::<Vec<_>>(),
        "knees": knees.collect::<Vec<_>>(),
    })
}

/// Whether no other has more throughput at no more latency, or less latency at no less throughput.
fn is_on_front((throughput, latency): (f64, f64), others: &[Option<(f64, f64)>]) -> bool {
    !others.iter().flatten().any(|&(more, less)| {
        throughput <= more && less <= latency && (throughput < more || less < latency)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_front_is_what_nothing_beats() {
        let points =
            [Some((10.0, 5.0)), Some((20.0, 9.0)), Some((15.0, 9.0)), None, Some((10.0, 6.0))];
        let front: Vec<bool> =
            points.iter().map(|point| point.is_some_and(|it| is_on_front(it, &points))).collect();
        assert_eq!(front, [true, true, false, false, false]);
    }
}
