//! The flags of our own, each with an environment twin: what a user may say about the plan without a
//! file. MAX's `benchmark_serving.py` gave the first ones their names.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::Alternate;
use crate::course::{RampShape, WarmUp};
use crate::duration::{DurationError, parse_duration, parse_limit};
use crate::load::{ArrivalProcess, Burstiness, Load, Rate, Search};
use crate::metric::Quantity;
use crate::output_format::OutputFormat;
use crate::share::Share;
use crate::slo::Slo;
use crate::workload::{DatasetKind, Length, Replay, Salt, TimeUnit};

/// Prefix of the environment twins: `--base-url` is `SERVEBENCH_BASE_URL`.
pub const TWIN_PREFIX: &str = "SERVEBENCH_";

/// What the user typed, or set in the environment. `None` where nothing was said.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Plan file [default: benches/BENCH_TARGET.toml]
    #[arg(long, value_name = "PATH", help_heading = "Plan")]
    pub config: Option<PathBuf>,
    /// Decides every draw: prompts and arrivals [default: 0]
    #[arg(long, value_name = "N", help_heading = "Plan")]
    pub seed: Option<u64>,

    /// A backend of the plan file by name; or a kind, for a run without a file: modular (MAX Serve),
    /// vllm, sglang, llama-cpp, openai, each also with -chat, or sim [default: modular]
    #[arg(long, value_name = "NAME|KIND", help_heading = "Target (one command, no plan file)")]
    pub backend: Option<String>,
    /// Root of the server's API
    #[arg(long, value_name = "URL", help_heading = "Target (one command, no plan file)")]
    pub base_url: Option<String>,
    /// Host, where there is no --base-url [default: localhost]
    #[arg(long, value_name = "HOST", help_heading = "Target (one command, no plan file)")]
    pub host: Option<String>,
    /// Port, where there is no --base-url [default: 8000]
    #[arg(long, value_name = "PORT", help_heading = "Target (one command, no plan file)")]
    pub port: Option<u16>,
    /// Path below the base URL, with its query where it has one [default: by backend]
    #[arg(long, value_name = "PATH", help_heading = "Target (one command, no plan file)")]
    pub endpoint: Option<String>,
    /// What the server calls the model
    #[arg(long, value_name = "ID", help_heading = "Target (one command, no plan file)")]
    pub model: Option<String>,
    /// What the server calls the model, where that is not --model, whose tokenizer then counts
    #[arg(long, value_name = "ID", help_heading = "Target (one command, no plan file)")]
    pub served_model_name: Option<String>,
    /// What case names call the model [default: the last part of --model]
    #[arg(long, value_name = "NAME", help_heading = "Target (one command, no plan file)")]
    pub model_alias: Option<String>,
    /// Counts tokens: a tokenizer.json, a model's folder, a model on the Hub, or none [default: --model]
    #[arg(long, value_name = "PATH", help_heading = "Target (one command, no plan file)")]
    pub tokenizer: Option<PathBuf>,
    /// PEM file of certificates to trust beside the system's: of authorities, or the server's own
    #[arg(
        long,
        alias = "cacert",
        value_name = "PATH",
        help_heading = "Target (one command, no plan file)"
    )]
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate by which this client shows who it is
    #[arg(long, value_name = "PATH", help_heading = "Target (one command, no plan file)")]
    pub client_cert: Option<PathBuf>,
    /// PEM file of the private key of --client-cert
    #[arg(long, value_name = "PATH", help_heading = "Target (one command, no plan file)")]
    pub client_key: Option<PathBuf>,
    /// Trust any server: what is sent, keys included, may be read by whoever stands between
    #[arg(long, help_heading = "Target (one command, no plan file)")]
    pub insecure: bool,
    /// Accepted for MAX's command lines; no remote code is ever run
    #[arg(long, help_heading = "Target (one command, no plan file)")]
    pub trust_remote_code: bool,

    /// Where prompts come from [default: sharegpt]
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Workload")]
    pub dataset_name: Option<DatasetKind>,
    /// The dataset's file
    #[arg(long, alias = "dataset", value_name = "PATH", help_heading = "Workload")]
    pub dataset_path: Option<PathBuf>,
    /// Requests of a case [default: 500, unless --duration says how long it is]
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub num_prompts: Option<NonZeroUsize>,
    /// sharegpt: length of every answer, tokens [default: as in the dataset]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub sharegpt_output_len: Option<NonZeroU32>,
    /// sonnet: length of a prompt, tokens [default: 550]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub sonnet_input_len: Option<NonZeroU32>,
    /// sonnet: length of every answer, tokens [default: 150]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub sonnet_output_len: Option<NonZeroU32>,
    /// sonnet: how much all prompts have in common, tokens [default: 200]
    #[arg(long, value_name = "N", value_parser = parse_tokens_or_none, help_heading = "Workload")]
    pub sonnet_prefix_len: Option<u32>,
    /// random: length of a prompt, tokens [default: 1024]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub random_input_len: Option<NonZeroU32>,
    /// random: length of every answer, tokens [default: 128]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub random_output_len: Option<NonZeroU32>,
    /// random: lengths are drawn from (1 - RATIO) to (1 + RATIO) of those [default: 0]
    #[arg(long, value_name = "RATIO", help_heading = "Workload")]
    pub random_range_ratio: Option<f64>,
    /// random: tokens before each prompt that all have in common [default: 0]
    #[arg(long, value_name = "N", value_parser = parse_tokens_or_none, help_heading = "Workload")]
    pub random_prefix_len: Option<u32>,
    /// prefix_repetition: length of a common beginning, tokens [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_tokens_or_none, help_heading = "Workload")]
    pub prefix_repetition_prefix_len: Option<u32>,
    /// prefix_repetition: how much of a prompt is its own, tokens [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_tokens_or_none, help_heading = "Workload")]
    pub prefix_repetition_suffix_len: Option<u32>,
    /// prefix_repetition: how many beginnings there are [default: 10]
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub prefix_repetition_num_prefixes: Option<u32>,
    /// prefix_repetition: length of every answer, tokens [default: 128]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub prefix_repetition_output_len: Option<NonZeroU32>,
    /// custom: length of answers for which the file has none, tokens [default: 256]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub custom_output_len: Option<NonZeroU32>,
    /// trace: how many times faster than it was it is replayed [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, help_heading = "Workload")]
    pub trace_speed: Option<f64>,
    /// trace: what its times count [default: what the file says, or seconds]
    #[arg(long, value_name = "UNIT", help_heading = "Workload")]
    pub trace_time_unit: Option<TimeUnit>,
    /// trace: tokens that a block (hash_ids) stands for [default: 512]
    #[arg(long, value_name = "N", value_parser = parse_tokens, help_heading = "Workload")]
    pub trace_block_tokens: Option<NonZeroU32>,
    /// So many conversations of several turns instead of single requests: those of --dataset-path, or of
    /// random words
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub num_chat_sessions: Option<NonZeroUsize>,
    /// --num-chat-sessions without a file: turns of a conversation [default: 4]
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub random_num_turns: Option<NonZeroU32>,
    /// --num-chat-sessions: how long a user thinks before each turn but the first, ms, or with its unit [default: 0]
    #[arg(long, value_name = "TIME", value_parser = parse_delay, help_heading = "Workload")]
    pub delay_between_chat_turns: Option<Duration>,
    /// What prompts begin with, so that no prefix cache carries over from another case or run: auto for
    /// something new each time, none to send the data as it is, or a text [default: auto]
    #[arg(long, value_name = "SALT", help_heading = "Workload")]
    pub salt: Option<Salt>,

    /// Requests per second; inf for all at once; trace for the times of a trace; sweep for rates from idle to
    /// saturation; max-goodput for the highest at which the objectives hold [default: inf; trace for a trace]
    #[arg(long, value_name = "RATE", value_parser = parse_rate, help_heading = "Load")]
    pub request_rate: Option<RequestRate>,
    /// The most requests in flight: with --request-rate, arrivals past it wait; without, so many users
    /// each send their next request when their last has ended
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub max_concurrency: Option<NonZeroUsize>,
    /// Spacing of the arrivals under --request-rate [default: poisson]
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Load")]
    pub arrivals: Option<ArrivalProcess>,
    /// Shape of the gaps' gamma distribution: 1 is Poisson, less comes in bursts [default: 1]
    #[arg(long, value_name = "SHAPE", help_heading = "Load")]
    pub burstiness: Option<Burstiness>,
    /// The most steps of max-goodput, and the rates of sweep [default: 12, 8]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub search_steps: Option<NonZeroUsize>,
    /// How near each other the rates are to come between which max-goodput lies [default: 5%]
    #[arg(long, value_name = "SHARE", help_heading = "Load")]
    pub search_precision: Option<Share>,
    /// How long requests are sent; with --num-prompts, whichever comes first
    #[arg(long, value_name = "TIME", value_parser = parse_limit, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// How long the load takes to reach its height [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub ramp_up: Option<Duration>,
    /// On which way it reaches it [default: linear]
    #[arg(
        long,
        alias = "ramp-up-strategy",
        value_enum,
        value_name = "NAME",
        help_heading = "Load"
    )]
    pub ramp_shape: Option<RampShape>,
    /// How long requests are sent before those that count, or how many; the load goes on over its end
    /// [default: 0s]
    #[arg(long, alias = "num-warmups", value_name = "TIME|N", help_heading = "Load")]
    pub warm_up: Option<WarmUp>,
    /// How long requests may still take when no more are sent [default: no limit but --timeout]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub drain: Option<Duration>,
    /// How long a request may take [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_limit, help_heading = "Load")]
    pub timeout: Option<Duration>,
    /// How long a request may go without a byte [default: no limit but --timeout]
    #[arg(long, value_name = "TIME", value_parser = parse_limit, help_heading = "Load")]
    pub stall_timeout: Option<Duration>,
    /// Whether a short run against the embedded engine says what this client adds to the latencies: auto
    /// makes it where it costs less than a 20th of the case [default: auto]
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Load")]
    pub self_check: Option<SelfCheckMode>,
    /// Do not send one short request before the clock starts
    #[arg(long, help_heading = "Load")]
    pub skip_test_prompt: bool,

    /// An objective, for example 'ttft.p99 < 500ms'; may repeat, or hold several with ; between; replaces
    /// those of the file
    #[arg(long, value_name = "LIMIT", value_delimiter = ';', help_heading = "Verdict")]
    pub slo: Vec<Slo>,
    /// How often each case is repeated, each time with a seed of its own: what lies between trials is what is
    /// known of the noise [default: 1]
    #[arg(long, value_name = "K", help_heading = "Verdict")]
    pub trials: Option<NonZeroUsize>,
    /// Add trials until every objective is decided, for at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_limit, help_heading = "Verdict")]
    pub until_decided: Option<Duration>,
    /// A backend of the plan with which the others are measured in turn and compared: a case that is worse
    /// fails
    #[arg(long, value_name = "BACKEND", help_heading = "Verdict")]
    pub against: Option<String>,
    /// How the two share the machine: both run throughout, or each trial starts its own server (`launch`) and
    /// stops it, for two that do not fit side by side [default: both]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Verdict")]
    pub alternate: Option<Alternate>,
    /// Measure each case in turn with itself, to see the noise and the changes that can be found
    #[arg(long, conflicts_with = "against", help_heading = "Verdict")]
    pub aa: bool,
    /// The smallest relative change that matters [default: 5%]
    #[arg(long, value_name = "SHARE", help_heading = "Verdict")]
    pub min_effect: Option<Share>,
    /// Save the results under a name, to compare later runs with
    #[arg(long, value_name = "NAME", help_heading = "Verdict")]
    pub save_baseline: Option<String>,
    /// Compare with the results that were saved under a name; a case that is worse fails
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "baseline_lenient",
        help_heading = "Verdict"
    )]
    pub baseline: Option<String>,
    /// The same, where there may be none of that name
    #[arg(long, value_name = "NAME", help_heading = "Verdict")]
    pub baseline_lenient: Option<String>,
    /// How many results of each case history.jsonl keeps, the newest ones [default: all]
    #[arg(long, value_name = "N", help_heading = "Verdict")]
    pub history_keep: Option<NonZeroUsize>,
    /// Judge the results that were saved under a name against --baseline, and measure nothing
    #[arg(long, value_name = "NAME", help_heading = "Verdict")]
    pub load_baseline: Option<String>,
    /// A field of the environment by which a baseline may differ; may repeat
    #[arg(long, value_name = "FIELD", help_heading = "Verdict")]
    pub allow_env_diff: Vec<String>,
    /// One short trial of each case, judged by its objectives alone
    #[arg(long, conflicts_with_all = ["trials", "against", "aa"], help_heading = "Verdict")]
    pub quick: bool,
    /// An objective that so few requests cannot decide makes a case invalid, whatever its value
    #[arg(long, help_heading = "Verdict")]
    pub strict: bool,
    /// A missing server fails its cases instead of having them ignored
    #[arg(long, help_heading = "Verdict")]
    pub require_server: bool,
    /// How long a server is waited for while it loads (refuses connections, answers 503, or its /health is not
    /// well); after that its cases fail [default: 0s; 10m for one that the plan starts]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Verdict")]
    pub ready_timeout: Option<Duration>,
    /// What to do when no case is selected [default: warn]
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Verdict")]
    pub no_tests: Option<NoTests>,

    /// Print saved results next to each other, and measure nothing: files of results, folders of them (the
    /// newest of each case) or names of baselines. Cases are lined up by their names; where none is in two
    /// of them, by what comes behind the backend, and a single folder has a column for each of its backends.
    /// The number before a value is how many times worse it is than the best of its row
    #[arg(long, value_name = "PLACE", num_args = 1.., help_heading = "Comparing results")]
    pub compare: Vec<String>,
    /// What --compare shows: metrics as in objectives, of those that results keep [default: ttft.p50,
    /// ttft.p99,tpot.mean,e2e.p50,request_throughput,output_throughput]
    #[arg(long, value_name = "METRIC", value_delimiter = ',', help_heading = "Comparing results")]
    pub compare_metrics: Vec<Quantity>,
    /// --compare leaves out rows in which nothing is worse than the best by so much
    #[arg(long, value_name = "SHARE", help_heading = "Comparing results")]
    pub compare_threshold: Option<Share>,

    /// Make report.html anew of saved results, and measure nothing: of the newest of each case in these
    /// folders, into the first of them
    #[arg(long, value_name = "FOLDER", num_args = 1.., help_heading = "Comparing results")]
    pub report: Vec<String>,

    /// Folder of the results [default: results]
    #[arg(long, value_name = "PATH", help_heading = "Results")]
    pub result_dir: Option<PathBuf>,
    /// File of the result, where a single case is selected [default: by backend, rate, model, time]
    #[arg(long, value_name = "NAME", help_heading = "Results")]
    pub result_filename: Option<PathBuf>,
    /// What else is written beside the results; may repeat, or hold several with , between; replaces the
    /// formats of the file
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        value_delimiter = ',',
        help_heading = "Results"
    )]
    pub output_format: Vec<OutputFormat>,
    /// Write a line per request as it ends, without prompt and answer: --output-format jsonl, beside those of
    /// the file
    #[arg(long, help_heading = "Results")]
    pub save_records: bool,
    /// Accepted for MAX's command lines; results are always saved
    #[arg(long, help_heading = "Results")]
    pub save_result: bool,
    /// Leave the entry per request (lengths, latencies, texts) out of the results
    #[arg(long, help_heading = "Results")]
    pub no_details: bool,
    /// Fields added to the result, for the record
    #[arg(
        long, value_name = "KEY=VALUE", num_args = 1.., value_parser = parse_metadata,
        help_heading = "Results"
    )]
    pub metadata: Vec<(String, String)>,
    /// What the server was started with, for the record: the field `server_args` of the result
    #[arg(long, value_name = "TEXT", help_heading = "Results")]
    pub server_args: Option<String>,
    /// Read the GPUs of this machine while cases run: utilization, memory, power, temperature, clocks
    #[arg(long, help_heading = "Results")]
    pub collect_gpu_stats: bool,
    /// The same, and a case whose GPUs cannot be read fails
    #[arg(long, help_heading = "Results")]
    pub require_gpu: bool,
    /// Write no report.html at the end of a run
    #[arg(long, help_heading = "Results")]
    pub no_html: bool,
    /// Show no progress
    #[arg(long, alias = "disable-tqdm", help_heading = "Results")]
    pub no_progress: bool,
}

/// Requests per second as MAX's script takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RequestRate {
    /// All at once.
    Infinite,
    /// Open loop.
    PerSecond(Rate),
    /// At the times of the workload, which is a trace.
    Trace,
    /// To be found.
    Search(Search),
}

fn parse_rate(text: &str) -> Result<RequestRate, String> {
    match text.parse() {
        Ok(Load::Infinite) => return Ok(RequestRate::Infinite),
        Ok(Load::Trace { cap: None }) => return Ok(RequestRate::Trace),
        Ok(Load::Search(search)) => return Ok(RequestRate::Search(search)),
        _ => {}
    }
    let rate = text.parse().ok().and_then(Rate::per_s).map(RequestRate::PerSecond);
    rate.ok_or_else(|| {
        "write `inf`, `trace`, `sweep`, `max-goodput` or a number of requests per second above 0"
            .to_owned()
    })
}

/// A bare number is in milliseconds, as MAX's script has it.
fn parse_delay(text: &str) -> Result<Duration, DurationError> {
    match text.parse::<u64>() {
        Ok(ms) => parse_duration(&format!("{ms}ms")),
        Err(_) => parse_duration(text),
    }
}

/// A length that is a number of tokens, 0 for none.
fn parse_tokens_or_none(text: &str) -> Result<u32, String> {
    let tokens = text.parse().ok().filter(|tokens| *tokens <= Length::LONGEST);
    tokens.ok_or_else(|| format!("write a number of tokens, at most {}", Length::LONGEST))
}

fn parse_tokens(text: &str) -> Result<NonZeroU32, String> {
    let tokens = parse_tokens_or_none(text).ok().and_then(NonZeroU32::new);
    tokens.ok_or_else(|| format!("write a number of tokens from 1 to {}", Length::LONGEST))
}

fn parse_speed(text: &str) -> Result<f64, String> {
    Replay::check_speed(text.parse().map_err(|_| format!("`{text}` is no number"))?)
}

fn parse_metadata(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Whether the client is checked against the embedded engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SelfCheckMode {
    /// Where it costs little.
    #[default]
    Auto,
    /// Always, though not twice for like loads.
    Always,
    /// Never.
    Never,
}

/// What to do when the filters select no case. A filter reaches every bench binary of a workspace,
/// so that the default is not an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NoTests {
    /// Exit 0 without a word.
    Pass,
    /// Exit 0 with a warning.
    #[default]
    Warn,
    /// Exit 4.
    Fail,
}

impl Flags {
    /// Whether anything names a server without help of a plan file.
    pub fn name_a_target(&self) -> bool {
        self.backend.is_some()
            || self.base_url.is_some()
            || self.host.is_some()
            || self.port.is_some()
            || self.name_a_model()
    }

    /// Whether they name a model.
    pub fn name_a_model(&self) -> bool {
        self.model.is_some() || self.served_model_name.is_some()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn a_value_out_of_its_range_is_refused_with_the_flag_and_the_range() {
        for (flag, value, part) in [
            ("--timeout", "0s", "above zero"),
            ("--stall-timeout", "0ms", "above zero"),
            ("--duration", "0s", "above zero"),
            ("--until-decided", "0s", "above zero"),
            ("--burstiness", "0", "from 0.001 to 1000000, not 0"),
            ("--burstiness", "NaN", "not NaN"),
            ("--trace-speed", "inf", "from 0.000001 to 1000000, not inf"),
            ("--trace-speed", "fast", "`fast` is no number"),
            ("--random-input-len", "0", "from 1 to 10000000"),
            ("--random-output-len", "4294967295", "from 1 to 10000000"),
            ("--trace-block-tokens", "10000001", "from 1 to 10000000"),
            ("--random-prefix-len", "10000001", "at most 10000000"),
            ("--delay-between-chat-turns", "100000000000000", "longer than a year"),
            ("--slo", "tfft.p50 < 1s", "did you mean `ttft.p50`?"),
        ] {
            let error = Line::try_parse_from(["servebench", flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(part), "{flag} {value}: {error}");
        }
        let line = ["servebench", "--random-prefix-len", "0", "--delay-between-chat-turns", "250"];
        let Line { flags } = Line::try_parse_from(line).unwrap();
        assert_eq!(flags.random_prefix_len, Some(0));
        assert_eq!(flags.delay_between_chat_turns, Some(Duration::from_millis(250)));
    }
}
