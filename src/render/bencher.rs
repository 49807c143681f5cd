//! Bencher Metric Format, as `bencher run --adapter json --file` reads it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figure::{self, Figure};
use super::text::plain;
use crate::report::{Ending, Report};

/// The name of the file.
pub const FILE: &str = "bmf.json";
/// The longest name that Bencher takes, bytes.
const LONGEST_NAME: usize = 1024;

#[derive(Serialize)]
struct Metric {
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_value: Option<f64>,
}

/// The measures of every case that was measured to its end, by case and measure. The unit is in the
/// measure's name, since Bencher makes unknown measures without one.
///
/// # Errors
///
/// If a number cannot be written.
pub fn render(endings: &[Ending]) -> serde_json::Result<String> {
    let whole =
        endings.iter().filter_map(Ending::report).filter(|report| !report.servebench.partial);
    let cases: BTreeMap<String, BTreeMap<String, Metric>> =
        whole.map(|report| (name(report), metrics(report))).collect();
    Ok(serde_json::to_string_pretty(&cases)? + "\n")
}

fn name(report: &Report) -> String {
    let mut name = plain(&report.servebench.case);
    while LONGEST_NAME < name.len() {
        name.pop();
    }
    name
}

fn metrics(report: &Report) -> BTreeMap<String, Metric> {
    let known = Figure::main(report).filter_map(|figure| {
        let (lower_value, upper_value) = figure.interval.map(|[low, high]| (low, high)).unzip();
        let metric = Metric { value: figure.value?, lower_value, upper_value };
        Some((figure::name(figure.quantity, '-'), metric))
    });
    known.collect()
}
