//! What keeps a prefix cache from carrying over. Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use sha2::{Digest as _, Sha256};

use super::hash;

/// What prompts begin with, so that no prefix cache carries over from one case or run to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Salt {
    /// Something new for each case of each run.
    #[default]
    Auto,
    /// Nothing: the data as it is. The same seed sends the same bytes.
    None,
    /// This text.
    Text(String),
}

impl Salt {
    /// What the prompts of its warm-up begin with: something else, also where those that count begin with
    /// nothing, so that no prefix cache holds what is measured later.
    pub fn of_warm_up(&self, case: &str, run: u64) -> String {
        match self {
            Self::None => "warm-up".to_owned(),
            Self::Text(text) => format!("{text} warm-up"),
            Self::Auto => auto_salt(&format!("{case} warm-up"), run),
        }
    }

    /// What the prompts of the case `case` begin with in the run `run`, a number that no other run has.
    pub fn of(&self, case: &str, run: u64) -> Option<String> {
        match self {
            Self::None => None,
            Self::Text(text) => Some(text.clone()),
            Self::Auto => Some(auto_salt(case, run)),
        }
    }
}

fn auto_salt(case: &str, run: u64) -> String {
    let mut hasher = Sha256::new();
    hasher.update(run.to_le_bytes());
    hasher.update(case);
    hash(hasher)[..8].to_owned()
}

impl FromStr for Salt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" | "true" => Ok(Self::Auto),
            "none" | "false" => Ok(Self::None),
            "" => Err("a salt must not be empty: write auto, none or a text"),
            text => Ok(Self::Text(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Salt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a text")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Salt, E> {
                Ok(if on { Salt::Auto } else { Salt::None })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Salt, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Written)
    }
}
