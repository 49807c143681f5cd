//! Which names the files of a run have where several plans put theirs into one folder: each plan keeps its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::file_name::file_name;
use crate::report::write_whole;

/// Remembers in a folder whose names are whose.
const FILE: &str = ".report-names";

/// Whose the names with some suffix are.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    plan: PathBuf,
    /// Where it had a file, it gives the names back when that is gone.
    has_file: bool,
}

/// What stands in the names of a plan's files: nothing for the first plan that uses the folder, `-` and its own name
/// for each further one. A plan keeps what it once had.
pub(super) fn suffix(folder: &Path, plan: &Path) -> anyhow::Result<String> {
    let plan =
        plan.canonicalize().or_else(|_| std::path::absolute(plan)).unwrap_or(plan.to_owned());
    let path = folder.join(FILE);
    let text = fs::read(&path).unwrap_or_default();
    // A damaged one is of no use to anybody.
    let mut owners: BTreeMap<String, Owner> = serde_json::from_slice(&text).unwrap_or_default();
    owners.retain(|_, owner| !owner.has_file || owner.plan.is_file());
    if let Some((suffix, _)) = owners.iter().find(|(_, owner)| owner.plan == plan) {
        return Ok(suffix.clone());
    }
    let stem = file_name(&plan.file_stem().unwrap_or_default().to_string_lossy());
    let numbered = (2..).map(|number| format!("-{stem}-{number}"));
    let suffixes = [String::new(), format!("-{stem}")].into_iter().chain(numbered);
    let free = suffixes.into_iter().find(|suffix| !owners.contains_key(suffix));
    let suffix = free.unwrap_or_default();
    let has_file = plan.is_file();
    owners.insert(suffix.clone(), Owner { plan, has_file });
    write_whole(&path, &serde_json::to_vec(&owners)?)
        .with_context(|| format!("write `{}`", path.display()))?;
    Ok(suffix)
}

/// `name` with the suffix before its ending.
pub(super) fn with_suffix(name: &str, suffix: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}{suffix}.{extension}"),
        None => format!("{name}{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_keeps_names_of_its_own_and_the_first_has_the_plain_ones() {
        let folder = tempfile::tempdir().unwrap();
        let plan = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let results = folder.path().join("results");
        let of = |plan: &Path| suffix(&results, plan).unwrap();
        let (chat, complete, other) =
            (plan("benches/chat.toml"), plan("benches/complete.toml"), plan("x/complete.toml"));
        for _ in 0..2 {
            assert_eq!(of(&chat), "");
            assert_eq!(of(&complete), "-complete");
            assert_eq!(of(&other), "-complete-2");
            assert_eq!(of(&folder.path().join("no-file.toml")), "-no-file");
        }
        fs::remove_file(&chat).unwrap();
        assert_eq!(of(&complete), "-complete", "it keeps what it had");
        assert_eq!(of(&plan("benches/new.toml")), "", "the name was given back");
    }

    #[test]
    fn the_suffix_goes_before_the_ending() {
        assert_eq!(with_suffix("junit.xml", "-chat"), "junit-chat.xml");
        assert_eq!(with_suffix("junit.xml", ""), "junit.xml");
    }
}
