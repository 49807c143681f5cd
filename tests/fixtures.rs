//! The fixtures are what they are said to be, and can be made again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder};

const CONVERSATIONS: &str = "fixtures/sharegpt.json";
const TOKENIZER: &str = "fixtures/tokenizer.json";

fn texts() -> Vec<String> {
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(CONVERSATIONS).unwrap()).unwrap();
    let turns = json.as_array().unwrap().iter().flat_map(|conversation| {
        conversation["conversations"].as_array().unwrap().iter().map(|turn| &turn["value"])
    });
    turns.map(|value| value.as_str().unwrap().to_owned()).collect()
}

/// Trains the small tokenizer: byte-level BPE, so that every script and emoji can be spelled.
/// `SERVEBENCH_BLESS=1 cargo test --test fixtures` writes the file anew.
#[test]
fn the_tokenizer_is_the_one_trained_on_the_conversations() {
    let special = |text: &str| AddedToken::from(text, true);
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(4096)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![special("<s>"), special("</s>")])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = TokenizerBuilder::<_, NormalizerWrapper, _, PostProcessorWrapper, _>::new()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .unwrap();
    tokenizer.train(&mut trainer, texts().into_iter()).unwrap();
    let trained = tokenizer.to_string(false).unwrap();

    if std::env::var_os("SERVEBENCH_BLESS").is_some() {
        fs::write(TOKENIZER, &trained).unwrap();
    }
    let saved = fs::read_to_string(TOKENIZER).unwrap();
    assert!(trained == saved, "{TOKENIZER} differs from the one trained on {CONVERSATIONS}");
}

#[test]
fn the_tokenizer_spells_every_text_and_reads_it_back() {
    let tokenizer = tokenizers::Tokenizer::from_file(Path::new(TOKENIZER)).unwrap();
    for text in texts() {
        let ids = tokenizer.encode(text.as_str(), false).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn the_poem_is_of_whole_sonnets_and_repeats_no_line() {
    let poem = fs::read_to_string("fixtures/sonnet.txt").unwrap();
    let lines: Vec<&str> = poem.lines().collect();
    assert!(lines.len() >= 420 && lines.len().is_multiple_of(14), "{} lines", lines.len());
    for line in &lines {
        assert!(line.is_ascii() && line.trim() == *line && !line.is_empty(), "{line:?}");
    }
    let distinct: HashSet<&str> = lines.iter().copied().collect();
    assert_eq!(distinct.len(), lines.len());
}
