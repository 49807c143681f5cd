//! The history of results: a file with a result a line, the newest last.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use super::saved::{ByCase, Saved, add};
use super::{Report, write_whole};

/// What a history holds, and what could not be read of it.
#[derive(Debug, Default)]
pub struct History {
    /// The results.
    pub by_case: ByCase,
    /// Why lines were skipped, each with its number.
    pub skipped: Vec<String>,
}

/// The case of a line.
#[derive(Deserialize)]
struct Line {
    servebench: OfCase,
}

#[derive(Deserialize)]
struct OfCase {
    case: String,
}

/// Reads a history; a missing one is empty. A line that is no result is skipped: a machine that was switched off
/// leaves half of one, and what is around it is as good as before.
///
/// # Errors
///
/// If the file is there and cannot be read.
pub fn read(path: &Path) -> anyhow::Result<History> {
    let failed = || format!("read the history `{}`", path.display());
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(History::default()),
        text => text.with_context(failed)?,
    };
    let mut history = History::default();
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        if line.is_empty() {
            continue;
        }
        let parsed = std::str::from_utf8(line).map_err(anyhow::Error::from);
        match parsed.and_then(|line| Saved::parse(line, path)) {
            Ok(saved) => add(&mut history.by_case, saved),
            Err(error) => history.skipped.push(format!(
                "line {number} of the history `{}` is no result and is skipped: {error:#}",
                path.display()
            )),
        }
    }
    Ok(history)
}

/// Adds a result, and then keeps only the newest `keep` of each case, where that is said.
///
/// # Errors
///
/// If the file cannot be written.
pub fn append(path: &Path, report: &Report, keep: Option<NonZeroUsize>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(&report.for_history())?;
    line.push(b'\n');
    add_line(path, line)
        .and_then(|()| keep.map_or(Ok(()), |keep| prune(path, keep)))
        .with_context(|| format!("write the history `{}`", path.display()))
}

/// In one write, so that two runs do not mix their lines.
fn add_line(path: &Path, mut line: Vec<u8>) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    if !ends_a_line(&mut file)? {
        line.insert(0, b'\n');
    }
    Ok(file.write_all(&line)?)
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

fn prune(path: &Path, keep: NonZeroUsize) -> anyhow::Result<()> {
    // A torn line need not be text, and is dropped like any other that is no result.
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    let kept = newest(&text, keep.get());
    if kept.len() < text.len() { write_whole(path, kept.as_bytes()) } else { Ok(()) }
}

/// The last `keep` lines of each case, in their order. Lines that are no result are dropped.
fn newest(text: &str, keep: usize) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines().rev() {
        let Ok(Line { servebench }) = serde_json::from_str(line) else { continue };
        let count = counts.entry(servebench.case).or_default();
        *count += 1;
        if *count <= keep {
            kept.push(line);
        }
    }
    kept.iter().rev().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::saved::tests::document;
    use super::*;

    #[test]
    fn half_a_line_is_skipped_and_told_and_the_next_result_begins_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/history.jsonl");
        assert!(read(&path).unwrap().by_case.is_empty());
        let whole = document("a", 2, "h") + "\n";
        add_line(&path, whole.clone().into_bytes()).unwrap();
        add_line(&path, whole.as_bytes()[..90].to_vec()).unwrap();
        add_line(&path, whole.clone().into_bytes()).unwrap();
        let history = read(&path).unwrap();
        assert_eq!(history.by_case["a"].len(), 2);
        assert_eq!(history.skipped.len(), 1);
        assert!(history.skipped[0].starts_with("line 2 of the history `"), "{:?}", history.skipped);
        std::fs::write(&path, b"\xff\xfe\n").unwrap();
        assert_eq!(read(&path).unwrap().skipped.len(), 1, "bytes that are no text");
    }

    #[test]
    fn the_newest_of_each_case_are_kept() {
        let line = |case: &str, cpus: u32| document(case, cpus, "h") + "\n";
        let text = [line("a", 1), line("b", 1), line("a", 2), "{\n".to_owned(), line("a", 3)];
        let kept = [line("b", 1), line("a", 2), line("a", 3)].concat();
        assert_eq!(newest(&text.concat(), 2), kept);
    }
}
