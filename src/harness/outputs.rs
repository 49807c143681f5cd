//! What a run leaves beside its results, for people and other tools: one file a format, made at its end, or
//! when it is interrupted, of how its cases ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;

use super::file_set::{suffix, with_suffix};
use super::nextest::SharedRun;
use super::page;
use crate::lock::lock;
use crate::output_format::OutputFormat;
use crate::plan::Plan;
use crate::render::github_benchmark::{self, Direction};
use crate::render::{bencher, csv_table, html, junit, markdown};
use crate::report::{self, Ending, Report};

/// The endings of a run's cases, and what is to be made of them.
#[derive(Debug)]
pub(super) struct Outputs {
    formats: BTreeSet<OutputFormat>,
    folder: PathBuf,
    /// What stands in the files' names, to tell them from those of other plans.
    suffix: String,
    results: PathBuf,
    suite: String,
    endings: Mutex<Vec<Ending>>,
    /// What cases were compared with in turn, by the cases' names.
    others: Mutex<BTreeMap<String, Report>>,
    shared: Option<SharedRun>,
}

impl Outputs {
    /// Those that the plan asks for.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            formats: plan.outputs.formats.clone(),
            folder: plan.outputs.folder.clone(),
            suffix: String::new(),
            results: plan.results.clone(),
            suite: suite(),
            endings: Mutex::default(),
            others: Mutex::default(),
            shared: SharedRun::detect(&plan.results),
        }
    }

    /// Chooses the names for the files of the plan in the file `plan`, and removes what a run before left under them,
    /// lest it be taken for what comes of this one.
    pub(super) fn begin(&mut self, plan: &Path) -> anyhow::Result<()> {
        // Processes of one run add to what is there.
        if self.shared.is_some() || self.formats.iter().all(|format| format.is_by_case()) {
            return Ok(());
        }
        self.suffix = suffix(&self.folder, plan)?;
        for format in &self.formats {
            for file in self.files(*format, &[])? {
                remove(&self.path(file.name))?;
            }
        }
        Ok(())
    }

    /// The folder for the files of the run.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(with_suffix(name, &self.suffix))
    }

    /// Whether every request is to be written down.
    pub(super) fn has_records(&self) -> bool {
        self.formats.contains(&OutputFormat::Jsonl)
    }

    /// Notes how a case ended.
    pub(super) fn note(&self, ending: Ending) {
        lock(&self.endings).push(ending);
    }

    /// Notes the result with which a case was compared in turn.
    pub(super) fn note_other(&self, case: &str, other: Report) {
        lock(&self.others).insert(case.to_owned(), other.without_details());
    }

    /// Notes of the cases that have no ending that they had none.
    pub(super) fn note_others<'a>(&self, cases: impl Iterator<Item = &'a str>) {
        let mut endings = lock(&self.endings);
        for case in cases {
            if !endings.iter().any(|ending| ending.case() == case) {
                let message = "it ended without a result".to_owned();
                endings.push(Ending::Broken { case: case.to_owned(), message });
            }
        }
    }

    /// Calls `tell` with the endings of this process's cases.
    pub(super) fn with_endings<T>(&self, tell: impl FnOnce(&[Ending]) -> T) -> T {
        tell(&lock(&self.endings))
    }

    /// Writes a file a format, each whole or not at all. Where the page is, if it was written.
    pub(super) fn write(&self) -> anyhow::Result<Option<PathBuf>> {
        let endings = lock(&self.endings);
        if self.formats.is_empty() || endings.is_empty() {
            return Ok(None);
        }
        match &self.shared {
            None => self.write_of(&endings)?,
            Some(shared) => shared.with_all(&endings, |all| self.write_of(all))?,
        }
        let has_page = self.formats.contains(&OutputFormat::Html);
        Ok(has_page.then(|| self.path(html::FILE)))
    }

    fn write_of(&self, endings: &[Ending]) -> anyhow::Result<()> {
        for format in &self.formats {
            for file in self.files(*format, endings)? {
                let path = self.path(file.name);
                match file.text {
                    Some(text) => report::write_whole(&path, text.as_bytes()),
                    None => remove(&path),
                }
                .with_context(|| format!("write `{}`", path.display()))?;
            }
        }
        Ok(())
    }

    /// The files of a format.
    fn files(&self, format: OutputFormat, endings: &[Ending]) -> anyhow::Result<Vec<OutputFile>> {
        let one = |name, text| vec![OutputFile { name, text: Some(text) }];
        Ok(match format {
            // Written case by case.
            OutputFormat::Json | OutputFormat::Jsonl => Vec::new(),
            OutputFormat::Html => {
                one(html::FILE, page::page(&self.results, endings, &lock(&self.others))?)
            }
            OutputFormat::Junit => one(junit::FILE, junit::render(&self.suite, endings)?),
            OutputFormat::Csv => one(csv_table::FILE, csv_table::render(endings)?),
            OutputFormat::Markdown => one(markdown::FILE, markdown::render(endings, usize::MAX)),
            OutputFormat::Bencher => one(bencher::FILE, bencher::render(endings)?),
            OutputFormat::GithubBenchmark => [Direction::Smaller, Direction::Bigger]
                .into_iter()
                .map(|direction| {
                    let text = github_benchmark::render(direction, endings)?;
                    Ok(OutputFile { name: direction.file(), text })
                })
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

/// A file of a run.
struct OutputFile {
    name: &'static str,
    /// `None` where there is nothing to be said in it.
    text: Option<String>,
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// The package and the bench target, as nextest calls a binary: `my-crate::serving`.
fn suite() -> String {
    let program = std::env::current_exe().ok();
    let stem = program.as_deref().and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    // Cargo puts a hash behind the target's name.
    let target = match stem.rsplit_once('-') {
        Some((target, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            target
        }
        _ => &stem,
    };
    match std::env::var("CARGO_PKG_NAME") {
        Ok(package) => format!("{package}::{target}"),
        Err(_) => target.to_owned(),
    }
}
