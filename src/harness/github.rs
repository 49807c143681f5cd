//! What GitHub's checks show of a run: annotations, and a summary of the job. Its limits are kept: ten
//! annotations of a kind per step, and a summary of 1 MiB, of which a larger one is dropped whole.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use crate::render::markdown;
use crate::render::reasons::{failure, reasons};
use crate::render::text::plain_lines;
use crate::report::Ending;

/// The most annotations; one more says how many there would be.
const MOST_ANNOTATIONS: usize = 9;
/// The most that goes into a summary, bytes.
const MOST_SUMMARY: usize = 900 * 1024;

/// Adds the summary to the file that GitHub names, if it names one.
pub(super) fn write_summary(path: Option<PathBuf>, endings: &[Ending]) -> std::io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    if endings.is_empty() {
        return Ok(());
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all((markdown::render(endings, MOST_SUMMARY) + "\n").as_bytes())
}

/// The annotations of the cases that did not pass, a line each.
pub(super) fn annotations(endings: &[Ending]) -> String {
    let ordered = markdown::by_weight(endings).into_iter();
    let told: Vec<(&Ending, &str, String)> = ordered
        .filter_map(|ending| match ending {
            Ending::Ignored { .. } => None,
            Ending::Broken { message, .. } => Some((ending, "error", message.clone())),
            Ending::Measured(report) => {
                let kind = match failure(report)? {
                    "slo" | "regression" => "error",
                    _ => "warning",
                };
                Some((ending, kind, reasons(report).join("\n")))
            }
        })
        .collect();
    let mut text = String::new();
    for (ending, kind, message) in told.iter().take(MOST_ANNOTATIONS) {
        let title = escaped(&format!("{}: {}", ending.name(), ending.case()), true);
        let _ = writeln!(text, "::{kind} title={title}::{}", escaped(&plain_lines(message), false));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::render::tests::report;
    use crate::summary::tests::counted;
    use crate::verdict::Verdict;

    fn measured(workload: &str, verdict: Verdict) -> Ending {
        let mut report = report(workload, &vec![counted(completed(&[20, 21, 21]), 30); 300]);
        report.servebench.verdict = Some(verdict);
        report.servebench.client.doubts = vec!["50 %\nworse".to_owned()];
        Ending::measured(report)
    }

    #[test]
    fn annotations_are_escaped_and_no_more_than_github_shows() {
        let text = annotations(&[
            measured("fine", Verdict::Pass),
            Ending::Ignored { case: "x".to_owned(), reason: "no server".to_owned() },
            measured("bad", Verdict::Invalid),
        ]);
        assert_eq!(text, "::warning title=invalid%3A sim/sim/bad@inf::invalid  50 %25 worse\n");
        let broken =
            |n: usize| Ending::Broken { case: n.to_string(), message: "50 %\nno".to_owned() };
        let text = annotations(&(0..30).map(broken).collect::<Vec<_>>());
        assert!(text.starts_with("::error title=error%3A 0::50 %25%0Ano\n"), "{text}");
        assert_eq!(text.lines().count(), 10);
        assert!(text.ends_with("and 21 more; see the summary\n"), "{text}");
    }
}
