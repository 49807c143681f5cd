//! A run in GitHub's Markdown: a table of the cases, those that failed first, and of each its figures and
//! what became of its objectives. Pure.

use std::fmt::Write as _;

use super::figure::{Figure, LATENCIES};
use super::reasons::{failure, reasons};
use super::table;
use super::text::{number, plain};
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::report::{Ending, Report};

/// The name of the file.
pub const FILE: &str = "summary.md";
/// The statistics of a case's own table.
const STATISTICS: [Statistic; 6] = [
    Statistic::Mean,
    Statistic::StdDev,
    Statistic::Percentile(50.0),
    Statistic::Percentile(90.0),
    Statistic::Percentile(95.0),
    Statistic::Percentile(99.0),
];

/// The document, of `most` bytes at the most: what does not fit is left out, details first.
pub fn render(endings: &[Ending], most: usize) -> String {
    let ordered = by_weight(endings);
    let mut text = String::from(
        "### servebench\n\n| case | verdict | TTFT p50 (ms) | TTFT p99 (ms) | TPOT mean (ms) | tok/s |\n\
         | --- | --- | ---: | ---: | ---: | ---: |\n",
    );
    let end = "| … | | | | | |\n";
    for ending in &ordered {
        let row = row(ending);
        if most < text.len() + row.len() + end.len() {
            text.push_str(end);
            break;
        }
        text.push_str(&row);
    }
    for ending in &ordered {
        let block = details(ending);
        if text.len() + block.len() <= most {
            text.push_str(&block);
        }
    }
    text
}

/// Those that failed first.
pub fn by_weight(endings: &[Ending]) -> Vec<&Ending> {
    let mut ordered: Vec<&Ending> = endings.iter().collect();
    ordered.sort_by_key(|ending| match ending {
        Ending::Broken { .. } => 0,
        Ending::Measured(report) => match failure(report) {
            Some("slo" | "regression") => 0,
            Some(_) => 1,
            None => 2,
        },
        Ending::Ignored { .. } => 3,
    });
    ordered
}

fn row(ending: &Ending) -> String {
    let (case, verdict) = (code(ending.case()), ending.name());
    let Some(report) = ending.report() else { return format!("| {case} | {verdict} | | | | |\n") };
    let [p50, p99, tpot, rate] =
        [report.median_ttft_ms, report.p99_ttft_ms, report.mean_tpot_ms, report.output_throughput]
            .map(number);
    let mark = if table::unsupported(report, "ttft", "p99").is_some() { " \\*" } else { "" };
    format!("| {case} | {verdict} | {p50} | {p99}{mark} | {tpot} | {rate} |\n")
}

/// What there is to say of a case, folded away where it passed.
fn details(ending: &Ending) -> String {
    let passed = ending.name() == "pass";
    let (open, case) = (if passed { "" } else { " open" }, html(ending.case()));
    let mut text =
        format!("\n<details{open}><summary><code>{case}</code>: {}</summary>\n\n", ending.name());
    match ending {
        Ending::Measured(report) => {
            figures(&mut text, report);
            let lines: Vec<String> = match passed {
                true => report.servebench.slos.iter().map(table::slo_line).collect(),
                false => [met(report), reasons(report)].concat(),
            };
            block(&mut text, &lines);
        }
        Ending::Broken { message, .. } => block(&mut text, std::slice::from_ref(message)),
        Ending::Ignored { reason, .. } => block(&mut text, std::slice::from_ref(reason)),
    }
    text + "\n</details>\n"
}

/// The objectives of which [`reasons`] has nothing to say.
fn met(report: &Report) -> Vec<String> {
    let slos = report.servebench.slos.iter();
    slos.filter(|slo| slo.finding == "met" && !slo.undecided).map(table::slo_line).collect()
}

fn figures(text: &mut String, report: &Report) {
    let names = STATISTICS.map(|statistic| statistic.to_string());
    let _ = writeln!(text, "| ms | {} |", names.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(STATISTICS.len()));
    for latency in LATENCIES {
        let shown = |statistic| shown(report, Quantity::Latency(latency, statistic));
        let _ =
            writeln!(text, "| {} | {} |", latency_name(latency), STATISTICS.map(shown).join(" | "));
    }
    text.push_str("\n| throughput | |\n| --- | ---: |\n");
    for scalar in Scalar::ALL {
        let label = match scalar.unit() {
            "" => scalar.name().to_owned(),
            unit => format!("{} ({unit})", scalar.name()),
        };
        let figure = Figure::of(report, Quantity::Scalar(scalar));
        if let Some(value) = figure.value {
            let digits = if scalar.unit().is_empty() { 4 } else { 2 };
            let _ = writeln!(text, "| {} | {value:.digits$} |", label.replace('_', "\\_"));
        }
    }
    let _ = writeln!(
        text,
        "\n{} requests completed, {} failed, in {} s\n",
        report.completed,
        report.failed,
        number(Some(report.duration))
    );
}

fn latency_name(latency: Latency) -> String {
    latency.name().replace('_', "\\_")
}

fn shown(report: &Report, quantity: Quantity) -> String {
    number(Figure::of(report, quantity).value)
}

/// Lines in which nothing means anything to Markdown.
fn block(text: &mut String, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let lines: String = lines.iter().map(|line| plain(line) + "\n").collect();
    let mut fence = "```".to_owned();
    while lines.contains(&fence) {
        fence.push('`');
    }
    let _ = write!(text, "{fence}text\n{lines}{fence}\n");
}

/// A text as code, in a table too.
fn code(text: &str) -> String {
    let text = plain(text);
    let clear = !text.is_empty() && text.trim() == text && !text.contains(['`', '|', '\\']);
    if clear { format!("`{text}`") } else { format!("<code>{}</code>", html(&text)) }
}

/// A text in HTML in Markdown: every character that means something to either by its number.
fn html(text: &str) -> String {
    let mut html = String::new();
    for character in plain(text).chars() {
        match character {
            '/' | '-' | '.' => html.push(character),
            _ if character.is_ascii_punctuation() => {
                let _ = write!(html, "&#{};", u32::from(character));
            }
            _ => html.push(character),
        }
    }
    html
}
