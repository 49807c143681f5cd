//! A result that was saved, read back.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Report, SCHEMA_VERSION};

/// What is read of a document of another version.
#[derive(Deserialize)]
struct Versioned {
    servebench: Version,
}

#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

impl Report {
    /// Reads a result but for its entries per request, which are skipped and never in memory.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is no result, or is one of another version of the schema.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("read the result `{}`", path.display());
        let reader = || File::open(path).map(|file| BufReader::with_capacity(1 << 20, file));
        let version: Versioned = serde_json::from_reader(reader().with_context(failed)?)
            .with_context(|| format!("`{}` is no result of a case", path.display()))?;
        let version = version.servebench.schema_version;
        if version != SCHEMA_VERSION {
            bail!(
                "`{}` is of version {version} of the schema and this is version {SCHEMA_VERSION}: \
                 measure it again",
                path.display()
            );
        }
        let mut report: Self =
            serde_json::from_reader(reader().with_context(failed)?).with_context(failed)?;
        report.metadata = report.servebench.metadata.clone();
        Ok(report)
    }
}
