//! Fields of events as servers really send them: counts that are none, content in parts, objects in unexpected
//! shapes. What does not matter for the answer never fails it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Text that is taken from the event's bytes as it stands there, unless it holds an escape.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl Text<'_> {
    /// The text; empty where there is none.
    pub(super) fn of<'b>(text: &'b Option<Text<'_>>) -> &'b str {
        text.as_ref().map_or("", |text| &text.0)
    }
}

/// A number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Count {
    /// Missing or `null`.
    #[default]
    Missing,
    /// A whole number.
    Known(u32),
    /// Something else: negative, a fraction, too large, text.
    Unusable,
}

impl Count {
    pub(super) fn known(self) -> Option<u32> {
        match self {
            Self::Known(count) => Some(count),
            Self::Missing | Self::Unusable => None,
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
        Ok(u32::try_from(value).map_or(Count::Unusable, Count::Known))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
        Ok(u32::try_from(value).map_or(Count::Unusable, Count::Known))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
        let whole = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
        Ok(if whole { Count::Known(value as u32) } else { Count::Unusable })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
        Ok(Count::Unusable)
    }

    fn visit_str<E>(self, _: &str) -> Result<Count, E> {
        Ok(Count::Unusable)
    }

    fn visit_unit<E>(self) -> Result<Count, E> {
        Ok(Count::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Count, A::Error> {
        skip_seq(seq)?;
        Ok(Count::Unusable)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Count, A::Error> {
        IgnoredAny.visit_map(map)?;
        Ok(Count::Unusable)
    }
}

fn skip_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<usize, A::Error> {
    let mut count = 0;
    while seq.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// An object; none where something else stands in its place.
pub(super) struct Object<T>(pub(super) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<T>, A::Error> {
        skip_seq(seq).map(|_| None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<T>, E> {
        Ok(None)
    }
}

/// Whether something stands there: not `null`, `false`, zero, or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filled(pub(super) bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FilledVisitor).map(Self)
    }
}

struct FilledVisitor;

impl<'de> Visitor<'de> for FilledVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(value != 0)
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(value != 0)
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(value != 0.0)
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        Ok(!value.is_empty())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<bool, A::Error> {
        skip_seq(seq).map(|count| 0 < count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut filled = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            filled = true;
        }
        Ok(filled)
    }
}

/// Generated text: a string, or a list of parts, some of which may be reasoning.
#[derive(Default)]
pub(super) enum Content<'a> {
    /// `null`.
    #[default]
    Nothing,
    /// One text.
    Text(Cow<'a, str>),
    /// What the parts hold.
    Parts { text: String, reasoning: String },
}

impl Content<'_> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Text(text) => text.is_empty(),
            Self::Parts { text, reasoning } => text.is_empty() && reasoning.is_empty(),
        }
    }

    /// Appends it, what is reasoning apart from the rest.
    pub(super) fn add_to(&self, answer: &mut String, thoughts: &mut String) {
        match self {
            Self::Nothing => {}
            Self::Text(text) => answer.push_str(text),
            Self::Parts { text, reasoning } => {
                answer.push_str(text);
                thoughts.push_str(reasoning);
            }
        }
    }

    /// Appends it where all of it is of one kind.
    pub(super) fn add_all_to(&self, to: &mut String) {
        match self {
            Self::Nothing => {}
            Self::Text(text) => to.push_str(text),
            Self::Parts { text, reasoning } => {
                to.push_str(reasoning);
                to.push_str(text);
            }
        }
    }

    fn of_part(part: &Value) -> Self {
        let (mut text, mut reasoning) = (String::new(), String::new());
        add_part(part, false, &mut text, &mut reasoning);
        Self::Parts { text, reasoning }
    }
}

/// Adds what a part of a message holds. A part is a string, or an object whose `type` says what it is and which has its
/// text under one of a few names.
fn add_part(part: &Value, thinks: bool, text: &mut String, reasoning: &mut String) {
    match part {
        Value::String(part) if thinks => reasoning.push_str(part),
        Value::String(part) => text.push_str(part),
        Value::Array(parts) => {
            parts.iter().for_each(|part| add_part(part, thinks, text, reasoning));
        }
        Value::Object(part) => {
            let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
            let thinks = thinks || kind.contains("thinking") || kind.contains("reasoning");
            let names = ["text", "thinking", "reasoning", "content", "refusal", "transcript"];
            if let Some(held) = names.iter().find_map(|name| part.get(*name)) {
                add_part(held, thinks, text, reasoning);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor(PhantomData))
    }
}

struct ContentVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ContentVisitor<'a> {
    type Value = Content<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of parts")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Content<'a>, E> {
        Ok(Content::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content<'a>, E> {
        Ok(Content::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Content<'a>, E> {
        Ok(Content::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content<'a>, A::Error> {
        let (mut text, mut reasoning) = (String::new(), String::new());
        while let Some(part) = seq.next_element::<Value>()? {
            add_part(&part, false, &mut text, &mut reasoning);
        }
        Ok(Content::Parts { text, reasoning })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content<'a>, A::Error> {
        let part = Value::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Content::of_part(&part))
    }
}
