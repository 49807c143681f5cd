//! Shares as users write them: `"5%"` or `0.05`. Pure.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A part of 1: finite and not below 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// The part of 1.
    pub fn ratio(self) -> f64 {
        self.0
    }

    fn of(ratio: f64) -> Option<Self> {
        (0.0..f64::INFINITY).contains(&ratio).then_some(Self(ratio))
    }
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let ratio = match text.trim().strip_suffix('%') {
            Some(percent) => number(percent).map(|percent| percent / 100.0),
            None => number(text),
        };
        ratio
            .and_then(Self::of)
            .ok_or_else(|| format!("`{text}` is no share: write for example 5% or 0.05"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as \"5%\" or 0.05")
            }

            fn visit_f64<E: de::Error>(self, ratio: f64) -> Result<Share, E> {
                Share::of(ratio)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(ratio), &self))
            }

            fn visit_i64<E: de::Error>(self, ratio: i64) -> Result<Share, E> {
                self.visit_f64(ratio as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_part_of_one() {
        for (text, ratio) in [("5%", 0.05), ("0.05", 0.05), (" 12.5 % ", 0.125), ("0%", 0.0)] {
            assert_eq!(text.parse::<Share>().unwrap().ratio(), ratio, "{text}");
        }
        for text in ["", "five", "-1%", "inf", "NaN%"] {
            assert!(text.parse::<Share>().unwrap_err().contains("is no share"), "{text}");
        }
    }
}
