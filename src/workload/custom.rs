//! `custom`: the user's own prompts or conversations from a file of JSON lines, a JSON array, CSV or
//! Parquet.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json_items::{JsonItems, Place};
use super::table;
use super::{Length, PromptRequest, Sampling, Source, Workload, python_random, take_fit};
use crate::prompt::{Message, Prompt};

/// What an item should be.
const EXPECTED: &str =
    "objects, a line each or in an array, such as {\"prompt\": \"...\", \"output_tokens\": 100}";

/// Length of an answer where neither the plan nor the file says: vLLM's default.
const DEFAULT_OUTPUT_TOKENS: u32 = 256;

/// Where in an item or a row prompts and lengths are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// A text, or a conversation of `role` and `content`.
    pub prompt: Option<String>,
    /// The longest answer, tokens.
    pub output_tokens: Option<String>,
}

impl Columns {
    fn prompt_names(&self) -> Vec<&str> {
        match &self.prompt {
            Some(name) => vec![name],
            None => vec!["messages", "prompt"],
        }
    }

    fn output_name(&self) -> &str {
        self.output_tokens.as_deref().unwrap_or("output_tokens")
    }
}

/// One entry of the file.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    prompt: Prompt,
    output_tokens: Option<u32>,
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
        Some("csv") => table::csv(&path, &name, sampling)?,
        Some("parquet") => table::parquet(&path, &name, sampling)?,
        _ => items(&path, &name, sampling)?,
    };
    let read = |(place, item): &(String, Map<String, Value>)| {
        entry(item, columns).with_context(|| format!("dataset `{name}`, {place}"))
    };
    let entries = rows.iter().map(read).collect::<anyhow::Result<Vec<Entry>>>()?;
    if entries.is_empty() {
        bail!("dataset `{name}` is empty; expected {EXPECTED}");
    }
    let unsalted = Sampling { salt: None, ..*sampling };
    let mut rng = unsalted.rng("custom output", 0);
    let output = output.unwrap_or(Length::Fixed(DEFAULT_OUTPUT_TOKENS));
    let drawn: Vec<(Entry, u32)> = entries
        .into_iter()
        .map(|entry| {
            let length = entry.output_tokens.unwrap_or_else(|| output.draw(&mut rng));
            (entry, length)
        })
        .collect();
    let requests = take_fit(&drawn, sampling, |(entry, output_tokens)| {
        let prompt_tokens = sampling.count(&entry.prompt)?;
        Ok(Some(PromptRequest::single(entry.prompt.clone(), prompt_tokens, *output_tokens)))
    })?;
    Ok(Workload::of_texts(requests))
}

/// The objects of a JSON file, in a random order, as many as are wanted.
fn items(path: &Path, name: &str, sampling: &Sampling<'_>) -> anyhow::Result<Vec<table::Row>> {
    let mut items = JsonItems::open(path, name, EXPECTED)?;
    let mut places = items.places(|_: &Map<String, Value>| true)?;
    python_random::shuffle(&mut places, sampling.seed);
    places.truncate(sampling.requests.unwrap_or(usize::MAX));
    let read = |place: &Place| Ok((format!("line {}", place.line), items.read(place)?));
    places.iter().map(read).collect()
}

fn entry(item: &Map<String, Value>, columns: &Columns) -> anyhow::Result<Entry> {
    let names = columns.prompt_names();
    let Some((name, value)) = names.iter().find_map(|name| Some((name, item.get(*name)?))) else {
        let has: Vec<&str> = item.keys().map(String::as_str).collect();
        bail!(
            "there is no `{}`; it has {}: name the column with `columns = {{ prompt = \"...\" }}`",
            names.join("` and no `"),
            has.join(", ")
        );
    };
    let prompt = match value {
        Value::String(text) => Prompt::Text(text.clone()),
        Value::Array(_) => {
            let messages: Vec<Message> = serde_json::from_value(value.clone()).with_context(|| {
                format!("`{name}` is no conversation of {{\"role\": \"user\", \"content\": \"...\"}}")
            })?;
            conversation(messages).with_context(|| format!("`{name}`"))?
        }
        _ => bail!("`{name}` must be a text or a conversation"),
    };
    let output_tokens = match item.get(columns.output_name()) {
        None | Some(Value::Null) => None,
        Some(value) => Some(length(value).with_context(|| {
            format!("`{}` must be a whole number above 0, not {value}", columns.output_name())
        })?),
    };
    Ok(Entry { prompt, output_tokens })
}

/// What is left to be answered: messages to the last of a user.
fn conversation(mut messages: Vec<Message>) -> anyhow::Result<Prompt> {
    while messages.last().is_some_and(|message| message.role == crate::prompt::Role::Assistant) {
        messages.pop();
    }
    if messages.is_empty() {
        bail!("nobody asks anything");
    }
    Ok(Prompt::Messages(messages))
}

fn length(value: &Value) -> Option<u32> {
    let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?;
    u32::try_from(number).ok().filter(|&length| 0 < length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use crate::prompt::Role;
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
            let texts: Vec<String> = messages.into_iter().map(|message| message.content).collect();
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
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        assert_eq!(
            workload.requests[0].prompt,
            Prompt::Messages(vec![message(Role::System, "s"), message(Role::User, "u")])
        );
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
}
