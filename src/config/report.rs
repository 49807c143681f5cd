//! The `[report]` table of a plan file as the user wrote it.

use std::path::PathBuf;

use serde::Deserialize;

use crate::output_format::OutputFormat;

/// What is written beside the results.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// In which formats.
    #[serde(default)]
    pub formats: Vec<OutputFormat>,
    /// Whether `report.html` is written; it is unless set.
    pub html: Option<bool>,
    /// Where what is of the whole run goes; to the results unless set.
    pub folder: Option<PathBuf>,
}
