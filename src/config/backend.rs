//! The `[[backend]]` tables of a plan file as the user wrote them.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::{Metrics, Switched, count};
use crate::duration::{HumanDuration, Limit};
use crate::sim::{Dialect, Preset};
use crate::tls::TlsOptions;
use crate::wire::{BackendKind, LengthField, ProtocolKind};

/// A server, or the embedded engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// First part of the case names.
    pub name: Spanned<String>,
    /// What speaks there.
    pub kind: Spanned<BackendKind>,
    /// Root of the server's API; `${VARIABLE}` is replaced from the environment.
    pub base_url: Option<Spanned<String>>,
    /// Path below the base URL; by kind unless set.
    pub endpoint: Option<Spanned<String>>,
    /// The models to measure.
    pub models: Option<Vec<Spanned<Model>>>,
    /// Headers sent with every request. `${VARIABLE}` is replaced from the environment.
    #[serde(default)]
    pub headers: BTreeMap<String, Spanned<String>>,
    /// Name of the environment variable that holds the API key.
    pub api_key_env: Option<Spanned<String>>,
    /// Fields added to every request body; they win over ours.
    #[serde(default)]
    pub extra_body: BTreeMap<String, toml::Value>,
    /// Whether usage counts are asked for by `stream_options`.
    pub stream_options: Option<StreamOptions>,
    /// Whether answers are kept from ending before their length; by kind unless set.
    pub ignore_eos: Option<bool>,
    /// How chat is told the longest answer: `max_tokens`, or `max_completion_tokens` as OpenAI's newer
    /// models want it.
    pub length_field: Option<LengthField>,
    /// Whether `min_tokens` is sent, equal to the length.
    pub min_tokens: Option<bool>,
    /// Whether a short request before the clock starts finds out how the server wants to be asked.
    pub probe: Option<bool>,
    /// Whether requests go by HTTP/2, many on a connection.
    pub http2: Option<bool>,
    /// How connections by https are made secure.
    pub tls: Option<Spanned<TlsOptions>>,
    /// How to start the server for its cases; without it, it is there already or not at all.
    pub launch: Option<Spanned<Launch>>,
    /// How long a connection may take to open.
    pub connect_timeout: Option<Limit>,
    /// How long a server that is there already, or will be, is waited for while it loads.
    pub ready_timeout: Option<HumanDuration>,
    /// A missing server fails its cases instead of having them ignored.
    pub require_server: Option<bool>,
    /// Whether and how the server's own metrics are read while its cases run; by kind unless set.
    pub metrics: Option<Switched<Metrics>>,
    /// Of a `sim`: which wire protocol it speaks.
    pub protocol: Option<Spanned<ProtocolKind>>,
    /// Of a `sim`: which deployment it resembles.
    pub preset: Option<Spanned<Preset>>,
    /// Of a `sim`: how it differs in what it sends.
    pub dialect: Option<Spanned<Dialect>>,
    /// Of a `sim`: single figures that differ from the preset.
    pub engine: Option<Spanned<Engine>>,
}

/// How to start a server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Program and arguments; no shell is between. `${VARIABLE}` is replaced from the environment.
    pub command: Vec<String>,
    /// Added to its environment. `${VARIABLE}` is replaced from ours.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What answers 2xx when it is ready: a URL, or a path below the base URL; `/health` unless set.
    pub ready_url: Option<String>,
    /// How long it may take to be ready; 10 minutes unless set.
    pub ready_timeout: Option<HumanDuration>,
    /// What asks it to end: `TERM` unless set, `INT` or `KILL`.
    pub stop_signal: Option<StopSignal>,
}

/// What asks a process to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum StopSignal {
    /// SIGTERM.
    #[default]
    #[serde(rename = "TERM", alias = "SIGTERM")]
    Term,
    /// SIGINT, as Ctrl-C.
    #[serde(rename = "INT", alias = "SIGINT")]
    Int,
    /// SIGKILL.
    #[serde(rename = "KILL", alias = "SIGKILL")]
    Kill,
}

/// A model by its ID, or with more to say about it.
#[derive(Clone, Debug)]
pub struct Model {
    /// What the server calls it.
    pub id: String,
    /// What the case names call it; the last part of the ID unless set.
    pub alias: Option<String>,
    /// Its tokenizer on this machine.
    pub tokenizer: Option<Spanned<PathBuf>>,
}

/// Whether `stream_options` is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamOptions {
    /// Sent unless the server refuses it before the run.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Figures of the embedded engine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Sequences that run at once.
    #[serde(default, deserialize_with = "count")]
    pub max_batch: Option<NonZeroUsize>,
    /// Prompt tokens a second.
    pub prefill_tokens_per_s: Option<Spanned<f64>>,
    /// Fixed part of a decode step, ms.
    pub decode_base_ms: Option<Spanned<f64>>,
    /// Part of a decode step for each running sequence, ms.
    pub decode_per_sequence_ms: Option<Spanned<f64>>,
    /// KV-cache, tokens.
    #[serde(default, deserialize_with = "count")]
    pub kv_cache_tokens: Option<NonZeroU64>,
    /// Spread of the step times: 0.05 is ±5 %.
    pub jitter: Option<Spanned<f64>>,
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModelVisitor)
    }
}

/// Written by hand because `serde(untagged)` would lose the place of an error.
struct ModelVisitor;

impl<'de> serde::de::Visitor<'de> for ModelVisitor {
    type Value = Model;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a model ID, or { id = \"...\", alias = \"...\", tokenizer = \"...\" }")
    }

    fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<Model, E> {
        Ok(Model { id: id.to_owned(), alias: None, tokenizer: None })
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Model, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            id: String,
            alias: Option<String>,
            tokenizer: Option<Spanned<PathBuf>>,
        }
        let deserializer = serde::de::value::MapAccessDeserializer::new(map);
        let Table { id, alias, tokenizer } = Table::deserialize(deserializer)?;
        Ok(Model { id, alias, tokenizer })
    }
}
