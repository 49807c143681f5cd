//! Why a server stopped an answer: one table a protocol of the words that end it well, and one of the words that say
//! that it failed. Pure.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::ProtocolKind;
use crate::record::FinishReason;

/// The longest word that is kept, characters.
const LONGEST: usize = 100;

/// OpenAI's words, and those that engines and gateways use in their place.
const OPENAI: &[&str] = &[
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "content_filter",
    // Engines: end-of-sequence tokens and stop strings.
    "eos",
    "eos_token",
    "eos_token_id",
    "stop_sequence",
    "stop_string",
    "stop_token",
    "stop_token_id",
    "stop_word",
    "repetition",
    // Gateways before Anthropic's, Google's, Cohere's and other APIs.
    "complete",
    "completed",
    "done",
    "end",
    "end_turn",
    "finished",
    "limit",
    "max_length",
    "max_new_tokens",
    "max_output_tokens",
    "max_tokens",
    "model_context_window_exceeded",
    "model_length",
    "pause_turn",
    "blocklist",
    "guardrail_intervened",
    "prohibited_content",
    "recitation",
    "refusal",
    "safety",
    "sensitive",
    "spii",
    "stopped",
    "tool_call",
    "tool_use",
];

/// The end of a response, and the reason where it is incomplete.
const RESPONSES: &[&str] =
    &["completed", "stop", "max_output_tokens", "max_tokens", "length", "content_filter"];

/// Words that some servers send with every event until the last.
const NOT_YET: &[&str] = &[
    "null",
    "none",
    "continue",
    "finish_reason_unspecified",
    "generating",
    "in_progress",
    "not_finished",
    "unfinished",
    "unspecified",
];

const TGI: &[&str] = &["length", "eos_token", "stop_sequence", "stop"];

/// Words of failures in any protocol; so are all that begin or end with `error`.
const FAILURES: &[&str] = &[
    "abort",
    "aborted",
    "canceled",
    "cancelled",
    "cancel",
    "deadline_exceeded",
    "disconnected",
    "engine_dead",
    "evicted",
    "exception",
    "fail",
    "failed",
    "failure",
    "insufficient_system_resource",
    "interrupted",
    "killed",
    "malformed_function_call",
    "oom",
    "out_of_memory",
    "overloaded",
    "rejected",
    "terminated",
    "time_limit",
    "timed_out",
    "timeout",
    "unavailable",
];

/// The word as it stands in the event: a text, or SGLang's object of a `type` and a `message`.
pub(super) struct Reason<'a> {
    word: Cow<'a, str>,
    message: Option<String>,
}

impl Reason<'_> {
    /// A reason without a message.
    pub(super) fn word(word: &str) -> Reason<'_> {
        Reason { word: Cow::Borrowed(word), message: None }
    }

    /// What it means in a protocol; `None` for an empty word, which is no end.
    pub(super) fn meaning(self, protocol: ProtocolKind) -> Option<FinishReason> {
        let word = self.word.trim();
        if word.is_empty() || is_of(NOT_YET, word) {
            return None;
        }
        let ends_well = match protocol {
            ProtocolKind::Completions | ProtocolKind::Chat | ProtocolKind::Triton => OPENAI,
            ProtocolKind::Responses => RESPONSES,
            ProtocolKind::Tgi => TGI,
        };
        let shown: String = word.chars().take(LONGEST).collect();
        if is_of(ends_well, word) {
            return Some(FinishReason::EndsWell(kept(shown)));
        }
        let is_error = |word: &str| {
            let (word, error) = (word.as_bytes(), b"error");
            let ends =
                |part: Option<&[u8]>| part.is_some_and(|part| part.eq_ignore_ascii_case(error));
            ends(word.get(..error.len()))
                || ends(word.len().checked_sub(error.len()).and_then(|at| word.get(at..)))
        };
        if is_of(FAILURES, word) || is_error(word) {
            return Some(FinishReason::Failed(match self.message {
                Some(message) => format!("{shown}: {message}"),
                None => shown,
            }));
        }
        Some(if is_of(OPENAI, word) {
            FinishReason::EndsWell(kept(shown))
        } else {
            FinishReason::Unknown(shown)
        })
    }
}

/// The word without a copy of it where it is a common one: a run holds one for each answer.
fn kept(word: String) -> Cow<'static, str> {
    match word.as_str() {
        "length" => Cow::Borrowed("length"),
        "stop" => Cow::Borrowed("stop"),
        _ => Cow::Owned(word),
    }
}

/// Whether `word` is one of `table`, whatever its case and its separators.
fn is_of(table: &[&str], word: &str) -> bool {
    let same = |entry: &&str| {
        let plain =
            |byte: u8| if matches!(byte, b'-' | b' ') { b'_' } else { byte.to_ascii_lowercase() };
        entry.len() == word.len() && entry.bytes().zip(word.bytes()).all(|(a, b)| a == plain(b))
    };
    table.iter().any(same)
}

impl<'de: 'a, 'a> Deserialize<'de> for Reason<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReasonVisitor(PhantomData))
    }
}

struct ReasonVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ReasonVisitor<'a> {
    type Value = Reason<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a finish reason")
    }

    fn visit_borrowed_str<E>(self, word: &'de str) -> Result<Reason<'a>, E> {
        Ok(Reason::word(word))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Reason<'a>, E> {
        Ok(Reason { word: Cow::Owned(word.to_owned()), message: None })
    }

    fn visit_bool<E>(self, finished: bool) -> Result<Reason<'a>, E> {
        Ok(Reason::word(if finished { "true" } else { "" }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reason<'a>, A::Error> {
        let reason = Value::deserialize(MapAccessDeserializer::new(map))?;
        let text = |names: &[&str]| {
            let text = names.iter().find_map(|name| reason.get(*name)?.as_str());
            text.map(str::to_owned)
        };
        let word = text(&["type", "reason", "finish_reason"]).unwrap_or_else(|| reason.to_string());
        Ok(Reason { word: Cow::Owned(word), message: text(&["message", "err_msg"]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(json: &str) -> Option<FinishReason> {
        serde_json::from_str::<Option<Reason<'_>>>(json).unwrap()?.meaning(ProtocolKind::Chat)
    }

    #[test]
    fn a_finish_reason_ends_well_or_badly_or_is_named() {
        let well = |word: &str| Some(FinishReason::EndsWell(word.to_owned().into()));
        let failed = |word: &str| Some(FinishReason::Failed(word.to_owned()));
        for (json, expected) in [
            ("null", None),
            (r#""""#, None),
            (r#"" ""#, None),
            ("false", None),
            (r#""null""#, None),
            (r#""in-progress""#, None),
            (r#""stop""#, well("stop")),
            (r#""LENGTH""#, well("LENGTH")),
            (r#""tool-calls""#, well("tool-calls")),
            (r#""end_turn""#, well("end_turn")),
            (r#""abort""#, failed("abort")),
            (r#""Cancelled""#, failed("Cancelled")),
            (r#""timeout""#, failed("timeout")),
            (r#""error""#, failed("error")),
            (r#""internal_error""#, failed("internal_error")),
            (r#""ERROR_LIMIT""#, failed("ERROR_LIMIT")),
            (r#"{"type":"stop","matched":2}"#, well("stop")),
            (r#"{"type":"abort","message":"out of memory"}"#, failed("abort: out of memory")),
            (r#""bored""#, Some(FinishReason::Unknown("bored".to_owned()))),
        ] {
            assert_eq!(meaning(json), expected, "{json}");
        }
    }

    #[test]
    fn each_protocol_has_its_words() {
        for protocol in ProtocolKind::ALL {
            for word in ["stop", "length"] {
                let reason = Reason::word(word).meaning(protocol);
                assert_eq!(
                    reason,
                    Some(FinishReason::EndsWell(word.to_owned().into())),
                    "{protocol:?}"
                );
            }
            let reason = Reason::word("abort").meaning(protocol);
            assert_eq!(reason, Some(FinishReason::Failed("abort".to_owned())), "{protocol:?}");
        }
    }

    #[test]
    fn a_word_of_any_length_is_kept_short() {
        let long = "F".repeat(4_000_000);
        let reason = Reason::word(&long).meaning(ProtocolKind::Completions).unwrap();
        assert_eq!(reason.word().len(), LONGEST);
    }
}
