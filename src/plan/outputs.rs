//! What a run writes beside its results, by the flags and the plan file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::Report;
use crate::flags::Flags;
use crate::output_format::OutputFormat;

/// What is written beside the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// In which formats.
    pub formats: BTreeSet<OutputFormat>,
    /// Where what is of the whole run goes.
    pub folder: PathBuf,
}

impl Outputs {
    /// The formats of the flags where they name any, else those of the file.
    pub(super) fn new(flags: &Flags, file: &Report, results: &Path) -> Self {
        let named =
            if flags.output_format.is_empty() { &file.formats } else { &flags.output_format };
        let mut formats: BTreeSet<OutputFormat> = named.iter().copied().collect();
        if !flags.no_html && file.html.unwrap_or(true) {
            formats.insert(OutputFormat::Html);
        }
        if flags.save_records {
            formats.insert(OutputFormat::Jsonl);
        }
        Self { formats, folder: file.folder.clone().unwrap_or_else(|| results.to_owned()) }
    }
}
