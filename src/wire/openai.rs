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

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::lenient::{Count, Filled, Object};
use super::{Event, EventError, Request, fault, no_error, no_fault, parse};
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
    fn add_to(self, event: &mut Event) -> Result<(), EventError>;

    /// Which of the choices that the answer has.
    fn index(&self) -> u32;
}

/// One event's object. Every field may be missing: servers differ.
#[derive(Deserialize)]
#[serde(bound(deserialize = "C: Choice<'de>, 'de: 'a"))]
struct Chunk<'a, C> {
    choices: Option<Choices<C>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    x_groq: Object<Groq<'a>>,
    // An error stands in any of these.
    error: Option<Value>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(default)]
    message: Filled,
}

#[derive(Deserialize)]
struct Groq<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<Value>,
}

impl<C> Chunk<'_, C> {
    /// Whether it is an error, also where it holds a part of an answer.
    fn is_error(&self) -> bool {
        fault::is_word_error(self.object)
            || fault::is_word_error(self.kind)
            || fault::is_failure(self.error_code)
            || fault::is_failure(self.code) && self.message.0
    }

    /// Whether it holds nothing of an answer.
    fn is_empty(&self) -> bool {
        self.usage.is_none() && self.choices.as_ref().is_none_or(|choices| choices.first.is_none())
    }
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

#[derive(Default, Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Object<PromptTokensDetails>,
    #[serde(default)]
    completion_tokens_details: Object<CompletionTokensDetails>,
}

#[derive(Default, Deserialize)]
struct PromptTokensDetails {
    #[serde(default)]
    cached_tokens: Count,
}

#[derive(Default, Deserialize)]
struct CompletionTokensDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

/// The counts of a usage object; `None` where something else stands in its place.
pub(super) fn usage(json: &RawValue) -> Option<Usage> {
    let usage = match serde_json::from_str::<Object<WireUsage>>(json.get()) {
        Ok(Object(usage)) => usage?,
        // A number that no type holds.
        Err(_) => return Some(Usage { unusable: true, ..Usage::default() }),
    };
    let prompt_details = usage.prompt_tokens_details.0.unwrap_or_default();
    let completion_details = usage.completion_tokens_details.0.unwrap_or_default();
    Some(counted(
        usage.prompt_tokens,
        usage.completion_tokens,
        prompt_details.cached_tokens,
        completion_details.reasoning_tokens,
    ))
}

/// The usage that these counts are.
pub(super) fn counted(prompt: Count, completion: Count, cached: Count, reasoning: Count) -> Usage {
    Usage {
        prompt_tokens: prompt.known(),
        completion_tokens: completion.known(),
        cached_tokens: cached.known(),
        reasoning_tokens: reasoning.known(),
        unusable: [prompt, completion, cached, reasoning].contains(&Count::Unusable),
    }
}

/// Reads an event's data into `event`, which is empty.
pub(super) fn read<'a, C: Choice<'a>>(data: &'a [u8], event: &mut Event) -> Result<(), EventError> {
    let chunk: Chunk<'_, C> = parse(data)?;
    if chunk.is_error() {
        return Err(EventError::Server(fault::message(data)));
    }
    if chunk.is_empty() {
        no_fault(data)?;
    }
    no_error(chunk.error)?;
    let groq = chunk.x_groq.0;
    let aside = groq.as_ref().and_then(|groq| groq.usage);
    event.usage = chunk.usage.or(aside).and_then(usage);
    no_error(groq.and_then(|groq| groq.error))?;
    let Some(Choices { first, others }) = chunk.choices else { return Ok(()) };
    if let Some(first) = first {
        event.choice = first.index();
        first.add_to(event)?;
        event.note_choice();
    }
    for other in others {
        let mut apart = Event { choice: other.index(), ..Event::default() };
        other.add_to(&mut apart)?;
        apart.note_choice();
        event.add_other(apart);
    }
    Ok(())
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
