//! Who held a case up, and by which figures of its result that is said. Pure.

use serde::Serialize;

use crate::report::{Report, Servebench};
use crate::validity::Bound;
use crate::verdict::Verdict;

/// From this mean number on, requests that wait in a server are a queue.
const QUEUE: f64 = 1.0;
/// A wait for a place is worth a word from this share of the TTFT on.
const WAIT_OF_TTFT: f64 = 0.1;
/// The server's own mean TTFT agrees with ours where they are no farther apart than this share of ours, or this
/// many milliseconds.
const AGREES: f64 = 0.1;
const AGREES_MS: f64 = 2.0;
/// A server that keeps up with this share of the requests keeps up.
const KEEPS_UP: f64 = 0.9;

/// What held the case up.
#[derive(Debug, Serialize)]
pub(super) struct Cause {
    /// `client`, `queue`, `server` or `schedule`.
    pub who: &'static str,
    /// What that means.
    pub why: &'static str,
    /// The figures that say so.
    pub evidence: Vec<Evidence>,
}

/// A figure of the result.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    label: &'static str,
    pointer: String,
    scale: f64,
    digits: usize,
    unit: &'static str,
}

impl Cause {
    /// That of a case; of one that passed, what kept it from going faster.
    pub fn of(report: &Report) -> Self {
        let own = &report.servebench;
        let failed = own.verdict != Some(Verdict::Pass);
        let bound = match own.client.bound {
            Bound::Client if !agrees_with_the_server(report) => {
                return Self::new(
                    "client",
                    "it was held up, and may have made the figures",
                    client(own),
                );
            }
            Bound::Client => without_the_client(report),
            bound => bound,
        };
        let mut evidence = Vec::new();
        let waiting = waiting(own);
        let queued = waiting.as_ref().is_some_and(|(mean, _)| QUEUE <= *mean);
        if queued || bound != Bound::Server {
            evidence.extend(waiting.map(|(_, evidence)| evidence));
        }
        match bound {
            Bound::Server => {
                evidence.extend(kept_up(own));
                Self::new("queue", "requests come faster than the server ends them", evidence)
            }
            _ if queued => Self::new("queue", "requests wait in the server", evidence),
            Bound::Cap if own.plan.arrivals.is_some() && waits_for_a_place(own) => {
                Self::new("queue", "requests wait for a place under the cap", for_a_place())
            }
            Bound::Cap => Self::new("server", "users send as soon as it has answered", evidence),
            Bound::Rate | Bound::Client => {
                let keeps_up = own.client.server_kept_up_ratio.is_some();
                evidence.extend(kept_up(own));
                match (failed, keeps_up) {
                    (true, true) => {
                        Self::new("server", "slow at this rate, though it keeps up", evidence)
                    }
                    (true, false) => Self::new("server", "slow at this rate", evidence),
                    (false, true) => Self::new("schedule", "the server keeps up with it", evidence),
                    (false, false) => {
                        Self::new("schedule", "requests left when they were due", evidence)
                    }
                }
            }
        }
    }

    fn new(who: &'static str, why: &'static str, evidence: Vec<Evidence>) -> Self {
        Self { who, why, evidence }
    }
}

/// Whether the server says of itself what we have measured: then it was no matter of the client.
fn agrees_with_the_server(report: &Report) -> bool {
    let theirs = report.servebench.telemetry.server_latencies.get("ttft");
    report
        .mean_ttft_ms
        .zip(theirs)
        .is_some_and(|(ours, theirs)| (ours - theirs.mean_ms).abs() <= AGREES_MS.max(ours * AGREES))
}

/// What bound the run, were it not for the client.
fn without_the_client(report: &Report) -> Bound {
    let own = &report.servebench;
    match own.client.server_kept_up_ratio {
        Some(ratio) if ratio < KEEPS_UP => Bound::Server,
        _ if own.client.requested_rate_per_s.is_some() => Bound::Rate,
        _ if report.max_concurrency.is_some() => Bound::Cap,
        _ => Bound::Server,
    }
}

fn evidence(label: &'static str, pointer: String, unit: &'static str) -> Evidence {
    Evidence { label, pointer, scale: 1.0, digits: 2, unit }
}

fn client(own: &Servebench) -> Vec<Evidence> {
    let mut found = Vec::new();
    if 0.0 < own.client.held_up_s {
        let pointer = "/servebench/client/held_up_s".to_owned();
        found.push(evidence("held up for", pointer, "s"));
    }
    if own.client.loop_lag_ms.p99.is_some() {
        let pointer = "/servebench/client/loop_lag_ms/p99".to_owned();
        found.push(evidence("loop lag p99", pointer, "ms"));
    }
    let lateness = own.latencies.get("lateness").and_then(|it| it.statistics.get("p99"));
    if lateness.is_some_and(|figure| figure.estimate_ms.is_some()) {
        let pointer = "/servebench/latencies/lateness/statistics/p99/estimate_ms".to_owned();
        found.push(evidence("lateness p99", pointer, "ms"));
    }
    found
}

/// The mean number of requests that waited in the server, where it says so.
fn waiting(own: &Servebench) -> Option<(f64, Evidence)> {
    let mut sources = own.telemetry.sources.iter().enumerate();
    sources.find_map(|(place, source)| {
        let figures = source.figures.get("requests_waiting").filter(|_| source.counts)?;
        let pointer =
            format!("/servebench/telemetry/sources/{place}/figures/requests_waiting/mean");
        Some((figures.mean, evidence("mean waiting", pointer, "requests")))
    })
}

fn kept_up(own: &Servebench) -> Option<Evidence> {
    own.client.server_kept_up_ratio?;
    let pointer = "/servebench/client/server_kept_up_ratio".to_owned();
    Some(Evidence { scale: 100.0, digits: 0, ..evidence("kept up with", pointer, "%") })
}

fn mean(own: &Servebench, latency: &str) -> Option<f64> {
    own.latencies.get(latency)?.statistics.get("mean")?.estimate_ms
}

fn waits_for_a_place(own: &Servebench) -> bool {
    let means = mean(own, "scheduled_ttft").zip(mean(own, "ttft"));
    means.is_some_and(|(scheduled, sent)| sent * WAIT_OF_TTFT < scheduled - sent)
}

fn for_a_place() -> Vec<Evidence> {
    let pointer = |latency| format!("/servebench/latencies/{latency}/statistics/mean/estimate_ms");
    vec![
        evidence("mean TTFT from the schedule", pointer("scheduled_ttft"), "ms"),
        evidence("from when it was sent", pointer("ttft"), "ms"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::tests::completed;
    use crate::render::tests::report;
    use crate::report::{ReadFigures, SourceReport};
    use crate::scrape::HistogramFigures;
    use crate::series::Series;
    use crate::summary::tests::counted;

    fn result(bound: Bound, verdict: Verdict) -> Report {
        let mut report = report("sharegpt", &[counted(completed(&[60, 70]), 2)]);
        report.servebench.client.bound = bound;
        report.servebench.verdict = Some(verdict);
        report
    }

    fn waiting(mut report: Report, mean: f64) -> Report {
        let figures = ReadFigures { count: 9, mean, min: 0.0, max: 9.0, last: 0.0 };
        report.servebench.telemetry.sources.push(SourceReport {
            source: "server".to_owned(),
            kind: "server".to_owned(),
            what: "vllm".to_owned(),
            counts: true,
            gpu: None,
            figures: BTreeMap::from([("requests_waiting".to_owned(), figures)]),
            missing: BTreeMap::new(),
            series: Series::default(),
        });
        report
    }

    fn who(report: &Report) -> &'static str {
        Cause::of(report).who
    }

    #[test]
    fn a_client_that_was_too_slow_is_to_blame_whatever_waits_in_the_server() {
        assert_eq!(who(&waiting(result(Bound::Client, Verdict::Invalid), 50.0)), "client");
    }

    #[test]
    fn a_client_is_not_to_blame_for_what_the_server_says_of_itself() {
        let with_server = |mean_ms: f64| {
            let mut report = result(Bound::Client, Verdict::Invalid);
            let figures = HistogramFigures { count: 9, mean_ms, p50: None, p90: None, p99: None };
            let latencies = &mut report.servebench.telemetry.server_latencies;
            latencies.insert("ttft".to_owned(), figures);
            report
        };
        let ours = with_server(0.0).mean_ttft_ms.unwrap();
        assert_eq!(ours, 50.0);
        for (theirs, expected) in [(48.5, "server"), (46.0, "server"), (30.0, "client")] {
            let mut report = with_server(theirs);
            report.servebench.client.requested_rate_per_s = Some(10.0);
            assert_eq!(who(&report), expected, "{theirs}");
        }
        let mut slow = with_server(50.0);
        slow.servebench.client.server_kept_up_ratio = Some(0.1);
        assert_eq!(who(&slow), "queue");
        assert_eq!(who(&waiting(with_server(50.0), 50.0)), "queue");
    }

    #[test]
    fn a_server_is_said_to_keep_up_only_where_that_is_known() {
        for (ratio, told) in [(Some(1.0), true), (None, false)] {
            for verdict in [Verdict::Pass, Verdict::SloMissed] {
                let mut report = result(Bound::Rate, verdict);
                report.servebench.client.server_kept_up_ratio = ratio;
                let why = Cause::of(&report).why;
                assert_eq!(why.contains("keeps up"), told, "{why}");
            }
        }
    }

    #[test]
    fn requests_that_wait_are_a_queue_and_one_now_and_then_is_none() {
        let slow = || result(Bound::Rate, Verdict::SloMissed);
        assert_eq!(who(&waiting(slow(), 4.0)), "queue");
        assert_eq!(who(&waiting(slow(), 0.2)), "server");
        assert_eq!(who(&result(Bound::Server, Verdict::SloMissed)), "queue");
    }

    #[test]
    fn a_server_that_is_slow_without_a_queue_is_to_blame_itself() {
        assert_eq!(who(&result(Bound::Rate, Verdict::SloMissed)), "server");
        assert_eq!(who(&result(Bound::Cap, Verdict::Regressed)), "server");
    }

    #[test]
    fn a_case_that_passed_was_held_up_by_its_schedule_alone() {
        assert_eq!(who(&result(Bound::Rate, Verdict::Pass)), "schedule");
    }

    #[test]
    fn each_figure_that_is_named_stands_in_the_document() {
        let report = waiting(result(Bound::Server, Verdict::SloMissed), 4.0);
        let document = serde_json::to_value(&report).unwrap();
        let cause = Cause::of(&report);
        assert!(!cause.evidence.is_empty());
        for evidence in &cause.evidence {
            assert!(
                document.pointer(&evidence.pointer).is_some_and(|it| it.is_number()),
                "{cause:?}"
            );
        }
    }
}
