//! What the page's template is filled with. Pure.

use serde::Serialize;
use serde_json::Value;

use super::cause::Cause;
use super::policy::embedded_json;
use super::{Case, chart_data, run_data};
use crate::compare::{Change, Compared};
use crate::report::{Ending, Report};

/// The whole page.
pub(super) struct Page {
    pub cases: Vec<CaseView>,
    pub outcome: Vec<Count>,
    /// The data of the charts across cases, as JSON.
    pub run_data: String,
    pub has_points: bool,
    pub dates: Option<[String; 2]>,
    pub version: &'static str,
}

/// How many cases ended in a way.
#[derive(Debug, Serialize)]
pub(super) struct Count {
    pub count: usize,
    pub state: State,
}

/// How a case ended, for the eye and in words.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct State {
    pub class: &'static str,
    pub symbol: &'static str,
    pub word: &'static str,
}

/// One case.
#[derive(Serialize)]
pub(super) struct CaseView {
    pub index: usize,
    pub name: String,
    pub load: String,
    pub group: String,
    pub state: State,
    /// Why it has no result.
    pub message: Option<String>,
    /// Its result, without what only charts need.
    pub doc: Option<Value>,
    pub cause: Option<Cause>,
    pub since: Option<Since>,
    pub sessions: usize,
    pub changes: Vec<Worst>,
    /// The data of its charts, as JSON.
    pub data: Option<String>,
}

/// Since when it is worse, by its history.
#[derive(Debug, Serialize)]
pub(super) struct Since {
    /// Its place in the list of changes.
    pub place: usize,
}

/// A metric that changed against what the case is compared with.
#[derive(Debug, Serialize)]
pub(super) struct Worst {
    /// Its place in the list of metrics.
    pub place: usize,
}

impl Page {
    pub fn new(cases: &[Case<'_>]) -> anyhow::Result<Self> {
        let views = cases.iter().enumerate().map(|(index, case)| CaseView::new(index, case));
        let views = views.collect::<anyhow::Result<Vec<_>>>()?;
        let reports = || cases.iter().filter_map(|case| case.ending.report());
        let first = reports().map(|report| &report.date).min();
        let last = reports().map(|report| &report.date).max();
        Ok(Self {
            outcome: State::ALL
                .into_iter()
                .map(|state| {
                    let count = views.iter().filter(|view| view.state == state).count();
                    Count { count, state }
                })
                .filter(|count| 0 < count.count)
                .collect(),
            run_data: embedded_json(&run_data::of(cases))?,
            has_points: 1 < reports().map(points).sum::<usize>(),
            dates: first.zip(last).map(|(first, last)| [first.clone(), last.clone()]),
            version: env!("CARGO_PKG_VERSION"),
            cases: views,
        })
    }
}

fn points(report: &Report) -> usize {
    report.servebench.search.as_ref().map_or(1, |search| search.steps.len())
}

impl State {
    const ALL: [Self; 7] = [
        Self { class: "missed", symbol: "✗", word: "slo missed" },
        Self { class: "regressed", symbol: "↘", word: "regressed" },
        Self { class: "invalid", symbol: "?", word: "invalid" },
        Self { class: "error", symbol: "!", word: "error" },
        Self { class: "interrupted", symbol: "‖", word: "interrupted" },
        Self { class: "pass", symbol: "✓", word: "pass" },
        Self { class: "ignored", symbol: "–", word: "ignored" },
    ];

    fn of(ending: &Ending) -> Self {
        let named = Self::ALL.into_iter().find(|state| state.word == ending.name());
        named.expect("every ending has a state")
    }
}

impl CaseView {
    fn new(index: usize, case: &Case<'_>) -> anyhow::Result<Self> {
        let name = case.ending.case();
        let (group, load) = name.rsplit_once('@').unwrap_or((name, ""));
        let report = case.ending.report();
        let doc = report.map(|report| serde_json::to_value(report.for_history())).transpose()?;
        let data = report.map(|report| embedded_json(&chart_data::of(case, report)));
        Ok(Self {
            index,
            name: name.to_owned(),
            load: load.to_owned(),
            group: group.to_owned(),
            state: State::of(case.ending),
            message: match case.ending {
                Ending::Measured(_) => None,
                Ending::Broken { message, .. } => Some(message.clone()),
                Ending::Ignored { reason, .. } => Some(reason.clone()),
            },
            doc,
            cause: report.map(Cause::of),
            since: report.and_then(since),
            sessions: case.history.len(),
            changes: report.map(changes).unwrap_or_default(),
            data: data.transpose()?,
        })
    }
}

/// The last change for the worse, and the largest of several then: of what failed the case where that has
/// one, else of any metric.
fn since(report: &Report) -> Option<Since> {
    let own = &report.servebench;
    let missed = own.slos.iter().filter(|slo| slo.finding == "missed");
    let missed = missed.filter_map(|slo| slo.slo.split(' ').next());
    let regressed = own.comparison.iter().flat_map(|comparison| comparison.regressions());
    let failed: Vec<&str> = missed.chain(regressed.map(|it| it.metric.as_str())).collect();
    let worse = || own.history_changes.iter().enumerate().filter(|(_, change)| change.worse);
    let rank = |change: &Change| (failed.contains(&change.metric.as_str()), change.since.clone());
    let size = |change: &Change| change.percent.abs();
    let last = worse().max_by(|(_, one), (_, other)| {
        rank(one).cmp(&rank(other)).then(size(one).total_cmp(&size(other)))
    });
    last.map(|(place, _)| Since { place })
}

/// What changed, the worst first.
fn changes(report: &Report) -> Vec<Worst> {
    let Some(comparison) = &report.servebench.comparison else { return Vec::new() };
    let mut changed: Vec<(usize, &Compared)> = comparison
        .metrics
        .iter()
        .enumerate()
        .filter(|(_, it)| it.outcome == "regressed" || it.outcome == "improved")
        .collect();
    let rank = |it: &Compared| (it.outcome != "regressed", -it.effect_percent.abs());
    changed.sort_by(|(_, one), (_, other)| {
        rank(one).partial_cmp(&rank(other)).unwrap_or(std::cmp::Ordering::Equal)
    });
    changed.into_iter().map(|(place, _)| Worst { place }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::render::tests::report;
    use crate::summary::tests::counted;

    fn change(metric: &str, since: &str, percent: f64, worse: bool) -> Change {
        let (metric, since) = (metric.to_owned(), since.to_owned());
        Change { metric, since, before: 100.0, after: 100.0 + percent, percent, worse }
    }

    #[test]
    fn it_is_worse_since_what_failed_it_changed_last() {
        let mut report = report("sharegpt", &vec![counted(completed(&[20, 70]), 2); 300]);
        let missed: Vec<&str> = report
            .servebench
            .slos
            .iter()
            .filter(|slo| slo.finding == "missed")
            .map(|slo| slo.slo.as_str())
            .collect();
        assert_eq!(missed, ["tpot.p99 < 1ms"]);
        report.servebench.history_changes = vec![
            change("tpot.p99", "2026-01-01", 10.0, true),
            change("tpot.p99", "2026-02-01", 20.0, true),
            change("tpot.p99", "2026-03-01", -5.0, false),
            change("e2e.p50", "2026-04-01", 90.0, true),
        ];
        assert_eq!(since(&report).unwrap().place, 1);
        report.servebench.history_changes.drain(..2);
        assert_eq!(since(&report).unwrap().place, 1, "the change of another metric");
        report.servebench.history_changes.truncate(1);
        assert!(since(&report).is_none(), "it became better");
    }
}
