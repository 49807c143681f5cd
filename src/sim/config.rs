//! What the simulated deployment is capable of: its figures and the presets.

use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::dialect::Dialect;
use super::lexicon::Lexicon;

/// A deployment to resemble.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// A small accelerator: 16 sequences at a time, soon saturated.
    Small,
    /// A large accelerator: 256 sequences at a time.
    Large,
}

/// The figures of a simulated deployment.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The most sequences that run at a time.
    pub max_batch: usize,
    /// The most prompt tokens that one step takes.
    pub max_batched_tokens: u32,
    /// Speed at which prompts are read.
    pub prefill_tokens_per_s: f64,
    /// What a step costs, however few sequences it serves.
    pub decode_base: Duration,
    /// What a step costs more for each token that it yields.
    pub decode_per_sequence: Duration,
    /// Room for prompts and answers, in tokens.
    pub kv_cache_tokens: u64,
    /// A step takes up to this fraction more or less; at least 0 and below 1.
    pub jitter: f64,
    /// Decides every draw.
    pub seed: u64,
    /// The models by name; with none, every name is answered to.
    pub models: Vec<String>,
    /// Mean length of an answer that nothing cuts short or draws out.
    pub mean_natural_tokens: u32,
    /// How text is counted, and the words of the answers.
    pub lexicon: Lexicon,
    /// How answers are sent.
    pub dialect: Dialect,
}

impl SimConfig {
    /// The figures of a preset.
    pub fn preset(preset: Preset) -> Self {
        let small = Self {
            max_batch: 16,
            max_batched_tokens: 2048,
            prefill_tokens_per_s: 12_000.0,
            decode_base: Duration::from_millis(6),
            decode_per_sequence: Duration::from_micros(150),
            kv_cache_tokens: 24_576,
            jitter: 0.05,
            seed: 0,
            models: Vec::new(),
            mean_natural_tokens: 200,
            lexicon: Lexicon::Approximate,
            dialect: Dialect::default(),
        };
        match preset {
            Preset::Small => small,
            Preset::Large => Self {
                max_batch: 256,
                max_batched_tokens: 8192,
                prefill_tokens_per_s: 120_000.0,
                decode_base: Duration::from_millis(9),
                decode_per_sequence: Duration::from_micros(20),
                kv_cache_tokens: 524_288,
                ..small
            },
        }
    }

    /// Refuses figures that no deployment has.
    pub(crate) fn check(&self) -> io::Result<()> {
        let refuse = |message: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if self.max_batch == 0 {
            return refuse("max_batch must be above 0");
        }
        if self.max_batched_tokens == 0 {
            return refuse("max_batched_tokens must be above 0");
        }
        if !(0.0 < self.prefill_tokens_per_s && self.prefill_tokens_per_s.is_finite()) {
            return refuse("prefill_tokens_per_s must be above 0");
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return refuse("jitter must be at least 0 and below 1");
        }
        Ok(())
    }

    /// What the first model is called.
    pub(crate) fn model_name(&self) -> &str {
        self.models.first().map_or("sim", String::as_str)
    }

    /// Whether a model of this name is served.
    pub(crate) fn serves(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|served| served == model)
    }
}
