//! Words that a tokenizer takes as one token each, however they are strung together: what prompts of an
//! exact length and the answers of the simulated engine are made of.

use std::sync::Arc;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

/// Words and their tokens. Copies share them.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Each with a leading space; never empty.
    words: Arc<[String]>,
    tokens: Arc<[u32]>,
    /// Whether a text begins without the space, because the tokenizer puts one there itself.
    bare: bool,
    /// Whether the tokenizer cuts a text between the words before it looks at them, so that what is
    /// true of each word is true of every text of them.
    separate: bool,
}

impl Vocabulary {
    /// The first `most` of a tokenizer's words; `None` where it has none.
    pub fn of(tokenizer: &tokenizers::Tokenizer, most: usize) -> Option<Self> {
        let candidates = candidates(tokenizer);
        [false, true].into_iter().find_map(|bare| {
            let mut found = Self { words: [].into(), tokens: [].into(), bare, separate: false };
            let alone = |(token, word): &&(u32, String)| {
                let pair = [word.as_str(), word.as_str()].concat();
                let text = if bare { pair.trim_start() } else { pair.as_str() };
                let encoding = tokenizer.encode_fast(text, false);
                encoding.is_ok_and(|encoding| encoding.get_ids() == [*token, *token])
            };
            let (tokens, words): (Vec<u32>, Vec<String>) =
                candidates.iter().filter(alone).take(most).cloned().unzip();
            (found.words, found.tokens) = (words.into(), tokens.into());
            found.separate = found.separates(tokenizer);
            (0 < found.len() && found.holds(tokenizer)).then_some(found)
        })
    }

    /// How many words there are; above 0.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether every text of these words is known to have as many tokens as words; otherwise it must be
    /// counted.
    pub fn is_exact(&self) -> bool {
        self.separate
    }

    /// Adds a word to `text`, with the space before it.
    pub fn push(&self, text: &mut String, word: usize) {
        let word = self.words[word].as_str();
        text.push_str(if text.is_empty() && self.bare { word.trim_start() } else { word });
    }

    /// The word's token.
    pub fn token(&self, word: usize) -> u32 {
        self.tokens[word]
    }

    /// The word, with the space before it unless it is the `first` of a text that begins without.
    pub fn word(&self, word: usize, first: bool) -> &str {
        let word = self.words[word].as_str();
        if first && self.bare { word.trim_start() } else { word }
    }

    /// Whether a text of all words in a random order has the tokens that it should have.
    fn holds(&self, tokenizer: &tokenizers::Tokenizer) -> bool {
        let mut order: Vec<usize> = (0..self.len()).cycle().take(self.len().max(2048)).collect();
        order.shuffle(&mut ChaCha12Rng::seed_from_u64(0));
        let mut text = String::new();
        order.iter().for_each(|&word| self.push(&mut text, word));
        let encoding = tokenizer.encode_fast(text, false);
        encoding.is_ok_and(|encoding| {
            encoding.get_ids().iter().copied().eq(order.iter().map(|&word| self.tokens[word]))
        })
    }

    /// Whether the tokenizer's first step cuts between any two of the words.
    fn separates(&self, tokenizer: &tokenizers::Tokenizer) -> bool {
        let Some(step) = tokenizer.get_pre_tokenizer() else { return false };
        let mut rng = ChaCha12Rng::seed_from_u64(0);
        let mut text = String::new();
        let count = self.len().min(4096) * 2;
        for _ in 0..count {
            self.push(&mut text, rng.random_range(0..self.len().max(1)));
        }
        let mut pieces = PreTokenizedString::from(text);
        step.pre_tokenize(&mut pieces).is_ok()
            && pieces.get_splits(OffsetReferential::Original, OffsetType::Byte).len() == count
    }
}

/// The vocabulary's words of two or more small letters after a space, in the order of their tokens.
fn candidates(tokenizer: &tokenizers::Tokenizer) -> Vec<(u32, String)> {
    let mut words: Vec<_> = tokenizer
        .get_vocab(false)
        .into_iter()
        .filter_map(|(token, id)| {
            // Byte-level vocabularies write a space as `Ġ`, SentencePiece's as `▁`.
            let word = token.strip_prefix(['Ġ', '▁', ' '])?;
            let plain = word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
            plain.then(|| (id, format!(" {word}")))
        })
        .collect();
    words.sort_unstable();
    words
}
