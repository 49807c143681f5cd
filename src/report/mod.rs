//! The stored document of one case: MAX's and vLLM's flat fields, and everything else under
//! `servebench`. What is shown is made from it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::charts::{Bars, GapHeat, Waterfall};
use crate::compare::{Change, Comparison, Trial};
use crate::environment::Environment;
use crate::self_check::SelfCheck;
use crate::series::Series;
use crate::steady::SteadyState;
use crate::validity::Validity;
use crate::verdict::Verdict;

mod build;
mod ending;
pub mod folder;
pub mod history;
mod read;
mod save;
pub mod saved;
mod schema;
mod search;
mod telemetry;

pub use build::Measured;
pub use ending::Ending;
pub use save::write_whole;
pub use schema::schema;
pub use search::{Answer, Step};
pub use telemetry::{ReadFigures, SourceReport, TelemetryReport};

/// Raised when a field under `servebench` changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What one case leaves behind. Scalars are in milliseconds, arrays in seconds, as the names that
/// MAX's and vLLM's scripts gave them have it; missing is `null`, never 0.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Local time at the end of the case.
    pub date: String,
    /// The backend's name in the plan.
    pub backend: String,
    /// What the server calls the model.
    pub model_id: String,
    /// The tokenizer's path or ID; `null` where only the server counted.
    pub tokenizer_id: Option<String>,
    /// The dataset's kind.
    pub dataset_name: String,
    /// Requests asked for; conversations where there are any.
    pub num_prompts: usize,
    /// Requests per second, or `"inf"`.
    pub request_rate: RequestRate,
    /// Shape of the gaps' gamma distribution, 1 for independent arrivals; `null` where they are equal or
    /// there is no schedule.
    pub burstiness: Option<f64>,
    /// Users of a closed loop.
    pub max_concurrency: Option<usize>,
    /// From the first `sent` to the last `ended`, s.
    pub duration: f64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Prompt tokens of completed requests; `null` unless those of each are known.
    pub total_input_tokens: Option<u64>,
    /// Generated tokens of completed requests; `null` unless those of each are known.
    pub total_output_tokens: Option<u64>,
    /// Completed requests a second.
    pub request_throughput: Option<f64>,
    /// Requests a second that met every per-request objective.
    pub request_goodput: Option<f64>,
    /// Prompt tokens a second.
    pub input_throughput: Option<f64>,
    /// Generated tokens a second.
    pub output_throughput: Option<f64>,
    /// Prompt and generated tokens a second.
    pub total_token_throughput: Option<f64>,
    /// Mean of the time to first token, ms.
    pub mean_ttft_ms: Option<f64>,
    /// Median of the time to first token, ms.
    pub median_ttft_ms: Option<f64>,
    /// Standard deviation of the time to first token, ms.
    pub std_ttft_ms: Option<f64>,
    /// 99th percentile of the time to first token, ms.
    pub p99_ttft_ms: Option<f64>,
    /// Mean of the time per output token, ms.
    pub mean_tpot_ms: Option<f64>,
    /// Median of the time per output token, ms.
    pub median_tpot_ms: Option<f64>,
    /// Standard deviation of the time per output token, ms.
    pub std_tpot_ms: Option<f64>,
    /// 99th percentile of the time per output token, ms.
    pub p99_tpot_ms: Option<f64>,
    /// Mean of the gaps between output-bearing events, ms.
    pub mean_itl_ms: Option<f64>,
    /// Median of the gaps between output-bearing events, ms.
    pub median_itl_ms: Option<f64>,
    /// Standard deviation of the gaps between output-bearing events, ms.
    pub std_itl_ms: Option<f64>,
    /// 99th percentile of the gaps between output-bearing events, ms.
    pub p99_itl_ms: Option<f64>,
    /// Mean of the end-to-end latency, ms.
    pub mean_e2el_ms: Option<f64>,
    /// Median of the end-to-end latency, ms.
    pub median_e2el_ms: Option<f64>,
    /// Standard deviation of the end-to-end latency, ms.
    pub std_e2el_ms: Option<f64>,
    /// 99th percentile of the end-to-end latency, ms.
    pub p99_e2el_ms: Option<f64>,
    /// Per request; left out with `details = false`.
    #[serde(flatten, skip_deserializing)]
    pub details: Option<Details>,
    /// The most memory in use, of each GPU that counts; `null` where none was read.
    pub peak_gpu_memory_mib: Option<Vec<f64>>,
    /// The least memory that was free, of each.
    pub available_gpu_memory_mib: Option<Vec<f64>>,
    /// The mean utilization, of each, %.
    pub gpu_utilization: Option<Vec<f64>>,
    /// Everything that the two scripts do not have.
    pub servebench: Servebench,
    /// What the user added with `--metadata`; once more under `servebench`, where it cannot be taken for
    /// another field.
    #[serde(flatten, skip_deserializing)]
    pub metadata: BTreeMap<String, String>,
    /// The results of the steps of a search, or of what it was compared with: documents of their own.
    #[serde(skip)]
    pub steps: Vec<Report>,
}

/// A number, or the text `inf`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WrittenRate", into = "WrittenRate")]
pub struct RequestRate(pub f64);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum WrittenRate {
    PerSecond(f64),
    Infinite(Infinite),
}

#[derive(Serialize, Deserialize, JsonSchema)]
enum Infinite {
    #[serde(rename = "inf")]
    Inf,
}

impl From<WrittenRate> for RequestRate {
    fn from(written: WrittenRate) -> Self {
        match written {
            WrittenRate::PerSecond(rate) => Self(rate),
            WrittenRate::Infinite(Infinite::Inf) => Self(f64::INFINITY),
        }
    }
}

impl From<RequestRate> for WrittenRate {
    fn from(RequestRate(rate): RequestRate) -> Self {
        if rate.is_infinite() { Self::Infinite(Infinite::Inf) } else { Self::PerSecond(rate) }
    }
}

/// One entry per request, in the order of the workload, the turns of a conversation one after the other.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Details {
    /// Prompt tokens; `null` where nobody counted them.
    pub input_lens: Vec<Option<u32>>,
    /// Generated tokens; 0 where the request failed, as in the totals, and `null` where nobody counted
    /// them.
    pub output_lens: Vec<Option<u32>>,
    /// Time to first token, s; `null` where the request failed.
    pub ttfts: Vec<Option<f64>>,
    /// Gaps between output-bearing events, s.
    pub itls: Vec<Vec<f64>>,
    /// Answers.
    pub generated_texts: Vec<String>,
    /// Empty, or the reason and what was said.
    pub errors: Vec<String>,
    /// When each request was sent, s from the start of the case.
    pub start_times: Vec<f64>,
}

/// Our own part of the document.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Servebench {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the crate.
    pub version: String,
    /// The case's name: the key by which results are compared.
    pub case: String,
    /// How it ended; `null` where the run was interrupted.
    pub verdict: Option<Verdict>,
    /// The run was interrupted: the figures are of what was measured until then.
    pub partial: bool,
    /// The case of which this is a step: a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_of: Option<String>,
    /// What a search found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchReport>,
    /// What became of it against another server, or a baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Where the history of the case changed its level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history_changes: Vec<Change>,
    /// What was asked for.
    pub plan: PlanReport,
    /// One entry per objective.
    pub slos: Vec<SloReport>,
    /// Requests that failed, by reason.
    pub failures: BTreeMap<String, FailureReport>,
    /// Requests that were sent once more on a fresh connection, because the first had been closed before a byte of a
    /// response. Their clocks run from the first time.
    #[serde(default)]
    pub resent: u64,
    /// Every latency by name.
    pub latencies: BTreeMap<String, LatencyReport>,
    /// The figures without the run's beginning and end; `null` where it has no such part.
    pub steady_state: Option<SteadyState>,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_state_reason: Option<String>,
    /// Every scalar by name.
    pub scalars: BTreeMap<String, Option<f64>>,
    /// The trials: what is independent of each other.
    pub trials: Vec<Trial>,
    /// Token counts.
    pub tokens: TokensReport,
    /// One entry per turn, where there are conversations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Vec<TurnReport>>,
    /// Turns that were not sent, because one before them failed or there was no more time. No failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_not_sent: Option<u64>,
    /// What went on at a time: `in_flight`, `output_tokens_per_s`, `sent_per_s`, `completed_per_s`,
    /// `failed_per_s` and `ttft_ms_p50`.
    pub timeline: Series,
    /// Single requests over time, at most a thousand of them.
    pub waterfall: Waterfall,
    /// The chunk gaps over time; `null` where there are none.
    pub chunk_gap_heat: Option<GapHeat>,
    /// What was read of GPUs, of the server and of this machine while the case ran.
    pub telemetry: TelemetryReport,
    /// What is known about the measurement itself.
    pub client: Validity,
    /// What the client adds to latencies on this machine at this load; `null` where it was not checked.
    pub self_check: Option<SelfCheck>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_check_reason: Option<String>,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
    /// How servers that were started for the case ended by themselves while it was measured, with the ends of
    /// their logs: a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers_ended: Vec<String>,
    /// What the user added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What it ran on.
    pub environment: Environment,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// The backend's kind.
    pub kind: String,
    /// The wire protocol.
    pub protocol: String,
    /// Where the requests went, without user and password.
    pub base_url: Option<String>,
    /// The workload's name.
    pub workload: String,
    /// The same for the same work, whatever it was salted with.
    pub workload_hash: String,
    /// What the prompts began with; `null` where the data was sent as it is.
    pub salt: Option<String>,
    /// The load as in the case's name.
    pub load: String,
    /// How the arrivals of an open loop are spaced; `null` for other loads.
    pub arrivals: Option<String>,
    /// Decides prompts and arrivals.
    pub seed: u64,
    /// Requests or conversations asked for; `null` where time alone ended the case.
    pub requests: Option<usize>,
    /// How long requests were sent, after the warm-up, s; `null` where their number ended the case.
    pub duration_s: Option<f64>,
    /// How long the load took to reach its height, s; `null` where it began there.
    pub ramp_up_s: Option<f64>,
    /// On which way: `linear` or `exponential`.
    pub ramp_shape: Option<String>,
    /// How long requests were sent that do not count, s; `null` where it was a number of them.
    pub warm_up_s: Option<f64>,
    /// How many requests were sent that do not count, one a turn.
    pub warm_up_requests: usize,
    /// How long requests might still take when no more were sent, s; `null` where only `timeout_s`
    /// ended them.
    pub drain_s: Option<f64>,
    /// Requests sent, one a turn.
    pub requests_sent: usize,
    /// Those that are not of the warm-up: all figures are of these.
    pub requests_counted: usize,
    /// Longest time of a request, s.
    pub timeout_s: f64,
}

/// What a search found, and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SearchReport {
    /// `max-goodput` or `sweep`.
    pub kind: String,
    /// The highest rate at which every objective held, requests/s; 0 where none did, `null` where that is
    /// not known.
    pub max_goodput_per_s: Option<f64>,
    /// The lowest rate above it at which one did not; `null` where all held.
    pub failed_from_per_s: Option<f64>,
    /// How the step at that rate ended: it missed an objective, or could not be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_verdict: Option<Verdict>,
    /// Of a sweep: the rates between which the server stops keeping up, requests/s. The second is `null` where
    /// the sweep did not reach beyond saturation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee_per_s: Option<[Option<f64>; 2]>,
    /// In the order in which they were made. Each has a result of its own.
    pub steps: Vec<StepReport>,
}

/// A step of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// Its load, as in a case's name.
    pub load: String,
    /// Its rate, requests/s; `null` for the burst and the single user.
    pub rate_per_s: Option<f64>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// The objectives that it missed, and what could not be trusted.
    pub reasons: Vec<String>,
    /// Of a sweep: whether its objectives are those of the case. Beyond saturation they are not.
    #[serde(default)]
    pub judged: bool,
    /// From its first request to the end of its last, s.
    #[serde(default)]
    pub duration_s: f64,
    /// Why it was made longer than the plan has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer: Option<String>,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Completed requests a second.
    pub request_throughput: Option<f64>,
    /// Generated tokens a second.
    pub output_throughput: Option<f64>,
    /// Share of the requests with which the server kept up.
    pub server_kept_up_ratio: Option<f64>,
    /// Median time to first token, ms.
    pub ttft_ms_p50: Option<f64>,
    /// 99th percentile of the time to first token, ms.
    pub ttft_ms_p99: Option<f64>,
    /// Mean time per output token, ms.
    pub tpot_ms_mean: Option<f64>,
    /// Median end-to-end latency, ms.
    pub e2e_ms_p50: Option<f64>,
}

/// An objective and what the case made of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SloReport {
    /// As it can be written.
    pub slo: String,
    /// Of a sweep: the load of the step that it was judged by, the worst of those that are judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `met`, `missed` or `unknown`.
    pub finding: String,
    /// ms for a latency. `null` where it is not known or infinite; then `shown` says which.
    pub value: Option<f64>,
    /// The value with its unit.
    pub shown: String,
    /// ms for a latency.
    pub limit: f64,
    /// Distance on the good side as a share of the limit; negative when missed. `null` where the
    /// limit is 0 or the value not finite.
    pub margin_ratio: Option<f64>,
    /// Whether it could be the other way, at 95 % confidence; then `finding` is that of the point
    /// estimate.
    pub undecided: bool,
    /// How many further requests would settle it if all stayed as it is; `null` where nobody can say, or it
    /// is settled.
    pub more_requests_needed: Option<u64>,
    /// The least requests with which it could be settled, where there were fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_requests: Option<u64>,
    /// As how many independent requests those that were counted are worth: requests of one run share a queue.
    /// `null` where requests were not counted.
    #[serde(default)]
    pub effective_requests: Option<f64>,
    /// Between which values the truth lies; ms for a latency. `null` where requests were counted.
    pub interval: Option<[f64; 2]>,
    /// Why it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Requests that failed for one reason.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FailureReport {
    /// How many.
    pub count: u64,
    /// What one of them said.
    pub example: String,
}

/// One latency.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LatencyReport {
    /// How many samples.
    pub count: u64,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `mean`, `std_dev`, `min`, `max` and percentiles by name.
    pub statistics: BTreeMap<String, Figure>,
    /// The quantiles at every half percent from the smallest sample to the largest, ms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve_ms: Vec<f64>,
    /// A histogram of samples that are of a request each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bars: Option<Bars>,
    /// Of a pool: upper ends of the filled buckets (ms) and their counts, 3 significant digits; so
    /// that the pools of several runs can be merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram_ms: Option<Vec<(f64, u64)>>,
}

/// One statistic.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// The point estimate, ms; `null` where the sample cannot support it.
    pub estimate_ms: Option<f64>,
    /// The 95 % interval: by trials where there are three or more (a percentile of requests then is that of
    /// a typical trial), else as if requests were independent, which behind a queue they are not; `null`
    /// where it cannot be given.
    pub interval_ms: Option<[f64; 2]>,
    /// Why there is no estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Token counts of completed requests.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokensReport {
    /// Longest prompt.
    pub max_input: Option<u32>,
    /// Longest answer.
    pub max_output: Option<u32>,
    /// Longest prompt and answer together.
    pub max_total: Option<u32>,
    /// Share of the answers that are as long as asked for.
    pub output_reached_ratio: Option<f64>,
    /// Prompt tokens that the data, or the lengths drawn, ask for; `null` unless those of every request are known.
    #[serde(default)]
    pub input_asked: Option<u64>,
    /// Prompt tokens as they were counted here of what was sent; `null` unless those of every request are known.
    #[serde(default)]
    pub input_by_client: Option<u64>,
    /// Prompt tokens by the server's `usage`; `null` unless every request has it.
    #[serde(default)]
    pub input_by_server: Option<u64>,
    /// Prompt tokens that the server answered from a prefix cache; `null` where it does not say.
    pub input_cached: Option<u64>,
    /// Generated tokens by the server's `usage`; `null` unless every request has it.
    pub output_by_server: Option<u64>,
    /// Generated tokens by the tokenizer.
    pub output_by_client: Option<u64>,
    /// Generated tokens per event with output.
    pub per_chunk: Option<f64>,
}

/// The requests that were the same turn of their conversations.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TurnReport {
    /// 1 for the first.
    pub turn: u32,
    /// How many were sent.
    pub requests: u64,
    /// How many of them completed.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// Time to first token.
    pub ttft_ms: TurnFigures,
    /// Time per output token.
    pub tpot_ms: TurnFigures,
    /// End-to-end latency.
    pub e2e_ms: TurnFigures,
    /// Mean length of the prompts, which hold what was said before; `null` unless all are known.
    pub mean_input_tokens: Option<f64>,
    /// Share of the prompt tokens that the server answered from a prefix cache; `null` where it does not
    /// say.
    pub cached_share: Option<f64>,
}

/// A latency of one turn, ms; `null` where the sample cannot support it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TurnFigures {
    /// The mean.
    pub mean: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
}
