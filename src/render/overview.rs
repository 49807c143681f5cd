//! All cases of a run below each other, for a terminal: as wide as it is, in colour where that is wanted.

use anstyle::{AnsiColor, Style};

use super::styled::{Flush, GAP, Styled};
use super::text::number;
use crate::report::Report;
use crate::verdict::Verdict;

/// Characters of a sparkline, and its cells.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const CELLS: usize = 16;

/// A column: its head and its cells.
struct Column {
    head: Styled,
    cells: Vec<Styled>,
    flush: Flush,
}

/// The cases of a run, a line each: the verdict, the main figures, the largest change against what each was
/// compared with, and the distribution of the TTFTs, all on one logarithmic axis. Columns that do not fit
/// into `width` are left out from the right. Empty for fewer than two cases. Colours are ANSI escapes.
pub fn render(reports: &[&Report], width: usize) -> String {
    if reports.len() < 2 {
        return String::new();
    }
    let mut columns = vec![
        Column::of("case", reports, |report| Styled::plain(report.servebench.case.clone())),
        Column::of("verdict", reports, verdict),
        Column::numbers("TTFT p50", reports, |report| report.median_ttft_ms),
        Column::numbers("p99 ms", reports, |report| report.p99_ttft_ms),
        Column::numbers("TPOT ms", reports, |report| report.mean_tpot_ms),
        Column::numbers("req/s", reports, |report| report.request_throughput),
        Column::numbers("tok/s", reports, |report| report.output_throughput),
        Column::of("failed", reports, failed).flush_right(),
    ];
    if reports.iter().any(|report| report.servebench.comparison.is_some()) {
        columns.push(Column::of("change", reports, change));
    }
    columns.extend(distributions(reports));
    let mut room = width;
    let fitting = columns.iter().take_while(|column| {
        let fits = column.width() <= room;
        room = room.saturating_sub(column.width() + GAP.len());
        fits
    });
    // The names and the verdicts are there however narrow it is.
    let shown = fitting.count().max(2);
    let mut text = String::new();
    for row in 0..=reports.len() {
        let mut line = String::new();
        for column in &columns[..shown] {
            column.write(&mut line, row.checked_sub(1));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

impl Column {
    fn of(head: &str, reports: &[&Report], cell: impl Fn(&Report) -> Styled) -> Self {
        let cells = reports.iter().map(|report| cell(report)).collect();
        Self { head: Styled::bold(head), cells, flush: Flush::Left }
    }

    fn numbers(head: &str, reports: &[&Report], value: impl Fn(&Report) -> Option<f64>) -> Self {
        let cell = |report: &Report| Styled::plain(number(value(report)));
        Self::of(head, reports, cell).flush_right()
    }

    fn flush_right(self) -> Self {
        Self { flush: Flush::Right, ..self }
    }

    fn width(&self) -> usize {
        self.cells.iter().chain([&self.head]).map(Styled::width).max().unwrap_or(0)
    }

    /// Writes the cell of a row, or the head.
    fn write(&self, line: &mut String, row: Option<usize>) {
        let cell = row.map_or(&self.head, |row| &self.cells[row]);
        cell.write(line, self.width(), self.flush);
    }
}

fn colour(colour: AnsiColor) -> Style {
    colour.on_default()
}

fn verdict(report: &Report) -> Styled {
    let style = report.servebench.verdict.map_or(colour(AnsiColor::Yellow), of_verdict);
    Styled { text: report.verdict_name().to_owned(), style }
}

fn of_verdict(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Pass => colour(AnsiColor::Green),
        Verdict::SloMissed | Verdict::Regressed => colour(AnsiColor::Red).bold(),
        Verdict::Invalid => colour(AnsiColor::Yellow),
    }
}

fn failed(report: &Report) -> Styled {
    let style = if report.failed == 0 { Style::new() } else { colour(AnsiColor::Red) };
    Styled { text: report.failed.to_string(), style }
}

/// The change that matters most: a regression, else the largest one.
fn change(report: &Report) -> Styled {
    let metrics = report.servebench.comparison.iter().flat_map(|comparison| &comparison.metrics);
    let most = metrics.max_by(|one, other| {
        let weight = |metric: &&crate::compare::Compared| {
            (metric.outcome == "regressed", metric.effect_percent.abs())
        };
        let (one, other) = (weight(one), weight(other));
        one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
    });
    let Some(metric) = most else { return Styled::plain("n/a") };
    let style = match metric.outcome.as_str() {
        "regressed" => colour(AnsiColor::Red),
        "improved" => colour(AnsiColor::Green),
        _ => Style::new(),
    };
    let text = format!("{} {:+.1} % {}", metric.metric, metric.effect_percent, metric.outcome);
    Styled { text, style }
}

/// A sparkline for each case, from the shortest TTFT of all cases to the longest.
fn distributions(reports: &[&Report]) -> Option<Column> {
    let bars = |report: &Report| report.servebench.latencies.get("ttft")?.bars.clone();
    let all: Vec<_> = reports.iter().map(|report| bars(report)).collect();
    let edges = || all.iter().flatten().flat_map(|bars| &bars.edges_ms).copied();
    let (low, high) = (edges().reduce(f64::min)?, edges().reduce(f64::max)?);
    let spark = |bars: &crate::charts::Bars| {
        let mut cells = [0.0; CELLS];
        for (pair, &count) in bars.edges_ms.windows(2).zip(&bars.counts) {
            let middle = (pair[0] * pair[1]).sqrt();
            let place = (middle / low).ln() / (high / low).ln().max(f64::MIN_POSITIVE);
            cells[((place * CELLS as f64) as usize).min(CELLS - 1)] += count as f64;
        }
        sparkline(&cells)
    };
    let cells = all.iter().map(|bars| Styled::plain(bars.as_ref().map(spark).unwrap_or_default()));
    Some(Column {
        head: Styled::bold(&format!("TTFT {low:.1} … {high:.1} ms")),
        cells: cells.collect(),
        flush: Flush::Left,
    })
}

/// A character for each value, none for 0.
fn sparkline(values: &[f64]) -> String {
    let most = values.iter().copied().fold(0.0, f64::max);
    let level = |value: f64| match value {
        0.0 => ' ',
        _ => LEVELS[((value / most * LEVELS.len() as f64) as usize).min(LEVELS.len() - 1)],
    };
    values.iter().map(|value| level(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn reports() -> Vec<Report> {
        let plan = r#"
            defaults = { requests = 20, slo = ["ttft.p50 < 1s"] }
            backend = [{ name = "sim", kind = "sim", preset = "large" }]
            workload = [{ name = "w", path = "fixtures/sharegpt.json", output_tokens = 4 }]
            bench = [{ loads = ["2conc", "8conc"] }]
            override = [{ cases = ["*@8conc"], slo = ["ttft.p50 < 1us"] }]
        "#;
        let cases = Plan::parse(plan).unwrap().cases;
        cases.iter().map(|case| crate::measure(case).unwrap()).collect()
    }

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn each_case_has_a_line_as_wide_as_the_terminal_allows() {
        let reports = reports();
        let reports: Vec<&Report> = reports.iter().collect();
        let wide = stripped(&render(&reports, 200));
        let lines: Vec<&str> = wide.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("case ") && lines[0].contains("TTFT p50"), "{wide}");
        assert!(lines[1].starts_with("sim/sim/w@2conc  "), "{wide}");
        let median = format!("{:.2}", reports[0].median_ttft_ms.unwrap());
        assert!(lines[1].contains("pass") && lines[1].contains(&median), "{wide}");
        assert!(lines[2].contains("slo missed") && lines[2].contains('█'), "{wide}");
        for width in [80, 60, 40] {
            let text = stripped(&render(&reports, width));
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{width}: {text}");
        }
        let narrow = stripped(&render(&reports, 1));
        assert!(narrow.contains("sim/sim/w@8conc  slo missed"), "{narrow}");
    }

    #[test]
    fn a_verdict_has_its_colour_and_a_single_case_no_overview() {
        let reports = reports();
        let text = render(&reports.iter().collect::<Vec<_>>(), 200);
        assert!(
            text.contains("\u{1b}[32mpass") && text.contains("\u{1b}[31mslo missed"),
            "{text:?}"
        );
        assert_eq!(render(&[&reports[0]], 200), "");
    }

    #[test]
    fn a_sparkline_has_a_character_for_each_value() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0]), " ▂▅█");
        assert_eq!(sparkline(&[0.0, 0.0]), "  ");
    }
}
