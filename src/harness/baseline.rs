//! What the cases of a run are compared with: results that were saved under a name, and the history.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::ZonedDateTime;

use super::Exit;
use super::terminal::say;
use crate::compare::{self, Change, Comparison, Trial};
use crate::file_name::{self, file_name};
use crate::flags::Flags;
use crate::plan::{Case, Plan};
use crate::render::table;
use crate::report::saved::{ByCase, Identity, Saved, read_folder};
use crate::report::{Report, history};
use crate::verdict::Verdict;

/// So many sessions before say what the next one may be.
const SESSIONS: usize = 20;

/// The baseline of a run, and where results are kept for those to come.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    name: Option<String>,
    /// Whether a result that cannot be compared is taken for one without a baseline.
    lenient: bool,
    saved: ByCase,
    history: ByCase,
    history_path: PathBuf,
    save_to: Option<PathBuf>,
    /// How many results of a case the history keeps; all, where that is not said.
    history_keep: Option<NonZeroUsize>,
    /// The cases whose names differ from others' by upper and lower case alone.
    ambiguous: BTreeSet<String>,
    allowed: Vec<String>,
}

/// How a result stands to the baseline.
enum Standing<'a> {
    /// There is none.
    Alone,
    /// It is new to it; why.
    New(String),
    /// These are alike.
    Known(Vec<&'a Saved>),
}

/// What a comparison with the baseline came to.
#[derive(Debug)]
pub(super) enum Compared {
    /// There is no baseline.
    No,
    /// The result is new to it; why.
    New(String),
    /// The comparison.
    With(Box<Comparison>),
}

impl Baseline {
    /// What the flags ask for. A baseline that is not there is an error unless they are lenient.
    pub(super) fn of(flags: &Flags, plan: &Plan) -> anyhow::Result<Self> {
        let results = &plan.results;
        let (name, lenient) = match (&flags.baseline, &flags.baseline_lenient) {
            (Some(name), _) => (Some(name.clone()), false),
            (None, Some(name)) => (Some(name.clone()), true),
            (None, None) => (None, false),
        };
        let saved = match &name {
            None => ByCase::new(),
            Some(name) => {
                let folder = folder(results, name);
                let saved = if folder.is_dir() { read_folder(&folder)? } else { ByCase::new() };
                // Caches keep folders whose files they have dropped.
                if saved.is_empty() && !lenient {
                    bail!(
                        "there is no baseline `{name}`: `{}` holds no result; save one with \
                         --save-baseline {name}, or use --baseline-lenient",
                        folder.display()
                    );
                }
                saved
            }
        };
        let history_path = results.join("history.jsonl");
        let history = match history::read(&history_path) {
            // Nobody asks for it.
            Err(error) if name.is_none() => {
                say(&format!("warning: {error:#}"));
                ByCase::new()
            }
            history => {
                let history = history?;
                for skipped in &history.skipped {
                    say(&format!("warning: {skipped}"));
                }
                history.by_case
            }
        };
        if let Some(name) = &flags.save_baseline
            && !is_path(name)
            && file_name(name) != *name
        {
            bail!(
                "--save-baseline {name:?}: no folder is called so on every system; use letters, digits, \
                 `-`, `_` and `.`"
            );
        }
        Ok(Self {
            name,
            lenient,
            saved,
            history,
            history_path,
            save_to: flags.save_baseline.as_ref().map(|name| folder(results, name)),
            history_keep: flags.history_keep,
            ambiguous: ambiguous(plan),
            allowed: flags.allow_env_diff.clone(),
        })
    }

    /// Names the cases that are in the baseline and no more in the plan.
    pub(super) fn gone(&self, plan: &Plan) -> Vec<&str> {
        let known: BTreeSet<&str> = plan.cases.iter().map(|case| case.name.as_str()).collect();
        self.saved.keys().map(String::as_str).filter(|case| !known.contains(case)).collect()
    }

    /// Makes sure that a result of this identity can be compared with the baseline, if it is in it.
    pub(super) fn check(&self, case: &Case, now: &Identity) -> anyhow::Result<()> {
        self.standing(case, now).map(drop)
    }

    /// How a result of this identity stands to the baseline. An error where the two are not alike, unless the
    /// flags are lenient.
    fn standing(&self, case: &Case, now: &Identity) -> anyhow::Result<Standing<'_>> {
        let Some(name) = &self.name else { return Ok(Standing::Alone) };
        let Some(saved) = self.saved.get(&case.name) else {
            return Ok(Standing::New("it is not in the baseline".to_owned()));
        };
        let mut alike = Vec::new();
        let mut unlike = None;
        for saved in saved {
            match now.difference(saved.identity(), &self.allowed) {
                None => alike.push(saved),
                Some(difference) => unlike = Some((saved, difference)),
            }
        }
        match unlike {
            Some((saved, difference)) if !self.lenient => bail!(
                "{} cannot be compared with the baseline `{name}` (`{}`), which is of {difference}",
                case.name,
                saved.path.display()
            ),
            Some((_, difference)) if alike.is_empty() => {
                Ok(Standing::New(format!("the baseline is of {difference}")))
            }
            _ => Ok(Standing::Known(alike)),
        }
    }

    /// Compares a result with the baseline. An error where the two are not alike.
    pub(super) fn compare(
        &self,
        case: &Case,
        now: &Identity,
        trials: &[Trial],
    ) -> anyhow::Result<Compared> {
        let before = match self.standing(case, now)? {
            Standing::Alone => return Ok(Compared::No),
            Standing::New(why) => return Ok(Compared::New(why)),
            Standing::Known(before) => before,
        };
        let name = self.name.clone().unwrap_or_default();
        let alike = |saved: &&Saved| {
            saved.passed && now.difference(saved.identity(), &self.allowed).is_none()
        };
        let history = self.history.get(&case.name).into_iter().flatten().filter(alike);
        let mut sessions: Vec<&[Trial]> = history.map(|saved| saved.trials.as_slice()).collect();
        let skipped = sessions.len().saturating_sub(SESSIONS - before.len().min(SESSIONS));
        sessions.drain(..skipped);
        // A baseline that is in the history too is not to count twice.
        for saved in before {
            if !sessions.contains(&saved.trials.as_slice()) {
                sessions.push(&saved.trials);
            }
        }
        let comparison = compare::with_sessions(&case.gate, name, &sessions, trials);
        Ok(Compared::With(Box::new(comparison)))
    }

    /// Where the history of a case, this session included, changed its level: a slow slide is seen there and
    /// in no comparison of two runs.
    pub(super) fn changes(&self, case: &Case, now: &Identity, trials: &[Trial]) -> Vec<Change> {
        let alike = |saved: &&Saved| now.difference(saved.identity(), &self.allowed).is_none();
        let before: Vec<&Saved> =
            self.history.get(&case.name).into_iter().flatten().filter(alike).collect();
        let mut sessions: Vec<(&str, &[Trial])> =
            before.iter().map(|saved| (saved.date.as_str(), saved.trials.as_slice())).collect();
        sessions.push(("now", trials));
        compare::changes(&case.gate, &sessions)
    }

    /// Judges results that were saved as `name` in the place of new ones; says of each what became of it. A
    /// result that missed its objectives when it was measured, or is invalid, is so still.
    pub(super) fn judge_saved(
        &self,
        name: &str,
        results: &Path,
        cases: &[&Case],
        print: impl Fn(&str) -> std::io::Result<()>,
    ) -> anyhow::Result<Exit> {
        if self.name.is_none() {
            bail!("--load-baseline {name} needs --baseline: with what is it to be compared?");
        }
        let saved = read_folder(&folder(results, name))?;
        if !cases.iter().any(|case| saved.contains_key(&case.name)) {
            bail!(
                "--load-baseline {name}: it holds no result of a selected case, so that nothing is judged"
            );
        }
        let (mut failed, mut invalid) = (false, false);
        for case in cases {
            let Some(now) = saved.get(&case.name).and_then(|saved| saved.last()) else {
                say(&format!("{}: it is not in `{name}`", case.name));
                continue;
            };
            match now.verdict {
                Some(verdict @ Verdict::SloMissed) => {
                    say(&format!("{}: {} when it was measured", case.name, verdict.name()));
                    failed = true;
                }
                Some(verdict @ Verdict::Invalid) => {
                    say(&format!("{}: {} when it was measured", case.name, verdict.name()));
                    invalid = true;
                }
                // That was against another baseline.
                Some(Verdict::Pass | Verdict::Regressed) | None => {}
            }
            match self.compare(case, now.identity(), &now.trials)? {
                Compared::No => {}
                Compared::New(why) => say(&format!("new      {}: {why}", case.name)),
                Compared::With(comparison) => {
                    failed |= comparison.regressions().next().is_some();
                    print(&table::comparison(&case.name, &comparison))?;
                }
            }
        }
        Ok(match (failed, invalid) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Invalid,
            (false, false) => Exit::Passed,
        })
    }

    /// Keeps a result for runs to come: in the history, and in the baseline that is to be saved.
    pub(super) fn keep(&self, report: &Report) -> anyhow::Result<()> {
        if report.servebench.partial {
            return Ok(());
        }
        history::append(&self.history_path, report, self.history_keep)?;
        if let Some(folder) = &self.save_to {
            let case = &report.servebench.case;
            let name = file_name::of_case(case, self.is_ambiguous(case));
            let name = PathBuf::from(format!("{name}.json"));
            let path = report.save(folder, Some(&name), &ZonedDateTime::now())?;
            remove_others(folder, case, &path)?;
        }
        Ok(())
    }

    /// The folder to which results are saved as a baseline, if they are.
    pub(super) fn save_to(&self) -> Option<&Path> {
        self.save_to.as_deref()
    }

    /// Whether another case's name differs from this one's by upper and lower case alone.
    pub(super) fn is_ambiguous(&self, case: &str) -> bool {
        self.ambiguous.contains(case)
    }

    /// The history.
    pub(super) fn history_path(&self) -> &Path {
        &self.history_path
    }
}

/// Removes what else a baseline has of a case: it was saved when its file was called otherwise.
fn remove_others(folder: &Path, case: &str, path: &Path) -> anyhow::Result<()> {
    // One that is damaged is told when it is compared with.
    let Ok(saved) = read_folder(folder) else { return Ok(()) };
    for other in saved.get(case).into_iter().flatten().filter(|other| other.path != path) {
        fs::remove_file(&other.path)
            .with_context(|| format!("remove `{}`, which is replaced", other.path.display()))?;
    }
    Ok(())
}

fn ambiguous(plan: &Plan) -> BTreeSet<String> {
    let names = || plan.cases.iter().map(|case| &case.name);
    let is_like_another = |name: &&String| {
        1 < names().filter(|other| other.to_lowercase() == name.to_lowercase()).count()
    };
    names().filter(is_like_another).cloned().collect()
}

fn is_path(name: &str) -> bool {
    name.contains(['/', '\\'])
}

/// The folder of a baseline: below the results, or where a path says.
pub(super) fn folder(results: &Path, name: &str) -> PathBuf {
    if is_path(name) {
        return PathBuf::from(name);
    }
    results.join("baselines").join(name)
}
