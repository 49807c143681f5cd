//! A run as one file for a browser: all cases in a table, and the figures and charts of each. It asks
//! nothing of any network, and its tables are readable without its scripts.

mod cause;
mod chart_data;
mod policy;
mod run_data;
mod template;
mod view;

use std::collections::BTreeMap;

use crate::compare::{self, Trial};
use crate::report::{Ending, Report};

/// The name of the file.
pub const FILE: &str = "report.html";

/// What the page shows of one case.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// How it ended.
    pub ending: &'a Ending,
    /// The result that it was compared with: its curves are drawn behind.
    pub before: Option<&'a Report>,
    /// Its sessions by date, this one the last; empty where no history is kept.
    pub history: Vec<Session>,
}

impl<'a> Case<'a> {
    /// A case that is compared with nothing.
    pub fn new(ending: &'a Ending) -> Self {
        Self { ending, before: None, history: Vec::new() }
    }
}

/// What a case came to at some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// When, as [`Change::since`](crate::compare::Change::since) calls it.
    pub date: String,
    /// Its level by the metric's name; ms for a latency.
    pub levels: BTreeMap<String, f64>,
}

impl Session {
    /// That of the trials of a result.
    pub fn new(date: &str, trials: &[Trial]) -> Self {
        Self { date: date.to_owned(), levels: compare::levels(trials) }
    }
}

/// The page of a run.
///
/// # Errors
///
/// If a result is none that can be written as JSON.
pub fn page(cases: &[Case<'_>]) -> anyhow::Result<String> {
    template::render(&view::Page::new(cases)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::render::tests::report;
    use crate::report::{SearchReport, StepReport, TurnFigures, TurnReport};
    use crate::summary::tests::counted;
    use crate::verdict::Verdict;

    fn size(cases: usize, requests: u64) -> usize {
        let request = |n: u64| {
            let chunks: Vec<u64> = (0..20).map(|chunk| 3 * n + 60 + n % 7 + chunk * 10).collect();
            let mut record = completed(&chunks);
            let sent = std::time::Duration::from_millis(3 * n);
            (record.scheduled, record.sent) = (sent, sent);
            record.ended = sent + std::time::Duration::from_millis(300);
            counted(record, 20)
        };
        let requests: Vec<_> = (0..requests).map(request).collect();
        let ending = Ending::measured(report("sharegpt", &requests));
        page(&vec![Case::new(&ending); cases]).unwrap().len()
    }

    #[test]
    fn a_search_its_steps_and_the_turns_of_conversations_are_shown() {
        let mut report = report("sharegpt", &[counted(completed(&[60, 70]), 2)]);
        let step = |rate: f64, ttft_ms_p99| StepReport {
            load: format!("{rate}qps"),
            rate_per_s: Some(rate),
            verdict: Some(Verdict::SloMissed),
            reasons: vec!["slo      missed: <b>".to_owned()],
            judged: true,
            duration_s: 1.0,
            longer: None,
            completed: 10,
            failed: 0,
            request_throughput: Some(rate),
            output_throughput: Some(rate * 64.0),
            server_kept_up_ratio: None,
            ttft_ms_p50: None,
            ttft_ms_p99,
            tpot_ms_mean: None,
            e2e_ms_p50: None,
        };
        report.servebench.search = Some(SearchReport {
            kind: "sweep".to_owned(),
            max_goodput_per_s: None,
            failed_from_per_s: Some(8.0),
            failed_verdict: Some(Verdict::SloMissed),
            knee_per_s: Some([Some(4.0), None]),
            steps: vec![step(4.0, Some(33.125)), step(8.0, None)],
        });
        let figures = TurnFigures { mean: Some(12.5), p50: None, p99: None };
        report.servebench.turns = Some(vec![TurnReport {
            turn: 1,
            requests: 3,
            completed: 3,
            failed: 0,
            ttft_ms: figures,
            tpot_ms: figures,
            e2e_ms: figures,
            mean_input_tokens: None,
            cached_share: Some(0.25),
        }]);
        report.servebench.verdict = None;
        let page = page(&[Case::new(&Ending::measured(report))]).unwrap();
        for part in [
            "</span> interrupted</span>",
            "value=\"33.125\">33.12</data>",
            "missed: &lt;b&gt;",
            "data-json=\"/servebench/turns/0/ttft_ms/mean\" value=\"12.5\">12.50</data>",
            "data-scale=\"100\">25.0</data>",
            r#""knees":[{"above":null,"below":4.0,"group":"sim/sim/sharegpt"}]"#,
            "data-chart=\"knee\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn a_page_grows_with_its_cases_and_not_with_their_requests() {
        let small = size(6, 1_000);
        assert!(small < 2_000_000, "{small} bytes");
        let one = size(1, 1_000);
        let long = size(1, 20_000);
        assert!(long < one + one / 20, "{long} bytes, and {one} for a 20th of the requests");
    }
}
