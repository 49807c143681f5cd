//! The list of metrics: what each is called, what it means, its unit, which way is better. Pure.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::nearest::did_you_mean;

/// A latency: one sample per request, or a pool of gaps over all requests. Inside in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// `sent` to the read that completed the first event with generated output.
    Ttft,
    /// `sent` to the read that completed the first event with *answer* text (reasoning is none).
    Ttfa,
    /// `sent` to the read that completed the last event with generated output.
    E2e,
    /// Per request: (`e2e` − `ttft`) / (output tokens − tokens of the first chunk).
    Tpot,
    /// Pool of the gaps between tokens; known only where every chunk is one token.
    Itl,
    /// Pool of the gaps between output-bearing events.
    ChunkGap,
    /// `ttft` taken from `scheduled`: what a user who arrived on time would have felt.
    ScheduledTtft,
    /// `e2e` taken from `scheduled`.
    ScheduledE2e,
    /// `sent` − `scheduled`, less what a cap held the request back: the client's own delay.
    Lateness,
    /// Time to open the connection, where one was opened for the request.
    Connect,
}

impl Latency {
    /// Every latency, in the order of the report.
    pub const ALL: [Self; 10] = [
        Self::Ttft,
        Self::Ttfa,
        Self::E2e,
        Self::Tpot,
        Self::Itl,
        Self::ChunkGap,
        Self::ScheduledTtft,
        Self::ScheduledE2e,
        Self::Lateness,
        Self::Connect,
    ];

    /// The name in configs, results and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Ttfa => "ttfa",
            Self::E2e => "e2e",
            Self::Tpot => "tpot",
            Self::Itl => "itl",
            Self::ChunkGap => "chunk_gap",
            Self::ScheduledTtft => "scheduled_ttft",
            Self::ScheduledE2e => "scheduled_e2e",
            Self::Lateness => "lateness",
            Self::Connect => "connect",
        }
    }

    /// Whether the server is answerable for it, so that a failed request counts as infinitely slow.
    pub fn is_of_the_server(self) -> bool {
        !matches!(self, Self::Lateness | Self::Connect)
    }
}

/// One number per case. Throughputs are over the span from the first `sent` to the last `ended`,
/// of completed requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalar {
    /// Completed requests per second.
    RequestThroughput,
    /// Prompt tokens per second.
    InputThroughput,
    /// Generated tokens per second.
    OutputThroughput,
    /// Prompt and generated tokens per second.
    TotalTokenThroughput,
    /// Requests per second that met every per-request objective.
    Goodput,
    /// Share of all requests that met every per-request objective; failures are misses.
    GoodputRatio,
    /// Share of all requests that failed.
    ErrorRatio,
    /// Share of the answers that are as long as was asked for.
    OutputReachedRatio,
    /// The highest rate, requests per second, at which the other objectives hold; what the loads
    /// `max-goodput` and `sweep` find.
    MaxGoodput,
    /// The most memory that was in use of a GPU at a time, MiB.
    GpuMemoryPeak,
    /// Energy of the GPUs per generated token of completed requests, J.
    EnergyPerOutputToken,
    /// Generated tokens of completed requests per joule of the GPUs: tokens/s per watt.
    OutputTokensPerJoule,
    /// Share of the readings in which a GPU was held back by heat or power.
    GpuThrottledRatio,
    /// How often the server put a request back because its cache was full.
    Preemptions,
    /// Share of the draft tokens of speculative decoding that were accepted.
    SpecAcceptanceRatio,
    /// Tokens that a step of speculative decoding generated, the target model's own among them.
    SpecAcceptedLength,
}

impl Scalar {
    /// Every scalar, in the order of the report.
    pub const ALL: [Self; 16] = [
        Self::RequestThroughput,
        Self::InputThroughput,
        Self::OutputThroughput,
        Self::TotalTokenThroughput,
        Self::Goodput,
        Self::GoodputRatio,
        Self::ErrorRatio,
        Self::OutputReachedRatio,
        Self::MaxGoodput,
        Self::GpuMemoryPeak,
        Self::EnergyPerOutputToken,
        Self::OutputTokensPerJoule,
        Self::GpuThrottledRatio,
        Self::Preemptions,
        Self::SpecAcceptanceRatio,
        Self::SpecAcceptedLength,
    ];

    /// The name in configs, results and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestThroughput => "request_throughput",
            Self::InputThroughput => "input_throughput",
            Self::OutputThroughput => "output_throughput",
            Self::TotalTokenThroughput => "total_token_throughput",
            Self::Goodput => "goodput",
            Self::GoodputRatio => "goodput_ratio",
            Self::ErrorRatio => "error_ratio",
            Self::OutputReachedRatio => "output_reached_ratio",
            Self::MaxGoodput => "max_goodput",
            Self::GpuMemoryPeak => "gpu_memory_peak_mib",
            Self::EnergyPerOutputToken => "energy_per_output_token",
            Self::OutputTokensPerJoule => "output_tokens_per_joule",
            Self::GpuThrottledRatio => "gpu_throttled_ratio",
            Self::Preemptions => "preemptions",
            Self::SpecAcceptanceRatio => "spec_acceptance_ratio",
            Self::SpecAcceptedLength => "spec_accepted_length",
        }
    }

    /// The unit shown behind the number; empty for a ratio.
    pub fn unit(self) -> &'static str {
        match self {
            Self::RequestThroughput | Self::Goodput | Self::MaxGoodput => "req/s",
            Self::InputThroughput | Self::OutputThroughput | Self::TotalTokenThroughput => "tok/s",
            Self::GpuMemoryPeak => "MiB",
            Self::EnergyPerOutputToken => "J/tok",
            Self::OutputTokensPerJoule => "tok/J",
            Self::GoodputRatio
            | Self::ErrorRatio
            | Self::OutputReachedRatio
            | Self::GpuThrottledRatio
            | Self::Preemptions
            | Self::SpecAcceptanceRatio
            | Self::SpecAcceptedLength => "",
        }
    }

    /// Whether it is a share, from 0 to 1.
    pub fn is_ratio(self) -> bool {
        matches!(
            self,
            Self::GoodputRatio
                | Self::ErrorRatio
                | Self::OutputReachedRatio
                | Self::GpuThrottledRatio
                | Self::SpecAcceptanceRatio
        )
    }

    /// Whether it comes of what was read of GPUs and the server while the case ran, and not of its requests.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::GpuMemoryPeak
                | Self::EnergyPerOutputToken
                | Self::OutputTokensPerJoule
                | Self::GpuThrottledRatio
                | Self::Preemptions
                | Self::SpecAcceptanceRatio
                | Self::SpecAcceptedLength
        )
    }
}

/// What is read again and again while a case runs: many numbers per case, none of them of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gauge {
    /// Share of the time in which a GPU did something, %.
    GpuUtilization,
    /// Memory of a GPU in use, MiB.
    GpuMemoryUsed,
    /// Power that a GPU draws, W.
    GpuPower,
    /// Temperature of a GPU, °C.
    GpuTemperature,
    /// Clock of a GPU's processors, MHz.
    GpuSmClock,
    /// Requests in the server's batch.
    RequestsRunning,
    /// Requests in the server's queue.
    RequestsWaiting,
    /// Share of the server's KV cache in use.
    KvCacheUsage,
    /// Share of the prompt tokens that the server's prefix cache had.
    PrefixCacheHitRatio,
    /// Share of the client machine's processors in use.
    HostCpuShare,
}

/// What a gauge is read of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// Its GPUs.
    Gpu,
    /// What it says of itself.
    Server,
    /// The machine that this client runs on.
    Host,
}

impl Watched {
    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Server => "server",
            Self::Host => "host",
        }
    }
}

impl Gauge {
    /// Every gauge.
    pub const ALL: [Self; 10] = [
        Self::GpuUtilization,
        Self::GpuMemoryUsed,
        Self::GpuPower,
        Self::GpuTemperature,
        Self::GpuSmClock,
        Self::RequestsRunning,
        Self::RequestsWaiting,
        Self::KvCacheUsage,
        Self::PrefixCacheHitRatio,
        Self::HostCpuShare,
    ];

    /// The name in configs and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::GpuUtilization => "gpu_utilization",
            Self::GpuMemoryUsed => "gpu_memory_used_mib",
            Self::GpuPower => "gpu_power_w",
            Self::GpuTemperature => "gpu_temperature_c",
            Self::GpuSmClock => "gpu_sm_clock_mhz",
            Self::RequestsRunning => "requests_running",
            Self::RequestsWaiting => "requests_waiting",
            Self::KvCacheUsage => "kv_cache_usage",
            Self::PrefixCacheHitRatio => "prefix_cache_hit_ratio",
            Self::HostCpuShare => "host_cpu_share",
        }
    }

    /// What it is read of, and the name of its readings there.
    pub fn column(self) -> (Watched, &'static str) {
        match self {
            Self::GpuUtilization => (Watched::Gpu, "utilization_percent"),
            Self::GpuMemoryUsed => (Watched::Gpu, "memory_used_mib"),
            Self::GpuPower => (Watched::Gpu, "power_w"),
            Self::GpuTemperature => (Watched::Gpu, "temperature_c"),
            Self::GpuSmClock => (Watched::Gpu, "sm_clock_mhz"),
            Self::RequestsRunning => (Watched::Server, "requests_running"),
            Self::RequestsWaiting => (Watched::Server, "requests_waiting"),
            Self::KvCacheUsage => (Watched::Server, "kv_cache_usage"),
            Self::PrefixCacheHitRatio => (Watched::Server, "prefix_cache_hit_ratio"),
            Self::HostCpuShare => (Watched::Host, "cpu_share"),
        }
    }

    /// The unit shown behind the number; empty for a number of requests and a share.
    pub fn unit(self) -> &'static str {
        match self {
            Self::GpuUtilization => "%",
            Self::GpuMemoryUsed => "MiB",
            Self::GpuPower => "W",
            Self::GpuTemperature => "°C",
            Self::GpuSmClock => "MHz",
            Self::RequestsRunning
            | Self::RequestsWaiting
            | Self::KvCacheUsage
            | Self::PrefixCacheHitRatio
            | Self::HostCpuShare => "",
        }
    }

    /// Whether it is a share, from 0 to 1.
    pub fn is_ratio(self) -> bool {
        matches!(self, Self::KvCacheUsage | Self::PrefixCacheHitRatio | Self::HostCpuShare)
    }
}

/// A summary of many samples by one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// The arithmetic mean.
    Mean,
    /// The smallest sample.
    Min,
    /// The largest sample.
    Max,
    /// The population standard deviation.
    StdDev,
    /// The percentile, in percent above 0 and below 100; linear interpolation as numpy's default.
    Percentile(f64),
}

impl Statistic {
    /// Those that are kept of each trial, by which trials are compared.
    pub const COMPARED: [Self; 5] = [
        Self::Mean,
        Self::Percentile(50.0),
        Self::Percentile(90.0),
        Self::Percentile(95.0),
        Self::Percentile(99.0),
    ];

    /// How many samples it takes to say anything about it: a percentile needs one in its tail.
    pub fn min_samples(self) -> u64 {
        match self {
            Self::Mean | Self::Min | Self::Max => 1,
            Self::StdDev => 2,
            Self::Percentile(percent) => {
                let tail = (100.0 - percent).min(percent) / 100.0;
                // The rounding keeps 1/0.01 at 100 where the division lands a hair above it.
                (1.0 / tail - 1e-6).ceil() as u64
            }
        }
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => f.write_str("mean"),
            Self::Min => f.write_str("min"),
            Self::Max => f.write_str("max"),
            Self::StdDev => f.write_str("std_dev"),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

/// The text names no statistic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown statistic `{0}`: use mean, median, min, max, std_dev, or a percentile like p99 or p99.9{nearest}",
    nearest = did_you_mean(.0, STATISTICS)
)]
pub struct StatisticError(String);

/// Those that are asked for most.
const STATISTICS: [&str; 10] =
    ["mean", "median", "min", "max", "std_dev", "p99", "p95", "p90", "p50", "p99.9"];

impl FromStr for Statistic {
    type Err = StatisticError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || StatisticError(text.to_owned());
        Ok(match text {
            "mean" | "avg" => Self::Mean,
            "median" | "med" => Self::Percentile(50.0),
            "min" => Self::Min,
            "max" => Self::Max,
            "std_dev" | "std" => Self::StdDev,
            _ => {
                let digits = text.strip_prefix('p').ok_or_else(error)?;
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                let percent: f64 = digits.parse().map_err(|_| error())?;
                if !(plain && 0.0 < percent && percent < 100.0) {
                    return Err(error());
                }
                Self::Percentile(percent)
            }
        })
    }
}

/// What a limit can be put on: a statistic of a latency, a scalar, or a statistic of what was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantity {
    /// For example `ttft.p99`.
    Latency(Latency, Statistic),
    /// For example `output_throughput`.
    Scalar(Scalar),
    /// For example `kv_cache_usage.max`; the mean where no statistic is written.
    Gauge(Gauge, Statistic),
}

impl Quantity {
    /// Whether it is kept of each trial, so that trials can be compared by it.
    pub fn is_compared(self) -> bool {
        match self {
            Self::Latency(_, statistic) => Statistic::COMPARED.contains(&statistic),
            Self::Scalar(scalar) => scalar != Scalar::MaxGoodput,
            Self::Gauge(..) => false,
        }
    }

    /// Whether less of it is better.
    pub fn is_better_lower(self) -> bool {
        match self {
            Self::Latency(..) => true,
            Self::Scalar(scalar) => matches!(
                scalar,
                Scalar::ErrorRatio
                    | Scalar::GpuMemoryPeak
                    | Scalar::EnergyPerOutputToken
                    | Scalar::GpuThrottledRatio
                    | Scalar::Preemptions
            ),
            Self::Gauge(gauge, _) => {
                !matches!(gauge, Gauge::GpuUtilization | Gauge::PrefixCacheHitRatio)
            }
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(latency, statistic) => write!(f, "{}.{statistic}", latency.name()),
            Self::Scalar(scalar) => f.write_str(scalar.name()),
            Self::Gauge(gauge, statistic) => write!(f, "{}.{statistic}", gauge.name()),
        }
    }
}

/// The text names no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No metric has this name.
    #[error(
        "unknown metric `{name}`: use {known}{nearest}",
        known = known_metrics(),
        nearest = meant(.name, .statistic.as_deref())
    )]
    Unknown {
        /// What was written before the dot.
        name: String,
        /// What was written behind it.
        statistic: Option<String>,
    },
    /// A latency without a statistic.
    #[error("`{name}` needs a statistic: write {name}.p99, {name}.median or {name}.mean")]
    NoStatistic {
        /// What was written.
        name: String,
    },
    /// A scalar with a statistic.
    #[error("`{name}` is one number per case and takes no statistic: write {name}")]
    NoSamples {
        /// What was written.
        name: String,
    },
    /// The part after the dot.
    #[error(transparent)]
    Statistic(#[from] StatisticError),
}

/// The nearest metric to an unknown one, as it would be written with that statistic.
fn meant(name: &str, statistic: Option<&str>) -> String {
    let written = statistic.map(|statistic| format!("{name}.{statistic}"));
    let with = |name: &str, usual: &[&str]| -> Vec<String> {
        let known = statistic.filter(|statistic| statistic.parse::<Statistic>().is_ok());
        let statistics = known.map_or(usual.to_vec(), |known| vec![known]);
        statistics.iter().map(|statistic| format!("{name}.{statistic}")).collect()
    };
    let usual = ["p99", "p95", "p90", "p50", "mean", "median", "max"];
    let latencies = Latency::ALL.iter().flat_map(|latency| with(latency.name(), &usual));
    let scalars = Scalar::ALL.iter().map(|scalar| scalar.name().to_owned());
    let gauges = Gauge::ALL.iter().flat_map(|gauge| with(gauge.name(), &["max", "mean"]));
    let known: Vec<String> = latencies.chain(scalars).chain(gauges).collect();
    did_you_mean(written.as_deref().unwrap_or(name), known.iter().map(String::as_str))
}

fn known_metrics() -> String {
    let latencies = Latency::ALL.map(|latency| format!("{}.p99", latency.name()));
    let scalars = Scalar::ALL.map(|scalar| scalar.name().to_owned());
    let gauges = Gauge::ALL.map(|gauge| format!("{}.max", gauge.name()));
    [&latencies[..], &scalars[..], &gauges[..]].concat().join(", ")
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, statistic) = match text.split_once('.') {
            Some((name, statistic)) => (name, Some(statistic)),
            None => (text, None),
        };
        let latency = Latency::ALL.into_iter().find(|latency| latency.name() == name);
        let scalar = Scalar::ALL.into_iter().find(|scalar| scalar.name() == name);
        let gauge = Gauge::ALL.into_iter().find(|gauge| gauge.name() == name);
        if let Some(gauge) = gauge {
            let statistic = statistic.map(str::parse).transpose()?;
            return Ok(Self::Gauge(gauge, statistic.unwrap_or(Statistic::Mean)));
        }
        let name = name.to_owned();
        match (latency, scalar, statistic) {
            (Some(latency), _, Some(statistic)) => Ok(Self::Latency(latency, statistic.parse()?)),
            (Some(_), _, None) => Err(QuantityError::NoStatistic { name }),
            (None, Some(scalar), None) => Ok(Self::Scalar(scalar)),
            (None, Some(_), Some(_)) => Err(QuantityError::NoSamples { name }),
            (None, None, statistic) => {
                Err(QuantityError::Unknown { name, statistic: statistic.map(str::to_owned) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_printed_as_it_is_written() {
        for text in [
            "ttft.p99",
            "tpot.mean",
            "chunk_gap.p99.9",
            "scheduled_e2e.max",
            "goodput",
            "kv_cache_usage.max",
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), text);
        }
        assert_eq!("ttft.median".parse::<Quantity>().unwrap().to_string(), "ttft.p50");
        let gauge = "gpu_utilization".parse::<Quantity>().unwrap();
        assert_eq!(gauge.to_string(), "gpu_utilization.mean", "what no statistic is written of");
    }

    #[test]
    fn a_wrong_quantity_says_what_is_allowed() {
        for (text, part) in [
            ("tfft.p99", "unknown metric `tfft`: use ttft.p99"),
            ("ttft", "`ttft` needs a statistic"),
            ("ttft.p100", "unknown statistic `p100`"),
            ("ttft.pinf", "unknown statistic `pinf`"),
            ("ttft.p1e1", "unknown statistic `p1e1`"),
            ("error_ratio.p99", "takes no statistic"),
        ] {
            let error = text.parse::<Quantity>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_wrong_quantity_names_the_nearest_one() {
        for (text, meant) in [
            ("tfft.p99", Some("ttft.p99")),
            ("tptot.p75", Some("tpot.p75")),
            ("ttft_p50", Some("ttft.p50")),
            ("chunkgap.mean", Some("chunk_gap.mean")),
            ("output_thruput", Some("output_throughput")),
            ("eror_ratio", Some("error_ratio")),
            ("kv_cache_use.max", Some("kv_cache_usage.max")),
            ("ttft.men", Some("mean")),
            ("ttft.99", Some("p99")),
            ("tpot.P50", Some("p50")),
            ("banana", None),
            ("ttft.banana", None),
        ] {
            let error = text.parse::<Quantity>().unwrap_err().to_string();
            let suggested = error.split_once("; did you mean `").map(|(_, end)| end);
            assert_eq!(suggested.and_then(|end| end.strip_suffix("`?")), meant, "{text}: {error}");
        }
    }

    #[test]
    fn a_percentile_needs_a_sample_in_its_tail() {
        for (percent, need) in [(50.0, 2), (90.0, 10), (95.0, 20), (99.0, 100), (99.9, 1000)] {
            assert_eq!(Statistic::Percentile(percent).min_samples(), need, "p{percent}");
        }
    }
}
