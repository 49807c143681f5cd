//! How hard a case pushes, as it is written in configs and case names: `inf`, `4qps`,
//! `32conc`, or by the name of stages. Pure.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

/// Requests per second: finite and above zero, or it could not be built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// `None` unless `per_s` is finite and above zero.
    pub fn per_s(per_s: f64) -> Option<Self> {
        (0.0 < per_s && per_s.is_finite()).then_some(Self(per_s))
    }

    /// Requests per second.
    pub fn as_per_s(self) -> f64 {
        self.0
    }
}

/// Who decides when the next request is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Everything at once.
    Infinite,
    /// Open loop: the schedule decides, however slow the server is.
    Open {
        /// Arrivals.
        rate: Rate,
        /// The most requests in flight: an arrival past it waits for its turn, and the wait shows in
        /// the `scheduled_*` latencies. `None` where nothing holds arrivals back.
        cap: Option<NonZeroUsize>,
    },
    /// Closed loop: each of so many users sends its next request when its last one has ended.
    Closed(NonZeroUsize),
    /// Open loop at rates that change.
    Staged(Arc<Stages>),
    /// The load is to be found: steps of open loops at rates that follow from each other.
    Search(Search),
    /// Open loop at the times of the workload, which is a trace.
    Trace {
        /// The most requests in flight, as that of [`Load::Open`].
        cap: Option<NonZeroUsize>,
    },
}

/// What steps of many rates are to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The highest rate at which the objectives still hold.
    MaxGoodput,
    /// The curve from idle to saturation.
    Sweep,
}

impl Search {
    /// The name in configs, case names and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxGoodput => "max-goodput",
            Self::Sweep => "sweep",
        }
    }
}

/// An open loop's rates, stage by stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages {
    /// What the case name calls it.
    pub name: String,
    /// In order; never empty.
    pub stages: Vec<Stage>,
}

/// A rate that stays, or changes by the same amount each second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests per second at its beginning; finite and not below zero.
    pub from_per_s: f64,
    /// At its end.
    pub to_per_s: f64,
    /// How long it is.
    pub length: Duration,
}

impl Load {
    /// Requests per second as the results name it: infinite unless the load is an open loop, the mean
    /// where it changes.
    pub fn request_rate(&self) -> f64 {
        match self {
            Self::Open { rate, .. } => rate.as_per_s(),
            Self::Staged(stages) => stages.mean_per_s(),
            Self::Infinite | Self::Closed(_) | Self::Trace { .. } | Self::Search(_) => {
                f64::INFINITY
            }
        }
    }

    /// The most requests in flight that the load allows; `None` where nothing bounds it.
    pub fn max_concurrency(&self) -> Option<usize> {
        match self {
            Self::Closed(users) => Some(users.get()),
            Self::Open { cap, .. } | Self::Trace { cap } => cap.map(NonZeroUsize::get),
            Self::Infinite | Self::Staged(_) | Self::Search(_) => None,
        }
    }

    /// Whether a schedule decides when requests leave.
    pub fn is_open_loop(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Staged(_) | Self::Trace { .. })
    }
}

impl Stages {
    /// How long they are together.
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.length).sum()
    }

    fn mean_per_s(&self) -> f64 {
        let requests: f64 = self
            .stages
            .iter()
            .map(|stage| (stage.from_per_s + stage.to_per_s) / 2.0 * stage.length.as_secs_f64())
            .sum();
        requests / self.length().as_secs_f64()
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infinite => f.write_str("inf"),
            Self::Open { rate, cap: None } => write!(f, "{}qps", rate.as_per_s()),
            Self::Open { rate, cap: Some(cap) } => write!(f, "{}qps-{cap}conc", rate.as_per_s()),
            Self::Closed(users) => write!(f, "{users}conc"),
            Self::Staged(stages) => f.write_str(&stages.name),
            Self::Search(search) => f.write_str(search.name()),
            Self::Trace { cap: None } => f.write_str("trace"),
            Self::Trace { cap: Some(cap) } => write!(f, "trace-{cap}conc"),
        }
    }
}

/// The text is no load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no load: write `inf` (all at once), `4qps` or `0.5qps` (open loop), `4qps-32conc` (the same, at most 32 in flight), `32conc` (closed loop, 32 users), `trace` (the times of a trace), `sweep` (from idle to saturation), or `max-goodput` (the highest rate at which the objectives hold)"
)]
pub struct LoadError(String);

impl FromStr for Load {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rate = |text: &str| Rate::per_s(text.strip_suffix("qps")?.parse().ok()?);
        let users = |text: &str| text.strip_suffix("conc")?.parse::<NonZeroUsize>().ok();
        let load = match text.split_once('-') {
            _ if text == "inf" => Some(Self::Infinite),
            _ if text == "max-goodput" => Some(Self::Search(Search::MaxGoodput)),
            _ if text == "sweep" => Some(Self::Search(Search::Sweep)),
            _ if text == "trace" => Some(Self::Trace { cap: None }),
            Some(("trace", right)) => users(right).map(|cap| Self::Trace { cap: Some(cap) }),
            Some((left, right)) => {
                rate(left).zip(users(right)).map(|(rate, cap)| Self::Open { rate, cap: Some(cap) })
            }
            None => {
                let open = rate(text).map(|rate| Self::Open { rate, cap: None });
                open.or_else(|| users(text).map(Self::Closed))
            }
        };
        load.ok_or_else(|| LoadError(text.to_owned()))
    }
}

/// How the arrivals of an open loop are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalProcess {
    /// Independent arrivals: exponential gaps, as from many users who know nothing of each other.
    #[default]
    Poisson,
    /// Equal gaps.
    Constant,
    /// Gaps of a gamma distribution, as vLLM's `--burstiness` has them.
    #[serde(skip)]
    #[value(skip)]
    Gamma(Burstiness),
}

/// The shape of a gamma distribution of gaps: below 1 arrivals come in bursts, 1 is a Poisson process,
/// above 1 they are more even. Within its bounds, or it could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Burstiness(f64);

/// Beyond them gaps are too short or too long for any clock.
const BURSTINESS: RangeInclusive<f64> = 0.001..=1e6;

impl Burstiness {
    /// The shape.
    pub fn shape(self) -> f64 {
        self.0
    }
}

/// Poisson arrivals, whose shape is 1.
impl Default for Burstiness {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for Burstiness {
    type Error = String;

    fn try_from(shape: f64) -> Result<Self, Self::Error> {
        let (least, most) = (BURSTINESS.start(), BURSTINESS.end());
        let fault = || format!("the burstiness must be from {least} to {most}, not {shape:?}");
        BURSTINESS.contains(&shape).then_some(Self(shape)).ok_or_else(fault)
    }
}

impl FromStr for Burstiness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.parse::<f64>().map_err(|_| format!("`{text}` is no number"))?)
    }
}

impl ArrivalProcess {
    /// The name in configs and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Constant => "constant",
            Self::Gamma(_) => "gamma",
        }
    }

    /// The process with gaps of this burstiness; `None` for equal gaps, which have none.
    pub fn with_burstiness(self, burstiness: Burstiness) -> Option<Self> {
        match self {
            Self::Constant => None,
            Self::Poisson | Self::Gamma(_) if burstiness == Burstiness::default() => {
                Some(Self::Poisson)
            }
            Self::Poisson | Self::Gamma(_) => Some(Self::Gamma(burstiness)),
        }
    }

    /// The shape of the gaps' gamma distribution; `None` for equal gaps.
    pub fn burstiness(self) -> Option<f64> {
        match self {
            Self::Poisson => Some(Burstiness::default().shape()),
            Self::Gamma(burstiness) => Some(burstiness.shape()),
            Self::Constant => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_printed_as_it_is_written() {
        for text in [
            "inf",
            "4qps",
            "0.5qps",
            "32conc",
            "4qps-32conc",
            "trace",
            "trace-8conc",
            "sweep",
            "max-goodput",
        ] {
            assert_eq!(text.parse::<Load>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_impossible_load_is_refused() {
        for text in [
            "",
            "4",
            "qps",
            "0qps",
            "-1qps",
            "infqps",
            "NaNqps",
            "0conc",
            "1.5conc",
            "x",
            "4qps-",
            "4qps-0conc",
            "2conc-4qps",
            "trace-4qps",
        ] {
            let error = text.parse::<Load>().unwrap_err().to_string();
            assert!(error.contains("is no load"), "{text}: {error}");
        }
    }
}
