//! The formats in which a run can be written beside its results.

use clap::ValueEnum;
use serde::Deserialize;

/// What is written at the end of a run, or as it goes, for others to read. The results themselves, a JSON
/// document a case, are always written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputFormat {
    /// A result a case, which is always written
    Json,
    /// junit.xml: a test case per case
    Junit,
    /// results.csv: a row per case
    Csv,
    /// summary.md: tables for people
    Markdown,
    /// bmf.json: Bencher Metric Format
    Bencher,
    /// smaller-is-better.json and bigger-is-better.json: for github-action-benchmark
    GithubBenchmark,
    /// report.html: tables and charts for a browser, which is written unless --no-html says otherwise
    Html,
    /// A .records.jsonl beside each result: a line per request as it ends
    Jsonl,
}

impl OutputFormat {
    /// Whether it is written case by case, and not once of the whole run.
    pub fn is_by_case(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}
