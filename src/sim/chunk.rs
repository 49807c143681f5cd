//! The JSON of an answer, as server-sent events or whole.

use std::fmt::Write as _;

use serde_json::json;

use super::request::Endpoint;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model had said all.
    Stop,
    /// The request allowed no more.
    Length,
}

impl FinishReason {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Tokens of prompt and answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
}

impl Usage {
    fn json(self) -> serde_json::Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": u64::from(self.prompt_tokens) + u64::from(self.completion_tokens),
        })
    }
}

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    endpoint: Endpoint,
    id: String,
    model: String,
    /// Whole seconds.
    created: u64,
    include_usage: bool,
    /// The beginning of each event.
    head: String,
}

impl Format {
    /// The format of an answer.
    pub(crate) fn new(
        endpoint: Endpoint,
        id: String,
        model: String,
        created: u64,
        include_usage: bool,
    ) -> Self {
        let object = match endpoint {
            Endpoint::Completions => "text_completion",
            Endpoint::Chat => "chat.completion.chunk",
        };
        let head = format!(
            r#"data: {{"id":{},"object":"{object}","created":{created},"model":{},"choices":["#,
            json!(id),
            json!(model),
        );
        Self { endpoint, id, model, created, include_usage, head }
    }

    /// The event that opens a stream, if there is one.
    pub(crate) fn opening(&self) -> Option<String> {
        (self.endpoint == Endpoint::Chat)
            .then(|| self.event(r#""delta":{"role":"assistant","content":""}"#, "null"))
    }

    /// The event of one token, whose text needs no escape.
    pub(crate) fn token(&self, text: &str) -> String {
        let content = match self.endpoint {
            Endpoint::Completions => format!(r#""text":"{text}""#),
            Endpoint::Chat => format!(r#""delta":{{"content":"{text}"}}"#),
        };
        self.event(&content, "null")
    }

    /// The events that close a stream.
    pub(crate) fn closing(&self, reason: FinishReason, usage: Usage) -> String {
        let content = match self.endpoint {
            Endpoint::Completions => r#""text":"""#,
            Endpoint::Chat => r#""delta":{}"#,
        };
        let mut events = self.event(content, &format!(r#""{}""#, reason.name()));
        if self.include_usage {
            // Writing to a string cannot fail.
            let _ = write!(events, "{}],\"usage\":{}}}\n\n", self.head, usage.json());
        }
        events.push_str("data: [DONE]\n\n");
        events
    }

    fn event(&self, content: &str, finish_reason: &str) -> String {
        let usage = if self.include_usage { r#","usage":null"# } else { "" };
        format!(
            "{}{{\"index\":0,{content},\"logprobs\":null,\"finish_reason\":{finish_reason}}}]{usage}}}\n\n",
            self.head,
        )
    }

    /// A whole answer.
    pub(crate) fn whole(&self, text: &str, reason: FinishReason, usage: Usage) -> String {
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": reason.name()});
        let object = match self.endpoint {
            Endpoint::Completions => {
                choice["text"] = json!(text);
                "text_completion"
            }
            Endpoint::Chat => {
                choice["message"] = json!({"role": "assistant", "content": text});
                "chat.completion"
            }
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage.json(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const USAGE: Usage = Usage { prompt_tokens: 3, completion_tokens: 4 };

    fn format(endpoint: Endpoint, include_usage: bool) -> Format {
        Format::new(endpoint, "id-1".to_owned(), "a \"model\"".to_owned(), 7, include_usage)
    }

    fn events(text: &str) -> Vec<Value> {
        let payloads = text.split_terminator("\n\n").map(|event| &event["data: ".len()..]);
        payloads
            .filter(|payload| *payload != "[DONE]")
            .map(|payload| serde_json::from_str(payload).unwrap())
            .collect()
    }

    #[test]
    fn a_completions_token_is_an_event_with_its_text() {
        let format = format(Endpoint::Completions, false);
        assert_eq!(format.opening(), None);
        let [event] = &events(&format.token(" word"))[..] else { panic!() };
        assert_eq!(event["choices"][0]["text"], " word");
        assert_eq!(event["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(event["model"], "a \"model\"");
        assert_eq!(event.get("usage"), None);
    }

    #[test]
    fn a_chat_stream_opens_with_the_role() {
        let format = format(Endpoint::Chat, false);
        let [event] = &events(&format.opening().unwrap())[..] else { panic!() };
        let role = json!({"role": "assistant", "content": ""});
        assert_eq!(event["choices"][0]["delta"], role);
        let [event] = &events(&format.token(" word"))[..] else { panic!() };
        assert_eq!(event["choices"][0]["delta"], json!({"content": " word"}));
    }

    #[test]
    fn a_stream_closes_with_the_reason_and_then_the_usage_if_it_is_asked_for() {
        let text = format(Endpoint::Completions, true).closing(FinishReason::Length, USAGE);
        assert!(text.ends_with("data: [DONE]\n\n"));
        let [finish, usage] = &events(&text)[..] else { panic!("{text}") };
        assert_eq!(finish["choices"][0]["finish_reason"], "length");
        assert_eq!(finish["usage"], Value::Null);
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"]["total_tokens"], 7);
        let text = format(Endpoint::Chat, false).closing(FinishReason::Stop, USAGE);
        assert_eq!(events(&text).len(), 1);
    }

    #[test]
    fn a_whole_answer_has_text_reason_and_usage() {
        let text = format(Endpoint::Chat, false).whole(" a b", FinishReason::Stop, USAGE);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], " a b");
        assert_eq!(answer["usage"]["completion_tokens"], 4);
    }
}
