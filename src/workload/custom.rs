//! `custom`: the user's own prompts or conversations from a file of JSON lines, a JSON array, CSV or
//! Parquet.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::json_items::{JsonItems, Place};
use super::row::{self, Answer, Row};
use super::table;
use super::{Length, PromptRequest, Sampling, Source, Workload, python_random, take_fit};
use crate::plain::plain;
use crate::prompt::Prompt;

/// What an item should be.
const EXPECTED: &str =
    "objects, a line each or in an array, such as {\"prompt\": \"...\", \"output_tokens\": 100}";

/// Length of an answer where neither the plan nor the file says: vLLM's default.
const DEFAULT_OUTPUT_TOKENS: u32 = 256;

/// The most names of columns that a message holds.
const MOST_NAMES: usize = 12;

/// Where in an item or a row prompts and lengths are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// A text, or a conversation of `role` and `content`.
    pub prompt: Option<String>,
    /// The longest answer, tokens.
    pub output_tokens: Option<String>,
}

pub(super) fn sample(
    source: &Source,
    columns: &Columns,
    output: Option<Length>,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    let name = source.to_string();
    let path = source.locate(sampling)?;
    let shape = path.extension().map(|extension| extension.to_ascii_lowercase());
    let rows = match shape.as_ref().and_then(|extension| extension.to_str()) {
        Some("csv") => {
            let mut rows = table::csv(&path, &name, sampling)?;
            rows.iter_mut().for_each(|(_, row)| row::type_fields(row));
            rows
        }
        Some("parquet") => table::parquet(&path, &name, sampling)?,
        _ => items(&path, &name, sampling)?,
    };
    let mut seen = Seen::default();
    let mut entries = Vec::new();
    for (place, item) in rows {
        let named = || format!("dataset `{name}`, {place}");
        let row = row::read(item, columns).with_context(named)?;
        if let (Prompt::Messages(messages), false) = (&row.prompt, sampling.chat)
            && let Some(kind) = messages.iter().flat_map(|message| message.other_parts()).next()
        {
            return Err(anyhow::anyhow!(
                "a part of a message is no text (`{}`), and cannot be sent as one: measure a backend of \
                 chat",
                plain(kind)
            ))
            .with_context(named);
        }
        seen.add(&row, &place);
        entries.push(row);
    }
    if entries.is_empty() {
        bail!("dataset `{name}` is empty; expected {EXPECTED}");
    }
    let unsalted = Sampling { salt: None, ..*sampling };
    let mut rng = unsalted.rng("custom output", 0);
    let default = output.unwrap_or(Length::Fixed(DEFAULT_OUTPUT_TOKENS));
    let drawn: Vec<(Row, u32)> = entries
        .into_iter()
        .map(|row| match row.answer {
            Answer::Tokens(tokens) => (row, tokens),
            Answer::Text(_) | Answer::Unknown => (row, default.draw(&mut rng)),
        })
        .collect();
    let requests = take_fit(&drawn, sampling, |(row, drawn)| {
        let recorded = match (&row.answer, sampling.tokenizer) {
            (Answer::Text(text), Some(tokenizer)) if output.is_none() => {
                Some(tokenizer.count_output(text)?.max(1))
            }
            _ => None,
        };
        let tools = row.fields.get("tools");
        let prompt_tokens = sampling.count_with_tools(&row.prompt, tools)?;
        let mut request =
            PromptRequest::single(row.prompt.clone(), prompt_tokens, recorded.unwrap_or(*drawn));
        request.fields = row.fields.clone();
        Ok(Some(request))
    })?;
    let mut workload = Workload::of_texts(requests);
    let lengths = match (sampling.tokenizer, output) {
        (Some(_), None) => Lengths::OfAnswersToo,
        _ => Lengths::OfColumns,
    };
    workload.notes = seen.notes(&name, lengths, output);
    if 0 < seen.conversations {
        workload.recognised.push(format!(
            "`{name}`: {} rows hold `conversations`: the first question of each is sent",
            seen.conversations
        ));
    }
    Ok(workload)
}

/// Which lengths of answers the file gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lengths {
    OfColumns,
    /// An answer that is in the file is as long as it was.
    OfAnswersToo,
}

/// What was seen in the rows that are used.
#[derive(Default)]
struct Seen {
    rows: usize,
    conversations: usize,
    with_length: usize,
    with_answer: usize,
    /// Columns that are not read, and in how many rows.
    unread: BTreeMap<String, usize>,
    /// Rows whose columns disagree about the length, and the first of them.
    disagree: usize,
    first_disagreement: Option<String>,
    /// Prompts with parts whose tokens are not counted, and their kinds.
    uncounted: usize,
    kinds: BTreeMap<String, usize>,
}

impl Seen {
    fn add(&mut self, row: &Row, place: &str) {
        self.rows += 1;
        self.conversations += usize::from(row.is_first_question);
        match row.answer {
            Answer::Tokens(_) => self.with_length += 1,
            Answer::Text(_) => self.with_answer += 1,
            Answer::Unknown => {}
        }
        for name in &row.unread {
            *self.unread.entry(name.clone()).or_default() += 1;
        }
        if let Some(disagreement) = &row.disagreement {
            self.disagree += 1;
            let first = || format!("{place}: {disagreement}");
            self.first_disagreement.get_or_insert_with(first);
        }
        if let Prompt::Messages(messages) = &row.prompt {
            let before = self.kinds.len();
            let mut any = false;
            for kind in messages.iter().flat_map(|message| message.other_parts()) {
                any = true;
                if before < MOST_NAMES || self.kinds.contains_key(kind) {
                    *self.kinds.entry(kind.to_owned()).or_default() += 1;
                }
            }
            self.uncounted += usize::from(any);
        }
    }

    fn notes(&self, name: &str, lengths: Lengths, output: Option<Length>) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.unread.is_empty() {
            notes.push(format!(
                "columns of `{name}` that are not read, nor sent: {}",
                listed(&self.unread)
            ));
        }
        if let Some(first) = &self.first_disagreement {
            notes.push(format!(
                "in {} rows of `{name}` two columns disagree about the length of the answer, the first at \
                 {first}",
                self.disagree
            ));
        }
        let known = match lengths {
            Lengths::OfColumns => self.with_length,
            Lengths::OfAnswersToo => self.with_length + self.with_answer,
        };
        if 0 < known && known < self.rows {
            let asked = match output {
                None => format!("{DEFAULT_OUTPUT_TOKENS} tokens"),
                Some(_) => "`output_tokens`".to_owned(),
            };
            notes.push(format!(
                "{} of the {} rows of `{name}` do not say how long their answer is: {asked} are asked for",
                self.rows - known,
                self.rows
            ));
        }
        if 0 < self.uncounted {
            notes.push(format!(
                "{} prompts of `{name}` hold parts that are no text, whose tokens are not counted here: {}",
                self.uncounted,
                listed(&self.kinds)
            ));
        }
        notes
    }
}

/// Names with how often they are, the most frequent first.
fn listed(names: &BTreeMap<String, usize>) -> String {
    let mut names: Vec<(&String, &usize)> = names.iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = |(name, count): &(&String, &usize)| {
        let rows = if **count == 1 { "row" } else { "rows" };
        format!("`{}` ({count} {rows})", crate::plain::quoted(name))
    };
    let mut listed: Vec<String> = names.iter().take(MOST_NAMES).map(shown).collect();
    if MOST_NAMES < names.len() {
        listed.push(format!("and {} more", names.len() - MOST_NAMES));
    }
    listed.join(", ")
}

/// The objects of a JSON file, in a random order, as many as are wanted.
fn items(path: &Path, name: &str, sampling: &Sampling<'_>) -> anyhow::Result<Vec<table::Row>> {
    let mut items = JsonItems::open(path, name, EXPECTED)?;
    let mut places = items.places::<Item>()?;
    python_random::shuffle(&mut places, sampling.seed);
    places.truncate(sampling.requests.unwrap_or(usize::MAX));
    let read = |place: &Place| {
        let Item(row) = items.read(place)?;
        Ok((format!("line {}", place.line), row))
    };
    places.iter().map(read).collect()
}

/// An object, or an array of messages as if it was one with them.
struct Item(Map<String, Value>);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, or an array of messages")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let mut row = Map::new();
                while let Some((name, value)) = map.next_entry()? {
                    row.insert(name, value);
                }
                Ok(Item(row))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = seq.next_element()? {
                    messages.push(message);
                }
                Ok(Item(Map::from_iter([("messages".to_owned(), Value::Array(messages))])))
            }
        }

        deserializer.deserialize_any(Visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use crate::prompt::{Message, Role};
    use crate::tokenizer::Tokenizer;

    fn none() -> Columns {
        Columns { prompt: None, output_tokens: None }
    }

    fn sample_file(name: &str, text: &str, columns: &Columns) -> anyhow::Result<Workload> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let sampling = Sampling {
            files: &Files::only_here(),
            tokenizer: None,
            chat: true,
            requests: Some(10),
            seed: 0,
            salt: None,
        };
        sample(&Source::new(path.to_str().unwrap()), columns, None, &sampling)
    }

    fn sorted(workload: Workload) -> Vec<(String, u32)> {
        let shown = |request: PromptRequest| {
            let messages = request.prompt.messages();
            let texts: Vec<String> =
                messages.iter().map(|message| message.text().into_owned()).collect();
            (texts.join("|"), request.output_tokens)
        };
        let mut all: Vec<_> = workload.requests.into_iter().map(shown).collect();
        all.sort();
        all
    }

    #[test]
    fn lines_arrays_and_tables_say_the_same() {
        let lines = "{\"prompt\": \"a, \\\"b\\\"\", \"output_tokens\": 7}\n{\"prompt\": \"c\"}\n";
        let array = "[{\"prompt\": \"a, \\\"b\\\"\", \"output_tokens\": 7},\n{\"prompt\": \"c\"}]";
        let table = "prompt,output_tokens\n\"a, \"\"b\"\"\",7\nc,\n";
        for (name, text) in [("d.jsonl", lines), ("d.json", array), ("d.csv", table)] {
            let workload = sample_file(name, text, &none()).unwrap();
            let expected = [("a, \"b\"".to_owned(), 7), ("c".to_owned(), DEFAULT_OUTPUT_TOKENS)];
            assert_eq!(sorted(workload), expected, "{name}");
        }
    }

    #[test]
    fn a_conversation_is_sent_to_its_last_question() {
        let text = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content":
            "u"}, {"role": "assistant", "content": "a"}]}"#
            .replace('\n', " ");
        let workload = sample_file("d.jsonl", &text, &none()).unwrap();
        let messages = vec![Message::new(Role::System, "s"), Message::new(Role::User, "u")];
        assert_eq!(workload.requests[0].prompt, Prompt::Messages(messages));
    }

    #[test]
    fn a_conversation_is_sent_as_text_by_the_models_chat_template() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::copy("fixtures/tokenizer.json", at("tokenizer.json")).unwrap();
        let data = r#"{"messages": [{"role": "user", "content": "hello there"}]}"#;
        std::fs::write(at("d.jsonl"), data).unwrap();
        let source = Source::new(at("d.jsonl").to_str().unwrap());
        let as_text = || {
            let tokenizer = Tokenizer::load(folder.path()).unwrap();
            let sampling = Sampling {
                files: &Files::only_here(),
                tokenizer: Some(&tokenizer),
                chat: false,
                requests: Some(1),
                seed: 0,
                salt: Some("s1"),
            };
            sample(&source, &none(), None, &sampling)?.as_sent(&sampling)
        };
        let error = as_text().unwrap_err().to_string();
        assert!(error.contains("takes the model's chat template"), "{error}");
        let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>";
        std::fs::write(at("chat_template.jinja"), template).unwrap();
        let sent = as_text().unwrap();
        assert_eq!(sent.requests[0].prompt, Prompt::Text("<user>[s1] hello there<a>".to_owned()));
    }

    #[test]
    fn columns_of_any_name_can_be_taken() {
        let columns = Columns {
            prompt: Some("question".to_owned()),
            output_tokens: Some("length".to_owned()),
        };
        let text = "{\"question\": \"q\", \"length\": 3, \"prompt\": \"no\"}";
        let workload = sample_file("d.jsonl", text, &columns).unwrap();
        assert_eq!(sorted(workload), [("q".to_owned(), 3)]);
    }

    #[test]
    fn a_mistake_names_the_line_and_the_column() {
        for (name, text, parts) in [
            (
                "d.jsonl",
                "{\"prompt\": \"a\"}\n{\"text\": \"b\"}",
                &["line 2", "no `prompt`", "text"],
            ),
            ("d.jsonl", "{\"prompt\": 3}", &["line 1", "`prompt` must be a text", ""]),
            (
                "d.jsonl",
                "{\"prompt\": \"a\", \"output_tokens\": 0}",
                &["`output_tokens`", "not 0", ""],
            ),
            ("d.jsonl", "{\"messages\": [{\"role\": \"x\"}]}", &["`messages` is no", "x", ""]),
            ("d.jsonl", "", &["ends too early", "", ""]),
            ("d.json", "[]", &["is empty", "", ""]),
            ("d.csv", "question\nq\n", &["line 2", "columns = {", "question"]),
        ] {
            let error = format!("{:#}", sample_file(name, text, &none()).unwrap_err());
            for part in parts {
                assert!(error.contains(part), "{text}\nmisses {part}:\n{error}");
            }
        }
    }

    #[test]
    fn columns_that_are_not_read_are_named_once_with_their_rows() {
        let text = "{\"prompt\": \"a\", \"max_tokens\": 3, \"id\": 1}\n\
                    {\"prompt\": \"b\", \"output_tokens\": 5, \"id\": 2, \"lora\": null}\n\
                    {\"prompt\": \"c\", \"output_len\": 6, \"priority\": 1, \"\\u001b[31m\\n::error::\": 1}";
        let workload = sample_file("d.jsonl", text, &none()).unwrap();
        let [note] = &workload.notes[..] else { panic!("{:?}", workload.notes) };
        let names = "not read, nor sent: `id` (2 rows), `\\u{1b}[31m ::error::` (1 row), \
                     `priority` (1 row)";
        assert!(note.contains(names), "{note}");
        let expected = [("a".to_owned(), 3), ("b".to_owned(), 5), ("c".to_owned(), 6)];
        assert_eq!(sorted(workload), expected);
    }

    #[test]
    fn where_only_some_rows_have_a_length_it_is_said() {
        let text = "{\"prompt\": \"a\", \"max_tokens\": 3}\n{\"prompt\": \"b\"}";
        let workload = sample_file("d.jsonl", text, &none()).unwrap();
        assert!(workload.notes[0].contains("1 of the 2 rows"), "{:?}", workload.notes);
        assert!(workload.notes[0].contains("256 tokens are asked for"), "{:?}", workload.notes);
    }

    fn with_tokenizer(text: &str, chat: bool) -> anyhow::Result<Workload> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        std::fs::write(&path, text).unwrap();
        let tokenizer = Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap();
        let sampling = Sampling { chat, ..Sampling::new(Some(&tokenizer), 10, 0) };
        sample(&Source::new(path.to_str().unwrap()), &none(), None, &sampling)
    }

    #[test]
    fn an_answer_in_the_file_says_how_long_one_is() {
        let tokenizer = Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap();
        let length = tokenizer.count_output("Sure, here it is.").unwrap();
        let said = |user: &str, assistant: &str, text: &str| {
            format!(
                r#"[{{"{user}": "U", "{text}": "Hi"}}, {{"{user}": "A", "{text}": "Sure, here it is."}}]"#
            )
            .replace("\"U\"", if assistant == "gpt" { "\"human\"" } else { "\"user\"" })
            .replace("\"A\"", &format!("{assistant:?}"))
        };
        for text in [
            format!(r#"{{"messages": {}}}"#, said("role", "assistant", "content")),
            format!(r#"{{"conversations": {}}}"#, said("role", "assistant", "content")),
            format!(r#"{{"conversations": {}}}"#, said("from", "gpt", "value")),
            said("role", "assistant", "content"),
        ] {
            let workload = with_tokenizer(&text, true).unwrap();
            assert_eq!(sorted(workload), [("Hi".to_owned(), length)], "{text}");
        }
    }

    #[test]
    fn parts_that_are_no_text_are_sent_to_chat_and_refused_as_text() {
        let text = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:,"}}]}]}"#;
        let workload = with_tokenizer(text, true).unwrap();
        let tokenizer = Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap();
        assert_eq!(workload.requests[0].prompt_tokens, Some(tokenizer.count_prompt("a").unwrap()));
        let note = &workload.notes[0];
        assert!(note.contains("not counted here: `image_url`"), "{note}");
        let error = format!("{:#}", with_tokenizer(text, false).unwrap_err());
        assert!(error.contains("line 1") && error.contains("`image_url`"), "{error}");
    }

    #[test]
    fn hostile_files_are_one_short_line_of_error_with_their_place() {
        let deep = format!("{{\"prompt\": {}", "[".repeat(1_000_000));
        let long =
            format!("{{\"prompt\": \"a\", \"max_tokens\": \"{}\\n\"}}", "9".repeat(1_000_000));
        for (name, text, place) in [
            ("d.jsonl", deep.as_str(), "line 1, column"),
            ("d.jsonl", &long, "line 1"),
            (
                "d.jsonl",
                "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"max_tokens\": 1e300}",
                "line 2",
            ),
            ("d.jsonl", "{\"prompt\": \"a\", \"max_tokens\": -1}", "line 1"),
            ("d.csv", "\"x\n::error::pwned\",b\n1,2\n", "line 3"),
            ("d.csv", "\u{1b}[31mEVIL\u{1b}]0;pwn\u{7},b\n1,2\n", "line 2"),
        ] {
            let error = format!("{:#}", sample_file(name, text, &none()).unwrap_err());
            assert!(error.contains(place), "{error}");
            assert!(error.len() < 800 && !error.contains(['\n', '\u{1b}', '\u{7}']), "{error}");
        }
    }
}
