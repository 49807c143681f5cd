//! OpenAI responses, streamed: `POST /v1/responses`. Pure.
//!
//! | sent | |
//! | --- | --- |
//! | `model`, `input` | the model, the prompt |
//! | `max_output_tokens` | the longest answer |
//! | `temperature` | 0: greedy |
//! | `stream` | true |
//! | `ignore_eos`, `min_tokens` | where they are asked for: engines know them, OpenAI's own API does not |
//!
//! Every event says its `type`. Text, refusals, reasoning and the arguments of function calls come in
//! deltas; the answer ends with `response.completed` or `response.incomplete`, which count the tokens.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::openai::{Text, error_message};
use super::{Event, EventError, Request, no_error, parse};
use crate::prompt::Prompt;
use crate::record::Usage;

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    let input = match request.prompt {
        Prompt::Messages(messages) => json!(messages),
        Prompt::Text(_) | Prompt::Tokens(_) => json!(request.prompt.text()),
    };
    body.insert("input".into(), input);
    body.insert("max_output_tokens".into(), json!(request.output_tokens));
    body.insert("temperature".into(), json!(0.0));
    body.insert("stream".into(), json!(true));
    if request.ignore_eos {
        body.insert("ignore_eos".into(), json!(true));
    }
    if request.min_tokens {
        body.insert("min_tokens".into(), json!(request.output_tokens));
    }
    body
}

#[derive(Deserialize)]
struct StreamEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    message: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    usage: Option<WireUsage>,
    #[serde(borrow)]
    incomplete_details: Option<Incomplete<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    input_tokens_details: Option<InputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u32>,
}

pub(super) fn read(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    if data.trim_ascii() == b"[DONE]" {
        event.done = true;
        return Ok(());
    }
    let read: StreamEvent<'_> = parse(data)?;
    let delta = Text::of(&read.delta);
    match Text::of(&read.kind) {
        "response.output_text.delta" | "response.refusal.delta" => event.text.push_str(delta),
        "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
            event.reasoning.push_str(delta);
        }
        "response.function_call_arguments.delta" => event.tool_call = !delta.is_empty(),
        "response.completed" | "response.incomplete" => {
            event.done = true;
            if let Some(response) = read.response {
                event.usage = response.usage.map(Usage::from);
                let reason = response.incomplete_details.and_then(|details| details.reason);
                event.finish(Some(reason.map_or("stop".into(), |reason| reason.0)));
            }
        }
        "response.failed" | "error" => {
            let error = read.response.and_then(|response| response.error).or(read.error);
            let error = error.or(read.message).unwrap_or(Value::Null);
            return Err(EventError::Server(error_message(&error)));
        }
        "" => {
            no_error(read.error)?;
            return read_block(data, event);
        }
        // What begins or ends a part of the answer brings no output.
        _ => {}
    }
    Ok(())
}

/// An answer in one block.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    output: Vec<Item<'a>>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    content: Option<Vec<Content<'a>>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
}

fn read_block(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    let block: Block<'_> = parse(data)?;
    for content in block.output.iter().flat_map(|item| item.content.iter().flatten()) {
        event.text.push_str(Text::of(&content.text));
    }
    event.usage = block.usage.map(Usage::from);
    Ok(())
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            cached_tokens: usage.input_tokens_details.and_then(|details| details.cached_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::openai::tests::request;
    use super::*;

    fn read(data: &str) -> Result<Event, EventError> {
        let mut event = Event::default();
        super::read(data.as_bytes(), &mut event).map(|()| event)
    }

    #[test]
    fn only_deltas_are_output() {
        for (data, text, reasoning, tool_call) in [
            (r#"{"type":"response.created","response":{"status":"in_progress"}}"#, "", "", false),
            (r#"{"type":"response.output_item.added","item":{"type":"message"}}"#, "", "", false),
            (r#"{"type":"response.output_text.delta","delta":" a"}"#, " a", "", false),
            (r#"{"type":"response.refusal.delta","delta":"no"}"#, "no", "", false),
            (r#"{"type":"response.reasoning_text.delta","delta":"hm"}"#, "", "hm", false),
            (r#"{"type":"response.reasoning_summary_text.delta","delta":"hm"}"#, "", "hm", false),
            (r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#, "", "", true),
            (r#"{"type":"response.output_text.done","text":" a"}"#, "", "", false),
        ] {
            let event = read(data).unwrap();
            let seen = (event.text.as_str(), event.reasoning.as_str(), event.tool_call);
            assert_eq!(seen, (text, reasoning, tool_call), "{data}");
            assert!(!event.done, "{data}");
        }
    }

    #[test]
    fn the_end_counts_the_tokens() {
        let usage = r#""usage":{"input_tokens":9,"output_tokens":4,
            "input_tokens_details":{"cached_tokens":8}}"#;
        let completed = format!(r#"{{"type":"response.completed","response":{{{usage}}}}}"#);
        let event = read(&completed).unwrap();
        let counted =
            Usage { prompt_tokens: Some(9), completion_tokens: Some(4), cached_tokens: Some(8) };
        assert_eq!((event.usage, event.done), (Some(counted), true));
        let incomplete = format!(
            r#"{{"type":"response.incomplete","response":{{
                "incomplete_details":{{"reason":"max_output_tokens"}},{usage}}}}}"#
        );
        let event = read(&incomplete).unwrap();
        assert_eq!(event.finish_reason.as_deref(), Some("max_output_tokens"));
        assert!(event.done);
    }

    #[test]
    fn an_error_is_an_error_in_every_shape() {
        for data in [
            r#"{"type":"response.failed","response":{"error":{"code":"x","message":"late"}}}"#,
            r#"{"type":"error","code":"x","message":"late"}"#,
            r#"{"type":"error","error":{"message":"late"}}"#,
            r#"{"error":{"message":"late"}}"#,
        ] {
            assert_eq!(read(data), Err(EventError::Server("late".into())), "{data}");
        }
        assert!(matches!(read("{\"type\":7}"), Err(EventError::BadJson(_))));
    }

    #[test]
    fn the_body_is_that_of_responses() {
        assert_eq!(
            Value::Object(body(&request())),
            json!({
                "model": "m", "input": "hi", "max_output_tokens": 7, "temperature": 0.0,
                "stream": true, "ignore_eos": true,
            })
        );
    }
}
