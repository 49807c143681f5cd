//! Triton's generate extension as TensorRT-LLM's ensemble has it, streamed:
//! `POST /v2/models/ensemble/generate_stream`. Pure.
//!
//! | sent | |
//! | --- | --- |
//! | `text_input`, `max_tokens`, `stream` | the prompt, the longest answer |
//! | `temperature`, `top_k` | 0 and 1: greedy |
//! | `bad_words`, `stop_words` | empty: some ensembles refuse a request without them |
//! | `min_length` | the length, where `ignore_eos` or `min_tokens` ask for it |
//!
//! `end_id`, where a model needs it, goes into the backend's `extra_body`. Each event holds new text in
//! `text_output`. The server counts no tokens and sends no end mark: a complete answer ends with its
//! response.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::finish::Reason;
use super::lenient::Text;
use super::{Event, EventError, ProtocolKind, Request, fault, no_error, no_fault, parse};

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("text_input".into(), json!(request.prompt.text()));
    body.insert("max_tokens".into(), json!(request.output_tokens));
    body.insert("temperature".into(), json!(0.0));
    body.insert("top_k".into(), json!(1));
    body.insert("bad_words".into(), json!(""));
    body.insert("stop_words".into(), json!(""));
    body.insert("stream".into(), json!(true));
    if request.ignore_eos || request.min_tokens {
        body.insert("min_length".into(), json!(request.output_tokens));
    }
    body
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    text_output: Option<Text<'a>>,
    /// Some ensembles say why they stopped.
    #[serde(borrow)]
    finish_reason: Option<Reason<'a>>,
    error: Option<Value>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
}

pub(super) fn read(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    let output: Output<'_> = parse(data)?;
    no_error(output.error)?;
    if fault::is_failure(output.error_code) {
        return Err(EventError::Server(fault::message(data)));
    }
    if output.text_output.is_none() {
        no_fault(data)?;
    }
    event.text.push_str(Text::of(&output.text_output));
    let reason = output.finish_reason;
    event.finish(reason.and_then(|reason| reason.meaning(ProtocolKind::Triton)));
    Ok(())
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
    fn text_is_read_and_nothing_else() {
        let data = r#"{"context_logits":0.0,"cum_log_probs":0.0,"model_name":"ensemble",
            "output_log_probs":[0.0,0.0],"sequence_end":false,"sequence_id":0,"text_output":" a\u00e9"}"#;
        let event = read(data).unwrap();
        assert_eq!((event.text.as_str(), event.has_output()), (" a\u{e9}", true));
        assert!(!read(r#"{"model_name":"ensemble","text_output":""}"#).unwrap().has_output());
    }

    #[test]
    fn an_error_is_an_error() {
        let error = read(r#"{"error":"in ensemble 'ensemble', out of blocks"}"#).unwrap_err();
        assert_eq!(error, EventError::Server("in ensemble 'ensemble', out of blocks".into()));
        assert!(matches!(read("{\"text_out"), Err(EventError::BadJson(_))));
    }

    #[test]
    fn the_body_is_that_of_the_generate_extension() {
        let body = Value::Object(body(&request()));
        assert_eq!(
            body,
            json!({
                "text_input": "hi", "max_tokens": 7, "temperature": 0.0, "top_k": 1,
                "bad_words": "", "stop_words": "", "stream": true, "min_length": 7,
            })
        );
    }
}
