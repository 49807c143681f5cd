//! The commit of the user's repository, as `git` says.

use std::path::Path;
use std::process::{Command, Stdio};

/// A state of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its commit.
    pub commit: String,
    /// Whether files that it holds differ from it. Files that it does not know, such as results, are none.
    pub dirty: bool,
}

/// That of the repository which holds `folder`; `None` where there is none, or no `git`.
pub fn revision(folder: &Path) -> Option<Revision> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        // With no tag to name it by, it is the whole commit.
        .args(["describe", "--always", "--dirty", "--abbrev=64", "--exclude=*"])
        // A hook of another repository's, and one that writes while others do.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    let (commit, dirty) = match text.strip_suffix("-dirty") {
        Some(commit) => (commit, true),
        None => (text, false),
    };
    let is_commit = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| Revision { commit: commit.to_owned(), dirty })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).args(["-c", "user.name=x", "-c", "user.email=x@x"]);
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(variable);
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_package_has_the_commit_of_its_repository() {
        let root = tempfile::tempdir().unwrap();
        let package = root.path().join("crates/inner");
        fs::create_dir_all(&package).unwrap();
        if Command::new("git").arg("--version").output().is_err() {
            assert_eq!(revision(&package), None);
            return;
        }
        git(root.path(), &["init", "-q"]);
        assert_eq!(revision(&package), None, "nothing is committed");
        let file = package.join("file");
        fs::write(&file, "1").unwrap();
        git(root.path(), &["add", "."]);
        git(root.path(), &["commit", "-qm", "x", "--no-verify"]);
        git(root.path(), &["tag", "v1"]);
        let commit = git(root.path(), &["rev-parse", "HEAD"]);
        let of = |dirty| Some(Revision { commit: commit.clone(), dirty });
        assert_eq!(revision(&package), of(false));
        fs::write(package.join("result.json"), "{}").unwrap();
        assert_eq!(revision(&package), of(false), "a result is no change");
        fs::write(&file, "2").unwrap();
        assert_eq!(revision(&package), of(true));
    }

    #[test]
    fn a_folder_in_no_repository_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(revision(folder.path()), None);
        assert_eq!(revision(&folder.path().join("gone")), None);
    }
}
