//! OpenAI completions, streamed: `POST /v1/completions`. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::finish::Reason;
use super::lenient::{Content, Count, Text};
use super::openai;
use super::{Event, EventError, ProtocolKind, Request, no_error};
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
    #[serde(default)]
    index: Count,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Content<'a>,
    #[serde(borrow)]
    finish_reason: Option<Reason<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<Value>,
}

impl<'a> openai::Choice<'a> for Choice<'a> {
    fn add_to(self, event: &mut Event) -> Result<(), EventError> {
        no_error(self.error)?;
        event.text.push_str(Text::of(&self.text));
        self.reasoning_content.add_all_to(&mut event.reasoning);
        event.usage = event.usage.or(self.usage.and_then(openai::usage));
        let reason = self.finish_reason;
        event.finish(reason.and_then(|reason| reason.meaning(ProtocolKind::Completions)));
        Ok(())
    }

    fn index(&self) -> u32 {
        self.index.known().unwrap_or(0)
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
    use crate::record::{FinishReason, Usage};

    #[test]
    fn text_and_finish_reason_are_read() {
        let event = read(br#"{"choices":[{"text":" a","finish_reason":"length"}]}"#).unwrap();
        let length = FinishReason::EndsWell("length".into());
        assert_eq!((event.text.as_str(), event.finish_reason.clone()), (" a", Some(length)));
        assert!(event.has_output() && !event.done);
    }

    #[test]
    fn usage_without_choices_is_no_output() {
        let data = br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,
            "prompt_tokens_details":{"cached_tokens":2},
            "completion_tokens_details":{"reasoning_tokens":4}}}"#;
        let event = read(data).unwrap();
        let usage = Usage {
            prompt_tokens: Some(3),
            completion_tokens: Some(9),
            cached_tokens: Some(2),
            reasoning_tokens: Some(4),
            unusable: false,
        };
        assert_eq!(event.usage, Some(usage));
        assert!(!event.has_output());
    }

    #[test]
    fn fields_that_are_null_or_missing_are_nothing() {
        for data in [
            r#"{"choices":[{"text":null,"finish_reason":null}],"usage":null,"error":null}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":null}"#,
            r#"{"usage":[],"error":"","x_groq":7,"detail":null}"#,
            "{}",
        ] {
            let event = read(data.as_bytes()).unwrap();
            assert_eq!(Event { seen: 0, ..event }, Event::default(), "{data}");
        }
    }

    #[test]
    fn a_count_that_is_none_is_left_out_and_fails_nothing() {
        for (count, known, unusable) in [
            ("9", Some(9), false),
            ("9.0", Some(9), false),
            ("null", None, false),
            ("-35", None, true),
            ("2.5", None, true),
            ("99999999999999999999999", None, true),
            ("1e999", None, true),
            (r#""9""#, None, true),
            ("{}", None, true),
            ("[9]", None, true),
            ("true", None, true),
        ] {
            let data = format!(
                r#"{{"choices":[{{"text":"a"}}],"usage":{{"completion_tokens":{count}}}}}"#
            );
            let event = read(data.as_bytes()).unwrap();
            let usage = event.usage.unwrap();
            assert_eq!((usage.completion_tokens, usage.unusable), (known, unusable), "{count}");
            assert_eq!(event.text, "a", "{count}");
        }
        for details in ["null", "7", "[]", r#""x""#, r#"{"cached_tokens":-1}"#] {
            let data =
                format!(r#"{{"usage":{{"prompt_tokens":3,"prompt_tokens_details":{details}}}}}"#);
            let usage = read(data.as_bytes()).unwrap().usage.unwrap();
            assert_eq!((usage.prompt_tokens, usage.cached_tokens), (Some(3), None), "{details}");
        }
    }

    #[test]
    fn an_error_object_is_an_error_in_every_shape() {
        for (data, message) in [
            (r#"{"error":{"message":"out of memory","code":500}}"#, "out of memory"),
            (r#"{"error":"out of memory"}"#, "out of memory"),
            (r#"{"error":{"code":500}}"#, r#"{"code":500}"#),
            (r#"{"choices":[{"text":"a"}],"error":{"message":"late"}}"#, "late"),
            (r#"{"choices":[{"text":"a","error":{"message":"late"}}]}"#, "late"),
            (r#"{"object":"error","message":"late","code":400}"#, "late"),
            (r#"{"type":"error","message":"late"}"#, "late"),
            (r#"{"type":"error","error":{"message":"late"}}"#, "late"),
            (r#"{"error_code":50001,"message":"late"}"#, "late"),
            (r#"{"code":500,"message":"late"}"#, "late"),
            (r#"{"message":"late"}"#, "late"),
            (r#"{"detail":"late"}"#, "late"),
            (r#"{"choices":[],"code":500,"msg":"x","message":"late"}"#, "late"),
            (r#"{"choices":[],"code":1001,"msg":"late"}"#, "late"),
            (r#"{"choices":[{"text":"a"}],"code":500,"message":"late"}"#, "late"),
            (r#"{"choices":[{"text":"a"}],"error_code":"E1","message":"late"}"#, "late"),
        ] {
            assert_eq!(read(data.as_bytes()), Err(EventError::Server(message.into())), "{data}");
        }
    }

    #[test]
    fn an_event_that_says_that_all_is_well_is_read() {
        for said in [r#""code":0,"message":"success""#, r#""code":200,"msg":"ok""#, r#""error":{}"#]
        {
            let data = format!(r#"{{"choices":[{{"text":"a"}}],{said}}}"#);
            assert_eq!(read(data.as_bytes()).unwrap().text, "a", "{said}");
            let data = format!(r#"{{"choices":[],{said}}}"#);
            assert!(read(data.as_bytes()).is_ok(), "{said}");
        }
    }

    #[test]
    fn what_is_no_event_is_bad_json() {
        for data in ["{\"choices\":[{\"te", "hello", "[1]", "{\"choices\":7}"] {
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
