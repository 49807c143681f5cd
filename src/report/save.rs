//! The document in, a file out: whole or not at all.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::ZonedDateTime;

use super::Report;
use crate::file_name::file_name;

impl Report {
    /// Writes the document, whole or not at all, as a new file in `folder`: by `name`, or by backend,
    /// rate, model and time as MAX's script does. Returns its path.
    pub fn save(
        &self,
        folder: &Path,
        name: Option<&Path>,
        now: &ZonedDateTime,
    ) -> anyhow::Result<PathBuf> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let saving = |path: &Path| format!("save the result `{}`", path.display());
        if let Some(name) = name {
            let path = folder.join(name);
            write_whole(&path, &text).with_context(|| saving(&path))?;
            return Ok(path);
        }
        for path in self.paths(folder, now) {
            if write_new(&path, &text).with_context(|| saving(&path))? {
                return Ok(path);
            }
        }
        unreachable!("the suffixes have no end")
    }

    /// The paths to try, since two cases may end in the same second, also of two runs.
    fn paths(&self, folder: &Path, now: &ZonedDateTime) -> impl Iterator<Item = PathBuf> {
        let model = self.model_id.trim_end_matches('/').rsplit('/').next().unwrap_or("model");
        let name = file_name(&format!("{}-{:?}qps-{model}", self.backend, self.request_rate.0));
        let stem = format!("{name}-{}", now.strftime("%Y%m%d-%H%M%S"));
        let suffixes = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
        let folder = folder.to_owned();
        suffixes.map(move |suffix| folder.join(format!("{stem}{suffix}.json")))
    }
}

/// Writes a file that is not there yet, whole or not at all; whether it was not.
fn write_new(path: &Path, text: &[u8]) -> anyhow::Result<bool> {
    match temporary(path, text)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error.into()),
    }
}

/// Writes a file, whole or not at all; makes its folder.
pub fn write_whole(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    temporary(path, text)?.persist(path)?;
    Ok(())
}

/// What is to stand at `path`, beside it.
fn temporary(path: &Path, text: &[u8]) -> anyhow::Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // In the same folder, since only there is a rename one step.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".result-");
    // A temporary file is for its owner alone; a result is for whom the user's umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::report;

    #[test]
    fn a_result_has_a_name_that_every_system_takes_and_none_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = report("w", &[]);
        let now = ZonedDateTime::now();
        for model in ["org/llama3.1:8b", "x\n::error::y\u{1b}[31m", "a\\..\\b", &"m".repeat(300)] {
            report.model_id = model.to_owned();
            for _ in 0..2 {
                let path = report.save(folder.path(), None, &now).unwrap();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(!name.contains([':', '\\', '\n', '\u{1b}', '[']), "{name:?}");
                assert!(name.len() <= 200, "{name}");
                let saved = fs::read_to_string(&path).unwrap();
                assert!(
                    saved.contains(&serde_json::to_string(model).unwrap()),
                    "the name inside stays"
                );
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 8);
    }

    #[cfg(unix)]
    #[test]
    fn who_may_read_a_file_is_for_the_user_s_umask_to_say() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (whole, plain) = (folder.path().join("whole"), folder.path().join("plain"));
        write_whole(&whole, b"x").unwrap();
        fs::write(&plain, "x").unwrap();
        assert_eq!(mode(&whole), mode(&plain));
    }
}
