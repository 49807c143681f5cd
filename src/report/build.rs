//! What was measured in, the document out. Computes nothing that it could be given.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::ZonedDateTime;

use super::{
    Details, FailureReport, Figure, LatencyReport, PlanReport, Report, RequestRate, SCHEMA_VERSION,
    Servebench, SloReport, TelemetryReport, TokensReport, TurnFigures, TurnReport,
};
use crate::charts::{self, GapHeat, Waterfall};
use crate::compare::{Comparison, Trial};
use crate::environment::Environment;
use crate::evidence::Certainty;
use crate::metric::{Latency, Scalar, Statistic, Watched};
use crate::plan::Case;
use crate::record::{Outcome, RequestRecord};
use crate::samples::Samples;
use crate::self_check::SelfCheck;
use crate::series::Series;
use crate::steady::SteadyState;
use crate::summary::{Counted, Summary, too_few};
use crate::telemetry::Telemetry;
use crate::turns::{Turn, Turns};
use crate::validity::Validity;
use crate::verdict::{Finding, Judgement, Verdict};
use crate::workload::Workload;

/// The percentiles that every result has.
const PERCENTILES: [f64; 5] = [50.0, 90.0, 95.0, 99.0, 99.9];

/// What a report is made of.
pub struct Measured<'a> {
    /// The case.
    pub case: &'a Case,
    /// Where the requests went.
    pub base_url: Option<String>,
    /// Its requests that count, of all trials.
    pub requests: &'a [Counted],
    /// Its trials.
    pub trials: &'a [Trial],
    /// Their statistics.
    pub trial_summaries: &'a [&'a Summary],
    /// How many were sent in all: those of the warm-up do not count.
    pub sent: usize,
    /// Their statistics.
    pub summary: &'a Summary,
    /// Those of its steady state, or why it has none.
    pub steady_state: Result<SteadyState, String>,
    /// Those of each turn; `None` where no conversation has a second one.
    pub turns: Option<Turns>,
    /// What objectives made of them.
    pub judgements: &'a [Judgement],
    /// How it ended; `None` where it was interrupted.
    pub verdict: Option<Verdict>,
    /// What is known about the measurement itself.
    pub validity: Validity,
    /// What the client adds to latencies, or why that is not known.
    pub self_check: Result<SelfCheck, String>,
    /// What was read while the requests ran.
    pub telemetry: &'a Telemetry,
    /// What of it was read while those ran that count.
    pub counted_telemetry: &'a Telemetry,
    /// More to know than the summary knows.
    pub warnings: Vec<String>,
    /// What was sent.
    pub workload: &'a Workload,
    /// What the prompts began with.
    pub salt: Option<&'a str>,
    /// What it ran on.
    pub environment: Environment,
    /// What the user added.
    pub metadata: &'a [(String, String)],
}

impl Report {
    /// The document of one case that ended `now`.
    pub fn new(measured: Measured<'_>, now: &ZonedDateTime) -> Self {
        let Measured { case, requests, summary, judgements, verdict, metadata, .. } = measured;
        let scalar = |scalar| summary.scalars.get(&scalar).copied();
        let mean = |latency| flat(summary, latency, Statistic::Mean);
        let median = |latency| flat(summary, latency, Statistic::Percentile(50.0));
        let std = |latency| flat(summary, latency, Statistic::StdDev);
        let p99 = |latency| flat(summary, latency, Statistic::Percentile(99.0));
        let of_gpus = |column: &str, statistic| {
            let gpus = measured.counted_telemetry.of(Watched::Gpu);
            let values = gpus.filter_map(|gpu| gpu.series.statistic(column, statistic));
            Some(values.collect::<Vec<f64>>()).filter(|values| !values.is_empty())
        };
        let open = case.load.is_open_loop();
        let course = case.course;
        let s = |duration: Duration| duration.as_secs_f64();
        let mut warnings = measured.warnings;
        warnings.extend(summary.warnings.iter().cloned());
        let mut report = Self {
            date: now.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            backend: case.backend.name.clone(),
            model_id: case.model.id.clone(),
            tokenizer_id: case.tokenizer_id(),
            dataset_name: case.workload.dataset.name().to_owned(),
            num_prompts: course.requests.unwrap_or(requests.len()),
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
            mean_ttft_ms: mean(Latency::Ttft),
            median_ttft_ms: median(Latency::Ttft),
            std_ttft_ms: std(Latency::Ttft),
            p99_ttft_ms: p99(Latency::Ttft),
            mean_tpot_ms: mean(Latency::Tpot),
            median_tpot_ms: median(Latency::Tpot),
            std_tpot_ms: std(Latency::Tpot),
            p99_tpot_ms: p99(Latency::Tpot),
            mean_itl_ms: mean(Latency::ChunkGap),
            median_itl_ms: median(Latency::ChunkGap),
            std_itl_ms: std(Latency::ChunkGap),
            p99_itl_ms: p99(Latency::ChunkGap),
            mean_e2el_ms: mean(Latency::E2e),
            median_e2el_ms: median(Latency::E2e),
            std_e2el_ms: std(Latency::E2e),
            p99_e2el_ms: p99(Latency::E2e),
            details: case.details.then(|| Details::new(requests)),
            peak_gpu_memory_mib: of_gpus("memory_used_mib", Statistic::Max),
            available_gpu_memory_mib: of_gpus("memory_free_mib", Statistic::Min),
            gpu_utilization: of_gpus("utilization_percent", Statistic::Mean),
            servebench: Servebench {
                schema_version: SCHEMA_VERSION,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                case: case.name.clone(),
                verdict,
                partial: verdict.is_none(),
                step_of: None,
                search: None,
                comparison: None,
                history_changes: Vec::new(),
                plan: PlanReport {
                    kind: case.backend.kind.name().to_owned(),
                    protocol: case.backend.protocol.name().to_owned(),
                    base_url: measured.base_url,
                    workload: case.workload.name.clone(),
                    workload_hash: measured.workload.hash.clone(),
                    salt: measured.salt.map(str::to_owned),
                    load: case.load.to_string(),
                    arrivals: open.then(|| case.arrivals.name().to_owned()),
                    seed: case.seed,
                    requests: course.requests,
                    duration_s: course.duration.map(s),
                    ramp_up_s: course.ramp_up.map(|ramp| s(ramp.over)),
                    ramp_shape: course.ramp_up.map(|ramp| ramp.shape.name().to_owned()),
                    warm_up_s: course.warm_up.time().map(s),
                    warm_up_requests: measured.sent - requests.len(),
                    drain_s: course.drain.map(s),
                    requests_sent: measured.sent,
                    requests_counted: requests.len(),
                    timeout_s: case.timeout.as_secs_f64(),
                },
                slos: judgements.iter().map(SloReport::new).collect(),
                failures: failures(summary),
                resent: summary.resent,
                latencies: latencies(summary, measured.trial_summaries),
                steady_state_reason: measured.steady_state.as_ref().err().cloned(),
                steady_state: measured.steady_state.ok(),
                scalars: Scalar::ALL.map(|name| (name.name().to_owned(), scalar(name))).into(),
                tokens: TokensReport::new(summary),
                trials: measured.trials.to_vec(),
                turns_not_sent: measured.turns.as_ref().map(Turns::not_sent),
                turns: measured
                    .turns
                    .map(|turns| turns.turns.iter().map(TurnReport::new).collect()),
                timeline: charts::timeline(requests),
                waterfall: Waterfall::new(requests),
                chunk_gap_heat: GapHeat::new(requests),
                telemetry: TelemetryReport::new(measured.telemetry, measured.counted_telemetry),
                client: measured.validity,
                self_check_reason: measured.self_check.as_ref().err().cloned(),
                self_check: measured.self_check.ok(),
                warnings,
                servers_ended: Vec::new(),
                metadata: metadata.iter().cloned().collect(),
                environment: measured.environment,
            },
            metadata: BTreeMap::new(),
            steps: Vec::new(),
        };
        report.metadata = allowed_metadata(&report, metadata);
        report
    }
}

impl Report {
    /// The result without what only a reader of this one run needs.
    #[must_use]
    pub fn for_history(&self) -> Self {
        let mut line = self.clone().without_details();
        let own = &mut line.servebench;
        own.timeline = Series::default();
        own.waterfall = Waterfall::default();
        own.chunk_gap_heat = None;
        own.telemetry.sources.iter_mut().for_each(|source| source.series = Series::default());
        for latency in own.latencies.values_mut() {
            latency.curve_ms = Vec::new();
            latency.bars = None;
            latency.histogram_ms = None;
        }
        line
    }

    /// The result without its entries per request and its steps: as small for a long run as for a short one.
    #[must_use]
    pub fn without_details(self) -> Self {
        Self { details: None, steps: Vec::new(), ..self }
    }

    /// The result of a case that was compared with a baseline.
    #[must_use]
    pub fn compared_with(mut self, comparison: Comparison) -> Self {
        let regressed = comparison.regressions().next().is_some();
        // Requests that failed are no figures: no doubt in those undoes it.
        let fails_more =
            comparison.regressions().any(|metric| metric.metric == Scalar::ErrorRatio.name());
        let own = &mut self.servebench;
        let compared: Vec<&str> =
            comparison.metrics.iter().map(|metric| metric.metric.as_str()).collect();
        if let Some(doubt) = own.client.distorts(&compared)
            && own.client.doubts.is_empty()
        {
            own.client.doubts.push(doubt);
            if own.verdict == Some(Verdict::Pass) {
                own.verdict = Some(Verdict::Invalid);
            }
        }
        own.comparison = Some(comparison);
        let regresses = match own.verdict {
            Some(Verdict::Pass) => regressed,
            Some(Verdict::Invalid) => fails_more,
            Some(Verdict::SloMissed | Verdict::Regressed) | None => false,
        };
        if regresses {
            own.verdict = Some(Verdict::Regressed);
        }
        self
    }

    /// The result of a case whose server ended by itself while it was measured, which is a failure whatever
    /// the figures are.
    #[must_use]
    pub fn with_servers_ended(mut self, ended: Vec<String>) -> Self {
        let own = &mut self.servebench;
        own.servers_ended = ended;
        // That of an interrupted run stays none.
        own.verdict = own.verdict.map(|_| Verdict::SloMissed);
        self
    }

    /// The result of a case that was compared with another, whose result is `other`.
    #[must_use]
    pub fn compared(mut self, comparison: Comparison, other: Self) -> Self {
        let doubted = !other.servebench.client.doubts.is_empty();
        let own = &mut self.servebench;
        if doubted {
            own.warnings.push(format!(
                "what it is compared with cannot be trusted: {}",
                other.servebench.client.doubts.join("; ")
            ));
        }
        if doubted && own.verdict == Some(Verdict::Pass) {
            own.verdict = Some(Verdict::Invalid);
        }
        self.steps.push(other);
        self.compared_with(comparison)
    }
}

/// What the user added, but for keys that are fields of the document already.
fn allowed_metadata(report: &Report, metadata: &[(String, String)]) -> BTreeMap<String, String> {
    let fields = serde_json::to_value(report).unwrap_or_default();
    metadata.iter().filter(|(key, _)| fields.get(key).is_none()).cloned().collect()
}

/// A statistic of the flat fields, whatever the size of the sample.
fn flat(summary: &Summary, latency: Latency, statistic: Statistic) -> Option<f64> {
    summary.latencies.get(&latency)?.as_ref().ok()?.statistic(statistic)
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

fn latencies(summary: &Summary, trials: &[&Summary]) -> BTreeMap<String, LatencyReport> {
    let of_trials = |latency: Latency| -> Vec<&Samples> {
        trials.iter().filter_map(|trial| trial.latencies.get(&latency)?.as_ref().ok()).collect()
    };
    let latencies = summary.latencies.iter();
    latencies
        .map(|(latency, samples)| {
            (latency.name().to_owned(), LatencyReport::new(samples, &of_trials(*latency)))
        })
        .collect()
}

impl LatencyReport {
    fn new(samples: &Result<Samples, String>, trials: &[&Samples]) -> Self {
        let samples = match samples {
            Ok(samples) => samples,
            Err(reason) => {
                return Self {
                    count: 0,
                    reason: Some(reason.clone()),
                    statistics: BTreeMap::new(),
                    curve_ms: Vec::new(),
                    bars: None,
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
                .map(|statistic| (statistic.to_string(), Figure::new(samples, statistic, trials)))
                .collect(),
            curve_ms: charts::curve(samples),
            bars: charts::bars(samples),
            histogram_ms: match samples {
                Samples::Exact(_) => None,
                Samples::Pool(pool) => Some(pool.buckets().collect()),
            },
        }
    }
}

impl Figure {
    fn new(samples: &Samples, statistic: Statistic, trials: &[&Samples]) -> Self {
        match too_few(statistic, samples.count()) {
            Some(reason) => Self { estimate_ms: None, interval_ms: None, reason: Some(reason) },
            None => Self {
                estimate_ms: samples.statistic(statistic),
                interval_ms: match trials.len() {
                    0..3 => samples.interval(statistic),
                    _ => samples.interval_by_trials(statistic, trials),
                },
                reason: None,
            },
        }
    }
}

impl SloReport {
    pub(super) fn new(judgement: &Judgement) -> Self {
        let Judgement { slo, value, finding, judged, .. } = judgement;
        let finite = value.filter(|value| value.is_finite());
        let (finding, reason) = match finding {
            Finding::Met => ("met", None),
            Finding::Missed => ("missed", None),
            Finding::Unknown(reason) => ("unknown", Some(reason.clone())),
        };
        Self {
            slo: slo.to_string(),
            step: None,
            finding: finding.to_owned(),
            value: finite,
            shown: value.map_or_else(|| "n/a".to_owned(), |value| slo.show(value)),
            limit: slo.limit,
            margin_ratio: finite.and_then(|value| slo.margin_ratio(value)),
            undecided: judgement.is_undecided(),
            more_requests_needed: judged.and_then(|judged| match judged.certainty {
                Certainty::Undecided { more_needed, .. } => more_needed,
                Certainty::Sure => None,
            }),
            least_requests: judged.and_then(|judged| match judged.certainty {
                Certainty::Undecided { at_least, .. } => at_least,
                Certainty::Sure => None,
            }),
            effective_requests: judged.and_then(|judged| judged.effective),
            interval: judged
                .and_then(|judged| judged.interval)
                .map(|interval| [interval.low, interval.high]),
            reason,
        }
    }
}

impl TurnReport {
    fn new(turn: &Turn) -> Self {
        Self {
            turn: turn.turn,
            requests: turn.requests,
            completed: turn.completed,
            failed: turn.requests - turn.completed,
            ttft_ms: TurnFigures::new(&turn.ttft),
            tpot_ms: TurnFigures::new(&turn.tpot),
            e2e_ms: TurnFigures::new(&turn.e2e),
            mean_input_tokens: turn.mean_input_tokens,
            cached_share: turn.cached_share,
        }
    }
}

impl TurnFigures {
    fn new(samples: &Samples) -> Self {
        let figure = |statistic| Figure::new(samples, statistic, &[]).estimate_ms;
        Self {
            mean: figure(Statistic::Mean),
            p50: figure(Statistic::Percentile(50.0)),
            p99: figure(Statistic::Percentile(99.0)),
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
            output_reached_ratio: tokens.reached_ratio,
            input_asked: tokens.input_asked,
            input_by_client: tokens.input_by_client,
            input_by_server: tokens.input_by_server,
            input_cached: tokens.cached,
            output_by_server: tokens.output_by_server,
            output_by_client: tokens.output_by_client,
            per_chunk: tokens.per_chunk,
        }
    }
}

impl Details {
    fn new(requests: &[Counted]) -> Self {
        let records = || requests.iter().map(|(record, _)| record);
        let s = |duration: Duration| duration.as_secs_f64();
        Self {
            input_lens: requests.iter().map(|(_, tokens)| tokens.input.best()).collect(),
            output_lens: requests
                .iter()
                .map(|(record, tokens)| match record.completed() {
                    Some(_) => tokens.output.best(),
                    None => Some(0),
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
