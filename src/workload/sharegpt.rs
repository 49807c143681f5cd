//! ShareGPT as MAX's and vLLM's scripts sample it: the first two turns, shuffled by seed, neither
//! too short nor too long. Two things are not as there: a row that is malformed is left out, and where a
//! conversation begins with a turn of the system, its first question and the answer to it are taken.

use std::fmt;

use anyhow::bail;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::dialogue::{Dialogue, Said, Speaker};
use super::json_items::{JsonItems, Place, Usable};
use super::{Length, PromptRequest, Sampling, Source, Workload, python_random, take_fit};
use crate::prompt::Prompt;

/// Fewer tokens than this on either side is no conversation.
const MIN_TOKENS: u32 = 4;
const MAX_PROMPT_TOKENS: u32 = 1024;
const MAX_TOTAL_TOKENS: u32 = 2048;
/// How many conversations are held at once.
const HELD: usize = 1024;

pub(super) fn sample(
    source: &Source,
    output: Option<Length>,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    if sampling.tokenizer.is_none() && output.is_none() {
        bail!(
            "the dataset sharegpt takes the length of each answer from the file, and to count it takes \
             a tokenizer: set `tokenizer` (a tokenizer.json, a folder or a Hub ID), or \
             `output_tokens`"
        );
    }
    let name = source.to_string();
    let mut items = JsonItems::open(&source.locate(sampling)?, &name, EXPECTED)?;
    // The file may be larger than the memory: only the places of conversations are kept. Those whose
    // beginning does not fit stay among them until they are shuffled, so that the order is that of those
    // scripts.
    let usable = items.usable(|Dialogue(begun): &Dialogue<Begun>| begun.has_two_turns)?;
    let Usable { mut places, read, malformed, are_arrays } = usable;
    python_random::shuffle(&mut places, sampling.seed);
    let unsalted = Sampling { salt: None, ..*sampling };
    let mut rng = unsalted.rng("sharegpt output", 0);
    let mut systems = 0;
    let mut requests: Vec<PromptRequest> = Vec::new();
    for places in places.chunks(HELD) {
        if sampling.is_enough(requests.len()) {
            break;
        }
        let drawn = |place: &Place| {
            let Dialogue(begun): Dialogue<Begun> = items.read(place)?;
            systems += usize::from(begun.system);
            Ok((begun.pair, output.map(|length| length.draw(&mut rng))))
        };
        let pairs = places.iter().map(drawn).collect::<anyhow::Result<Vec<_>>>()?;
        let left = sampling.requests.map(|wanted| wanted - requests.len());
        let sampling = Sampling { requests: left, ..*sampling };
        requests.extend(take_fit(&pairs, &sampling, |(pair, output_tokens)| {
            pair.as_ref().map_or(Ok(None), |pair| fit(pair, *output_tokens, &sampling))
        })?);
    }
    if requests.is_empty() {
        bail!(
            "dataset `{name}`: none of its {read} conversations is left after the filter (two turns, at \
             least {MIN_TOKENS} tokens each, a prompt of at most {MAX_PROMPT_TOKENS} and at most \
             {MAX_TOTAL_TOKENS} in all); the dataset `custom` sends them whatever their length{}",
            malformed.hint()
        );
    }
    let mut workload = Workload::of_texts(requests);
    workload.notes.extend(malformed.note(&name, read));
    if are_arrays {
        workload.recognised.push(format!("`{name}`: each array of messages is a conversation"));
    }
    if 0 < systems {
        workload.notes.push(format!(
            "{systems} conversations of `{name}` begin with a turn of the system: it is not sent, and the \
             first question and the answer to it are taken; MAX's and vLLM's scripts send it as the prompt"
        ));
    }
    if sampling.tokenizer.is_none() {
        workload.notes.push(
            "there is no tokenizer, so that the prompts were not chosen by their length".to_owned(),
        );
    }
    Ok(workload)
}

/// The request that a conversation makes; `None` if it is too short or too long.
fn fit(
    (prompt, answer): &(String, String),
    output_tokens: Option<u32>,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Option<PromptRequest>> {
    let text = Prompt::Text(prompt.clone());
    let Some(tokenizer) = sampling.tokenizer else {
        let output_tokens = output_tokens.unwrap_or(MIN_TOKENS);
        return Ok(Some(PromptRequest::single(text, None, output_tokens)));
    };
    let plain = tokenizer.count_prompt(prompt)?;
    let output_tokens = match output_tokens {
        Some(drawn) => drawn,
        None => tokenizer.count_prompt(answer)?,
    };
    if !fits(plain, output_tokens) {
        return Ok(None);
    }
    let prompt_tokens = if sampling.chat { tokenizer.count(&text, true)? } else { plain };
    Ok(Some(PromptRequest::single(text, Some(prompt_tokens), output_tokens)))
}

fn fits(prompt_tokens: u32, output_tokens: u32) -> bool {
    MIN_TOKENS <= prompt_tokens
        && MIN_TOKENS <= output_tokens
        && prompt_tokens <= MAX_PROMPT_TOKENS
        && prompt_tokens + output_tokens <= MAX_TOTAL_TOKENS
}

/// What an item should be.
const EXPECTED: &str =
    "a JSON array of {\"conversations\": [{\"from\": \"human\", \"value\": \"...\"}, ...]}";

/// How a conversation begins.
#[derive(Default)]
struct Begun {
    has_two_turns: bool,
    /// Whether the system has the first word.
    system: bool,
    /// The prompt and the answer.
    pair: Option<(String, String)>,
}

/// Takes the turns that are needed and skips the rest unread: the real file is large.
impl<'de> Deserialize<'de> for Begun {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Turns;

        impl<'de> Visitor<'de> for Turns {
            type Value = Begun;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of turns")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<Begun, A::Error> {
                let first: Option<Said> = turns.next_element()?;
                let second: Option<Said> = turns.next_element()?;
                let Some((mut first, mut second)) = first.zip(second) else {
                    return Ok(Begun::default());
                };
                let system = first.by == Speaker::System;
                let mut found = true;
                while system && (first.by, second.by) != (Speaker::User, Speaker::Assistant) {
                    let Some(next) = turns.next_element()? else {
                        found = false;
                        break;
                    };
                    first = std::mem::replace(&mut second, next);
                }
                while turns.next_element::<IgnoredAny>()?.is_some() {}
                let pair = found.then_some((first.text, second.text));
                Ok(Begun { has_two_turns: true, system, pair })
            }
        }

        deserializer.deserialize_seq(Turns)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use super::*;
    use crate::files::Files;
    use crate::tokenizer::Tokenizer;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn sample_file(
        path: &Path,
        output_tokens: Option<u32>,
        requests: usize,
        seed: u64,
    ) -> anyhow::Result<Workload> {
        let tokenizer = tokenizer();
        let requests = Some(requests);
        let sampling = Sampling {
            files: &Files::only_here(),
            tokenizer: Some(&tokenizer),
            chat: false,
            requests,
            seed,
            salt: None,
        };
        let source = Source::new(path.to_str().unwrap());
        sample(&source, output_tokens.map(Length::Fixed), &sampling)
    }

    fn sample_text(text: &str, output_tokens: Option<u32>) -> anyhow::Result<Workload> {
        sample_file(file(text).path(), output_tokens, 10, 0)
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
            [PromptRequest::single(
                Prompt::Text(QUESTION.to_owned()),
                Some(tokenizer.count_prompt(QUESTION).unwrap()),
                tokenizer.count_prompt(ANSWER).unwrap(),
            )]
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
        let of_seed = |seed| sample_file(path, None, 20, seed).unwrap();
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
            (r#"[{"id": "1"}]"#, "line 1, column 12: there is no `conversations`"),
            (r#"[{"conversations": []}]"#, "none of its 1 conversations"),
            ("[]", "none of its 0 conversations"),
        ] {
            let file = file(text);
            let error = sample_file(file.path(), None, 10, 0).unwrap_err().to_string();
            let name = file.path().display().to_string();
            assert!(error.contains(part) && error.contains(&name), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = sample_file(Path::new("none.json"), None, 1, 0).unwrap_err();
        assert!(format!("{error:#}").contains("`none.json`"), "{error:#}");
    }

    #[test]
    fn a_malformed_row_is_left_out_and_counted() {
        let good = conversation(&[QUESTION, ANSWER]);
        for bad in [
            "null",
            "7",
            r#"{"id": "1"}"#,
            r#"{"conversations": null}"#,
            r#"{"conversations": "none"}"#,
            r#"{"conversations": [null, "hi"]}"#,
            r#"{"conversations": [{"from": "human", "value": null}, {"from": "gpt", "value": "a"}]}"#,
            r#"{"conversations": [{"from": "human", "value": 7}, {"from": "gpt", "value": "a"}]}"#,
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt"}]}"#,
            r#"{"conversations": [{"from": 7, "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
        ] {
            let workload = sample_text(&format!("[{good},\n{bad},\n{good}]"), None).unwrap();
            assert_eq!(workload.requests.len(), 2, "{bad}");
            let [note] = &workload.notes[..] else { panic!("{bad}: {:?}", workload.notes) };
            assert!(note.contains("1 of the 3 conversations"), "{bad}: {note}");
            assert!(note.contains("line 2, column"), "{bad}: {note}");
            let error = sample_text(&format!("[{bad},{bad}]"), None).unwrap_err().to_string();
            assert!(error.contains("none of its 2 conversations"), "{error}");
            assert!(error.contains("2 are malformed, the first at line 1"), "{error}");
        }
    }

    #[test]
    fn a_malformed_row_does_not_change_the_order_of_the_others() {
        let row = |number: usize| conversation(&[&format!("{QUESTION} {number}"), ANSWER]);
        let good: Vec<String> = (0..10).map(row).collect();
        let mut bad = good.clone();
        bad.insert(4, "null".to_owned());
        let texts = |rows: &[String]| {
            let workload = sample_text(&format!("[{}]", rows.join(",")), None).unwrap();
            let text = |request: &PromptRequest| request.prompt.text().into_owned();
            workload.requests.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&good), texts(&bad));
    }

    #[test]
    fn where_the_system_speaks_first_its_question_and_answer_are_taken() {
        let turn = |from: &str, text: &str| format!(r#"{{"from":"{from}","value":"{text}"}}"#);
        let with = |turns: &[String]| format!(r#"[{{"conversations":[{}]}}]"#, turns.join(","));
        let system = turn("system", "You are a very helpful and terse assistant.");
        let (question, answer) = (turn("human", QUESTION), turn("gpt", ANSWER));
        for turns in [
            vec![system.clone(), question.clone(), answer.clone()],
            vec![
                system.clone(),
                turn("gpt", "Hi there, how are you today?"),
                question.clone(),
                answer.clone(),
            ],
            vec![system.clone(), turn("human", "Hello to you."), question.clone(), answer],
        ] {
            let workload = sample_text(&with(&turns), None).unwrap();
            assert_eq!(workload.requests[0].prompt, Prompt::Text(QUESTION.to_owned()));
            let output = tokenizer().count_prompt(ANSWER).unwrap();
            assert_eq!(workload.requests[0].output_tokens, output);
            assert!(workload.notes[0].contains("1 conversations of"), "{:?}", workload.notes);
        }
        assert!(sample_text(&with(&[system, question]), None).is_err());
    }

    #[test]
    fn the_shapes_of_openai_and_sglang_are_taken_too() {
        let turns = format!(
            r#"[{{"role":"user","content":"{QUESTION}"}},{{"role":"assistant","content":"{ANSWER}"}}]"#
        );
        for text in [
            format!(r#"{{"id":"0","conversations":{turns}}}"#),
            format!(r#"{{"messages":{turns}}}"#),
            turns.clone(),
        ] {
            let workload = sample_text(&text, None).unwrap();
            assert_eq!(workload.requests[0].prompt, Prompt::Text(QUESTION.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_salt_makes_no_prompt_longer_that_can_spare_its_first_words() {
        let drawn = sample_file(Path::new("fixtures/sharegpt.json"), None, 40, 0).unwrap();
        let tokenizer = tokenizer();
        let unsalted = Sampling::new(Some(&tokenizer), 40, 0);
        let salted = drawn.as_sent(&Sampling { salt: Some("1a2b3c4d"), ..unsalted }).unwrap();
        let mut kept = 0;
        for (before, after) in drawn.requests.iter().zip(&salted.requests) {
            assert!(after.prompt.text().starts_with("[1a2b3c4d] "));
            let (before, tokens) = (before.prompt_tokens.unwrap(), after.prompt_tokens.unwrap());
            assert_eq!(after.asked_tokens, Some(before));
            let is_kept = tokens.abs_diff(before) <= 1;
            assert!(is_kept || before < 2 * after.salt_tokens + 8, "{before} {tokens}");
            kept += usize::from(is_kept);
        }
        assert!(30 < kept, "{kept}");
    }
}
