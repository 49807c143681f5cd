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

use super::finish::Reason;
use super::lenient::{Content, Count, Filled, Object, Text};
use super::openai::counted;
use super::{Event, EventError, ProtocolKind, Request, fault, items, no_error, no_fault, parse};
use crate::prompt::Prompt;
use crate::record::Usage;

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    let input = match request.prompt {
        Prompt::Messages(messages) => Value::Array(items::of(messages)),
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
    #[serde(borrow, default)]
    delta: Content<'a>,
    #[serde(borrow, default)]
    response: Object<Response<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default)]
    usage: Object<WireUsage>,
    #[serde(borrow, default)]
    status: Content<'a>,
    #[serde(borrow, default)]
    incomplete_details: Object<Incomplete<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Option<Reason<'a>>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    input_tokens_details: Object<InputDetails>,
    #[serde(default)]
    output_tokens_details: Object<OutputDetails>,
}

#[derive(Default, Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
}

#[derive(Default, Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

pub(super) fn read(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    let read: StreamEvent<'_> = parse(data)?;
    match Text::of(&read.kind) {
        "response.completed" | "response.incomplete" => {
            event.done = true;
            if let Some(response) = read.response.0 {
                end(response, event)?;
            }
        }
        "response.failed" | "response.cancelled" | "response.error" | "error" => {
            let error = read.response.0.and_then(|response| response.error).or(read.error);
            return Err(EventError::Server(match error.filter(|error| !fault::is_empty(error)) {
                Some(error) => fault::message_of(&error),
                None => fault::message(data),
            }));
        }
        "" => {
            no_error(read.error)?;
            return read_block(data, event);
        }
        kind => {
            if let Some(part) = kind.strip_suffix(".delta") {
                add_delta(part, &read.delta, event);
            }
            // What else begins or ends a part of the answer brings no output.
        }
    }
    Ok(())
}

/// Adds what a delta of `part` of the answer brought.
fn add_delta(part: &str, delta: &Content<'_>, event: &mut Event) {
    if part.contains("reasoning") {
        delta.add_all_to(&mut event.reasoning);
    } else if part.ends_with("text") || part.ends_with("refusal") || part.ends_with("transcript") {
        delta.add_all_to(&mut event.text);
    } else {
        // The arguments of calls, code, audio.
        event.other_output = !delta.is_empty();
    }
}

/// Reads how a whole response ended.
fn end(response: Response<'_>, event: &mut Event) -> Result<(), EventError> {
    no_error(response.error)?;
    event.usage = response.usage.0.map(Usage::from);
    let reason = response.incomplete_details.0.and_then(|details| details.reason);
    let mut status = String::new();
    response.status.add_all_to(&mut status);
    let reason = match status.as_str() {
        "failed" | "cancelled" => Reason::word(&status),
        _ => reason.unwrap_or(Reason::word("stop")),
    };
    event.finish(reason.meaning(ProtocolKind::Responses));
    Ok(())
}

/// An answer in one block.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    output: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    object: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Content<'a>,
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow, default)]
    summary: Content<'a>,
    #[serde(default)]
    arguments: Filled,
}

fn read_block(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    let block: Block<'_> = parse(data)?;
    if block.output.is_none() && Text::of(&block.object) != "response" {
        return no_fault(data);
    }
    for item in block.output.iter().flatten() {
        let mut kind = String::new();
        item.kind.add_all_to(&mut kind);
        match kind.as_str() {
            "reasoning" => {
                item.content.add_all_to(&mut event.reasoning);
                item.summary.add_all_to(&mut event.reasoning);
            }
            _ => item.content.add_to(&mut event.text, &mut event.reasoning),
        }
        event.other_output |= item.arguments.0;
    }
    end(parse(data)?, event)
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        let input = usage.input_tokens_details.0.unwrap_or_default();
        let output = usage.output_tokens_details.0.unwrap_or_default();
        counted(
            usage.input_tokens,
            usage.output_tokens,
            input.cached_tokens,
            output.reasoning_tokens,
        )
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
            let seen = (event.text.as_str(), event.reasoning.as_str(), event.other_output);
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
        let counted = Usage {
            prompt_tokens: Some(9),
            completion_tokens: Some(4),
            cached_tokens: Some(8),
            ..Usage::default()
        };
        assert_eq!((event.usage, event.done), (Some(counted), true));
        let incomplete = format!(
            r#"{{"type":"response.incomplete","response":{{
                "incomplete_details":{{"reason":"max_output_tokens"}},{usage}}}}}"#
        );
        let event = read(&incomplete).unwrap();
        assert_eq!(event.finish_reason.unwrap().word(), "max_output_tokens");
        assert!(event.done);
    }

    #[test]
    fn an_error_is_an_error_in_every_shape() {
        for data in [
            r#"{"type":"response.failed","response":{"error":{"code":"x","message":"late"}}}"#,
            r#"{"type":"error","code":"x","message":"late"}"#,
            r#"{"type":"error","error":{"message":"late"}}"#,
            r#"{"error":{"message":"late"}}"#,
            r#"{"object":"error","message":"late"}"#,
            r#"{"code":500,"message":"late"}"#,
            r#"{"detail":"late"}"#,
            r#"{"type":"response.error","message":"late"}"#,
            r#"{"object":"response","status":"failed","error":{"message":"late"}}"#,
            r#"{"type":"response.completed","response":{"error":{"message":"late"}}}"#,
            r#"{"type":"response.cancelled","response":{"error":null},"message":"late"}"#,
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

    #[test]
    fn an_event_that_is_no_response_ends_nothing() {
        for data in ["{}", r#"{"ping":1}"#, r#"{"type":"keepalive"}"#, r#"{"object":"list"}"#] {
            assert_eq!(read(data), Ok(Event::default()), "{data}");
        }
        let event = read(r#"{"object":"response","status":"completed","output":null}"#).unwrap();
        assert!(event.finish_reason.is_some() && !event.has_output());
    }
}
