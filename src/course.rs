//! How the load of a case goes through time: how it begins, what of it counts, and how it ends. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::duration::parse_duration;

/// The course of one case. At least one of `requests` and `duration` is set, unless the load has an end
/// of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    /// At most so many requests count; of a workload of conversations, so many conversations.
    pub requests: Option<usize>,
    /// Requests that are due within so much time, after the warm-up, count; none is sent later.
    pub duration: Option<Duration>,
    /// How the load rises to what it is; at once where it is `None`.
    pub ramp_up: Option<RampUp>,
    /// What is sent before those that count, with prompts of its own. The load goes on over its end: what
    /// it has brought into flight is the state in which those that count find the server. A conversation
    /// that begins in it does not count in any turn.
    pub warm_up: WarmUp,
    /// How long requests may still take when no more are sent, or no more conversations begin; `None` where only their own time-out
    /// ends them.
    pub drain: Option<Duration>,
}

impl Course {
    /// A course of so many requests and nothing else.
    pub fn of_requests(requests: usize) -> Self {
        Self { requests: Some(requests), ..Self::default() }
    }

    /// Whether more requests may be sent than can be said beforehand, so that prompts may come again.
    pub fn is_open_ended(&self) -> bool {
        self.duration.is_some() || self.requests.is_none()
    }
}

/// How a load begins before what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// Requests that are due within so much time do not count.
    Time(Duration),
    /// So many requests do not count, and of a closed loop the first of each user.
    Requests(usize),
}

impl Default for WarmUp {
    /// None.
    fn default() -> Self {
        Self::Time(Duration::ZERO)
    }
}

impl WarmUp {
    /// Whether everything counts.
    pub fn is_none(self) -> bool {
        matches!(self, Self::Time(Duration::ZERO) | Self::Requests(0))
    }

    /// How long it takes; `None` where it is a number of requests.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Requests(_) => None,
        }
    }

    /// How many of these arrivals, which are in order, do not count.
    pub fn of(self, arrivals: &[Duration]) -> usize {
        match self {
            Self::Time(time) => arrivals.partition_point(|at| *at < time),
            Self::Requests(requests) => requests.min(arrivals.len()),
        }
    }
}

/// What a warm-up that is none looks like.
const EXPECTED: &str = "a time such as \"10s\", or a number of requests";

impl FromStr for WarmUp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(requests) = text.parse() {
            return Ok(Self::Requests(requests));
        }
        let time = parse_duration(text).map(Self::Time);
        time.map_err(|_| format!("`{text}` is no warm-up: write {EXPECTED}"))
    }
}

impl<'de> Deserialize<'de> for WarmUp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = WarmUp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_i64<E: de::Error>(self, requests: i64) -> Result<WarmUp, E> {
                let unexpected = de::Unexpected::Signed(requests);
                let requests = usize::try_from(requests).ok().map(WarmUp::Requests);
                requests.ok_or_else(|| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WarmUp, E> {
                parse_duration(text).map(WarmUp::Time).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

/// A load that begins low.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampUp {
    /// How long it takes to reach its height.
    pub over: Duration,
    /// On which way.
    pub shape: RampShape,
}

/// The way from low to high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RampShape {
    /// From nothing, by the same amount each second.
    #[default]
    Linear,
    /// From a hundredth of the rate or from one user, by the same factor each second.
    Exponential,
}

impl RampShape {
    /// The name in configs and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Exponential => "exponential",
        }
    }
}
