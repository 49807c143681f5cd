//! The results at a place: a file, or a folder of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::Report;

/// The results at a place, those of the steps of searches and of what was compared among them.
///
/// # Errors
///
/// If there is none, or one is damaged; the file is named.
pub fn read_all(place: &Path) -> anyhow::Result<Vec<Report>> {
    if place.is_file() {
        return Ok(vec![Report::read(place)?]);
    }
    let failed = || format!("read the folder `{}`", place.display());
    let mut reports = Vec::new();
    for entry in fs::read_dir(place).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        // Other files of a run may lie there too.
        if path.extension().is_some_and(|extension| extension == "json") && is_result(&path)? {
            reports.push(Report::read(&path)?);
        }
    }
    if reports.is_empty() {
        bail!("there is no result in the folder `{}`", place.display());
    }
    Ok(reports)
}

/// The newest result of each case, in the order of their names; steps are none.
pub fn newest(reports: impl IntoIterator<Item = Report>) -> Vec<Report> {
    last_by(reports, |report| report.date.clone())
}

/// The same, but one that was interrupted only where the case has no whole one.
pub fn newest_whole(reports: impl IntoIterator<Item = Report>) -> Vec<Report> {
    last_by(reports, |report| (!report.servebench.partial, report.date.clone()))
}

fn last_by<K: Ord>(
    reports: impl IntoIterator<Item = Report>,
    key: impl Fn(&Report) -> K,
) -> Vec<Report> {
    let mut newest: BTreeMap<String, Report> = BTreeMap::new();
    for report in reports.into_iter().filter(|report| report.servebench.step_of.is_none()) {
        let case = report.servebench.case.clone();
        if newest.get(&case).is_none_or(|before| key(before) <= key(&report)) {
            newest.insert(case, report);
        }
    }
    newest.into_values().collect()
}

/// Whether a file is a document of a case, and not a list for other tools. A damaged one is: it is an error
/// to read it.
fn is_result(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("read `{}`", path.display()))?;
    let fields: serde_json::Result<BTreeMap<String, IgnoredAny>> =
        serde_json::from_reader(BufReader::with_capacity(1 << 20, file));
    Ok(match fields {
        Ok(fields) => fields.contains_key("servebench"),
        Err(error) => error.classify() != Category::Data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_result_is_compared_only_where_there_is_no_whole_one() {
        let result = |workload: &str, date: &str, partial: bool| {
            let mut report = crate::render::tests::report(workload, &[]);
            report.date = date.to_owned();
            report.servebench.partial = partial;
            report
        };
        let all = [
            result("a", "2026-01-01", false),
            result("a", "2026-01-02", false),
            result("a", "2026-01-03", true),
            result("b", "2026-01-04", true),
        ];
        let dates = |reports: Vec<Report>| {
            reports.into_iter().map(|report| report.date).collect::<Vec<_>>()
        };
        assert_eq!(dates(newest_whole(all.clone())), ["2026-01-02", "2026-01-04"]);
        assert_eq!(dates(newest(all)), ["2026-01-03", "2026-01-04"]);
    }
}
