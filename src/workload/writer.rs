//! Writes prompts of an exact number of tokens from words that are a token each.

use anyhow::bail;
use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;

use super::{PromptForm, Sampling};
use crate::prompt::Prompt;
use crate::tokenizer::Tokenizer;
use crate::vocabulary::Vocabulary;

/// How many words are tried for the beginning of a prompt.
const OPENERS: usize = 256;
/// How often a prompt that comes out wrong is drawn again.
const DRAWS: usize = 20;

/// Writes prompts.
pub(super) struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    chat: bool,
    form: PromptForm,
    vocabulary: &'a Vocabulary,
    /// Words that a prompt may begin with.
    openers: Vec<usize>,
    /// Tokens that the server puts around a prompt: marks, a chat template.
    around: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(form: PromptForm, sampling: &Sampling<'a>) -> anyhow::Result<Self> {
        let Some(tokenizer) = sampling.tokenizer else {
            bail!(
                "the dataset makes up prompts of an exact length, and that takes a tokenizer: set \
                 `tokenizer` (a tokenizer.json, a folder or a Hub ID)"
            );
        };
        let chat = sampling.chat;
        let Some(vocabulary) = tokenizer.vocabulary() else {
            bail!(
                "the tokenizer has no words that it counts as one token each, so that prompts of an \
                 exact length cannot be made of it: name another with `tokenizer`"
            );
        };
        let mut writer = Self { tokenizer, chat, form, vocabulary, openers: Vec::new(), around: 0 };
        if form == PromptForm::Tokens {
            writer.openers = (0..writer.vocabulary.len()).collect();
            return Ok(writer);
        }
        let mut counts = Vec::new();
        for word in 0..writer.vocabulary.len().min(OPENERS) {
            counts.push((word, tokenizer.count(&writer.text(&[word]), chat)?));
        }
        let least = counts.iter().map(|&(_, count)| count).min().unwrap_or(1);
        writer.openers =
            counts.iter().filter(|&&(_, count)| count == least).map(|&(word, _)| word).collect();
        writer.around = least.saturating_sub(1);
        Ok(writer)
    }

    /// The shortest prompt that can be written.
    pub(super) fn least(&self) -> u32 {
        self.around + 1
    }

    /// How many words a prompt of so many tokens has.
    pub(super) fn words_of(&self, tokens: u32) -> usize {
        tokens.saturating_sub(self.around).max(1) as usize
    }

    /// Draws words until there are so many; the first of all is one that a prompt may begin with.
    pub(super) fn fill(&self, words: &mut Vec<usize>, wanted: usize, rng: &mut ChaCha12Rng) {
        words.reserve(wanted.saturating_sub(words.len()));
        while words.len() < wanted {
            words.push(if words.is_empty() { self.opener(rng) } else { self.word(rng) });
        }
    }

    /// Draws the first word of a prompt.
    fn opener(&self, rng: &mut ChaCha12Rng) -> usize {
        self.openers[rng.random_range(0..self.openers.len())]
    }

    /// Draws another word.
    fn word(&self, rng: &mut ChaCha12Rng) -> usize {
        rng.random_range(0..self.vocabulary.len())
    }

    /// Draws so many words, the first of which a prompt may begin with.
    pub(super) fn opening(&self, words: usize, rng: &mut ChaCha12Rng) -> Vec<usize> {
        let mut drawn = Vec::new();
        self.fill(&mut drawn, words, rng);
        drawn
    }

    /// The prompt of these words, which has as many tokens as words and those around it.
    ///
    /// Words after the first `kept` are drawn again where the tokenizer does not take each as a token.
    pub(super) fn prompt(
        &self,
        mut words: Vec<usize>,
        kept: usize,
        rng: &mut ChaCha12Rng,
    ) -> anyhow::Result<(Prompt, u32)> {
        let tokens = self.around + words.len() as u32;
        if self.form == PromptForm::Tokens {
            let ids = words.iter().map(|&word| self.vocabulary.token(word)).collect();
            return Ok((Prompt::Tokens(ids), tokens));
        }
        if self.vocabulary.is_exact() {
            return Ok((self.text(&words), tokens));
        }
        for _ in 0..DRAWS {
            let prompt = self.text(&words);
            if self.tokenizer.count(&prompt, self.chat)? == tokens {
                return Ok((prompt, tokens));
            }
            for (index, word) in words.iter_mut().enumerate().skip(kept) {
                *word = if index == 0 { self.opener(rng) } else { self.word(rng) };
            }
        }
        bail!("the tokenizer counts no {tokens} tokens in any of {DRAWS} texts of as many words")
    }

    /// A text of so many tokens by itself, without those around a prompt.
    pub(super) fn passage(&self, tokens: usize, rng: &mut ChaCha12Rng) -> anyhow::Result<String> {
        let words = self.opening(tokens, rng);
        let (prompt, _) = self.prompt(words, 0, rng)?;
        Ok(prompt.text().into_owned())
    }

    fn text(&self, words: &[usize]) -> Prompt {
        let mut text = String::with_capacity(words.len() * 7);
        for &word in words {
            self.vocabulary.push(&mut text, word);
        }
        Prompt::Text(text)
    }
}
