//! Text in, token counts out, by a `tokenizer.json` on this machine. Touches no network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

/// A tokenizer and where it came from. Copies share it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a model's folder.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = tokenizer_file(path)?;
        let mut tokenizer = tokenizers::Tokenizer::from_file(&file)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("read the tokenizer `{}`", file.display()))?;
        // A count must be of the whole text, whatever the file says about batches.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { inner: Arc::new(tokenizer) })
    }

    /// Tokens of a prompt, with the special tokens that the model puts around it.
    pub fn count_prompt(&self, text: &str) -> anyhow::Result<u32> {
        self.count(text, true)
    }

    /// Tokens of generated text, without special tokens.
    pub fn count_output(&self, text: &str) -> anyhow::Result<u32> {
        self.count(text, false)
    }

    fn count(&self, text: &str, special_tokens: bool) -> anyhow::Result<u32> {
        let encoding = self
            .inner
            .encode_fast(text, special_tokens)
            .map_err(|error| anyhow::anyhow!("the tokenizer refused a text: {error}"))?;
        Ok(u32::try_from(encoding.len())?)
    }

    /// The tokenizer itself, for the simulated engine.
    pub fn shared(&self) -> Arc<tokenizers::Tokenizer> {
        Arc::clone(&self.inner)
    }
}

fn tokenizer_file(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_dir() {
        let file = path.join("tokenizer.json");
        if !file.is_file() {
            bail!("the folder `{}` holds no tokenizer.json", path.display());
        }
        return Ok(file);
    }
    if !path.is_file() {
        bail!(
            "no tokenizer at `{}`: give a tokenizer.json or a model's folder on this machine",
            path.display()
        );
    }
    Ok(path.to_owned())
}
