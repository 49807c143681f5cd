//! What is sent: prompts and output lengths, drawn by seed from a dataset. One file a dataset.

use std::path::PathBuf;

use serde::Deserialize;

use crate::tokenizer::Tokenizer;

mod python_random;
mod sharegpt;

/// The requests of a case, in the order in which they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Never empty.
    pub requests: Vec<PromptRequest>,
}

/// One prompt and how long its answer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptRequest {
    /// The text that is sent.
    pub prompt: String,
    /// Its length by the case's tokenizer.
    pub prompt_tokens: u32,
    /// The longest answer asked for.
    pub output_tokens: u32,
}

/// Where prompts come from. The name in configs and flags is in snake case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dataset {
    /// Two-turn conversations in the ShareGPT shape.
    ShareGpt {
        /// The JSON file.
        path: PathBuf,
        /// Length of every answer; `None` takes each answer's length in the file.
        output_tokens: Option<u32>,
    },
}

/// The datasets by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DatasetKind {
    /// Two-turn conversations in the ShareGPT shape.
    #[default]
    Sharegpt,
}

impl Dataset {
    /// The name in configs, flags and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ShareGpt { .. } => "sharegpt",
        }
    }

    /// Draws up to `requests` requests; fewer where the dataset holds no more.
    pub fn sample(
        &self,
        tokenizer: &Tokenizer,
        requests: usize,
        seed: u64,
    ) -> anyhow::Result<Workload> {
        match self {
            Self::ShareGpt { path, output_tokens } => {
                sharegpt::sample(path, *output_tokens, tokenizer, requests, seed)
            }
        }
    }
}
