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
    use crate::summary::tests::counted;

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
    fn a_page_grows_with_its_cases_and_not_with_their_requests() {
        let small = size(6, 1_000);
        assert!(small < 2_000_000, "{small} bytes");
        let one = size(1, 1_000);
        let long = size(1, 20_000);
        assert!(long < one + one / 20, "{long} bytes, and {one} for a 20th of the requests");
    }
}
