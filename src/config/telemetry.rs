//! What is read while a case runs, as the user wrote it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::duration::HumanDuration;

/// `true`, `false`, or a table that says how.
#[derive(Clone, Debug, PartialEq)]
pub enum Switched<T> {
    /// Not at all.
    Off,
    /// In this way.
    On(T),
}

/// How GPUs are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// From one reading to the next; 100 ms unless set.
    pub interval: Option<Spanned<HumanDuration>>,
    /// Which are read: `"all"`, or a list of numbers and UUIDs.
    pub devices: Option<GpuDevices>,
    /// A page of metrics that shows them, where they are not this machine's: that of NVIDIA's `dcgm-exporter`
    /// or AMD's `device-metrics-exporter`. `${VARIABLE}` is replaced from the environment.
    pub exporter: Option<Spanned<String>>,
    /// Whether a GPU that cannot be read fails the case.
    pub require: Option<bool>,
    /// What follows from a GPU that was held back by heat or power.
    pub throttled: Option<Throttled>,
}

/// Which GPUs are read.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "write \"all\", or a list of GPUs by their numbers or UUIDs")]
pub enum GpuDevices {
    /// Each.
    All(All),
    /// These.
    Named(Vec<GpuName>),
}

/// The word `all`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum All {
    /// Each.
    All,
}

/// A GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum GpuName {
    /// Its number.
    Number(u32),
    /// Its UUID, or its number as a text.
    Text(String),
}

/// What follows from a GPU that was held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttled {
    /// A warning.
    #[default]
    Warn,
    /// The result is invalid: it is one of the cooling.
    Invalid,
}

/// How a server's own metrics are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The page, or its path below the base URL; by kind unless set. `${VARIABLE}` is replaced from the
    /// environment.
    pub url: Option<Spanned<String>>,
    /// From one look to the next; 1 s unless set.
    pub interval: Option<Spanned<HumanDuration>>,
    /// Metrics that are kept as they are, by globs on their names.
    #[serde(default)]
    pub raw: Vec<Spanned<String>>,
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Switched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written<T>(PhantomData<T>);

        impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for Written<T> {
            type Value = Switched<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a table")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
                Ok(if on { Switched::On(T::default()) } else { Switched::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Switched::On)
            }
        }

        deserializer.deserialize_any(Written(PhantomData))
    }
}
