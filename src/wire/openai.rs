//! What OpenAI's completions and chat have in common: sampling fields, usage, error objects. Pure.
//!
//! | sent | |
//! | --- | --- |
//! | `model`; `prompt` or `messages` | the model, the prompt |
//! | `max_tokens`, or `max_completion_tokens` where the backend's `length_field` says so | the longest answer |
//! | `temperature` | 0: greedy |
//! | `stream` | true |
//! | `stream_options` | `{"include_usage": true}`, unless the backend's `stream_options` is off |
//! | `ignore_eos`, `min_tokens` | where they are asked for: engines know them, OpenAI's own API does not |

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{Event, EventError, Request, no_error, parse};
use crate::record::Usage;

/// The fields that both protocols have. The sampling is greedy, as in MAX's script.
pub(super) fn common(request: &Request<'_>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert(request.length_field.name().into(), json!(request.output_tokens));
    body.insert("temperature".into(), json!(0.0));
    body.insert("stream".into(), json!(true));
    if request.ignore_eos {
        body.insert("ignore_eos".into(), json!(true));
    }
    if request.min_tokens {
        body.insert("min_tokens".into(), json!(request.output_tokens));
    }
    if request.include_usage {
        body.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    body
}

/// One choice of an event: what differs between the protocols.
pub(super) trait Choice<'a>: Deserialize<'a> {
    /// Puts what it brought into the event.
    fn add_to(self, event: &mut Event);
}

/// Text that is taken from the event's bytes as it stands there, unless it holds an escape.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl Text<'_> {
    /// The text; empty where there is none.
    pub(super) fn of<'b>(text: &'b Option<Text<'_>>) -> &'b str {
        text.as_ref().map_or("", |text| &text.0)
    }
}

/// One event's object. Every field may be missing: servers differ.
#[derive(Deserialize)]
#[serde(bound = "C: Choice<'de>")]
struct Chunk<C> {
    choices: Option<Choices<C>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

/// Nearly always one, which then needs no allocation.
struct Choices<C> {
    first: Option<C>,
    others: Vec<C>,
}

impl<'de, C: Choice<'de>> Deserialize<'de> for Choices<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoicesVisitor<C>(PhantomData<C>);

        impl<'de, C: Choice<'de>> Visitor<'de> for ChoicesVisitor<C> {
            type Value = Choices<C>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices<C>, A::Error> {
                let first = seq.next_element()?;
                let mut others = Vec::new();
                while let Some(choice) = seq.next_element()? {
                    others.push(choice);
                }
                Ok(Choices { first, others })
            }
        }

        deserializer.deserialize_seq(ChoicesVisitor(PhantomData))
    }
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<u32>,
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
        }
    }
}

/// Reads an event's data into `event`, which is empty.
pub(super) fn read<'a, C: Choice<'a>>(data: &'a [u8], event: &mut Event) -> Result<(), EventError> {
    if data.trim_ascii() == b"[DONE]" {
        event.done = true;
        return Ok(());
    }
    let chunk: Chunk<C> = parse(data)?;
    no_error(chunk.error)?;
    event.usage = chunk.usage.map(Usage::from);
    if let Some(Choices { first, others }) = chunk.choices {
        first.into_iter().chain(others).for_each(|choice| choice.add_to(event));
    }
    Ok(())
}

/// What an error object says: its `message` where it has one.
pub(super) fn error_message(error: &Value) -> String {
    match error.get("message").unwrap_or(error) {
        Value::String(message) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::prompt::Prompt;
    use crate::wire::LengthField;

    static HI: LazyLock<Prompt> = LazyLock::new(|| Prompt::Text("hi".to_owned()));

    pub(in crate::wire) fn request() -> Request<'static> {
        Request {
            model: "m",
            prompt: &HI,
            output_tokens: 7,
            length_field: LengthField::MaxTokens,
            ignore_eos: true,
            min_tokens: false,
            include_usage: true,
        }
    }

    #[test]
    fn optional_fields_are_sent_only_where_asked_for() {
        let body = common(&request());
        assert_eq!(body["ignore_eos"], true);
        assert_eq!(body["stream_options"]["include_usage"], true);
        assert!(!body.contains_key("min_tokens"));
        let plain =
            Request { ignore_eos: false, min_tokens: true, include_usage: false, ..request() };
        let body = common(&plain);
        assert_eq!(body["min_tokens"], 7);
        assert!(!body.contains_key("ignore_eos") && !body.contains_key("stream_options"));
        let length_field = LengthField::MaxCompletionTokens;
        let body = common(&Request { length_field, ..request() });
        assert_eq!(body["max_completion_tokens"], 7);
        assert!(!body.contains_key("max_tokens"));
    }
}
