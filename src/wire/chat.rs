//! OpenAI chat completions, streamed: `POST /v1/chat/completions`. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::openai::{self, OpenAiRequest};
use super::{Event, EventError};

pub(super) fn body(request: &OpenAiRequest<'_>) -> Map<String, Value> {
    let mut body = openai::common(request);
    body.insert("messages".into(), json!([{ "role": "user", "content": request.prompt }]));
    body
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

/// Servers name the reasoning in two ways.
#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<serde::de::IgnoredAny>>,
}

pub(super) fn read(data: &[u8]) -> Result<Event, EventError> {
    openai::read(data, |choice: Choice, event| {
        if let Some(delta) = choice.delta {
            event.text.push_str(&delta.content.unwrap_or_default());
            // Some servers send the same text under both names.
            let reasoning = delta.reasoning_content.filter(|text| !text.is_empty());
            event.reasoning.push_str(&reasoning.or(delta.reasoning).unwrap_or_default());
            event.tool_call |= delta.tool_calls.is_some_and(|calls| !calls.is_empty());
        }
        event.finish_reason = choice.finish_reason.or(event.finish_reason.take());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
