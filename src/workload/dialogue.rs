//! Conversations as files hold them, in words: `conversations` of ShareGPT (`from`, `value`) or of SGLang
//! (`role`, `content`), `messages` of OpenAI, or an item that is the array of messages itself. Pure.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::prompt::{Content, Message, Role};

/// What an item of a file says, as `T` takes it from its turns.
#[derive(Debug)]
pub(super) struct Dialogue<T>(pub(super) T);

/// One turn.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Said {
    pub(super) by: Speaker,
    pub(super) text: String,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    System,
    User,
    Assistant,
    Tool,
    /// What a file without roles, or with its own, has.
    Other,
}

impl Speaker {
    fn named(name: &str) -> Self {
        match name {
            "system" | "developer" => Self::System,
            "user" | "human" => Self::User,
            "assistant" | "gpt" | "model" | "chatgpt" | "bing" | "bard" => Self::Assistant,
            "tool" | "function" | "function_call" | "observation" => Self::Tool,
            _ => Self::Other,
        }
    }
}

impl<'de> Deserialize<'de> for Speaker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl Visitor<'_> for Visit {
            type Value = Speaker;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a role")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Speaker, E> {
                Ok(Speaker::named(name))
            }
        }

        deserializer.deserialize_str(Visit)
    }
}

/// A turn as it is written. The names of both shapes are taken.
#[derive(Deserialize)]
#[serde(expecting = "a turn with who says it and what")]
struct Written {
    #[serde(alias = "role")]
    from: Option<Speaker>,
    #[serde(alias = "content")]
    value: Option<Words>,
    tool_calls: Option<IgnoredAny>,
}

impl TryFrom<Written> for Said {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match (written.value, written.tool_calls) {
            (Some(words), _) => words.0,
            (None, Some(_)) => return Err("a turn that calls a tool and says nothing".to_owned()),
            (None, None) => return Err("a turn without a text".to_owned()),
        };
        Ok(Self { by: written.from.unwrap_or(Speaker::Other), text })
    }
}

/// A text, or parts that all are texts.
struct Words(String);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Words, E> {
                Ok(Words(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut parts: Vec<Value> = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                let content = Some(Content::Parts(parts));
                let message = Message { role: Role::User, content, fields: Default::default() };
                match message.other_parts().next() {
                    Some(kind) => Err(de::Error::custom(format!(
                        "a turn with a part that is no text, `{kind}`: the dataset `custom` sends such parts"
                    ))),
                    None => Ok(Words(message.text().into_owned())),
                }
            }
        }

        deserializer.deserialize_any(Visit)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Dialogue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Visit<T> {
            type Value = Dialogue<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a conversation")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dialogue<T>, A::Error> {
                let mut said: Option<T> = None;
                while let Some(key) = map.next_key::<Key>()? {
                    match key {
                        Key::Conversation if said.is_none() => said = map.next_value()?,
                        Key::Conversation | Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let none = "there is no `conversations` and no `messages`";
                said.map(Dialogue).ok_or_else(|| de::Error::custom(none))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Dialogue<T>, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(seq)).map(Dialogue)
            }
        }

        deserializer.deserialize_any(Visit(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "conversations", alias = "conversation", alias = "messages")]
    Conversation,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(Speaker, String)>, String> {
        let dialogue: Dialogue<Vec<Said>> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(dialogue.0.into_iter().map(|said| (said.by, said.text)).collect())
    }

    #[test]
    fn a_conversation_is_recognised_by_its_shape() {
        let expected = [(Speaker::User, "a".to_owned()), (Speaker::Assistant, "b\nc".to_owned())];
        for text in [
            r#"{"id": 1, "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b\nc"}]}"#,
            r#"{"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\nc"}]}"#,
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\nc", "tool_calls": null}]}"#,
            r#"[{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant",
                "content": [{"type": "text", "text": "b"}, "c"]}]"#,
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_conversation_in_words_says_why() {
        for (text, part) in [
            ("null", "expected a conversation"),
            ("{}", "no `conversations` and no `messages`"),
            (r#"{"conversations": null}"#, "no `conversations`"),
            (r#"{"conversations": [null]}"#, "invalid type: null, expected a turn"),
            (r#"{"conversations": [{"from": "human", "value": null}]}"#, "a turn without a text"),
            (r#"{"conversations": [{"from": "human", "value": 7}]}"#, "expected a text"),
            (r#"[{"role": "assistant", "content": null, "tool_calls": []}]"#, "calls a tool"),
            (r#"[{"role": "user", "content": [{"type": "image_url"}]}]"#, "no text, `image_url`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
