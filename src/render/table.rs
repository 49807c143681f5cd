//! The result table of MAX's `benchmark_serving.py`, line for line, and below it what became of each
//! objective. Pure.

use std::fmt::Write as _;

use crate::report::{Report, SloReport};

const WIDTH: usize = 50;
/// Behind a figure that the sample cannot support.
const MARK: &str = " *";

/// The text of one case's result, in whole lines.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let mut marked = Vec::new();
    table(&mut text, report, &mut marked);
    footnotes(&mut text, report, &marked);
    text
}

fn table(text: &mut String, report: &Report, marked: &mut Vec<String>) {
    heading(text, " Serving Benchmark Result ", '=');
    line(text, "Successful requests:", &report.completed);
    line(text, "Failed requests:", &report.failed);
    line(text, "Benchmark duration (s):", &number(Some(report.duration)));
    line(text, "Total input tokens:", &report.total_input_tokens);
    line(text, "Total generated tokens:", &report.total_output_tokens);
    line(text, "Request throughput (req/s):", &number(report.request_throughput));
    line(text, "Input token throughput (tok/s):", &number(report.input_throughput));
    line(text, "Output token throughput (tok/s):", &number(report.output_throughput));
    for (title, label, key, latency) in [
        ("Time to First Token", "TTFT", "ttft", "ttft"),
        ("Time per Output Token (excl. 1st token)", "TPOT", "tpot", "tpot"),
        ("Inter-token Latency", "ITL", "itl", "chunk_gap"),
    ] {
        heading(text, title, '-');
        for (statistic, name, prefix) in
            [("Mean", "mean", "mean"), ("Median", "p50", "median"), ("P99", "p99", "p99")]
        {
            let value = report.latencies.get(&format!("{prefix}_{key}_ms")).copied().flatten();
            let mut shown = number(value);
            if value.is_some()
                && let Some(reason) = unsupported(report, latency, name)
            {
                shown.push_str(MARK);
                marked.push(format!("{statistic} {label}: {reason}"));
            }
            line(text, &format!("{statistic} {label} (ms):"), &shown);
        }
    }
    heading(text, "Token Stats", '-');
    let tokens = &report.servebench.tokens;
    line(text, "Max input tokens:", &tokens.max_input);
    line(text, "Max output tokens:", &tokens.max_output);
    line(text, "Max total tokens:", &tokens.max_total);
    heading(text, "", '=');
}

/// Why the sample is too small for the statistic; `None` where it is not.
fn unsupported<'a>(report: &'a Report, latency: &str, statistic: &str) -> Option<&'a str> {
    report.servebench.latencies.get(latency)?.statistics.get(statistic)?.reason.as_deref()
}

fn footnotes(text: &mut String, report: &Report, marked: &[String]) {
    for mark in marked {
        push(text, &format!("* {mark}"));
    }
    let servebench = &report.servebench;
    for slo in &servebench.slos {
        push(text, &slo_line(slo));
    }
    for (reason, failures) in &servebench.failures {
        push(
            text,
            &format!("failed   {reason}: {}, such as: {}", failures.count, failures.example),
        );
    }
    for warning in &servebench.warnings {
        push(text, &format!("warning  {warning}"));
    }
    let verdict =
        servebench.verdict.map_or("none: the run was interrupted", |verdict| verdict.name());
    push(text, &format!("verdict  {verdict}: {}", servebench.case));
}

/// One objective: limit, value, margin and what follows.
pub fn slo_line(slo: &SloReport) -> String {
    let mut line = format!("slo      {}: {} ({}", slo.finding, slo.slo, slo.shown);
    if let Some(margin) = slo.margin_ratio {
        let side = if margin < 0.0 { "beyond" } else { "within" };
        let _ = write!(line, ", {:.1} % {side} the limit", margin.abs() * 100.0);
    }
    line.push(')');
    if let Some(reason) = &slo.reason {
        let _ = write!(line, ": {reason}");
    }
    line
}

fn heading(text: &mut String, title: &str, fill: char) {
    let left = WIDTH.saturating_sub(title.chars().count()) / 2;
    let right = WIDTH - title.chars().count() - left;
    let rule = |width: usize| fill.to_string().repeat(width);
    push(text, &format!("{}{title}{}", rule(left), rule(right)));
}

fn line(text: &mut String, label: &str, value: &dyn std::fmt::Display) {
    push(text, &format!("{label:<40} {value}"));
}

/// Adds a line; a line break inside would split it, and a server may have sent one.
fn push(text: &mut String, line: &str) {
    text.push_str(&line.replace(['\n', '\r'], " "));
    text.push('\n');
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.2}"))
}
