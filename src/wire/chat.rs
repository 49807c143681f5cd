//! OpenAI chat completions, streamed: `POST /v1/chat/completions`. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::finish::Reason;
use super::lenient::{Content, Count, Filled, Object};
use super::openai;
use super::{Event, EventError, ProtocolKind, Request, no_error};

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut body = openai::common(request);
    body.insert("messages".into(), json!(request.prompt.messages()));
    body
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    delta: Object<Delta<'a>>,
    /// In the place of the delta where the answer comes in one block.
    #[serde(borrow, default)]
    message: Object<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Reason<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<Value>,
}

/// What was generated. Servers name the reasoning in several ways, and some send it under two names.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow, default)]
    reasoning_content: Content<'a>,
    #[serde(borrow, default)]
    reasoning: Content<'a>,
    #[serde(borrow, default)]
    thinking: Content<'a>,
    #[serde(borrow, default)]
    reasoning_details: Content<'a>,
    #[serde(borrow, default)]
    refusal: Content<'a>,
    #[serde(default)]
    tool_calls: Filled,
    #[serde(default)]
    function_call: Filled,
    #[serde(borrow, default)]
    audio: Object<Audio<'a>>,
    #[serde(default)]
    images: Filled,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Audio<'a> {
    #[serde(borrow, default)]
    transcript: Content<'a>,
    #[serde(default)]
    data: Filled,
}

impl<'a> openai::Choice<'a> for Choice<'a> {
    fn add_to(self, event: &mut Event) -> Result<(), EventError> {
        no_error(self.error)?;
        if let Some(delta) = self.delta.0.or(self.message.0) {
            no_error(delta.error)?;
            delta.content.add_to(&mut event.text, &mut event.reasoning);
            delta.refusal.add_all_to(&mut event.text);
            let names =
                [delta.reasoning_content, delta.reasoning, delta.thinking, delta.reasoning_details];
            if let Some(reasoning) = names.iter().find(|reasoning| !reasoning.is_empty()) {
                reasoning.add_all_to(&mut event.reasoning);
            }
            event.other_output |= delta.tool_calls.0 || delta.function_call.0 || delta.images.0;
            if let Some(audio) = delta.audio.0 {
                audio.transcript.add_all_to(&mut event.text);
                event.other_output |= audio.data.0;
            }
        }
        event.usage = event.usage.or(self.usage.and_then(openai::usage));
        event.finish(self.finish_reason.and_then(|reason| reason.meaning(ProtocolKind::Chat)));
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
    use crate::record::FinishReason;

    fn read(data: &[u8]) -> Result<Event, EventError> {
        let mut event = Event::default();
        super::read(data, &mut event).map(|()| event)
    }

    #[test]
    fn only_generated_output_counts_as_output() {
        for (delta, output) in [
            (r#"{"role":"assistant"}"#, false),
            (r#"{"role":"assistant","content":""}"#, false),
            (r#"{"content":null,"tool_calls":null}"#, false),
            (r#"{"tool_calls":[]}"#, false),
            (r#"{"content":"a"}"#, true),
            (r#"{"reasoning_content":"hm"}"#, true),
            (r#"{"reasoning":"hm"}"#, true),
            (r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#, true),
            (r#"{"tool_calls":{"index":0}}"#, true),
            (r#"{"function_call":{"name":"f","arguments":""}}"#, true),
            (r#"{"function_call":null}"#, false),
            (r#"{"thinking":"hm"}"#, true),
            (r#"{"reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#, true),
            (r#"{"refusal":"no"}"#, true),
            (r#"{"refusal":null}"#, false),
            (r#"{"audio":{"id":"a","transcript":"hi"}}"#, true),
            (r#"{"audio":{"id":"a","data":"UklG"}}"#, true),
            (r#"{"audio":{"id":"a","expires_at":7}}"#, false),
            (r#"{"content":[]}"#, false),
            (r#"{"content":[{"type":"text","text":""}]}"#, false),
            (r#"{"content":[{"type":"text","text":"a"}]}"#, true),
            ("null", false),
        ] {
            let event = read(format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#).as_bytes()).unwrap();
            assert_eq!(event.has_output(), output, "{delta}");
        }
    }

    #[test]
    fn reasoning_is_not_answer_text() {
        let data = br#"{"choices":[{"delta":{"reasoning_content":"hm","reasoning":"hm"}}]}"#;
        let event = read(data).unwrap();
        assert_eq!((event.text.as_str(), event.reasoning.as_str()), ("", "hm"));
    }

    #[test]
    fn content_in_parts_is_read_and_thinking_is_reasoning() {
        for (content, text, reasoning) in [
            (r#""a""#, "a", ""),
            (r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#, "ab", ""),
            (r#"["a","b"]"#, "ab", ""),
            (r#"[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]"#, "", "hm"),
            (r#"[{"type":"thinking","thinking":"hm"},{"type":"text","text":"a"}]"#, "a", "hm"),
            (r#"[{"type":"reasoning","text":"hm"}]"#, "", "hm"),
            (r#"{"type":"text","text":"a"}"#, "a", ""),
            (r#"[{"type":"reference","reference_ids":[1]}]"#, "", ""),
        ] {
            let event =
                read(format!(r#"{{"choices":[{{"delta":{{"content":{content}}}}}]}}"#).as_bytes());
            let event = event.unwrap();
            assert_eq!(
                (event.text.as_str(), event.reasoning.as_str()),
                (text, reasoning),
                "{content}"
            );
        }
    }

    #[test]
    fn usage_is_read_where_servers_put_it() {
        let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":9}"#;
        for data in [
            format!(r#"{{"choices":[],{usage}}}"#),
            format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop",{usage}}}]}}"#),
            format!(r#"{{"choices":[{{"delta":{{}}}}],"x_groq":{{"id":"a",{usage}}}}}"#),
            format!(r#"{{"choices":[],"usage":null,"x_groq":{{{usage}}}}}"#),
        ] {
            let event = read(data.as_bytes()).unwrap();
            let counts = event.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens));
            assert_eq!(counts, Some((Some(3), Some(9))), "{data}");
        }
    }

    #[test]
    fn a_choice_may_hold_an_error() {
        for data in [
            r#"{"choices":[{"index":0,"delta":{"content":""},"error":{"code":502,"message":"gone"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a","error":"gone"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{}},{"index":1,"error":{"message":"gone"}}]}"#,
        ] {
            let gone = EventError::Server("gone".to_owned());
            assert_eq!(read(data.as_bytes()), Err(gone), "{data}");
        }
        let empty =
            br#"{"choices":[{"delta":{"content":"a"},"error":{"code":"","message":null}}]}"#;
        assert!(read(empty).is_ok());
    }

    #[test]
    fn choices_are_told_apart() {
        let data = br#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"},
            {"index":0,"delta":{"content":"a"}}]}"#;
        let event = read(data).unwrap();
        assert_eq!((event.choice, event.text.as_str(), event.other_output), (1, "b", true));
        assert_eq!((event.seen, event.finished), (0b11, 0b10));
    }

    #[test]
    fn a_finish_without_delta_is_read() {
        let event = read(br#"{"choices":[{"finish_reason":"stop"}]}"#).unwrap();
        assert_eq!(event.finish_reason, Some(FinishReason::EndsWell("stop".into())));
        assert!(!event.has_output());
    }

    #[test]
    fn the_body_is_that_of_chat() {
        let body = body(&openai::tests::request());
        assert_eq!(
            Value::Object(body),
            json!({
                "model": "m", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 7,
                "temperature": 0.0, "stream": true, "ignore_eos": true,
                "stream_options": { "include_usage": true },
            })
        );
    }
}
