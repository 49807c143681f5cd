//! Why a case did not simply pass, a line each, as the table says it. Pure.

use super::table::{compared_line, doubt_line, slo_line};
use super::text::plain;
use crate::report::Report;
use crate::verdict::Verdict;

/// The objectives that were not plainly met, what changed against what it was compared with, the requests
/// that failed, and the doubts in the measurement.
pub fn reasons(report: &Report) -> Vec<String> {
    let own = &report.servebench;
    let ended = own.servers_ended.iter().map(|ended| format!("failed   {ended}"));
    let slos = own.slos.iter().filter(|slo| slo.finding != "met" || slo.undecided);
    let mut lines: Vec<String> = ended.chain(slos.map(slo_line)).collect();
    if report.completed == 0 {
        lines.push("failed   no request completed".to_owned());
    }
    let compared = own.comparison.iter().flat_map(|comparison| &comparison.metrics);
    lines.extend(compared.filter(|metric| metric.outcome != "unchanged").map(compared_line));
    lines.extend(own.failures.iter().map(|(reason, failures)| {
        format!("failed   {reason}: {}, such as: {}", failures.count, failures.example)
    }));
    lines.extend(own.client.doubts.iter().map(|doubt| doubt_line(report, doubt)));
    lines.iter().map(|line| plain(line)).collect()
}

/// What kind of failure a result is: `slo`, `regression`, `invalid` or `error`; `None` where it passed.
pub fn failure(report: &Report) -> Option<&'static str> {
    match report.servebench.verdict {
        Some(Verdict::Pass) if 0 < report.completed => None,
        Some(Verdict::Pass) => Some("error"),
        Some(Verdict::SloMissed) => Some("slo"),
        Some(Verdict::Regressed) => Some("regression"),
        Some(Verdict::Invalid) => Some("invalid"),
        None => Some("error"),
    }
}
