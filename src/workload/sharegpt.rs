//! ShareGPT as MAX's and vLLM's scripts sample it: the first two turns, shuffled by seed, neither
//! too short nor too long.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::{PromptRequest, Workload, python_random};
use crate::tokenizer::Tokenizer;

/// Fewer tokens than this on either side is no conversation.
const MIN_TOKENS: u32 = 4;
const MAX_PROMPT_TOKENS: u32 = 1024;
const MAX_TOTAL_TOKENS: u32 = 2048;

pub(super) fn sample(
    path: &Path,
    output_tokens: Option<u32>,
    tokenizer: &Tokenizer,
    requests: usize,
    seed: u64,
) -> anyhow::Result<Workload> {
    let conversations = read(path)?;
    let read = conversations.len();
    let mut pairs: Vec<(String, String)> =
        conversations.into_iter().filter_map(|conversation| conversation.first_two).collect();
    python_random::shuffle(&mut pairs, seed);

    let mut kept = Vec::new();
    for (prompt, answer) in pairs {
        if kept.len() == requests {
            break;
        }
        let prompt_tokens = tokenizer.count_prompt(&prompt)?;
        let output_tokens = match output_tokens {
            Some(fixed) => fixed,
            None => tokenizer.count_prompt(&answer)?,
        };
        if fits(prompt_tokens, output_tokens) {
            kept.push(PromptRequest { prompt, prompt_tokens, output_tokens });
        }
    }
    if kept.is_empty() {
        bail!(
            "dataset `{}`: none of its {read} conversations is left after the filter (two turns, \
             at least {MIN_TOKENS} tokens each, a prompt of at most {MAX_PROMPT_TOKENS} and at \
             most {MAX_TOTAL_TOKENS} in all)",
            path.display()
        );
    }
    Ok(Workload { requests: kept })
}

fn fits(prompt_tokens: u32, output_tokens: u32) -> bool {
    MIN_TOKENS <= prompt_tokens
        && MIN_TOKENS <= output_tokens
        && prompt_tokens <= MAX_PROMPT_TOKENS
        && prompt_tokens + output_tokens <= MAX_TOTAL_TOKENS
}

#[derive(Deserialize)]
struct Conversation {
    #[serde(rename = "conversations", deserialize_with = "first_two")]
    first_two: Option<(String, String)>,
}

#[derive(Deserialize)]
struct Turn {
    value: String,
}

fn read(path: &Path) -> anyhow::Result<Vec<Conversation>> {
    let bytes = fs::read(path).with_context(|| format!("read the dataset `{}`", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let hint = if error.is_eof() {
            "the file ends too early: is the download complete?"
        } else {
            "expected a JSON array of {\"conversations\": [{\"value\": \"...\"}, ...]}"
        };
        anyhow::anyhow!(
            "dataset `{}`, line {line}, column {column}: {error}; {hint}",
            path.display()
        )
    })
}

/// Keeps the first two turns and skips the rest unread: the real file is large.
fn first_two<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<(String, String)>, D::Error> {
    struct FirstTwo;

    impl<'de> Visitor<'de> for FirstTwo {
        type Value = Option<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of turns")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<Self::Value, A::Error> {
            let first: Option<Turn> = turns.next_element()?;
            let second: Option<Turn> = turns.next_element()?;
            while turns.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first.zip(second).map(|(first, second)| (first.value, second.value)))
        }
    }

    deserializer.deserialize_seq(FirstTwo)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn sample_text(text: &str, output_tokens: Option<u32>) -> anyhow::Result<Workload> {
        sample(file(text).path(), output_tokens, &tokenizer(), 10, 0)
    }

    fn conversation(turns: &[&str]) -> String {
        let turns: Vec<String> =
            turns.iter().map(|turn| format!(r#"{{"from":"x","value":{turn:?}}}"#)).collect();
        format!(r#"{{"id":"1","conversations":[{}]}}"#, turns.join(","))
    }

    const QUESTION: &str = "What is the capital of France, and why?";
    const ANSWER: &str = "It is Paris, for reasons of history.";

    #[test]
    fn only_the_first_two_turns_are_used() {
        let three = conversation(&[QUESTION, ANSWER, "And of Spain, then?"]);
        let one = conversation(&[QUESTION]);
        let workload = sample_text(&format!("[{three},{one}]"), None).unwrap();
        let tokenizer = tokenizer();
        assert_eq!(
            workload.requests,
            [PromptRequest {
                prompt: QUESTION.to_owned(),
                prompt_tokens: tokenizer.count_prompt(QUESTION).unwrap(),
                output_tokens: tokenizer.count_prompt(ANSWER).unwrap(),
            }]
        );
    }

    #[test]
    fn a_fixed_output_length_replaces_that_of_the_answer() {
        let text = format!("[{}]", conversation(&[QUESTION, ""]));
        assert_eq!(sample_text(&text, Some(77)).unwrap().requests[0].output_tokens, 77);
    }

    #[test]
    fn conversations_too_short_or_too_long_are_left_out() {
        for (prompt_tokens, output_tokens, kept) in [
            (4, 4, true),
            (3, 4, false),
            (4, 3, false),
            (1024, 1024, true),
            (1025, 4, false),
            (1024, 1025, false),
        ] {
            assert_eq!(fits(prompt_tokens, output_tokens), kept, "{prompt_tokens}+{output_tokens}");
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        let path = Path::new("fixtures/sharegpt.json");
        let of_seed = |seed| sample(path, None, &tokenizer(), 20, seed).unwrap();
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
        assert_eq!(of_seed(1).requests.len(), 20);
    }

    #[test]
    fn a_damaged_file_names_the_file_and_the_place() {
        let whole = format!("[{}]", conversation(&[QUESTION, ANSWER]));
        for (text, part) in [
            (&whole[..whole.len() / 2], "the file ends too early"),
            ("", "the file ends too early"),
            ("<html>not found</html>", "line 1, column 1"),
            (r#"{"a": 1}"#, "expected a JSON array"),
            (r#"[{"id": "1"}]"#, "missing field `conversations`"),
            ("[]", "none of its 0 conversations"),
        ] {
            let file = file(text);
            let error = sample(file.path(), None, &tokenizer(), 10, 0).unwrap_err().to_string();
            let name = file.path().display().to_string();
            assert!(error.contains(part) && error.contains(&name), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = sample(Path::new("none.json"), None, &tokenizer(), 1, 0).unwrap_err();
        assert!(format!("{error:#}").contains("`none.json`"), "{error:#}");
    }
}
