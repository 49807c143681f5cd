//! `report.html`: of the cases of a run at its end, or of saved results by `--report`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::baseline;
use super::terminal::say;
use crate::cli::Cli;
use crate::render::html::{self, Case, Session};
use crate::report::folder::{newest, read_all};
use crate::report::history;
use crate::report::saved::{ByCase, Identity, read_folder};
use crate::report::{self, Ending, Report};

/// The page of the cases that ended so, with the history that is kept in `results`. `others` are the results
/// that cases were compared with in turn, by the cases' names.
pub(super) fn page(
    results: &Path,
    endings: &[Ending],
    others: &BTreeMap<String, Report>,
) -> anyhow::Result<String> {
    // What the history cannot tell is left out: the run has said so.
    let history = history::read(&results.join("history.jsonl")).unwrap_or_default().by_case;
    let before = before(results, endings);
    let cases = endings.iter().map(|ending| Case {
        ending,
        before: others.get(ending.case()).or_else(|| before.get(ending.case())),
        history: ending.report().map(|report| sessions(&history, report)).unwrap_or_default(),
    });
    html::page(&cases.collect::<Vec<_>>())
}

/// The sessions of the case of a result, on such a machine and of such work as it is of.
fn sessions(history: &ByCase, report: &Report) -> Vec<Session> {
    let identity = Identity::of(report);
    let of_case = history.get(&report.servebench.case).into_iter().flatten();
    let alike = of_case.filter(|saved| identity.difference(saved.identity(), &[]).is_none());
    // Later ones are of another run, where saved results are looked at again.
    let until = alike.filter(|saved| saved.date <= report.date);
    // Changes of level call the result's own session so.
    let date = |date: &str| if date == report.date { "now".to_owned() } else { date.to_owned() };
    until.map(|saved| Session::new(&date(&saved.date), &saved.trials)).collect()
}

/// What baselines that are still there have of the cases that were compared with them.
fn before(results: &Path, endings: &[Ending]) -> BTreeMap<String, Report> {
    let mut baselines: BTreeMap<&str, ByCase> = BTreeMap::new();
    let mut before = BTreeMap::new();
    for report in endings.iter().filter_map(Ending::report) {
        let comparison = report.servebench.comparison.as_ref();
        let Some(comparison) = comparison.filter(|comparison| comparison.kind == "baseline") else {
            continue;
        };
        let name = comparison.against.as_str();
        // All cases of a run have one.
        let saved = baselines
            .entry(name)
            .or_insert_with(|| read_folder(&baseline::folder(results, name)).unwrap_or_default());
        let case = &report.servebench.case;
        let saved = saved.get(case).and_then(|saved| saved.last());
        if let Some(result) = saved.and_then(|saved| Report::read(&saved.path).ok()) {
            before.insert(case.clone(), result);
        }
    }
    before
}

/// Makes the page of the newest result of each selected case at the places that `--report` names, into the
/// first of them.
pub(super) fn rebuild(cli: &Cli) -> anyhow::Result<()> {
    let places: Vec<PathBuf> = cli.flags.report.iter().map(PathBuf::from).collect();
    let mut all = Vec::new();
    for place in &places {
        all.extend(read_all(place)?);
    }
    let others = compared_in_turn(&all);
    let selected = newest(all).into_iter().filter(|report| cli.selects(&report.servebench.case));
    let endings: Vec<Ending> = selected.map(Ending::measured).collect();
    let first = places.first().map_or_else(PathBuf::new, |place| match place.is_dir() {
        true => place.clone(),
        false => place.parent().map(Path::to_owned).unwrap_or_default(),
    });
    let path = first.join(html::FILE);
    report::write_whole(&path, page(&first, &endings, &others)?.as_bytes())
        .with_context(|| format!("write `{}`", path.display()))?;
    say(&format!("report {}", path.display()));
    Ok(())
}

/// The results with which others were compared in turn: the last one of that name before each.
fn compared_in_turn(all: &[Report]) -> BTreeMap<String, Report> {
    let mut others = BTreeMap::new();
    for report in all {
        let Some(comparison) = &report.servebench.comparison else { continue };
        let named = all.iter().filter(|other| {
            other.servebench.case == comparison.against
                && other.servebench.comparison.is_none()
                && other.date <= report.date
        });
        if let Some(other) = named.max_by(|one, other| one.date.cmp(&other.date)) {
            others.insert(report.servebench.case.clone(), other.clone());
        }
    }
    others
}
