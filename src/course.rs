//! How the load of a case goes through time: how it begins, what of it counts, and how it ends. Pure.

use std::time::Duration;

use serde::Deserialize;

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
    /// Requests that are due earlier are sent and do not count, nor do the later turns of their conversations. The load goes on over its end: what it
    /// has brought into flight is the state in which those that count find the server.
    pub warm_up: Duration,
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
        self.duration.is_some() || !self.warm_up.is_zero() || self.requests.is_none()
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
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
