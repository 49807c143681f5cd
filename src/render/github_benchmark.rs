//! What github-action-benchmark reads by its tools `customSmallerIsBetter` and `customBiggerIsBetter`: it
//! knows one direction per file. Pure.

use serde::Serialize;

use super::figure::{self, Figure};
use crate::metric::{Quantity, Scalar};
use crate::report::{Ending, Report};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Latencies.
    Smaller,
    /// Throughputs.
    Bigger,
}

impl Direction {
    /// The name of the file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Smaller => "smaller-is-better.json",
            Self::Bigger => "bigger-is-better.json",
        }
    }
}

#[derive(Serialize)]
struct Entry {
    name: String,
    unit: &'static str,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    extra: String,
}

/// The figures of one direction, of every case that was measured to its end; `None` where there are none,
/// since the action takes no empty list. What is missing is left out: it would read `null` as 0.
///
/// # Errors
///
/// If a number cannot be written.
pub fn render(direction: Direction, endings: &[Ending]) -> serde_json::Result<Option<String>> {
    let whole =
        endings.iter().filter_map(Ending::report).filter(|report| !report.servebench.partial);
    let entries: Vec<Entry> = whole.flat_map(|report| entries(report, direction)).collect();
    if entries.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_string_pretty(&entries)? + "\n"))
}

fn entries(report: &Report, direction: Direction) -> impl Iterator<Item = Entry> {
    let wanted = move |figure: &Figure| match figure.quantity {
        // From 0 to any other value is an infinite change to the action.
        Quantity::Scalar(Scalar::ErrorRatio) => false,
        quantity => quantity.is_better_lower() == (direction == Direction::Smaller),
    };
    Figure::main(report).filter(wanted).filter_map(|figure| {
        Some(Entry {
            name: format!("{} {}", report.servebench.case, figure.quantity),
            // The action shows it behind the number, and a share has none.
            unit: match figure::unit(figure.quantity) {
                "" => "ratio",
                unit => unit,
            },
            value: figure.value?,
            range: figure.interval.map(|[low, high]| format!("± {}", (high - low) / 2.0)),
            extra: extra(report),
        })
    })
}

/// What the tooltip of a chart says.
fn extra(report: &Report) -> String {
    let own = &report.servebench;
    format!(
        "completed: {} of {}\ntrials: {}\nverdict: {}",
        report.completed,
        own.plan.requests_counted,
        own.trials.len(),
        report.verdict_name()
    )
}
