//! A row per case that was measured, for spreadsheets and data frames. Pure.

use csv::{Terminator, WriterBuilder};

use super::figure::{self, Figure};
use super::text::plain_cell;
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::report::{Ending, Report, RequestRate};

/// The name of the file.
pub const FILE: &str = "results.csv";
/// The statistics of each latency.
const STATISTICS: [Statistic; 7] = [
    Statistic::Mean,
    Statistic::StdDev,
    Statistic::Percentile(50.0),
    Statistic::Percentile(90.0),
    Statistic::Percentile(95.0),
    Statistic::Percentile(99.0),
    Statistic::Percentile(99.9),
];

/// The table of a run, by RFC 4180 with lines that end in a line feed. What is missing is an empty field,
/// and so is a percentile that the sample cannot support.
///
/// # Errors
///
/// If the library cannot write it.
pub fn render(endings: &[Ending]) -> anyhow::Result<String> {
    let mut writer =
        WriterBuilder::new().terminator(Terminator::Any(b'\n')).from_writer(Vec::new());
    let quantities: Vec<Quantity> = quantities().collect();
    let words = IDENTITY.map(|(name, _)| name.to_owned());
    let counts = COUNTS.map(|(name, _)| name.to_owned());
    let figures = quantities.iter().map(|quantity| figure::name(*quantity, '_'));
    writer.write_record(words.into_iter().chain(counts).chain(figures))?;
    for report in endings.iter().filter_map(Ending::report) {
        let words = IDENTITY.map(|(_, word)| plain_cell(&word(report)));
        let counts = COUNTS.map(|(_, count)| cell(count(report)));
        let figures = quantities.iter().map(|quantity| cell(Figure::of(report, *quantity).value));
        writer.write_record(words.into_iter().chain(counts).chain(figures))?;
    }
    Ok(String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?)?)
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

type Word = fn(&Report) -> String;
type Count = fn(&Report) -> Option<f64>;

const IDENTITY: [(&str, Word); 10] = [
    ("case", |report| report.servebench.case.clone()),
    ("verdict", |report| report.verdict_name().to_owned()),
    ("date", |report| report.date.clone()),
    ("backend", |report| report.backend.clone()),
    ("kind", |report| report.servebench.plan.kind.clone()),
    ("model_id", |report| report.model_id.clone()),
    ("tokenizer_id", |report| report.tokenizer_id.clone().unwrap_or_default()),
    ("workload", |report| report.servebench.plan.workload.clone()),
    ("load", |report| report.servebench.plan.load.clone()),
    ("request_rate_per_s", |report| rate(report.request_rate)),
];

const COUNTS: [(&str, Count); 9] = [
    ("max_concurrency", |report| report.max_concurrency.map(|count| count as f64)),
    ("seed", |report| Some(report.servebench.plan.seed as f64)),
    ("trials", |report| Some(report.servebench.trials.len() as f64)),
    ("duration_s", |report| Some(report.duration)),
    ("requests", |report| Some(report.servebench.plan.requests_counted as f64)),
    ("completed", |report| Some(report.completed as f64)),
    ("failed", |report| Some(report.failed as f64)),
    ("total_input_tokens", |report| report.total_input_tokens.map(|count| count as f64)),
    ("total_output_tokens", |report| report.total_output_tokens.map(|count| count as f64)),
];

fn rate(RequestRate(per_s): RequestRate) -> String {
    if per_s.is_infinite() { "inf".to_owned() } else { per_s.to_string() }
}

fn quantities() -> impl Iterator<Item = Quantity> {
    let scalars = Scalar::ALL.into_iter().map(Quantity::Scalar);
    scalars.chain(Latency::ALL.into_iter().flat_map(|latency| {
        STATISTICS.into_iter().map(move |statistic| Quantity::Latency(latency, statistic))
    }))
}
