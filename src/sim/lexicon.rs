//! How text is counted, and the words that answers are made of: one word, one token.

use std::io;
use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use crate::vocabulary::Vocabulary;

/// The most words that are taken from a tokenizer.
const MOST_WORDS: usize = 512;

const BUILT_IN: &[&str] = &[
    " the", " and", " that", " with", " from", " this", " have", " they", " will", " would",
    " there", " their", " what", " about", " which", " when", " make", " like", " time", " just",
    " know", " take", " people", " into", " year", " good", " some", " could", " them", " other",
    " than", " then", " look", " only", " come", " over", " think", " also", " back", " after",
    " work", " first", " well", " even", " want", " because", " these", " give", " most", " light",
];

/// How text is counted.
#[derive(Clone, Debug)]
pub enum Lexicon {
    /// About four bytes a token; answers are of built-in words.
    Approximate,
    /// As a tokenizer does. Answers are of words that it takes as one token each.
    Tokenizer(Arc<tokenizers::Tokenizer>),
}

impl Lexicon {
    /// Tokens of a prompt; above 0.
    pub(crate) fn count_prompt(&self, text: &str) -> Result<u32, String> {
        let tokens = match self {
            Self::Approximate => text.len().div_ceil(4),
            Self::Tokenizer(tokenizer) => {
                tokenizer.encode_fast(text, true).map_err(|error| error.to_string())?.len()
            }
        };
        Ok(u32::try_from(tokens).unwrap_or(u32::MAX).max(1))
    }

    /// The words of the answers.
    pub(crate) fn words(&self) -> io::Result<Words> {
        match self {
            Self::Approximate => Ok(Words::BuiltIn),
            Self::Tokenizer(tokenizer) => {
                Vocabulary::of(tokenizer, MOST_WORDS).map(Words::Of).ok_or_else(|| {
                    let message = "the tokenizer has no words that it counts as one token each";
                    io::Error::new(io::ErrorKind::InvalidInput, message)
                })
            }
        }
    }
}

/// The words of answers. Copies share them.
#[derive(Clone, Debug)]
pub(crate) enum Words {
    /// Of this module.
    BuiltIn,
    /// Of a tokenizer, a token each.
    Of(Vocabulary),
}

impl Words {
    /// The words of one answer, without end. The same seed gives the same words.
    pub(crate) fn answer(&self, seed: u64) -> AnswerWords {
        let rng = ChaCha12Rng::seed_from_u64(seed);
        AnswerWords { words: self.clone(), rng, begun: false }
    }
}

/// The words of one answer, one after the other.
#[derive(Debug)]
pub(crate) struct AnswerWords {
    words: Words,
    rng: ChaCha12Rng,
    begun: bool,
}

impl AnswerWords {
    /// The next word, with the space before it.
    pub(crate) fn next_word(&mut self) -> &str {
        let first = !std::mem::replace(&mut self.begun, true);
        match &self.words {
            Words::BuiltIn => BUILT_IN[self.rng.random_range(0..BUILT_IN.len())],
            Words::Of(words) => words.word(self.rng.random_range(0..words.len()), first),
        }
    }

    /// The next `length` words as one text.
    pub(crate) fn text(&mut self, length: usize) -> String {
        let mut text = String::new();
        for _ in 0..length {
            text.push_str(self.next_word());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> tokenizers::Tokenizer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizer.json");
        tokenizers::Tokenizer::from_file(path).unwrap()
    }

    #[test]
    fn an_answer_has_as_many_tokens_as_words() {
        let tokenizer = tokenizer();
        let words = Lexicon::Tokenizer(Arc::new(tokenizer.clone())).words().unwrap();
        for (seed, length) in [(1, 1), (2, 10), (3, 333)] {
            let text = words.answer(seed).text(length);
            assert_eq!(
                tokenizer.encode_fast(text.as_str(), false).unwrap().len(),
                length,
                "{text}"
            );
            assert_eq!(text.split_whitespace().count(), length);
        }
    }

    #[test]
    fn a_seed_gives_the_same_words_again() {
        let words = Lexicon::Approximate.words().unwrap();
        assert_eq!(words.answer(7).text(50), words.answer(7).text(50));
        assert_ne!(words.answer(7).text(50), words.answer(8).text(50));
    }

    #[test]
    fn prompts_are_counted_by_the_tokenizer_or_by_length() {
        let tokenizer = tokenizer();
        let expected = tokenizer.encode("Hello there, you.", true).unwrap().len();
        let count = Lexicon::Tokenizer(Arc::new(tokenizer)).count_prompt("Hello there, you.");
        assert_eq!(count.unwrap() as usize, expected);
        assert_eq!(Lexicon::Approximate.count_prompt("12345678").unwrap(), 2);
        assert_eq!(Lexicon::Approximate.count_prompt("").unwrap(), 1);
    }
}
