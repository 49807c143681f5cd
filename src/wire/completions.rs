//! OpenAI completions, streamed: `POST /v1/completions`. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::openai::{self, Text};
use super::{Event, EventError, Request};
use crate::prompt::Prompt;

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut body = openai::common(request);
    let prompt = match request.prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Tokens(tokens) => json!(tokens),
        Prompt::Messages(_) => json!(request.prompt.text()),
    };
    body.insert("prompt".into(), prompt);
    body
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

impl<'a> openai::Choice<'a> for Choice<'a> {
    fn add_to(self, event: &mut Event) {
        event.text.push_str(Text::of(&self.text));
        event.finish(self.finish_reason.map(|reason| reason.0));
    }
}

pub(super) fn read(data: &[u8], event: &mut Event) -> Result<(), EventError> {
    openai::read::<Choice<'_>>(data, event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Event, EventError> {
        let mut event = Event::default();
        super::read(data, &mut event).map(|()| event)
    }
    use crate::record::Usage;

    #[test]
    fn text_and_finish_reason_are_read() {
        let event = read(br#"{"choices":[{"text":" a","finish_reason":"length"}]}"#).unwrap();
        assert_eq!((event.text.as_str(), event.finish_reason.as_deref()), (" a", Some("length")));
        assert!(event.has_output() && !event.done);
    }

    #[test]
    fn usage_without_choices_is_no_output() {
        let data = br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,
            "prompt_tokens_details":{"cached_tokens":2}}}"#;
        let event = read(data).unwrap();
        let usage =
            Usage { prompt_tokens: Some(3), completion_tokens: Some(9), cached_tokens: Some(2) };
        assert_eq!(event.usage, Some(usage));
        assert!(!event.has_output());
    }

    #[test]
    fn fields_that_are_null_or_missing_are_nothing() {
        for data in [
            r#"{"choices":[{"text":null,"finish_reason":null}],"usage":null,"error":null}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":null}"#,
            "{}",
        ] {
            assert_eq!(read(data.as_bytes()).unwrap(), Event::default(), "{data}");
        }
    }

    #[test]
    fn the_end_mark_is_no_json() {
        assert!(read(b"[DONE]").unwrap().done);
        assert!(read(b" [DONE] ").unwrap().done);
    }

    #[test]
    fn an_error_object_is_an_error_in_every_shape() {
        for (data, message) in [
            (r#"{"error":{"message":"out of memory","code":500}}"#, "out of memory"),
            (r#"{"error":"out of memory"}"#, "out of memory"),
            (r#"{"error":{"code":500}}"#, r#"{"code":500}"#),
            (r#"{"choices":[{"text":"a"}],"error":{"message":"late"}}"#, "late"),
        ] {
            assert_eq!(read(data.as_bytes()), Err(EventError::Server(message.into())), "{data}");
        }
    }

    #[test]
    fn what_is_no_event_is_bad_json() {
        for data in ["{\"choices\":[{\"te", "", "hello", "[1]", "{\"choices\":7}"] {
            let error = read(data.as_bytes()).unwrap_err();
            assert!(matches!(error, EventError::BadJson(_)), "{data}");
        }
    }

    #[test]
    fn the_body_is_that_of_completions() {
        let body = body(&openai::tests::request());
        assert_eq!(
            Value::Object(body),
            json!({
                "model": "m", "prompt": "hi", "max_tokens": 7, "temperature": 0.0,
                "stream": true, "ignore_eos": true, "stream_options": { "include_usage": true },
            })
        );
    }
}
