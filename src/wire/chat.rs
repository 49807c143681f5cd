//! OpenAI chat completions, streamed: `POST /v1/chat/completions`. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::openai::{self, Text};
use super::{Event, EventError, Request};

pub(super) fn body(request: &Request<'_>) -> Map<String, Value> {
    let mut body = openai::common(request);
    body.insert("messages".into(), json!(request.prompt.messages()));
    body
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    /// In the place of the delta where the answer comes in one block.
    #[serde(borrow)]
    message: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

/// Servers name the reasoning in two ways.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow)]
    reasoning: Option<Text<'a>>,
    tool_calls: Option<Vec<serde::de::IgnoredAny>>,
}

impl<'a> openai::Choice<'a> for Choice<'a> {
    fn add_to(self, event: &mut Event) {
        if let Some(delta) = self.delta.or(self.message) {
            event.text.push_str(Text::of(&delta.content));
            // Some servers send the same text under both names.
            let reasoning = delta.reasoning_content.filter(|text| !text.0.is_empty());
            event.reasoning.push_str(Text::of(&reasoning.or(delta.reasoning)));
            event.tool_call |= delta.tool_calls.is_some_and(|calls| !calls.is_empty());
        }
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
    fn a_finish_without_delta_is_read() {
        let event = read(br#"{"choices":[{"finish_reason":"stop"}]}"#).unwrap();
        assert_eq!(event.finish_reason.as_deref(), Some("stop"));
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
