//! How a dataset is drawn from: how much, by what seed and salt, counted by whom.

use std::sync::LazyLock;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::PromptRequest;
use crate::files::Files;
use crate::prompt::{Message, Prompt};
use crate::tokenizer::Tokenizer;

/// How a dataset is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// Finds the dataset's file.
    pub(crate) files: &'a Files,
    /// Counts prompts and answers.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Whether prompts are sent as conversations.
    pub chat: bool,
    /// How many requests are wanted; `None` for all that the dataset has.
    pub requests: Option<usize>,
    /// Decides what is drawn.
    pub seed: u64,
    /// Keeps prompts from sharing a beginning with those of other cases and runs.
    pub salt: Option<&'a str>,
}

impl<'a> Sampling<'a> {
    /// So many requests as text, drawn by `seed` from files of this machine, without a salt.
    pub fn new(tokenizer: Option<&'a Tokenizer>, requests: usize, seed: u64) -> Self {
        static HERE: LazyLock<Files> = LazyLock::new(Files::only_here);
        let requests = Some(requests);
        Self { files: &HERE, tokenizer, chat: false, requests, seed, salt: None }
    }
}

impl Sampling<'_> {
    /// Whether there are enough of them.
    pub(super) fn is_enough(&self, requests: usize) -> bool {
        self.requests.is_some_and(|wanted| wanted <= requests)
    }

    /// The tokenizer, or an error that says what it is needed for.
    pub(super) fn tokenizer(&self, purpose: &str) -> anyhow::Result<&Tokenizer> {
        self.tokenizer.ok_or_else(|| {
            anyhow::anyhow!("{purpose}: set `tokenizer` (a tokenizer.json, a folder or a Hub ID)")
        })
    }

    /// Random numbers for one part of one purpose; those of any two differ.
    pub(super) fn rng(&self, purpose: &str, part: u64) -> ChaCha12Rng {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        hasher.update(purpose);
        hasher.update([0]);
        hasher.update(self.salt.unwrap_or_default());
        let mut rng = ChaCha12Rng::from_seed(hasher.finalize().into());
        rng.set_stream(part);
        rng
    }

    /// A conversation as text.
    pub(super) fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
    ) -> anyhow::Result<String> {
        let rendered = self.tokenizer.map(|tokenizer| tokenizer.render(messages, tools));
        let rendered = rendered.transpose()?;
        rendered.flatten().ok_or_else(|| {
            anyhow::anyhow!(
                "the dataset holds conversations, and to send them as text takes the model's chat \
                 template: set `tokenizer` to a folder or a Hub ID that has one, or measure a backend of \
                 chat"
            )
        })
    }

    /// How long a part of a prompt is: tokens, or characters where nobody counts tokens.
    pub(super) fn length(&self, text: &str) -> usize {
        let tokens = self.tokenizer.and_then(|tokenizer| tokenizer.count_output(text).ok());
        tokens.map_or_else(|| text.chars().count(), |tokens| tokens as usize)
    }

    /// Tokens of a prompt as the server is to see it.
    pub(super) fn count(&self, prompt: &Prompt) -> anyhow::Result<Option<u32>> {
        self.count_with_tools(prompt, None)
    }

    /// The same of the first prompt of a request.
    pub(super) fn count_request(&self, request: &PromptRequest) -> anyhow::Result<Option<u32>> {
        self.count_with_tools(&request.prompt, request.fields.get("tools"))
    }

    /// The same of a prompt with `tools`.
    pub(super) fn count_with_tools(
        &self,
        prompt: &Prompt,
        tools: Option<&Value>,
    ) -> anyhow::Result<Option<u32>> {
        let count = |tokenizer: &Tokenizer| tokenizer.count_with_tools(prompt, tools, self.chat);
        self.tokenizer.map(count).transpose()
    }
}
