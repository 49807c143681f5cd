//! What the simulated deployment is capable of: its figures and the presets.

use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::dialect::Dialect;
use super::lexicon::Lexicon;
use crate::duration::as_ms;

/// A deployment to resemble.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// A small accelerator: 16 sequences at a time, soon saturated.
    Small,
    /// A large accelerator: 256 sequences at a time.
    Large,
}

/// A figure of a deployment that is written as a number with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Prompt tokens a second.
    PrefillTokensPerS,
    /// Fixed part of a step, ms.
    DecodeBaseMs,
    /// Part of a step for each sequence, ms.
    DecodePerSequenceMs,
    /// Spread of the step times.
    Jitter,
}

impl Figure {
    /// The name in configs.
    pub fn key(self) -> &'static str {
        match self {
            Self::PrefillTokensPerS => "prefill_tokens_per_s",
            Self::DecodeBaseMs => "decode_base_ms",
            Self::DecodePerSequenceMs => "decode_per_sequence_ms",
            Self::Jitter => "jitter",
        }
    }

    /// The value, or what a deployment may have instead.
    pub fn check(self, value: f64) -> Result<f64, String> {
        let (possible, range) = match self {
            Self::PrefillTokensPerS => {
                ((0.001..=1e12).contains(&value), "from 0.001 to 1000000000000")
            }
            Self::DecodeBaseMs | Self::DecodePerSequenceMs => {
                ((0.0..=LONGEST_MS).contains(&value), "from 0 to 3600000")
            }
            Self::Jitter => ((0.0..1.0).contains(&value), "at least 0 and below 1"),
        };
        possible.then_some(value).ok_or_else(|| format!("must be {range}, not {value:?}"))
    }

    /// The value that a text is.
    pub fn parse(self, text: &str) -> Result<f64, String> {
        self.check(text.parse().map_err(|_| format!("`{text}` is no number"))?)
    }
}

/// An hour: no step takes longer.
const LONGEST_MS: f64 = 3.6e6;

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
        for (figure, value) in [
            (Figure::PrefillTokensPerS, self.prefill_tokens_per_s),
            (Figure::DecodeBaseMs, as_ms(self.decode_base)),
            (Figure::DecodePerSequenceMs, as_ms(self.decode_per_sequence)),
            (Figure::Jitter, self.jitter),
        ] {
            if let Err(fault) = figure.check(value) {
                return refuse(&format!("{} {fault}", figure.key()));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_no_deployment_has_is_refused_with_what_is_allowed() {
        for (figure, text, fault) in [
            (Figure::DecodeBaseMs, "1e300", "must be from 0 to 3600000, not 1e300"),
            (Figure::DecodeBaseMs, "-1", "must be from 0 to 3600000, not -1.0"),
            (Figure::DecodePerSequenceMs, "NaN", "must be from 0 to 3600000, not NaN"),
            (Figure::PrefillTokensPerS, "0", "must be from 0.001 to 1000000000000, not 0.0"),
            (Figure::PrefillTokensPerS, "inf", "must be from 0.001 to 1000000000000, not inf"),
            (Figure::Jitter, "1", "must be at least 0 and below 1, not 1.0"),
            (Figure::Jitter, "much", "`much` is no number"),
        ] {
            assert_eq!(figure.parse(text), Err(fault.to_owned()), "{figure:?} {text}");
        }
        assert_eq!(Figure::DecodeBaseMs.parse("0.5"), Ok(0.5));
        let base = Duration::from_secs(4000);
        let slow = SimConfig { decode_base: base, ..SimConfig::preset(Preset::Small) };
        let error = slow.check().unwrap_err().to_string();
        assert_eq!(error, "decode_base_ms must be from 0 to 3600000, not 4000000.0");
        assert!(SimConfig::preset(Preset::Large).check().is_ok());
    }
}
