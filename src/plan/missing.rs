//! Whether the files that a plan names are there: a typing error in a path is known before anything is sent.
//! Reads the names in a folder and opens no file.

use std::path::Path;

use crate::files::is_hub_id;
use crate::nearest::did_you_mean;

/// The most names of a folder that are looked through.
const MOST_NAMES: usize = 10_000;

/// Why there is no dataset at `path`; `None` where there may be one.
pub(super) fn dataset(path: &Path) -> Option<String> {
    fault("dataset", path)
}

/// Why there is no tokenizer at `path`; `None` where there may be one, on this machine or on the Hub.
pub(super) fn tokenizer(path: &Path) -> Option<String> {
    // `folder/tokenizer.json` could be a model of an organisation, and never is.
    let is_file = path.extension().is_some_and(|extension| extension == "json");
    if !is_file && is_hub_id(path) {
        return None;
    }
    fault("tokenizer", path)
}

fn fault(what: &str, path: &Path) -> Option<String> {
    // What cannot be looked at is said when it is read.
    if path.starts_with("hf:") || !matches!(path.try_exists(), Ok(false)) {
        return None;
    }
    let resolved = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (folder, name) = (resolved.parent()?, resolved.file_name()?.to_string_lossy());
    let place = format!("there is no {what} `{}`", resolved.display());
    if !folder.is_dir() {
        return Some(format!("{place}: the folder `{}` does not exist", folder.display()));
    }
    let names = names_in(folder);
    let others = names.iter().map(String::as_str).filter(|other| *other != name);
    Some(format!("{place}{}", did_you_mean(&name, others)))
}

/// In order, so that the same error is the same text.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten().take(MOST_NAMES);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_folder_and_the_nearest_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chats.json"), "[]").unwrap();
        let said = |name: &str| dataset(&folder.path().join(name));
        let place = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(said("chats.json"), None);
        assert_eq!(
            said("chat.json").unwrap(),
            format!("there is no dataset `{}`; did you mean `chats.json`?", place("chat.json"))
        );
        let other = said("prompts.parquet").unwrap();
        assert_eq!(other, format!("there is no dataset `{}`", place("prompts.parquet")));
        let deep = said("none/chats.json").unwrap();
        assert!(
            deep.ends_with(&format!(": the folder `{}` does not exist", place("none"))),
            "{deep}"
        );
    }

    #[test]
    fn a_path_is_seen_from_the_working_folder() {
        let said = dataset(Path::new("fixtures/sharegt.json")).unwrap();
        let resolved = std::env::current_dir().unwrap().join("fixtures/sharegt.json");
        assert!(said.contains(&format!("`{}`", resolved.display())), "{said}");
        assert!(said.ends_with("did you mean `sharegpt.json`?"), "{said}");
    }

    #[test]
    fn what_the_hub_may_have_is_not_missing() {
        for place in ["hf://datasets/org/name/file.json", "hf://org/name/tokenizer.json"] {
            assert_eq!(dataset(Path::new(place)), None, "{place}");
            assert_eq!(tokenizer(Path::new(place)), None, "{place}");
        }
        assert_eq!(tokenizer(Path::new("org/model")), None);
        for place in ["tokenizer", "fixtures/tokenizr.json", "org/model.json"] {
            let said = tokenizer(Path::new(place)).unwrap();
            assert!(said.starts_with("there is no tokenizer"), "{said}");
        }
    }
}
