//! Results next to each other, in the style of critcmp: of each metric the value, and how many times worse it
//! is than the best of its row. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::figure::{self, Figure};
use super::styled::{Flush, GAP, Styled};
use super::text::plain;
use crate::metric::Quantity;
use crate::report::Report;

/// The results of one column.
#[derive(Clone, Debug)]
pub struct Side {
    /// Above the column.
    pub name: String,
    /// One a case.
    pub reports: Vec<Report>,
}

/// What is shown, and how.
#[derive(Clone, Debug)]
pub struct Look {
    /// The metrics, in their order.
    pub metrics: Vec<Quantity>,
    /// Rows in which nothing is worse than the best by this share are left out.
    pub threshold: Option<f64>,
    /// Columns of the terminal; `None` where there is none.
    pub width: Option<usize>,
}

/// The table, in whole lines. Colours are ANSI escapes.
pub fn render(sides: &[Side], look: &Look) -> String {
    let table = Table::new(sides);
    let blocks: Vec<Block> =
        table.cases.iter().filter_map(|case| table.block(case, look)).collect();
    if blocks.is_empty() {
        return match look.threshold {
            Some(share) if !table.cases.is_empty() => {
                let percent = (share * 1e4).round() / 1e2;
                format!("nothing is worse than the best by {percent} % or more\n")
            }
            _ => "there is no result to compare\n".to_owned(),
        };
    }
    let mut text = wide(&table, &blocks, look)
        .unwrap_or_else(|| blocks.iter().map(|block| block.tall(&table)).collect());
    for note in table.cases.iter().filter_map(|case| table.difference(case)) {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Results by case and column.
struct Table<'a> {
    names: Vec<String>,
    cases: BTreeSet<String>,
    reports: BTreeMap<(String, usize), &'a Report>,
}

impl<'a> Table<'a> {
    /// Cases are lined up by their names; where no two sides have one in common, by what comes behind the
    /// backend, and the backends of a single side are then its columns. Where that lines up none, they stay
    /// by their names.
    fn new(sides: &'a [Side]) -> Self {
        let all = || {
            let sides = sides.iter().enumerate();
            sides.flat_map(|(side, of)| of.reports.iter().map(move |report| (side, report)))
        };
        let names: Vec<String> = sides.iter().map(|side| plain(&side.name)).collect();
        let by_case =
            Self::of(names.clone(), all().map(|(side, report)| (case(report), side, report)));
        if by_case.lines_up() {
            return by_case;
        }
        let backends: BTreeSet<&str> = all().map(|(_, report)| report.backend.as_str()).collect();
        let backend = |report: &Report| backends.range(..report.backend.as_str()).count();
        let by_work = match sides {
            [_] => Self::of(
                backends.iter().map(|name| plain(name)).collect(),
                all().map(|(_, report)| (work(report), backend(report), report)),
            ),
            _ => Self::of(names, all().map(|(side, report)| (work(report), side, report))),
        };
        // Two of one side may have come to one place.
        let is_whole = by_work.reports.len() == by_case.reports.len();
        if is_whole && by_work.lines_up() { by_work } else { by_case }
    }

    /// Whether a case has more than one result.
    fn lines_up(&self) -> bool {
        self.cases.len() < self.reports.len()
    }

    fn of(names: Vec<String>, reports: impl Iterator<Item = (String, usize, &'a Report)>) -> Self {
        let reports: BTreeMap<(String, usize), &Report> =
            reports.map(|(case, column, report)| ((case, column), report)).collect();
        Self { names, cases: reports.keys().map(|(case, _)| case.clone()).collect(), reports }
    }

    fn report(&self, case: &str, column: usize) -> Option<&'a Report> {
        self.reports.get(&(case.to_owned(), column)).copied()
    }

    /// The rows of a case; `None` where the threshold leaves none.
    fn block(&self, case: &str, look: &Look) -> Option<Block> {
        let reports: Vec<Option<&Report>> =
            (0..self.names.len()).map(|column| self.report(case, column)).collect();
        let verdict = |report: &Option<&Report>| report.map_or("-", Report::verdict_name);
        let rows: Vec<Row> = look
            .metrics
            .iter()
            .map(|metric| Row::new(*metric, &reports))
            .filter(|row| look.threshold.is_none_or(|share| 1.0 + share <= row.worst()))
            .collect();
        (!rows.is_empty()).then(|| Block {
            case: case.to_owned(),
            verdicts: reports.iter().map(verdict).collect(),
            rows,
        })
    }

    /// That the results of a case are not of the same work, if they are not.
    fn difference(&self, case: &str) -> Option<String> {
        let hash = |report: &Report| report.servebench.plan.workload_hash.clone();
        let hashes = (0..self.names.len()).filter_map(|column| self.report(case, column)).map(hash);
        let differ = 1 < hashes.collect::<BTreeSet<_>>().len();
        differ
            .then(|| format!("{case}: the prompts or the lengths of the answers are not the same"))
    }
}

fn case(report: &Report) -> String {
    plain(&report.servebench.case)
}

/// The case's name without the backend.
fn work(report: &Report) -> String {
    let case = case(report);
    case.split_once('/').map_or(case.clone(), |(_, work)| work.to_owned())
}

/// One case.
struct Block {
    case: String,
    verdicts: Vec<&'static str>,
    rows: Vec<Row>,
}

/// One metric of a case.
struct Row {
    label: String,
    cells: Vec<Option<Cell>>,
}

struct Cell {
    /// How many times worse than the best of the row.
    ratio: f64,
    shown: String,
    /// Whether it is the best, and there are others.
    best: bool,
}

impl Row {
    fn new(metric: Quantity, reports: &[Option<&Report>]) -> Self {
        let figures: Vec<Option<Figure>> = reports
            .iter()
            .map(|report| report.map(|report| Figure::of(report, metric)))
            .map(|figure| figure.filter(|figure| figure.value.is_some()))
            .collect();
        let values: Vec<f64> = figures.iter().flatten().filter_map(|figure| figure.value).collect();
        let lower = metric.is_better_lower();
        let best = values.iter().copied().reduce(if lower { f64::min } else { f64::max });
        let cell = |figure: Option<Figure>| {
            let (figure, best) = (figure?, best?);
            let value = figure.value?;
            let ratio = if value == best {
                1.0
            } else if lower {
                value / best
            } else {
                best / value
            };
            Some(Cell {
                ratio,
                shown: shown(&figure, value),
                best: value == best && 1 < values.len(),
            })
        };
        let unit = figure::unit(metric);
        let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
        Self {
            label: format!("{GAP}{metric}{unit}"),
            cells: figures.into_iter().map(cell).collect(),
        }
    }

    /// The largest ratio.
    fn worst(&self) -> f64 {
        self.cells.iter().flatten().map(|cell| cell.ratio).fold(0.0, f64::max)
    }
}

fn shown(figure: &Figure, value: f64) -> String {
    let digits = if figure::unit(figure.quantity).is_empty() { 4 } else { 2 };
    match figure.interval {
        Some([low, high]) => format!("{value:.digits$}±{:.digits$}", (high - low) / 2.0),
        None => format!("{value:.digits$}"),
    }
}

impl Cell {
    fn ratio(&self) -> String {
        if self.ratio.is_finite() { format!("{:.2}", self.ratio) } else { "inf".to_owned() }
    }

    /// The ratio and the value.
    fn text(&self, ratio_width: usize) -> Styled {
        let style = match self.best {
            true => AnsiColor::Green.on_default().bold(),
            false => Style::new(),
        };
        Styled { text: format!("{:>ratio_width$} {}", self.ratio(), self.shown), style }
    }
}

/// In the place of a value that is not there.
fn missing(ratio_width: usize) -> Styled {
    Styled::plain(format!("{:>ratio_width$}", "-"))
}

/// A column a side; `None` where the terminal is too narrow for it.
fn wide(table: &Table<'_>, blocks: &[Block], look: &Look) -> Option<String> {
    let ratio_width = |column: usize| {
        let rows = blocks.iter().flat_map(|block| &block.rows);
        let cells = rows.filter_map(|row| row.cells[column].as_ref());
        cells.map(|cell| cell.ratio().len()).max().unwrap_or(1)
    };
    let ratio_widths: Vec<usize> = (0..table.names.len()).map(ratio_width).collect();
    let head = std::iter::once("").chain(table.names.iter().map(String::as_str));
    let mut lines: Vec<Vec<Styled>> = vec![head.map(Styled::bold).collect()];
    for block in blocks {
        let verdicts = block.verdicts.iter().map(|verdict| Styled::plain(*verdict));
        lines.push(std::iter::once(Styled::bold(&block.case)).chain(verdicts).collect());
        for row in &block.rows {
            let cells = row.cells.iter().zip(&ratio_widths).map(|(cell, width)| match cell {
                Some(cell) => cell.text(*width),
                None => missing(*width),
            });
            lines.push(std::iter::once(Styled::plain(row.label.as_str())).chain(cells).collect());
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=table.names.len()).map(width).collect();
    let total = widths.iter().sum::<usize>() + GAP.len() * table.names.len();
    if look.width.is_some_and(|width| width < total) {
        return None;
    }
    let mut text = String::new();
    for line in lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            cell.write(&mut shown, *width, Flush::Left);
        }
        let _ = writeln!(text, "{}", shown.trim_end());
    }
    Some(text)
}

impl Block {
    /// A line a side.
    fn tall(&self, table: &Table<'_>) -> String {
        let name_width = table.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let bold = Style::new().bold();
        let mut text = format!("{bold}{}{bold:#}\n", self.case);
        for (name, verdict) in table.names.iter().zip(&self.verdicts) {
            let _ = writeln!(text, "{GAP}{name:name_width$}{GAP}{verdict}");
        }
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.label);
            let ratios = row.cells.iter().flatten().map(|cell| cell.ratio().len());
            let width = ratios.max().unwrap_or(1);
            for (name, cell) in table.names.iter().zip(&row.cells) {
                let Styled { text: shown, style } = match cell {
                    Some(cell) => cell.text(width),
                    None => missing(width),
                };
                let _ = writeln!(text, "{GAP}{GAP}{name:name_width$}{GAP}{style}{shown}{style:#}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::render::tests::report;
    use crate::summary::tests::counted;

    /// A result whose TTFT is so many times 50 ms.
    fn result(case: &str, times: u64) -> Report {
        let end = 10 + 50 * times;
        let requests = vec![counted(completed(&[end, end + 10, end + 20]), 3); 300];
        let mut report = report("w", &requests);
        report.servebench.case = case.to_owned();
        report.backend = case.split('/').next().unwrap().to_owned();
        report
    }

    fn side(name: &str, results: &[(&str, u64)]) -> Side {
        let reports = results.iter().map(|(case, times)| result(case, *times)).collect();
        Side { name: name.to_owned(), reports }
    }

    fn look(width: Option<usize>) -> Look {
        let metrics = ["ttft.p99", "output_throughput"].map(|metric| metric.parse().unwrap());
        Look { metrics: metrics.to_vec(), threshold: None, width }
    }

    fn stripped(sides: &[Side], look: &Look) -> String {
        anstream::adapter::strip_str(&render(sides, look)).to_string()
    }

    #[test]
    fn a_row_has_each_value_and_how_many_times_worse_it_is_than_the_best() {
        let mut sides = [
            side("main", &[("a/m/w@1qps", 2), ("a/m/w@2qps", 1)]),
            side("pr", &[("a/m/w@1qps", 3)]),
        ];
        for (side, tokens_per_s) in sides.iter_mut().zip([1000.0, 800.0]) {
            for report in &mut side.reports {
                let scalars = &mut report.servebench.scalars;
                scalars.insert("output_throughput".to_owned(), Some(tokens_per_s));
                let ttft = report.servebench.latencies.get_mut("ttft").unwrap();
                let p99 = ttft.statistics.get_mut("p99").unwrap();
                p99.interval_ms = p99.estimate_ms.map(|ms| [ms - 2.0, ms + 3.0]);
            }
        }
        let expected = "                             main              pr
a/m/w@1qps                   slo missed        slo missed
  ttft.p99 (ms)              1.00 100.00±2.50  1.50 150.00±2.50
  output_throughput (tok/s)  1.00 1000.00      1.25 800.00
a/m/w@2qps                   slo missed        -
  ttft.p99 (ms)              1.00 50.00±2.50      -
  output_throughput (tok/s)  1.00 1000.00         -
";
        assert_eq!(stripped(&sides, &look(None)), expected);
        let coloured = render(&sides, &look(None));
        assert!(coloured.contains("\u{1b}[32m1.00 100.00"), "the best is green: {coloured:?}");
    }

    #[test]
    fn what_no_two_sides_share_is_lined_up_without_its_backend() {
        let two = [side("x", &[("vllm/m/w@1qps", 2)]), side("y", &[("max/m/w@1qps", 1)])];
        let text = stripped(&two, &look(None));
        assert!(text.contains("\nm/w@1qps ") && text.contains("2.00 100.00"), "{text}");
        // The backends of one side are its columns, in the order of their names.
        let one = [side("x", &[("vllm/m/w@1qps", 2), ("max/m/w@1qps", 1), ("max/m/w@9qps", 1)])];
        let text = stripped(&one, &look(None));
        let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(head, ["max", "vllm"]);
        assert!(text.contains("\nm/w@1qps "), "{text}");
        // Nothing would be gained.
        let apart = [side("x", &[("vllm/m/w@1qps", 2), ("max/m/w@9qps", 1)])];
        let text = stripped(&apart, &look(None));
        assert!(text.contains("\nvllm/m/w@1qps ") && text.contains("\nmax/m/w@9qps "), "{text}");
        // Two results would fall together.
        let both = [
            side("x", &[("vllm/m/w@1qps", 2), ("max/m/w@1qps", 1)]),
            side("y", &[("sglang/m/w@1qps", 1)]),
        ];
        assert!(stripped(&both, &look(None)).contains("\nsglang/m/w@1qps "));
    }

    #[test]
    fn a_narrow_terminal_gets_a_line_a_side_and_no_longer_ones() {
        let sides = [side("main", &[("a/m/w@1qps", 2)]), side("pr", &[("a/m/w@1qps", 3)])];
        let text = stripped(&sides, &look(Some(40)));
        assert!(text.contains("\n    main  1.00 100.00\n    pr    1.50 150.00\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        let wide = stripped(&sides, &look(Some(80)));
        assert!(wide.contains("1.00 100.00") && wide.contains("  1.50 150.00"), "{wide}");
        assert!(wide.lines().all(|line| line.chars().count() <= 80), "{wide}");
    }

    #[test]
    fn rows_that_hardly_differ_can_be_left_out_and_other_work_is_told() {
        let mut sides = [
            side("main", &[("a/m/w@1qps", 2), ("a/m/w@2qps", 1)]),
            side("pr", &[("a/m/w@1qps", 3), ("a/m/w@2qps", 1)]),
        ];
        let with = |share| Look { threshold: Some(share), ..look(None) };
        let text = stripped(&sides, &with(0.4));
        assert!(text.contains("ttft.p99") && !text.contains("@2qps"), "{text}");
        assert_eq!(
            stripped(&sides, &with(0.6)),
            "nothing is worse than the best by 60 % or more\n"
        );
        sides[1].reports[0].servebench.plan.workload_hash = "other".to_owned();
        assert!(stripped(&sides, &look(None)).ends_with(
            "note: a/m/w@1qps: the prompts or the lengths of the answers are not the same\n"
        ));
    }
}
