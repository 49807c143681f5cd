//! Who held a case up, and by which figures of its result that is said. Pure.

use serde::Serialize;

use crate::report::{Report, Servebench};
use crate::validity::Bound;
use crate::verdict::Verdict;

/// From this mean number on, requests that wait in a server are a queue.
const QUEUE: f64 = 1.0;
/// A wait for a place is worth a word from this share of the TTFT on.
const WAIT_OF_TTFT: f64 = 0.1;

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
        if own.client.bound == Bound::Client {
            return Self::new(
                "client",
                "it was too slow, and the figures are its own",
                client(own),
            );
        }
        let mut evidence = Vec::new();
        let waiting = waiting(own);
        let queued = waiting.as_ref().is_some_and(|(mean, _)| QUEUE <= *mean);
        evidence.extend(waiting.map(|(_, evidence)| evidence));
        match own.client.bound {
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
                evidence.extend(kept_up(own));
                match failed {
                    true => Self::new("server", "slow at this rate, though it keeps up", evidence),
                    false => Self::new("schedule", "the server keeps up with it", evidence),
                }
            }
        }
    }

    fn new(who: &'static str, why: &'static str, evidence: Vec<Evidence>) -> Self {
        Self { who, why, evidence }
    }
}

fn evidence(label: &'static str, pointer: String, unit: &'static str) -> Evidence {
    Evidence { label, pointer, scale: 1.0, digits: 2, unit }
}

fn client(own: &Servebench) -> Vec<Evidence> {
    let mut found = Vec::new();
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
