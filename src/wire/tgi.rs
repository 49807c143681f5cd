//! Text Generation Inference, streamed: `POST /generate_stream`. Pure.
//!
//! | sent | |
//! | --- | --- |
//! | `inputs` | the prompt |
//! | `parameters.max_new_tokens` | the longest answer |
//! | `parameters.do_sample` | false: greedy |
//! | `parameters.details` | true: the last event counts the tokens |
//! | `parameters.ignore_eos_token` | where `ignore_eos` asks for it |
//!
//! Each event is one token. The last one has the whole text again, and the reason for the end.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::finish::Reason;
use super::lenient::{Count, Object, Text};
use super::openai::counted;
use super::{Event, EventError, ProtocolKind, Request, no_error, no_fault, parse};

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut parameters = json!({
        "max_new_tokens": request.output_tokens,
        "do_sample": false,
        "details": true,
    });
    if request.ignore_eos {
        parameters["ignore_eos_token"] = json!(true);
    }
    let mut body = Map::new();
    body.insert("inputs".into(), json!(request.prompt.text()));
    body.insert("parameters".into(), parameters);
    body
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    token: Option<Token<'a>>,
    #[serde(borrow, default)]
    details: Object<Details<'a>>,
    /// The whole text: again at the end of a stream, or once where the answer comes in one block.
    #[serde(borrow)]
    generated_text: Option<Text<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    finish_reason: Option<Reason<'a>>,
    #[serde(default)]
    generated_tokens: Count,
    #[serde(default)]
    input_length: Count,
}

pub(super) fn read(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    let output: Output<'_> = if data.starts_with(b"[") {
        let [output] = parse(data)?;
        output
    } else {
        parse(data)?
    };
    no_error(output.error)?;
    if output.token.is_none() && output.generated_text.is_none() {
        return no_fault(data);
    }
    if let Some(token) = output.token {
        event.tokens = Some(1);
        // An end-of-sequence token is no text.
        if !token.special {
            event.text.push_str(Text::of(&token.text));
        }
    } else {
        event.text.push_str(Text::of(&output.generated_text));
    }
    // It stands in the last event alone.
    event.done = !Text::of(&output.generated_text).is_empty();
    if let Some(details) = output.details.0 {
        let (prompt, completion) = (details.input_length, details.generated_tokens);
        event.usage = Some(counted(prompt, completion, Count::Missing, Count::Missing));
        let reason = details.finish_reason;
        event.finish(reason.and_then(|reason| reason.meaning(ProtocolKind::Tgi)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::openai::tests::request;
    use super::*;
    use crate::record::{FinishReason, Usage};

    fn read(data: &str) -> Result<Event, EventError> {
        let mut event = Event::default();
        super::read(data.as_bytes(), &mut event).map(|()| event)
    }

    #[test]
    fn an_event_is_a_token_and_the_last_one_counts_them() {
        let data = r#"{"index":1,"token":{"id":5,"text":" a","logprob":-0.1,"special":false},
            "generated_text":null,"details":null}"#;
        let event = read(data).unwrap();
        assert_eq!((event.text.as_str(), event.tokens, event.usage), (" a", Some(1), None));
        let data = r#"{"index":2,"token":{"id":6,"text":" b","logprob":0,"special":false},
            "generated_text":" a b","details":{"finish_reason":"length","generated_tokens":2,
            "seed":null,"input_length":9}}"#;
        let event = read(data).unwrap();
        let length = FinishReason::EndsWell("length".into());
        assert_eq!((event.text.as_str(), event.finish_reason.clone()), (" b", Some(length)));
        let usage =
            Usage { prompt_tokens: Some(9), completion_tokens: Some(2), ..Usage::default() };
        assert_eq!(event.usage, Some(usage));
    }

    #[test]
    fn the_whole_text_is_the_end_also_without_details() {
        let data = r#"{"token":{"id":6,"text":" b"},"generated_text":" a b","details":null}"#;
        let event = read(data).unwrap();
        assert_eq!((event.text.as_str(), event.done), (" b", true));
    }

    #[test]
    fn an_event_with_an_empty_whole_text_is_no_end() {
        let data = r#"{"token":{"id":6,"text":" b"},"generated_text":"","details":null}"#;
        assert!(!read(data).unwrap().done);
    }

    #[test]
    fn an_error_in_the_place_of_a_token_is_an_error() {
        for data in [
            r#"{"error":"late","error_type":"overloaded"}"#,
            r#"{"code":500,"message":"late"}"#,
            r#"{"detail":"late"}"#,
        ] {
            assert_eq!(read(data), Err(EventError::Server("late".to_owned())), "{data}");
        }
        assert_eq!(read("{}"), Ok(Event::default()));
    }

    #[test]
    fn a_special_token_is_no_text() {
        let data = r#"{"token":{"id":2,"text":"</s>","special":true},"generated_text":"a"}"#;
        assert!(!read(data).unwrap().has_output());
    }

    #[test]
    fn an_error_is_an_error() {
        let error =
            read(r#"{"error":"Request failed during generation","error_type":"generation"}"#);
        assert_eq!(error, Err(EventError::Server("Request failed during generation".into())));
        assert!(matches!(read("{\"token\":7}"), Err(EventError::BadJson(_))));
    }

    #[test]
    fn the_body_is_that_of_tgi() {
        assert_eq!(
            Value::Object(body(&request())),
            json!({
                "inputs": "hi",
                "parameters": {
                    "max_new_tokens": 7, "do_sample": false, "details": true,
                    "ignore_eos_token": true,
                },
            })
        );
    }
}
