//! The result table of MAX's `benchmark_serving.py`, line for line, and below it what became of each
//! objective. Pure.

use std::fmt::Write as _;

use super::text::{number, plain};
use crate::compare::{Change, Compared, Comparison};
use crate::render::telemetry;
use crate::report::{Report, SearchReport, SloReport, TurnReport};
use crate::self_check::SelfCheck;
use crate::verdict::Verdict;

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
    line(text, "Total input tokens:", &whole(report.total_input_tokens));
    line(text, "Total generated tokens:", &whole(report.total_output_tokens));
    line(text, "Request throughput (req/s):", &number(report.request_throughput));
    line(text, "Input token throughput (tok/s):", &number(report.input_throughput));
    line(text, "Output token throughput (tok/s):", &number(report.output_throughput));
    let [ttft, tpot, itl] = [
        [report.mean_ttft_ms, report.median_ttft_ms, report.p99_ttft_ms],
        [report.mean_tpot_ms, report.median_tpot_ms, report.p99_tpot_ms],
        [report.mean_itl_ms, report.median_itl_ms, report.p99_itl_ms],
    ];
    for (title, label, values, latency) in [
        ("Time to First Token", "TTFT", ttft, "ttft"),
        ("Time per Output Token (excl. 1st token)", "TPOT", tpot, "tpot"),
        ("Inter-token Latency", "ITL", itl, "chunk_gap"),
    ] {
        heading(text, title, '-');
        let statistics = [("Mean", "mean"), ("Median", "p50"), ("P99", "p99")];
        for ((statistic, name), value) in statistics.into_iter().zip(values) {
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
    line(text, "Max input tokens:", &whole(tokens.max_input));
    line(text, "Max output tokens:", &whole(tokens.max_output));
    line(text, "Max total tokens:", &whole(tokens.max_total));
    if let Some([utilization, peak, available]) = telemetry::gpu_figures(report) {
        heading(text, "GPU Stats", '-');
        line(text, "GPU Utilization (%):", &number(utilization));
        line(text, "Peak GPU Memory Used (MiB):", &number(peak));
        line(text, "GPU Memory Available (MiB):", &number(available));
    }
    heading(text, "", '=');
}

/// Why the sample is too small for the statistic; `None` where it is not.
pub(super) fn unsupported<'a>(
    report: &'a Report,
    latency: &str,
    statistic: &str,
) -> Option<&'a str> {
    report.servebench.latencies.get(latency)?.statistics.get(statistic)?.reason.as_deref()
}

fn footnotes(text: &mut String, report: &Report, marked: &[String]) {
    for mark in marked {
        push(text, &format!("* {mark}"));
    }
    let servebench = &report.servebench;
    if servebench.plan.arrivals.is_some() && report.max_concurrency.is_some() {
        // What a user felt who came on time, the wait for a place included.
        let mean = |latency: &str| {
            let figure = servebench.latencies.get(latency)?.statistics.get("mean")?;
            figure.estimate_ms
        };
        let [ttft, e2e] = ["scheduled_ttft", "scheduled_e2e"].map(|name| number(mean(name)));
        push(text, &format!("note     from the schedule: mean TTFT {ttft} ms, mean E2E {e2e} ms"));
    }
    if let Some(search) = &servebench.search {
        search_lines(text, search);
    }
    if let Some(comparison) = &servebench.comparison {
        comparison_lines(text, comparison);
    }
    for change in &servebench.history_changes {
        push(text, &change_line(change));
    }
    if let Some(steady_state) = &servebench.steady_state {
        push(text, &steady_state.line());
    }
    for turn in servebench.turns.iter().flatten() {
        push(text, &turn_line(turn));
    }
    if let Some(check) = &servebench.self_check {
        push(text, &check_line(check));
    }
    for told in telemetry::lines(report) {
        push(text, &told);
    }
    for slo in &servebench.slos {
        push(text, &slo_line(slo));
    }
    for (reason, failures) in &servebench.failures {
        push(
            text,
            &format!("failed   {reason}: {}, such as: {}", failures.count, failures.example),
        );
    }
    for doubt in &servebench.client.doubts {
        push(text, &doubt_line(report, doubt));
    }
    for note in &servebench.client.notes {
        push(text, &format!("note     {note}"));
    }
    for warning in &servebench.warnings {
        push(text, &format!("warning  {warning}"));
    }
    let verdict =
        servebench.verdict.map_or("none: the run was interrupted", |verdict| verdict.name());
    push(text, &format!("verdict  {verdict}: {}", servebench.case));
}

/// A doubt in the figures of a result: what makes it invalid, unless it failed all the same.
pub fn doubt_line(report: &Report, doubt: &str) -> String {
    match report.servebench.verdict {
        Some(Verdict::Invalid) => format!("invalid  {doubt}"),
        _ => format!("doubt    {doubt}"),
    }
}

/// A case whose saved result was compared with another.
pub fn comparison(case: &str, comparison: &Comparison) -> String {
    let mut text = String::new();
    push(&mut text, &format!("case     {case}"));
    comparison_lines(&mut text, comparison);
    text
}

/// A change of level in the history of a case.
fn change_line(change: &Change) -> String {
    let Change { metric, since, before, after, percent, worse } = change;
    let way = if *worse { "worse" } else { "better" };
    format!(
        "history  {metric} is {way} since {since}: {percent:+.1} %, from {before:.2} to {after:.2}"
    )
}

/// What became of each metric against what it was compared with.
fn comparison_lines(text: &mut String, comparison: &Comparison) {
    let Comparison { kind, against, pairs, second_round, .. } = comparison;
    let unit = if *kind == "baseline" { "sessions" } else { "pairs of trials" };
    let second = if *second_round { ", in two rounds" } else { "" };
    push(text, &format!("{kind:<8} against {against}, by {pairs} {unit}{second}"));
    for metric in &comparison.metrics {
        push(text, &compared_line(metric));
    }
    for reason in &comparison.not_compared {
        push(text, &format!("change   not compared: {reason}"));
    }
    let visible = comparison.metrics.iter().filter_map(|metric| metric.smallest_visible_percent);
    if let (true, Some(worst)) = (*kind == "aa", visible.map(f64::abs).reduce(f64::max)) {
        push(
            text,
            &format!(
                "noise    changes from {worst:.1} % on can be found: min_effect = \"{worst:.0}%\""
            ),
        );
    }
}

/// One metric, now and before.
pub fn compared_line(metric: &Compared) -> String {
    let mut line = format!(
        "change   {}{}: {} {:+.1} %",
        metric.outcome,
        if metric.advisory { " (advisory)" } else { "" },
        metric.metric,
        metric.effect_percent
    );
    if let Some([low, high]) = metric.interval_percent {
        let _ = write!(line, " (95 %: {low:+.1} … {high:+.1})");
    }
    let _ = write!(line, ", from {:.2} to {:.2}", metric.before, metric.now);
    if let Some(visible) = metric.smallest_visible_percent {
        let _ = write!(line, "; {visible:+.1} % could have been seen");
    }
    line
}

/// What a search found, and its steps.
fn search_lines(text: &mut String, search: &SearchReport) {
    let rate =
        |per_s: Option<f64>| per_s.map_or_else(|| "n/a".to_owned(), |per_s| per_s.to_string());
    for step in &search.steps {
        let verdict = step.verdict.map_or("interrupted", |verdict| verdict.name());
        let longer = step.longer.as_ref().map(|longer| format!(" ({longer})")).unwrap_or_default();
        push(
            text,
            &format!(
                "step     {:>10}: {verdict}, {} req/s, {} tok/s, TTFT p50 {} ms, p99 {} ms, TPOT {} ms, \
                 took {:.1} s{longer}",
                step.load,
                number(step.request_throughput),
                number(step.output_throughput),
                number(step.ttft_ms_p50),
                number(step.ttft_ms_p99),
                number(step.tpot_ms_mean),
                step.duration_s
            ),
        );
    }
    if let Some(knee) = search.knee_per_s {
        push(text, &knee_line(search, knee));
        let of_rates = || search.steps.iter().filter(|step| step.rate_per_s.is_some());
        let judged = || of_rates().filter(|step| step.judged);
        let highest = judged().filter_map(|step| step.rate_per_s).reduce(f64::max);
        push(
            text,
            &format!(
                "judged   by the {} steps up to {} req/s{}",
                judged().count(),
                rate(highest),
                match of_rates().count() - judged().count() {
                    0 => String::new(),
                    beyond => format!(
                        ", with which the server kept up; the {beyond} beyond are shown, and make the case \
                         invalid where they are"
                    ),
                }
            ),
        );
    }
    let upper = match search.failed_from_per_s {
        Some(per_s) => format!("they fail at {per_s} req/s{}", why_failed(search, per_s)),
        None => "no rate was tried at which they fail".to_owned(),
    };
    let found = rate(search.max_goodput_per_s);
    push(text, &format!("found    the objectives hold up to {found} req/s; {upper}"));
}

/// Where the server ceases to keep up.
fn knee_line(search: &SearchReport, knee: [Option<f64>; 2]) -> String {
    match knee {
        [Some(below), Some(above)] => format!("knee     between {below} and {above} req/s"),
        [None, Some(above)] => {
            format!("knee     below {above} req/s, the lowest rate: the server kept up with none")
        }
        [Some(below), None] => format!(
            "knee     not reached: at {below} req/s the server still kept up, and the curve ends before \
             saturation"
        ),
        [None, None] => format!(
            "knee     not known: of {} steps none says whether the server kept up; make them longer than an \
             answer takes",
            search.steps.len()
        ),
    }
}

/// How the last step at a rate ended.
fn why_failed(search: &SearchReport, per_s: f64) -> String {
    let step = search.steps.iter().rfind(|step| step.rate_per_s == Some(per_s));
    let why = step.and_then(|step| Some((step.verdict?, step.reasons.join("; "))));
    why.map(|(verdict, reasons)| format!(" ({}: {reasons})", verdict.name())).unwrap_or_default()
}

/// What came of one turn of the conversations.
fn turn_line(turn: &TurnReport) -> String {
    let TurnReport { turn: place, requests, failed, ttft_ms, .. } = turn;
    let mut line = format!(
        "turn {place:<3} {requests} requests, TTFT {} ms (mean), {} ms (p99), TPOT {} ms, {} input tokens",
        number(ttft_ms.mean),
        number(ttft_ms.p99),
        number(turn.tpot_ms.mean),
        whole(turn.mean_input_tokens.map(f64::round)),
    );
    if let Some(share) = turn.cached_share {
        let _ = write!(line, ", {:.0} % cached", share * 100.0);
    }
    if 0 < *failed {
        let _ = write!(line, ", {failed} failed");
    }
    line
}

/// What the client adds, by its check.
fn check_line(check: &SelfCheck) -> String {
    let SelfCheck { streams, gap_ms, from_cache, .. } = check;
    let (ttft_p50, ttft_p99) = (check.added_ttft_ms_p50, check.added_ttft_ms_p99);
    let gap_p99 = check.chunk_gap_error_ms_p99;
    let when = if *from_cache { ", checked before" } else { "" };
    format!(
        "client   adds {ttft_p50:.2} ms (p50), {ttft_p99:.2} ms (p99) to a TTFT and {gap_p99:.2} ms (p99) \
         to a chunk gap on this machine, at {streams} streams of an event every {gap_ms} ms{when}"
    )
}

/// One objective: limit, value, margin and what follows.
pub fn slo_line(slo: &SloReport) -> String {
    let at = slo.step.as_ref().map(|step| format!(" at {step}")).unwrap_or_default();
    let mut line = format!("slo      {}: {}{at} ({}", slo.finding, slo.slo, slo.shown);
    if let Some(margin) = slo.margin_ratio {
        let _ = write!(line, ", margin {:+.1} %", margin * 100.0);
    }
    if let Some(effective) = slo.effective_requests {
        let plural = if effective.round() == 1.0 { "" } else { "s" };
        let _ = write!(line, ", worth {effective:.0} independent request{plural}");
    }
    line.push(')');
    if slo.undecided {
        line.push_str("; undecided");
        match (slo.least_requests, slo.more_requests_needed) {
            (Some(least), _) => {
                let _ = write!(line, ": needs {least} requests");
            }
            (None, Some(more)) => {
                let _ = write!(line, ": about {more} more requests would settle it");
            }
            (None, None) if slo.interval.is_none() => {
                line.push_str(": one trial says too little of the noise; set `trials`");
            }
            (None, None) => {}
        }
    }
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

/// Adds a line; a server may have sent what would split it.
fn push(text: &mut String, line: &str) {
    text.push_str(&plain(line));
    text.push('\n');
}

fn whole(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed};
    use crate::render::tests::report;
    use crate::summary::Counted;
    use crate::summary::tests::counted;

    fn rendered(requests: &[Counted]) -> String {
        render(&report("sharegpt", requests))
    }

    #[test]
    fn the_table_is_that_of_max_line_for_line() {
        let requests = vec![counted(completed(&[60, 70, 80]), 3); 100];
        let text = rendered(&requests);
        let expected = "\
============ Serving Benchmark Result ============
Successful requests:                     100
Failed requests:                         0
Benchmark duration (s):                  0.07
Total input tokens:                      1000
Total generated tokens:                  300
Request throughput (req/s):              1333.33
Input token throughput (tok/s):          13333.33
Output token throughput (tok/s):         4000.00
---------------Time to First Token----------------
Mean TTFT (ms):                          50.00
Median TTFT (ms):                        50.00
P99 TTFT (ms):                           50.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          10.00
Median TPOT (ms):                        10.00
P99 TPOT (ms):                           10.00
---------------Inter-token Latency----------------
Mean ITL (ms):                           10.00
Median ITL (ms):                         10.00
P99 ITL (ms):                            10.00
-------------------Token Stats--------------------
Max input tokens:                        10
Max output tokens:                       3
Max total tokens:                        13
==================================================
client   adds 0.05 ms (p50), 0.21 ms (p99) to a TTFT and 0.01 ms (p99) to a chunk gap on this machine, at 100 streams of an event every 10 ms
slo      met: ttft.p50 < 60ms (50ms, margin +16.7 %, worth 100 independent requests)
slo      missed: tpot.p99 < 1ms (10ms, margin -900.0 %, worth 100 independent requests)
slo      met: error_ratio == 0 (0)
warning  a word in two lines
verdict  slo missed: sim/sim/sharegpt@inf
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_missing_is_not_zero_and_what_is_unsupported_is_marked() {
        let text = rendered(&[counted(failed(Failure::Timeout), 0)]);
        for line in [
            "Mean TTFT (ms):                          n/a",
            "failed   timeout: 1, such as: it said timeout",
            "slo      missed: ttft.p50 < 60ms (infinite, worth 1 independent request); undecided: needs 5 requests",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let text = rendered(&vec![counted(completed(&[60, 70]), 2); 50]);
        for line in [
            "P99 TTFT (ms):                           50.00 *",
            "* P99 TTFT: p99 needs 100 samples and there are 50",
            "slo      unknown: tpot.p99 < 1ms (10ms, margin -900.0 %): undecided: a limit on p99 needs \
             299 requests and there are 50",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
