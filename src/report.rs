//! The stored document of one case: MAX's and vLLM's flat fields, and everything else under
//! `servebench`. What is shown is made from it. Saves itself; computes nothing that it could be given.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::ZonedDateTime;
use serde::Serialize;

use crate::metric::{Latency, Scalar, Statistic};
use crate::plan::Case;
use crate::record::{Outcome, RequestRecord};
use crate::samples::Samples;
use crate::summary::{Counted, Summary, too_few};
use crate::validity::Validity;
use crate::verdict::{Finding, Judgement, Verdict};

/// Raised when a field under `servebench` changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What one case leaves behind. Scalars are in milliseconds, arrays in seconds, as the names that
/// MAX's and vLLM's scripts gave them have it; missing is `null`, never 0.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Local time at the end of the case.
    pub date: String,
    /// The backend's name in the plan.
    pub backend: String,
    /// What the server calls the model.
    pub model_id: String,
    /// The tokenizer's path.
    pub tokenizer_id: String,
    /// The dataset's kind.
    pub dataset_name: &'static str,
    /// Requests asked for.
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
    /// Prompt tokens of completed requests.
    pub total_input_tokens: u64,
    /// Generated tokens of completed requests.
    pub total_output_tokens: u64,
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
    /// `mean_ttft_ms` and the like; the ITL is their pool of chunk gaps.
    #[serde(flatten)]
    pub latencies: BTreeMap<String, Option<f64>>,
    /// Per request; left out with `details = false`.
    #[serde(flatten)]
    pub details: Option<Details>,
    /// Not measured yet by this version.
    pub peak_gpu_memory_mib: Option<f64>,
    /// Not measured yet by this version.
    pub available_gpu_memory_mib: Option<f64>,
    /// Not measured yet by this version.
    pub gpu_utilization: Option<f64>,
    /// Everything that the two scripts do not have.
    pub servebench: Servebench,
    /// What the user added with `--metadata`.
    #[serde(flatten)]
    pub metadata: BTreeMap<String, String>,
}

/// A number, or the text `inf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestRate(pub f64);

impl Serialize for RequestRate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_infinite() {
            return serializer.serialize_str("inf");
        }
        serializer.serialize_f64(self.0)
    }
}

/// One entry per request, in the order of the workload.
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// Prompt tokens.
    pub input_lens: Vec<u32>,
    /// Generated tokens; 0 where the request failed, as in the totals.
    pub output_lens: Vec<u32>,
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
#[derive(Clone, Debug, Serialize)]
pub struct Servebench {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the crate.
    pub version: &'static str,
    /// The case's name: the key by which results are compared.
    pub case: String,
    /// How it ended; `null` where the run was interrupted.
    pub verdict: Option<Verdict>,
    /// The run was interrupted: the figures are of what was measured until then.
    pub partial: bool,
    /// What was asked for.
    pub plan: PlanReport,
    /// One entry per objective.
    pub slos: Vec<SloReport>,
    /// Requests that failed, by reason.
    pub failures: BTreeMap<String, FailureReport>,
    /// Every latency by name.
    pub latencies: BTreeMap<&'static str, LatencyReport>,
    /// Every scalar by name.
    pub scalars: BTreeMap<&'static str, Option<f64>>,
    /// Token counts.
    pub tokens: TokensReport,
    /// What is known about the measurement itself.
    pub client: Validity,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
    /// What it ran on.
    pub environment: Environment,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The backend's kind.
    pub kind: &'static str,
    /// The wire protocol.
    pub protocol: &'static str,
    /// Where the requests went, without user and password.
    pub base_url: Option<String>,
    /// The workload's name.
    pub workload: String,
    /// The load as in the case's name.
    pub load: String,
    /// How the arrivals of an open loop are spaced; `null` for other loads.
    pub arrivals: Option<&'static str>,
    /// Decides prompts and arrivals.
    pub seed: u64,
    /// Requests asked for.
    pub requests: usize,
    /// Requests sent.
    pub requests_sent: usize,
    /// Longest time of a request, s.
    pub timeout_s: f64,
}

/// An objective and what the case made of it.
#[derive(Clone, Debug, Serialize)]
pub struct SloReport {
    /// As it can be written.
    pub slo: String,
    /// `met`, `missed` or `unknown`.
    pub finding: &'static str,
    /// ms for a latency. `null` where it is not known or infinite; then `shown` says which.
    pub value: Option<f64>,
    /// The value with its unit.
    pub shown: String,
    /// ms for a latency.
    pub limit: f64,
    /// Distance on the good side as a share of the limit; negative when missed. `null` where the
    /// limit is 0 or the value not finite.
    pub margin_ratio: Option<f64>,
    /// Why it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Requests that failed for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    /// How many.
    pub count: u64,
    /// What one of them said.
    pub example: String,
}

/// One latency.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// How many samples.
    pub count: u64,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `mean`, `std_dev`, `min`, `max` and percentiles by name.
    pub statistics: BTreeMap<String, Figure>,
    /// Of a pool: upper ends of the filled buckets (ms) and their counts, 3 significant digits; so
    /// that the pools of several runs can be merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram_ms: Option<Vec<(f64, u64)>>,
}

/// One statistic.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The point estimate, ms; `null` where the sample cannot support it.
    pub estimate_ms: Option<f64>,
    /// The 95 % interval if requests are independent; `null` where it cannot be given.
    pub interval_ms: Option<[f64; 2]>,
    /// Why there is no estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Token counts of completed requests.
#[derive(Clone, Debug, Serialize)]
pub struct TokensReport {
    /// Longest prompt.
    pub max_input: u32,
    /// Longest answer.
    pub max_output: u32,
    /// Longest prompt and answer together.
    pub max_total: u32,
    /// Generated tokens by the server's `usage`; `null` unless every request has it.
    pub output_by_server: Option<u64>,
    /// Generated tokens by the tokenizer.
    pub output_by_client: Option<u64>,
    /// Generated tokens per event with output.
    pub per_chunk: Option<f64>,
}

/// What it ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Operating system.
    pub os: &'static str,
    /// Processor architecture.
    pub arch: &'static str,
    /// Processors that this process may use.
    pub cpus: Option<usize>,
}

/// The percentiles that every result has.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// The latencies of the flat fields, by the names that the scripts have for them.
pub const FLAT_LATENCIES: [(&str, Latency); 4] = [
    ("ttft", Latency::Ttft),
    ("tpot", Latency::Tpot),
    ("itl", Latency::ChunkGap),
    ("e2el", Latency::E2e),
];

/// What a report is made of.
pub struct Measured<'a> {
    /// The case.
    pub case: &'a Case,
    /// Where the requests went.
    pub base_url: Option<String>,
    /// Its requests.
    pub requests: &'a [Counted],
    /// Their statistics.
    pub summary: &'a Summary,
    /// What objectives made of them.
    pub judgements: &'a [Judgement],
    /// How it ended; `None` where it was interrupted.
    pub verdict: Option<Verdict>,
    /// What is known about the measurement itself.
    pub validity: Validity,
    /// More to know than the summary knows.
    pub warnings: Vec<String>,
    /// What the user added.
    pub metadata: &'a [(String, String)],
}

impl Report {
    /// The document of one case that ended `now`.
    pub fn new(measured: Measured<'_>, now: &ZonedDateTime) -> Self {
        let Measured { case, requests, summary, judgements, verdict, metadata, .. } = measured;
        let scalar = |scalar| summary.scalars.get(&scalar).copied();
        let open = matches!(case.load, crate::load::Load::Open { .. });
        let mut warnings = measured.warnings;
        warnings.extend(summary.warnings.iter().cloned());
        let mut report = Self {
            date: now.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            backend: case.backend.name.clone(),
            model_id: case.model.id.clone(),
            tokenizer_id: case.tokenizer.display().to_string(),
            dataset_name: case.workload.dataset.name(),
            num_prompts: case.requests,
            request_rate: RequestRate(case.load.request_rate()),
            burstiness: case.arrivals.burstiness().filter(|_| open),
            max_concurrency: case.load.max_concurrency(),
            duration: summary.span.as_secs_f64(),
            completed: summary.completed,
            failed: summary.failed(),
            total_input_tokens: summary.tokens.input,
            total_output_tokens: summary.tokens.output,
            request_throughput: scalar(Scalar::RequestThroughput),
            request_goodput: scalar(Scalar::Goodput),
            input_throughput: scalar(Scalar::InputThroughput),
            output_throughput: scalar(Scalar::OutputThroughput),
            total_token_throughput: scalar(Scalar::TotalTokenThroughput),
            latencies: flat_latencies(summary),
            details: case.details.then(|| Details::new(requests)),
            peak_gpu_memory_mib: None,
            available_gpu_memory_mib: None,
            gpu_utilization: None,
            servebench: Servebench {
                schema_version: SCHEMA_VERSION,
                version: env!("CARGO_PKG_VERSION"),
                case: case.name.clone(),
                verdict,
                partial: verdict.is_none(),
                plan: PlanReport {
                    kind: case.backend.kind.name(),
                    protocol: case.backend.protocol.name(),
                    base_url: measured.base_url,
                    workload: case.workload.name.clone(),
                    load: case.load.to_string(),
                    arrivals: open.then(|| case.arrivals.name()),
                    seed: case.seed,
                    requests: case.requests,
                    requests_sent: requests.len(),
                    timeout_s: case.timeout.as_secs_f64(),
                },
                slos: judgements.iter().map(SloReport::new).collect(),
                failures: failures(summary),
                latencies: latencies(summary),
                scalars: Scalar::ALL.map(|name| (name.name(), scalar(name))).into(),
                tokens: TokensReport::new(summary),
                client: measured.validity,
                warnings,
                environment: Environment::detect(),
            },
            metadata: BTreeMap::new(),
        };
        report.metadata = allowed_metadata(&report, metadata);
        report
    }

    /// Writes the document, whole or not at all, as a new file in `folder`: by `name`, or by backend,
    /// rate, model and time as MAX's script does. Returns its path.
    pub fn save(
        &self,
        folder: &Path,
        name: Option<&Path>,
        now: &ZonedDateTime,
    ) -> anyhow::Result<PathBuf> {
        let path = match name {
            Some(name) => folder.join(name),
            None => self.free_path(folder, now),
        };
        self.write(&path).with_context(|| format!("save the result `{}`", path.display()))?;
        Ok(path)
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        // In the same folder, since only there is a rename one step.
        let mut file = tempfile::Builder::new().prefix(".result-").tempfile_in(folder)?;
        file.write_all(&text)?;
        // A temporary file is for its owner alone; a result is for whoever may read the folder.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }

    /// A path that is not taken: two cases may end in the same second.
    fn free_path(&self, folder: &Path, now: &ZonedDateTime) -> PathBuf {
        let model = self.model_id.trim_end_matches('/').rsplit('/').next().unwrap_or("model");
        let stem = format!(
            "{}-{:?}qps-{model}-{}",
            self.backend,
            self.request_rate.0,
            now.strftime("%Y%m%d-%H%M%S")
        );
        let suffixes = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
        suffixes
            .map(|suffix| folder.join(format!("{stem}{suffix}.json")))
            .find(|path| !path.exists())
            .expect("the suffixes have no end")
    }
}

/// What the user added, but for keys that are fields of the document already.
fn allowed_metadata(report: &Report, metadata: &[(String, String)]) -> BTreeMap<String, String> {
    let fields = serde_json::to_value(report).unwrap_or_default();
    metadata.iter().filter(|(key, _)| fields.get(key).is_none()).cloned().collect()
}

fn flat_latencies(summary: &Summary) -> BTreeMap<String, Option<f64>> {
    let statistics = [
        ("mean", Statistic::Mean),
        ("median", Statistic::Percentile(50.0)),
        ("std", Statistic::StdDev),
        ("p99", Statistic::Percentile(99.0)),
    ];
    let mut fields = BTreeMap::new();
    for (name, latency) in FLAT_LATENCIES {
        for (prefix, statistic) in statistics {
            let samples = summary.latencies.get(&latency).and_then(|samples| samples.as_ref().ok());
            let value = samples.and_then(|samples| samples.statistic(statistic));
            fields.insert(format!("{prefix}_{name}_ms"), value);
        }
    }
    fields
}

fn failures(summary: &Summary) -> BTreeMap<String, FailureReport> {
    let failures = summary.failures.iter();
    failures
        .map(|(reason, failures)| {
            let example = failures.example.clone();
            (reason.to_string(), FailureReport { count: failures.count, example })
        })
        .collect()
}

fn latencies(summary: &Summary) -> BTreeMap<&'static str, LatencyReport> {
    let latencies = summary.latencies.iter();
    latencies.map(|(latency, samples)| (latency.name(), LatencyReport::new(samples))).collect()
}

impl LatencyReport {
    fn new(samples: &Result<Samples, String>) -> Self {
        let samples = match samples {
            Ok(samples) => samples,
            Err(reason) => {
                return Self {
                    count: 0,
                    reason: Some(reason.clone()),
                    statistics: BTreeMap::new(),
                    histogram_ms: None,
                };
            }
        };
        let plain = [Statistic::Mean, Statistic::StdDev, Statistic::Min, Statistic::Max];
        let statistics = plain.into_iter().chain(PERCENTILES.map(Statistic::Percentile));
        Self {
            count: samples.count(),
            reason: None,
            statistics: statistics
                .map(|statistic| (statistic.to_string(), Figure::new(samples, statistic)))
                .collect(),
            histogram_ms: match samples {
                Samples::Exact(_) => None,
                Samples::Pool(pool) => Some(pool.buckets().collect()),
            },
        }
    }
}

impl Figure {
    fn new(samples: &Samples, statistic: Statistic) -> Self {
        match too_few(statistic, samples.count()) {
            Some(reason) => Self { estimate_ms: None, interval_ms: None, reason: Some(reason) },
            None => Self {
                estimate_ms: samples.statistic(statistic),
                interval_ms: samples.interval(statistic),
                reason: None,
            },
        }
    }
}

impl SloReport {
    fn new(judgement: &Judgement) -> Self {
        let Judgement { slo, value, finding } = judgement;
        let finite = value.filter(|value| value.is_finite());
        let (finding, reason) = match finding {
            Finding::Met => ("met", None),
            Finding::Missed => ("missed", None),
            Finding::Unknown(reason) => ("unknown", Some(reason.clone())),
        };
        Self {
            slo: slo.to_string(),
            finding,
            value: finite,
            shown: value.map_or_else(|| "n/a".to_owned(), |value| slo.show(value)),
            limit: slo.limit,
            margin_ratio: finite.and_then(|value| slo.margin_ratio(value)),
            reason,
        }
    }
}

impl TokensReport {
    fn new(summary: &Summary) -> Self {
        let tokens = summary.tokens;
        Self {
            max_input: tokens.max_input,
            max_output: tokens.max_output,
            max_total: tokens.max_total,
            output_by_server: tokens.output_by_server,
            output_by_client: tokens.output_by_client,
            per_chunk: tokens.per_chunk,
        }
    }
}

impl Details {
    fn new(requests: &[Counted]) -> Self {
        let records = || requests.iter().map(|(record, _)| record);
        let s = |duration: std::time::Duration| duration.as_secs_f64();
        Self {
            input_lens: requests
                .iter()
                .map(|(_, tokens)| tokens.input.best().unwrap_or(0))
                .collect(),
            output_lens: requests
                .iter()
                .map(|(record, tokens)| match record.completed() {
                    Some(_) => tokens.output.best().unwrap_or(0),
                    None => 0,
                })
                .collect(),
            ttfts: records().map(|record| Some(s(record.completed()?.ttft()))).collect(),
            itls: records().map(|record| record.chunk_gaps().map(s).collect()).collect(),
            generated_texts: records()
                .map(|record| format!("{}{}", record.stream.reasoning, record.stream.text))
                .collect(),
            errors: records().map(error_text).collect(),
            start_times: records().map(|record| s(record.sent)).collect(),
        }
    }
}

fn error_text(record: &RequestRecord) -> String {
    match &record.outcome {
        Outcome::Completed => String::new(),
        Outcome::Failed { failure, message } => format!("{failure}: {message}"),
    }
}

impl Environment {
    fn detect() -> Self {
        Self {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            cpus: std::thread::available_parallelism().ok().map(usize::from),
        }
    }
}
