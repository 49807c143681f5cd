//! How the cases of a run ended: what is made into files at its end.

use serde::{Deserialize, Serialize};

use super::Report;
use crate::verdict::Verdict;

/// How one case ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It was measured. The result is without its entries per request.
    Measured(Box<Report>),
    /// It could not be measured.
    Broken {
        /// Its name.
        case: String,
        /// Why.
        message: String,
    },
    /// It was left out.
    Ignored {
        /// Its name.
        case: String,
        /// Why.
        reason: String,
    },
}

impl Ending {
    /// That of a case which was measured.
    pub fn measured(report: Report) -> Self {
        Self::Measured(Box::new(report.without_details()))
    }

    /// The case's name.
    pub fn case(&self) -> &str {
        match self {
            Self::Measured(report) => &report.servebench.case,
            Self::Broken { case, .. } | Self::Ignored { case, .. } => case,
        }
    }

    /// The result; `None` where there is none.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Measured(report) => Some(report),
            Self::Broken { .. } | Self::Ignored { .. } => None,
        }
    }

    /// How it ended, in a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Measured(report) => report.verdict_name(),
            Self::Broken { .. } => "error",
            Self::Ignored { .. } => "ignored",
        }
    }
}

impl Report {
    /// How the case ended, in a word or two.
    pub fn verdict_name(&self) -> &'static str {
        self.servebench.verdict.map_or("interrupted", Verdict::name)
    }
}
