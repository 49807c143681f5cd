//! The JSON of an answer, as server-sent events or whole.

use serde_json::json;

use super::dialect::{Dialect, UsageStyle};
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

/// What a part of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text for the user.
    Text,
    /// Reasoning before it.
    Reasoning,
    /// Arguments of a tool call.
    ToolCall,
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
    pub(crate) dialect: Dialect,
    /// The beginning of each event of completions or chat.
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
        dialect: Dialect,
    ) -> Self {
        let object = match endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        let head = format!(
            r#"{{"id":{},"object":"{object}","created":{created},"model":{},"choices":["#,
            json!(id),
            json!(model),
        );
        Self { endpoint, id, model, created, include_usage, dialect, head }
    }

    /// The events that open a stream, if there are any.
    pub(crate) fn opening(&self) -> Option<String> {
        match self.endpoint {
            Endpoint::Completions | Endpoint::Triton | Endpoint::Tgi => None,
            Endpoint::Chat => {
                Some(self.openai(r#""delta":{"role":"assistant","content":""}"#, "null", None))
            }
            Endpoint::Responses => {
                let response =
                    json!({"id": self.id, "object": "response", "status": "in_progress"});
                let event = |kind: &str| self.typed(kind, &json!({"response": response}));
                Some(event("response.created") + &event("response.in_progress"))
            }
        }
    }

    /// What a token is by its place in the answer.
    pub(crate) fn part(&self, index: u32) -> Part {
        match self.endpoint {
            Endpoint::Chat | Endpoint::Responses => {
                let Dialect { reasoning_tokens, tool_call, .. } = self.dialect;
                match index {
                    _ if index < reasoning_tokens => Part::Reasoning,
                    _ if tool_call => Part::ToolCall,
                    _ => Part::Text,
                }
            }
            Endpoint::Completions | Endpoint::Triton | Endpoint::Tgi => Part::Text,
        }
    }

    /// The event of one or more tokens, whose text needs no escape. `usage` counts up to them; `last`
    /// is why the answer ends with them, if it does.
    pub(crate) fn tokens(
        &self,
        part: Part,
        text: &str,
        usage: Usage,
        last: Option<FinishReason>,
    ) -> String {
        match self.endpoint {
            Endpoint::Completions => self.openai(&format!(r#""text":"{text}""#), "null", Some(usage)),
            Endpoint::Chat => {
                let delta = match part {
                    Part::Text => format!(r#"{{"content":"{text}"}}"#),
                    Part::Reasoning => format!(r#"{{"reasoning_content":"{text}"}}"#),
                    Part::ToolCall => format!(
                        r#"{{"tool_calls":[{{"index":0,"type":"function","function":{{"arguments":"{text}"}}}}]}}"#
                    ),
                };
                self.openai(&format!(r#""delta":{delta}"#), "null", Some(usage))
            }
            Endpoint::Responses => {
                let kind = match part {
                    Part::Text => "response.output_text.delta",
                    Part::Reasoning => "response.reasoning_text.delta",
                    Part::ToolCall => "response.function_call_arguments.delta",
                };
                self.typed(kind, &json!({"item_id": self.id, "output_index": 0, "delta": text}))
            }
            Endpoint::Triton => self.dialect.event(
                None,
                &format!(
                    r#"{{"model_name":"ensemble","model_version":"1","sequence_end":false,"sequence_id":0,"sequence_start":false,"text_output":"{text}"}}"#
                ),
            ),
            Endpoint::Tgi => {
                let details = last.filter(|_| !self.dialect.no_finish_reason).map(|reason| {
                    json!({
                        "finish_reason": reason.name(),
                        "generated_tokens": usage.completion_tokens,
                        "input_length": usage.prompt_tokens,
                        "seed": null,
                    })
                });
                let token = json!({"id": 1, "text": text, "logprob": 0.0, "special": false});
                let data = json!({
                    "index": usage.completion_tokens,
                    "token": token,
                    "generated_text": last.map(|_| ""),
                    "details": details,
                });
                self.dialect.event(None, &data.to_string())
            }
        }
    }

    /// The events that close a stream; empty where nothing does.
    pub(crate) fn closing(&self, reason: FinishReason, usage: Usage) -> String {
        let content = match self.endpoint {
            Endpoint::Completions => r#""text":"""#,
            Endpoint::Chat => r#""delta":{}"#,
            Endpoint::Responses => return self.response_end(reason, usage),
            Endpoint::Triton | Endpoint::Tgi => return String::new(),
        };
        let finish_reason = match self.dialect.no_finish_reason {
            true => "null".to_owned(),
            false => format!(r#""{}""#, reason.name()),
        };
        let mut events = self.openai(content, &finish_reason, Some(usage));
        if self.include_usage && self.dialect.usage == UsageStyle::AsAsked {
            let data = format!("{}],\"usage\":{}}}", self.head, usage.json());
            events.push_str(&self.dialect.event(None, &data));
        }
        if !self.dialect.no_done {
            events.push_str(&self.dialect.event(None, "[DONE]"));
        }
        events
    }

    /// An error object in the stream.
    pub(crate) fn error(&self) -> String {
        let message = "the engine ran out of blocks";
        match self.endpoint {
            Endpoint::Completions | Endpoint::Chat => {
                let error =
                    json!({"error": {"message": message, "type": "server_error", "code": 500}});
                self.dialect.event(None, &error.to_string())
            }
            Endpoint::Responses => self.typed("error", &json!({"message": message})),
            Endpoint::Triton | Endpoint::Tgi => {
                self.dialect.event(None, &json!({"error": message}).to_string())
            }
        }
    }

    fn response_end(&self, reason: FinishReason, usage: Usage) -> String {
        let (kind, details) = match reason {
            FinishReason::Stop => ("response.completed", json!(null)),
            FinishReason::Length => ("response.incomplete", json!({"reason": "max_output_tokens"})),
        };
        let counts = (self.dialect.usage != UsageStyle::Never).then(|| {
            json!({"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens})
        });
        let response = json!({
            "id": self.id, "object": "response", "incomplete_details": details, "usage": counts,
        });
        self.typed(kind, &json!({"response": response}))
    }

    /// An event of responses, which says its type twice.
    fn typed(&self, kind: &str, fields: &serde_json::Value) -> String {
        let mut data = fields.clone();
        data["type"] = json!(kind);
        self.dialect.event(Some(kind), &data.to_string())
    }

    fn openai(&self, content: &str, finish_reason: &str, usage: Option<Usage>) -> String {
        let usage = match (self.dialect.usage, usage) {
            (UsageStyle::EveryChunk, Some(usage)) => format!(r#","usage":{}"#, usage.json()),
            (UsageStyle::AsAsked, _) if self.include_usage => r#","usage":null"#.to_owned(),
            _ => String::new(),
        };
        let data = format!(
            "{}{{\"index\":0,{content},\"logprobs\":null,\"finish_reason\":{finish_reason}}}]{usage}}}",
            self.head,
        );
        self.dialect.event(None, &data)
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
            Endpoint::Responses => {
                let part = json!({"type": "output_text", "text": text});
                let item = json!({"type": "message", "role": "assistant", "content": [part]});
                let usage = json!({
                    "input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens,
                });
                let answer = json!({
                    "id": self.id, "object": "response", "output": [item], "usage": usage,
                });
                return answer.to_string();
            }
            Endpoint::Triton => {
                return json!({"model_name": "ensemble", "text_output": text}).to_string();
            }
            Endpoint::Tgi => return json!({"generated_text": text}).to_string(),
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
        let (id, model) = ("id-1".to_owned(), "a \"model\"".to_owned());
        Format::new(endpoint, id, model, 7, include_usage, Dialect::default())
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
        let [event] = &events(&format.tokens(Part::Text, " word", USAGE, None))[..] else {
            panic!()
        };
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
        let [event] = &events(&format.tokens(Part::Text, " word", USAGE, None))[..] else {
            panic!()
        };
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
