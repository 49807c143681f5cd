//! What a row of one's own asks for: a prompt, the length of its answer, and fields of the request in
//! OpenAI's form. Pure.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::custom::Columns;
use super::dialogue::{Said, Speaker};
use crate::plain::{plain, quoted};
use crate::prompt::{Message, Prompt, Role};

/// One row of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) prompt: Prompt,
    pub(super) answer: Answer,
    /// Fields of its request, such as `temperature` and `tools`.
    pub(super) fields: Map<String, Value>,
    /// Whether the prompt is the first question of a longer conversation.
    pub(super) is_first_question: bool,
    /// Columns that nothing is done with.
    pub(super) unread: Vec<String>,
    /// What its columns say of the length of the answer, where they differ.
    pub(super) disagreement: Option<String>,
}

/// What a row says of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// How long it may be.
    Tokens(u32),
    /// What it was.
    Text(String),
    /// Nothing.
    Unknown,
}

/// Where a prompt is, unless the plan says; the first that a row has.
const PROMPTS: [&str; 3] = ["messages", "prompt", "conversations"];

/// Where the length of an answer is, unless the plan says; the first that a row has.
const LENGTHS: [&str; 8] = [
    "output_tokens",
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "output_len",
    "output_length",
    "expected_output_len",
];

/// What a request in OpenAI's form may say beside its prompt and length, with what engines add to it. Columns
/// of other names are no part of a request; `body` holds those that are.
const FIELDS: [&str; 47] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "length_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "min_tokens",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning",
    "reasoning_effort",
    "include_reasoning",
    "verbosity",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "service_tier",
    "prompt_cache_key",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "skip_special_tokens",
    "bad_words",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "suffix",
];

/// What the case decides, and no row: what is asked of whom, and how the answer is read.
const OF_THE_CASE: [&str; 5] = ["model", "stream", "stream_options", "n", "best_of"];

/// Gives the fields of a row whose cells all are texts the types that they have in a request.
pub(super) fn type_fields(row: &mut Map<String, Value>) {
    for (name, value) in row {
        if FIELDS.contains(&name.as_str())
            && name != "stop"
            && let Some(typed) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *value = typed;
        }
    }
}

/// Reads a row.
pub(super) fn read(mut row: Map<String, Value>, columns: &Columns) -> anyhow::Result<Row> {
    row.retain(|_, value| !value.is_null());
    let mut body = match row.get("body") {
        Some(Value::Object(_)) => match row.remove("body") {
            Some(Value::Object(body)) => body,
            _ => Map::new(),
        },
        _ => Map::new(),
    };
    body.retain(|_, value| !value.is_null());
    let prompts: Vec<&str> = match &columns.prompt {
        Some(name) => vec![name],
        None => PROMPTS.to_vec(),
    };
    let taken = prompts.iter().find_map(|name| Some((*name, row.remove(*name)?)));
    let (name, value) = match taken {
        Some(taken) => taken,
        None => match prompts.iter().find_map(|name| Some((*name, body.remove(*name)?))) {
            Some(taken) => taken,
            None => return Err(without_prompt(&row, &prompts)),
        },
    };
    let is_first_question = name == "conversations" && value.is_array();
    let (prompt, answer) = prompt(name, value)?;

    let lengths: Vec<&str> = match &columns.output_tokens {
        Some(name) => vec![name],
        None => LENGTHS.to_vec(),
    };
    let mut said: Vec<(String, u32)> = Vec::new();
    for holder in [&mut row, &mut body] {
        for &name in &lengths {
            if let Some(value) = holder.remove(name) {
                let tokens = length(&value).with_context(|| {
                    let (name, value) = (plain(name), quoted(&value.to_string()));
                    format!("`{name}` must be a whole number above 0, not {value}")
                })?;
                said.push((name.to_owned(), tokens));
            }
        }
    }
    let disagreement = match &said[..] {
        [(first, tokens), others @ ..] => {
            let other = others.iter().find(|(_, other)| other != tokens);
            other.map(|(other, more)| {
                let (first, other) = (plain(first), plain(other));
                format!("`{first}` is {tokens}, which is asked for, and `{other}` is {more}")
            })
        }
        [] => None,
    };
    let answer = match said.first() {
        Some((_, tokens)) => Answer::Tokens(*tokens),
        None => answer,
    };

    let mut unread = Vec::new();
    let mut fields = Map::new();
    for (name, value) in row {
        if FIELDS.contains(&name.as_str()) {
            fields.insert(name, value);
        } else {
            unread.push(name);
        }
    }
    for (name, value) in body {
        if OF_THE_CASE.contains(&name.as_str()) || PROMPTS.contains(&name.as_str()) {
            unread.push(name);
        } else {
            fields.insert(name, value);
        }
    }
    Ok(Row { prompt, answer, fields, is_first_question, unread, disagreement })
}

fn without_prompt(row: &Map<String, Value>, prompts: &[&str]) -> anyhow::Error {
    let has: Vec<&str> = row.keys().map(String::as_str).collect();
    anyhow::anyhow!(
        "there is no `{}`; it has {}: name the column with `columns = {{ prompt = \"...\" }}`",
        plain(&prompts.join("` and no `")),
        quoted(&has.join(", "))
    )
}

/// The prompt that a value is, and what was answered to it.
fn prompt(name: &str, value: Value) -> anyhow::Result<(Prompt, Answer)> {
    let shown = plain(name);
    let value = match value {
        // A cell of a table holds messages as JSON.
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(value @ Value::Array(_)) if name != "prompt" => value,
            _ => return Ok((Prompt::Text(text), Answer::Unknown)),
        },
        value @ Value::Array(_) => value,
        _ => bail!("`{shown}` must be a text or a conversation"),
    };
    if name == "conversations" {
        return first_question(value).with_context(|| format!("`{shown}`"));
    }
    let messages: Result<Vec<Message>, _> = serde_json::from_value(value);
    let messages = messages.map_err(|error| {
        anyhow::anyhow!(
            "`{shown}` is no conversation of {{\"role\": \"user\", \"content\": \"...\"}}: {}",
            quoted(&error.to_string())
        )
    })?;
    to_last_question(messages).with_context(|| format!("`{shown}`"))
}

/// What is left to be answered: messages to the last of a user or a tool.
fn to_last_question(mut messages: Vec<Message>) -> anyhow::Result<(Prompt, Answer)> {
    let mut answer = Answer::Unknown;
    while let Some(last) = messages.pop_if(|message| message.role == Role::Assistant) {
        answer = match last.text() {
            text if text.is_empty() => Answer::Unknown,
            text => Answer::Text(text.into_owned()),
        };
    }
    if messages.is_empty() {
        bail!("there is no message but those of the assistant: nothing is left to answer");
    }
    Ok((Prompt::Messages(messages), answer))
}

/// As SGLang's script does: the first question of a conversation, and the answer to it.
fn first_question(value: Value) -> anyhow::Result<(Prompt, Answer)> {
    let said: Vec<Said> = serde_json::from_value(value)
        .map_err(|error| anyhow::anyhow!(quoted(&error.to_string())))?;
    let mut messages = Vec::new();
    for Said { by, text } in said {
        match by {
            Speaker::System => messages.push(Message::new(Role::System, text)),
            Speaker::User | Speaker::Other => messages.push(Message::new(Role::User, text)),
            Speaker::Assistant if messages.iter().any(|message| message.role == Role::User) => {
                return Ok((Prompt::Messages(messages), Answer::Text(text)));
            }
            Speaker::Assistant | Speaker::Tool => {}
        }
    }
    to_last_question(messages)
}

fn length(value: &Value) -> Option<u32> {
    let whole = |number: f64| {
        (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number))
            .then_some(number as u64)
    };
    let number = match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?))?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    u32::try_from(number).ok().filter(|&length| 0 < length)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> anyhow::Result<Row> {
        let Value::Object(row) = value else { panic!("no object") };
        read(row, &Columns::default())
    }

    #[test]
    fn a_row_in_the_form_of_openais_requests_is_taken_with_its_fields() {
        let request = json!({
            "model": "gpt", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9,
            "temperature": 0.7, "tools": [{"type": "function"}], "tool_choice": "auto", "stream": true,
            "seed": null,
        });
        let batch = json!({
            "custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": request,
        });
        for (value, unread) in [
            (request, vec!["model", "stream"]),
            (batch, vec!["custom_id", "method", "url", "model", "stream"]),
        ] {
            let row = row(value).unwrap();
            assert_eq!(row.prompt, Prompt::Messages(vec![Message::new(Role::User, "Hi")]));
            assert_eq!(row.answer, Answer::Tokens(9));
            let fields = json!({
                "temperature": 0.7, "tools": [{"type": "function"}], "tool_choice": "auto",
            });
            assert_eq!(Value::Object(row.fields), fields);
            assert_eq!(row.unread, unread);
        }
    }

    #[test]
    fn a_body_beside_the_prompt_is_sent_whole_but_for_what_the_case_decides() {
        let row = row(json!({
            "prompt": "Hi", "output_len": "4", "priority": 3,
            "body": {"priority": 1, "lora": "a", "model": "b", "messages": []},
        }))
        .unwrap();
        assert_eq!(Value::Object(row.fields), json!({"priority": 1, "lora": "a"}));
        assert_eq!(row.unread, ["priority", "messages", "model"]);
        assert_eq!(row.answer, Answer::Tokens(4));
    }

    #[test]
    fn cells_of_a_table_are_typed_as_requests_have_them() {
        let cells = json!({
            "messages": "[{\"role\": \"user\", \"content\": \"Hi\"}]", "temperature": "0.7", "stop": "5",
            "tool_choice": "auto", "ignore_eos": "true", "max_tokens": " 9 ",
        });
        let Value::Object(mut cells) = cells else { panic!() };
        type_fields(&mut cells);
        let row = read(cells, &Columns::default()).unwrap();
        assert_eq!(row.prompt, Prompt::Messages(vec![Message::new(Role::User, "Hi")]));
        let fields = json!({
            "temperature": 0.7, "stop": "5", "tool_choice": "auto", "ignore_eos": true,
        });
        assert_eq!((Value::Object(row.fields), row.answer), (fields, Answer::Tokens(9)));
        let text = read(Map::from_iter([("prompt".to_owned(), json!("[1]"))]), &Columns::default());
        assert_eq!(text.unwrap().prompt, Prompt::Text("[1]".to_owned()));
    }

    #[test]
    fn columns_that_disagree_about_the_length_are_named() {
        let of = |value| row(value).unwrap().disagreement;
        let said = of(json!({"prompt": "a", "max_tokens": 3, "output_tokens": 5})).unwrap();
        assert_eq!(said, "`output_tokens` is 5, which is asked for, and `max_tokens` is 3");
        assert_eq!(of(json!({"prompt": "a", "max_tokens": 5, "output_tokens": 5.0})), None);
    }

    #[test]
    fn calls_of_tools_and_what_they_gave_stay_in_the_conversation() {
        let messages = json!([
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]},
            {"role": "tool", "content": "sunny", "tool_call_id": "c"},
            {"role": "assistant", "content": "It is sunny."},
        ]);
        let row = row(json!({ "messages": messages })).unwrap();
        let Prompt::Messages(sent) = row.prompt else { panic!() };
        let sent = serde_json::to_value(sent).unwrap();
        assert_eq!(sent.as_array().unwrap()[..], messages.as_array().unwrap()[..3]);
        assert_eq!(row.answer, Answer::Text("It is sunny.".to_owned()));
    }

    #[test]
    fn of_a_longer_conversation_the_first_question_is_asked() {
        let row = row(json!({"conversations": [
            {"from": "system", "value": "s"}, {"from": "gpt", "value": "to nobody"},
            {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"},
        ]}))
        .unwrap();
        let messages = vec![Message::new(Role::System, "s"), Message::new(Role::User, "a")];
        assert_eq!(row.prompt, Prompt::Messages(messages));
        assert_eq!(row.answer, Answer::Text("b".to_owned()));
        assert!(row.is_first_question);
    }
}
