//! The document in, a file out: whole or not at all.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::ZonedDateTime;

use super::Report;

impl Report {
    /// Writes the document, whole or not at all, as a new file in `folder`: by `name`, or by backend,
    /// rate, model and time as MAX's script does. Returns its path.
    pub fn save(
        &self,
        folder: &Path,
        name: Option<&Path>,
        now: &ZonedDateTime,
    ) -> anyhow::Result<PathBuf> {
        let path = match name {
            Some(name) => folder.join(name),
            None => self.free_path(folder, now),
        };
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        write_whole(&path, &text)
            .with_context(|| format!("save the result `{}`", path.display()))?;
        Ok(path)
    }

    /// A path that is not taken: two cases may end in the same second.
    fn free_path(&self, folder: &Path, now: &ZonedDateTime) -> PathBuf {
        let model = self.model_id.trim_end_matches('/').rsplit('/').next().unwrap_or("model");
        let stem = format!(
            "{}-{:?}qps-{model}-{}",
            self.backend,
            self.request_rate.0,
            now.strftime("%Y%m%d-%H%M%S")
        );
        let suffixes = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
        suffixes
            .map(|suffix| folder.join(format!("{stem}{suffix}.json")))
            .find(|path| !path.exists())
            .expect("the suffixes have no end")
    }
}

/// Writes a file, whole or not at all; makes its folder.
pub fn write_whole(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // In the same folder, since only there is a rename one step.
    let mut file = tempfile::Builder::new().prefix(".result-").tempfile_in(folder)?;
    file.write_all(text)?;
    // A temporary file is for its owner alone; a result is for whoever may read the folder.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
