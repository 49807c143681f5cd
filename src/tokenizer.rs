//! Text in, token counts out, by a `tokenizer.json` on this machine. Touches no network.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::chat_template::ChatTemplate;
use crate::files::{Files, is_hub_id};
use crate::prompt::{Message, Prompt};
use crate::vocabulary::Vocabulary;

/// The most words that prompts are made of.
const MOST_WORDS: usize = 8192;

/// A tokenizer and where it came from. Copies share it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
    vocabulary: Arc<OnceLock<Option<Vocabulary>>>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a model's folder.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        Self::find(path, &Files::only_here())
    }

    /// Reads a `tokenizer.json`, the one in a model's folder, or that of a model on the Hub.
    pub(crate) fn find(place: &Path, files: &Files) -> anyhow::Result<Self> {
        let file = tokenizer_file(place, files)?;
        let mut tokenizer = tokenizers::Tokenizer::from_file(&file)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("read the tokenizer `{}`", file.display()))?;
        // A count must be of the whole text, whatever the file says about batches.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| anyhow::anyhow!("{error}"))?;
        let template = match file.parent() {
            Some(folder) => ChatTemplate::load(folder)?.map(Arc::new),
            None => None,
        };
        Ok(Self { inner: Arc::new(tokenizer), template, vocabulary: Arc::default() })
    }

    /// Tokens of a prompt, with the special tokens that the model puts around it.
    pub fn count_prompt(&self, text: &str) -> anyhow::Result<u32> {
        self.count_text(text, true)
    }

    /// Tokens of generated text, without special tokens.
    pub fn count_output(&self, text: &str) -> anyhow::Result<u32> {
        self.count_text(text, false)
    }

    fn count_text(&self, text: &str, special_tokens: bool) -> anyhow::Result<u32> {
        let encoding = self
            .inner
            .encode_fast(text, special_tokens)
            .map_err(|error| anyhow::anyhow!("the tokenizer refused a text: {error}"))?;
        Ok(u32::try_from(encoding.len())?)
    }

    /// Tokens of a prompt as the server is to see it: with the special tokens that the model puts around
    /// it, or with those of its chat template.
    pub fn count(&self, prompt: &Prompt, chat: bool) -> anyhow::Result<u32> {
        self.count_with_tools(prompt, None, chat)
    }

    /// The same of a prompt that comes with `tools`, as requests to chat name them.
    pub fn count_with_tools(
        &self,
        prompt: &Prompt,
        tools: Option<&Value>,
        chat: bool,
    ) -> anyhow::Result<u32> {
        match prompt {
            Prompt::Tokens(tokens) => Ok(u32::try_from(tokens.len())?),
            Prompt::Text(text) if !chat => self.count_prompt(text),
            Prompt::Text(_) | Prompt::Messages(_) => {
                match self.render(&prompt.messages(), tools)? {
                    // The template has the special tokens.
                    Some(text) => self.count_text(&text, false),
                    None => self.count_prompt(&prompt.text()),
                }
            }
        }
    }

    /// The text that the model sees of a conversation, up to where it begins to answer; `None` where the
    /// tokenizer came without a chat template.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
    ) -> anyhow::Result<Option<String>> {
        self.template.as_ref().map(|template| template.render(messages, tools, true)).transpose()
    }

    /// The tokens of a prompt.
    pub fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true);
        let encoding =
            encoding.map_err(|error| anyhow::anyhow!("the tokenizer refused a text: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Words that are a token each; `None` where the tokenizer has none.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.get_or_init(|| Vocabulary::of(&self.inner, MOST_WORDS)).as_ref()
    }

    /// The tokenizer itself, for the simulated engine.
    pub fn shared(&self) -> Arc<tokenizers::Tokenizer> {
        Arc::clone(&self.inner)
    }
}

fn tokenizer_file(path: &Path, files: &Files) -> anyhow::Result<PathBuf> {
    if path.is_dir() {
        let file = path.join("tokenizer.json");
        if !file.is_file() {
            bail!("the folder `{}` holds no tokenizer.json", path.display());
        }
        return Ok(file);
    }
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let place = path.to_string_lossy();
    if place.starts_with("hf://") {
        return files.find(&place);
    }
    if is_hub_id(path) {
        let file = files.of_model(&place, "tokenizer.json").with_context(|| {
            format!("there is no tokenizer at `{place}` on this machine, and none on the Hub")
        })?;
        // They come into the same folder.
        for beside in ["tokenizer_config.json", "chat_template.jinja"] {
            files.of_model_if_any(&place, beside)?;
        }
        return Ok(file);
    }
    bail!(
        "no tokenizer at `{place}`: give a tokenizer.json, a model's folder, or a model on the Hub"
    )
}
