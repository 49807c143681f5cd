//! JUnit XML as Jenkins, GitLab and GitHub's reporters read it: one test case per case of the plan. Pure.

use std::time::Duration;

use quick_junit::{
    NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite, XmlString,
};

use super::figure::{self, Figure};
use super::reasons::{failure, reasons};
use super::table;
use crate::report::{Ending, Report};

/// The name of the file.
pub const FILE: &str = "junit.xml";

/// The document of a run. `suite` names the bench target, such as `my-crate::serving`.
///
/// # Errors
///
/// If the library cannot write it.
pub fn render(suite: &str, endings: &[Ending]) -> anyhow::Result<String> {
    let mut cases = TestSuite::new(xml(suite));
    for ending in endings {
        cases.add_test_case(test_case(suite, ending));
    }
    let mut document = Document::new("servebench");
    document.add_test_suite(cases);
    Ok(document.to_string()?)
}

fn test_case(suite: &str, ending: &Ending) -> TestCase {
    let mut case = TestCase::new(xml(ending.case()), status(ending));
    case.set_classname(xml(suite));
    if let Some(report) = ending.report() {
        case.set_time(Duration::try_from_secs_f64(report.duration).unwrap_or_default());
        for figure in Figure::main(report) {
            if let Some(value) = figure.value {
                let name = figure::name(figure.quantity, '_');
                case.add_property((name.as_str(), value.to_string().as_str()));
            }
        }
        case.set_system_out(xml(&table::render(report)));
    }
    case
}

fn status(ending: &Ending) -> TestCaseStatus {
    let mut status = match ending {
        Ending::Measured(report) => return status_of(report),
        Ending::Broken { .. } => TestCaseStatus::non_success(NonSuccessKind::Error),
        Ending::Ignored { .. } => TestCaseStatus::skipped(),
    };
    match ending {
        Ending::Broken { message, .. } => {
            status.set_type("error").set_message(xml(message));
        }
        Ending::Ignored { reason, .. } => {
            status.set_message(xml(reason));
        }
        Ending::Measured(_) => {}
    }
    status
}

fn status_of(report: &Report) -> TestCaseStatus {
    let Some(kind) = failure(report) else { return TestCaseStatus::success() };
    let reasons = reasons(report);
    let mut status = TestCaseStatus::non_success(match kind {
        "error" => NonSuccessKind::Error,
        _ => NonSuccessKind::Failure,
    });
    let message = match (report.servebench.verdict, reasons.first()) {
        (None, _) => "the run was interrupted".to_owned(),
        // Without what lines it up with others.
        (Some(_), first) => first
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .unwrap_or_default(),
    };
    status.set_type(kind).set_message(xml(&message)).set_description(xml(&reasons.join("\n")));
    status
}

/// Text without what XML 1.0 cannot hold. The library drops control characters; the two that are no
/// characters at all it lets pass.
fn xml(text: &str) -> XmlString {
    XmlString::new(text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}"))
}
