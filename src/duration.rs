//! Durations as people write them: `500ms`, `1.5s`, `10m`. Pure.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer};

/// The text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is none.
    #[error("`{0}` is no duration: write a number and a unit, for example 500ms, 1.5s, 10m or 1h")]
    Unreadable(String),
    /// No run takes so long.
    #[error("`{0}` is longer than a year")]
    TooLong(String),
    /// It is zero, where it must not be.
    #[error("`{0}` leaves no time at all: it must be above zero, or be left out for the default")]
    Zero(String),
}

/// Longer times are mistakes, and sums of them would overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads a number with a unit. A bare number is refused: its unit would be a guess.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let signed: Option<SignedDuration> = text.parse().ok();
    match signed.and_then(|signed| Duration::try_from(signed).ok()) {
        None => Err(DurationError::Unreadable(text.to_owned())),
        Some(long) if LONGEST < long => Err(DurationError::TooLong(text.to_owned())),
        Some(duration) => Ok(duration),
    }
}

/// Reads a time that something may take, which is above zero.
pub fn parse_limit(text: &str) -> Result<Duration, DurationError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(DurationError::Zero(text.to_owned())),
        limit => Ok(limit),
    }
}

/// In milliseconds, the unit of every latency that leaves the program.
pub fn as_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A duration in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A duration in a configuration file that something may take, which is above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_limit(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_above_zero() {
        assert_eq!(parse_limit("1ms"), Ok(Duration::from_millis(1)));
        for text in ["0s", "0ms", "0h"] {
            let error = parse_limit(text).unwrap_err().to_string();
            assert!(error.contains("above zero") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_number_with_a_unit_is_a_duration() {
        for (text, ms) in
            [("500ms", 500.0), ("1.5s", 1500.0), ("200us", 0.2), ("10m", 600e3), ("1h", 3600e3)]
        {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64() * 1e3, ms, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "500", "ms", "-5s", "fast", "9000h", "1e300s", "100000000000h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
