//! Whether what will be measured can be saved, asked before anything is sent.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// What is written to try a folder, bytes: a disk that is full may still make an empty file.
const TRIED: usize = 4096;

/// Makes sure that files can be made in `folder`, which is made where it is missing.
///
/// # Errors
///
/// If that is not so; what was tried is removed.
pub(super) fn check_folder(folder: &Path) -> anyhow::Result<()> {
    let failed =
        || format!("nothing can be saved in `{}`, so that nothing is measured", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    let mut file =
        tempfile::Builder::new().prefix(".writable-").tempfile_in(folder).with_context(failed)?;
    file.write_all(&[0; TRIED]).and_then(|()| file.as_file().sync_data()).with_context(failed)
}

/// Makes sure that `path`, in a folder that can be written to, can be written: where it is there, it is a file that
/// may be changed.
///
/// # Errors
///
/// If that is not so.
pub(super) fn check_file(path: &Path) -> anyhow::Result<()> {
    let Ok(about) = fs::metadata(path) else { return Ok(()) };
    if !about.is_file() {
        bail!("`{}` is no file and stands where one is to be written", path.display());
    }
    let opened = OpenOptions::new().append(true).open(path);
    opened.map(drop).with_context(|| format!("`{}` cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_and_left_empty_and_one_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("a/results");
        check_folder(&results).unwrap();
        assert_eq!(fs::read_dir(&results).unwrap().count(), 0);
        fs::write(folder.path().join("file"), "").unwrap();
        let error = check_folder(&folder.path().join("file/results")).unwrap_err();
        assert!(format!("{error:#}").contains("file/results`"), "{error:#}");
    }

    #[test]
    fn a_folder_is_no_file_to_write() {
        let folder = tempfile::tempdir().unwrap();
        check_file(&folder.path().join("missing")).unwrap();
        fs::write(folder.path().join("file"), "kept").unwrap();
        check_file(&folder.path().join("file")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "kept");
        assert!(check_file(folder.path()).is_err());
    }
}
