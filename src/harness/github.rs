//! What GitHub's checks show of a run: annotations, and a summary of the job. Its limits are kept: ten
//! annotations of a kind per step, and a summary of 1 MiB, of which a larger one is dropped whole.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::lock::lock;
use crate::render::table;
use crate::report::Report;
use crate::verdict::Verdict;

/// The most annotations; one more says how many there would be.
const MOST_ANNOTATIONS: usize = 9;
/// The most that goes into a summary, bytes.
const MOST_SUMMARY: usize = 900 * 1024;

/// The cases of a run, as far as they have ended.
#[derive(Debug, Default)]
pub(super) struct Github(Mutex<Vec<Ended>>);

/// One case.
#[derive(Debug)]
struct Ended {
    case: String,
    verdict: Option<Verdict>,
    /// What it missed, and how it compares.
    lines: Vec<String>,
    ttft_p50_ms: Option<f64>,
    ttft_p99_ms: Option<f64>,
    tokens_per_s: Option<f64>,
}

impl Github {
    /// Notes how a case ended.
    pub(super) fn note(&self, report: &Report) {
        let own = &report.servebench;
        let slos = own.slos.iter().filter(|slo| slo.finding != "met" || slo.undecided);
        let mut lines: Vec<String> = slos.map(table::slo_line).collect();
        let comparison = own.comparison.iter().flat_map(|comparison| &comparison.metrics);
        let changed = comparison.filter(|metric| metric.outcome != "unchanged");
        lines.extend(changed.map(table::compared_line));
        lines.extend(own.client.doubts.iter().map(|doubt| format!("invalid  {doubt}")));
        lock(&self.0).push(Ended {
            case: own.case.clone(),
            verdict: own.verdict,
            lines,
            ttft_p50_ms: report.median_ttft_ms,
            ttft_p99_ms: report.p99_ttft_ms,
            tokens_per_s: report.output_throughput,
        });
    }

    /// Adds the summary to the file that GitHub names, if it names one.
    pub(super) fn write_summary(&self, path: Option<PathBuf>) -> std::io::Result<()> {
        let (Some(path), ended) = (path, lock(&self.0)) else { return Ok(()) };
        if ended.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(summary(&ended).as_bytes())
    }

    /// The annotations, a line each.
    pub(super) fn annotations(&self) -> String {
        annotations(&lock(&self.0))
    }
}

/// Those that failed first.
fn by_weight(ended: &[Ended]) -> Vec<&Ended> {
    let mut ordered: Vec<&Ended> = ended.iter().collect();
    ordered.sort_by_key(|ended| match ended.verdict {
        Some(Verdict::SloMissed | Verdict::Regressed) => 0,
        Some(Verdict::Invalid) | None => 1,
        Some(Verdict::Pass) => 2,
    });
    ordered
}

fn annotations(ended: &[Ended]) -> String {
    let told = by_weight(ended).into_iter().filter(|ended| ended.verdict != Some(Verdict::Pass));
    let told: Vec<&Ended> = told.collect();
    let mut text = String::new();
    for ended in told.iter().take(MOST_ANNOTATIONS) {
        let verdict = ended.verdict.map_or("interrupted", Verdict::name);
        let kind = match ended.verdict {
            Some(Verdict::SloMissed | Verdict::Regressed) => "error",
            _ => "warning",
        };
        let title = escaped(&format!("{verdict}: {}", ended.case), true);
        let message = escaped(&ended.lines.join("\n"), false);
        let _ = writeln!(text, "::{kind} title={title}::{message}");
    }
    if MOST_ANNOTATIONS < told.len() {
        let more = told.len() - MOST_ANNOTATIONS;
        let _ = writeln!(text, "::warning title=servebench::and {more} more; see the summary");
    }
    text
}

/// Text in a workflow command.
fn escaped(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

fn summary(ended: &[Ended]) -> String {
    let ms = |ms: Option<f64>| ms.map_or_else(|| "n/a".to_owned(), |ms| format!("{ms:.2}"));
    let mut text = String::from(
        "### servebench\n\n| case | verdict | TTFT p50 (ms) | TTFT p99 (ms) | tok/s |\n\
         | --- | --- | ---: | ---: | ---: |\n",
    );
    let ordered = by_weight(ended);
    for ended in &ordered {
        let verdict = ended.verdict.map_or("interrupted", Verdict::name);
        let (p50, p99) = (ms(ended.ttft_p50_ms), ms(ended.ttft_p99_ms));
        let (case, rate) = (plain(&ended.case), ms(ended.tokens_per_s));
        let row = format!("| `{case}` | {verdict} | {p50} | {p99} | {rate} |\n");
        if MOST_SUMMARY < text.len() + row.len() {
            text.push_str("| … | | | | |\n");
            break;
        }
        text.push_str(&row);
    }
    for ended in ordered.iter().filter(|ended| !ended.lines.is_empty()) {
        let lines: String = ended.lines.iter().map(|line| plain(line) + "\n").collect();
        let open = if ended.verdict == Some(Verdict::Pass) { "" } else { " open" };
        let case = plain(&ended.case);
        let block = format!(
            "\n<details{open}><summary>{case}</summary>\n\n```text\n{lines}```\n\n</details>\n"
        );
        if text.len() + block.len() < MOST_SUMMARY {
            text.push_str(&block);
        }
    }
    text + "\n"
}

/// Text that means nothing to Markdown in a table or a block.
fn plain(text: &str) -> String {
    text.replace('|', "¦")
        .replace('`', "'")
        .replace('<', "‹")
        .replace('>', "›")
        .replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(case: &str, verdict: Verdict, line: &str) -> Ended {
        Ended {
            case: case.to_owned(),
            verdict: Some(verdict),
            lines: vec![line.to_owned()],
            ttft_p50_ms: Some(12.345),
            ttft_p99_ms: None,
            tokens_per_s: Some(640.0),
        }
    }

    #[test]
    fn annotations_are_escaped_and_no_more_than_github_shows() {
        let text = annotations(&[
            ended("a/b/c@1qps", Verdict::Pass, "fine"),
            ended("a/b/d@1qps", Verdict::Regressed, "50 %\nworse"),
        ]);
        assert_eq!(text, "::error title=regressed%3A a/b/d@1qps::50 %25%0Aworse\n");
        let many: Vec<Ended> =
            (0..30).map(|n| ended(&n.to_string(), Verdict::Invalid, "x")).collect();
        let text = annotations(&many);
        assert_eq!(text.lines().count(), 10);
        assert!(text.ends_with("and 21 more; see the summary\n"), "{text}");
    }

    #[test]
    fn the_summary_has_what_failed_first_and_stays_below_the_limit() {
        let text = summary(&[
            ended("fine", Verdict::Pass, "slo | met"),
            ended("bad", Verdict::SloMissed, "slo <missed>"),
        ]);
        let place = |part: &str| text.find(part).unwrap();
        assert!(place("| `bad` | slo missed | 12.35 | n/a | 640.00 |") < place("| `fine` | pass"));
        assert!(text.contains("slo ‹missed›") && text.contains("slo ¦ met"), "{text}");
        let long = "x".repeat(10_000);
        let many: Vec<Ended> =
            (0..3000).map(|n| ended(&n.to_string(), Verdict::Invalid, &long)).collect();
        let text = summary(&many);
        assert!(text.len() <= 1024 * 1024, "{}", text.len());
        assert!(text.contains("| `2999` |"), "each has its row");
    }
}
