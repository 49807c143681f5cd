//! nextest runs a process per case. What they leave is gathered in a file of their run, so that each makes
//! the outputs of all cases that have ended.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::report::Ending;

/// A run of several processes.
#[derive(Debug)]
pub(super) struct SharedRun {
    id: String,
    path: PathBuf,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    run: String,
    ending: Ending,
}

impl SharedRun {
    /// The run of nextest that this process is of, if it is of one.
    pub(super) fn detect(results: &Path) -> Option<Self> {
        let id = std::env::var("NEXTEST_RUN_ID").ok().filter(|id| !id.is_empty())?;
        Some(Self { id, path: results.join(".nextest-run.jsonl") })
    }

    /// Adds `own` to the endings of the run and calls `tell` with all of them, the last of a case that ran
    /// more than once. No other process of the run does so meanwhile.
    pub(super) fn with_all(
        &self,
        own: &[Ending],
        tell: impl FnOnce(&[Ending]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let failed = || format!("share the cases of a run in `{}`", self.path.display());
        let mut file = self.open().with_context(failed)?;
        let mut all = self.read(&file).with_context(failed)?;
        all.retain(|ending| !own.iter().any(|own| own.case() == ending.case()));
        all.extend(own.iter().cloned());
        let mut text = Vec::new();
        for ending in &all {
            let line = Line { run: self.id.clone(), ending: ending.clone() };
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        file.set_len(0).and_then(|()| file.rewind()).with_context(failed)?;
        file.write_all(&text).with_context(failed)?;
        tell(&all)
    }

    /// Locked until it is closed.
    fn open(&self) -> std::io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&self.path)?;
        file.lock()?;
        Ok(file)
    }

    /// The endings of this run; none where another run was the last.
    fn read(&self, file: &File) -> std::io::Result<Vec<Ending>> {
        let mut endings = Vec::new();
        for line in BufReader::new(file).lines() {
            // One that was cut off is of a process that was killed.
            let Ok(Line { run, ending }) = serde_json::from_str(&line?) else { continue };
            if run == self.id {
                endings.push(ending);
            }
        }
        Ok(endings)
    }
}
