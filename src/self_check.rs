//! What this client adds to latencies on this machine at one load: a short run against the embedded
//! engine, which knows when each token left. Kept for the next case of the same load.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{Client, ReadyRequest};
use crate::course::Course;
use crate::drive;
use crate::duration::as_ms;
use crate::flags::SelfCheckMode;
use crate::live::Live;
use crate::load::{ArrivalProcess, Load};
use crate::metric::Statistic;
use crate::own_file;
use crate::plan::Backend;
use crate::prompt::Prompt;
use crate::record::RequestRecord;
use crate::samples::Samples;
use crate::schedule::Schedule;
use crate::sim::{Preset, SimConfig, TruthRecord};
use crate::stop::Stop;
use crate::watchdog::Limits;
use crate::wire::Request;

/// The part of a case's time that a check may take without being asked for.
const SHARE_OF_CASE: u32 = 20;
/// How many requests a check sends at least: as many as a 99th percentile needs.
const REQUESTS: usize = 100;
/// How many tokens each of them brings, and what a check costs beside them.
const TOKENS: u32 = 16;
const START: Duration = Duration::from_millis(50);
/// Loads are rounded up to these steps of a decade, so that like loads share a check.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
const TIMEOUT: Duration = Duration::from_secs(30);
/// A check from before that found more than this added to a TTFT is made again.
const SLOW_MS: f64 = 1.0;

/// A load to check: streams at once, and the time between two events of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LoadPoint {
    streams: usize,
    gap_ms: f64,
}

/// What this client adds at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelfCheck {
    /// Streams at once.
    pub streams: usize,
    /// Time between two events of a stream, ms.
    pub gap_ms: f64,
    /// Requests that the check sent.
    pub requests: usize,
    /// TTFT as the client saw it, less the truth, ms: the median.
    pub added_ttft_ms_p50: f64,
    /// The 99th percentile.
    pub added_ttft_ms_p99: f64,
    /// A gap between two events as the client saw it, against the truth, ms, whichever is longer: the
    /// 99th percentile.
    pub chunk_gap_error_ms_p99: f64,
    /// Whether it was made earlier, for another case of a like load on this machine.
    pub from_cache: bool,
}

impl LoadPoint {
    /// The load that `records` were: `None` where too little was read to say.
    pub(crate) fn of<'a>(records: impl Iterator<Item = &'a RequestRecord> + Clone) -> Option<Self> {
        let ends = |record: &RequestRecord| [(record.sent, 1), (record.ended, -1)];
        let mut edges: Vec<(Duration, i64)> = records.clone().flat_map(ends).collect();
        edges.sort_unstable();
        let most = edges.iter().scan(0, |now, (_, step)| {
            *now += step;
            Some(*now)
        });
        let streams = usize::try_from(most.max()?).ok().filter(|streams| 0 < *streams)?;
        let gaps = Samples::exact(records.flat_map(RequestRecord::chunk_gaps).map(as_ms).collect());
        let gap_ms = gaps.statistic(Statistic::Mean)?;
        // Faster events are harder: of the gap, the step below.
        let gap_ms = step_at_most(gap_ms.clamp(0.5, 1000.0));
        Some(Self { streams: step_at_least(streams as f64) as usize, gap_ms })
    }

    /// How long a check of it takes.
    fn takes(self) -> Duration {
        let round = Duration::from_secs_f64(self.gap_ms / 1e3) * (TOKENS + 1);
        START + round * u32::try_from(REQUESTS.div_ceil(self.streams)).unwrap_or(u32::MAX)
    }
}

fn step_at_least(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let steps = STEPS.iter().map(|step| step * decade).chain([10.0 * decade]);
    steps.filter(|step| value <= step * (1.0 + 1e-9)).fold(f64::INFINITY, f64::min)
}

fn step_at_most(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let steps = STEPS.iter().map(|step| step * decade);
    steps.filter(|step| *step <= value * (1.0 + 1e-9)).fold(decade, f64::max)
}

/// The check of `point`, made now or known from before; an error says why there is none. By itself it
/// costs no more than a small part of `case`, the time that the case took.
pub(crate) fn of(
    mode: SelfCheckMode,
    point: Option<LoadPoint>,
    case: Duration,
    stop: &Stop,
) -> anyhow::Result<SelfCheck> {
    if mode == SelfCheckMode::Never {
        bail!("switched off");
    }
    let point = point.context("too little was read to know the load")?;
    let cache = Cache::here();
    // One that says that the client is slow may be of a moment in which the machine was busy.
    if let Some(known) = cache.find(point).filter(|known| known.added_ttft_ms_p50 < SLOW_MS) {
        return Ok(SelfCheck { from_cache: true, ..known });
    }
    let takes = point.takes();
    if mode == SelfCheckMode::Auto && case / SHARE_OF_CASE < takes {
        bail!(
            "it would take {takes:.1?}, more than a {SHARE_OF_CASE}th of the case; --self-check always \
             makes it"
        );
    }
    let check = run(point, stop)?;
    cache.keep(&check);
    Ok(check)
}

fn run(point: LoadPoint, stop: &Stop) -> anyhow::Result<SelfCheck> {
    let config = SimConfig {
        max_batch: point.streams,
        max_batched_tokens: u32::MAX,
        prefill_tokens_per_s: 1e9,
        decode_base: Duration::from_secs_f64(point.gap_ms / 1e3),
        decode_per_sequence: Duration::ZERO,
        kv_cache_tokens: u64::MAX / 2,
        jitter: 0.0,
        ..SimConfig::preset(Preset::Large)
    };
    let backend = Backend::embedded(config.clone());
    let (server, address) = drive::start_embedded(config, backend.protocol)?;
    let client = Client::new(&backend, &address.endpoint_url())?;
    let users = point.streams.try_into().context("no streams")?;
    let (load, requests) = (Load::Closed(users), REQUESTS.max(point.streams));
    let course = Course::of_requests(requests);
    let schedule = Schedule::new(&load, &course, ArrivalProcess::default(), 0);
    let ready = (0..requests).map(|index| request(&client, &backend, index)).collect();
    let limits = Limits { timeout: TIMEOUT, stall_timeout: None };
    let live = Arc::<Live>::default();
    let runtime = drive::runtime(true, &live)?;
    let sent = drive::Sent { requests: ready, warm_up: Vec::new(), conversations: None };
    let run = drive::drive(&client, sent, &load, &schedule, limits, &live, stop);
    let driven = runtime.block_on(run)?;
    compared(point, &driven.records, &server.truth())
}

/// A request that the engine's truth is recognised by: its model has the index in its name.
fn request(client: &Client, backend: &Backend, index: usize) -> ReadyRequest {
    let body = backend.protocol.body(&Request {
        model: &format!("check-{index}"),
        prompt: &Prompt::Text("How late is this?".to_owned()),
        output_tokens: TOKENS,
        length_field: backend.length_field,
        ignore_eos: backend.ignore_eos,
        min_tokens: false,
        include_usage: true,
    });
    client.prepare(serde_json::Value::Object(body).to_string().as_bytes(), TOKENS)
}

fn compared(
    point: LoadPoint,
    records: &[RequestRecord],
    truth: &[TruthRecord],
) -> anyhow::Result<SelfCheck> {
    let by_model: BTreeMap<&str, &TruthRecord> =
        truth.iter().map(|truth| (truth.model.as_str(), truth)).collect();
    let (mut ttft, mut gaps) = (Vec::new(), Vec::new());
    for record in records {
        let truth = by_model.get(format!("check-{}", record.index).as_str());
        let (Some(completed), Some(truth)) = (record.completed(), truth) else { continue };
        let Some(true_ttft) = truth.ttft() else { continue };
        ttft.push(as_ms(completed.ttft()) - as_ms(true_ttft));
        let true_gaps = truth.tokens.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        let errors = record.chunk_gaps().zip(true_gaps);
        gaps.extend(errors.map(|(seen, truth)| (as_ms(seen) - as_ms(truth)).abs()));
    }
    let requests = ttft.len();
    if requests < REQUESTS {
        bail!("only {requests} of its requests came back");
    }
    let (ttft, gaps) = (Samples::exact(ttft), Samples::exact(gaps));
    let percentile = |samples: &Samples, percent| {
        samples.statistic(Statistic::Percentile(percent)).context("there are no samples")
    };
    Ok(SelfCheck {
        streams: point.streams,
        gap_ms: point.gap_ms,
        requests,
        added_ttft_ms_p50: percentile(&ttft, 50.0)?,
        added_ttft_ms_p99: percentile(&ttft, 99.0)?,
        chunk_gap_error_ms_p99: percentile(&gaps, 99.0)?,
        from_cache: false,
    })
}

/// The checks that were made on this machine, by this version. Losing it costs no more than a check.
struct Cache(PathBuf);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Kept {
    version: String,
    checks: Vec<SelfCheck>,
}

impl Cache {
    fn here() -> Self {
        Self(own_file::path("servebench-self-checks", "json"))
    }

    fn read(&self) -> Kept {
        let mut text = Vec::new();
        let read = own_file::open(&self.0)
            .and_then(|file| file.take(LONGEST_CACHE).read_to_end(&mut text));
        let kept = read.ok().and_then(|_| serde_json::from_slice::<Kept>(&text).ok());
        kept.filter(|kept| kept.version == VERSION).unwrap_or_default()
    }

    fn find(&self, point: LoadPoint) -> Option<SelfCheck> {
        let mut checks = self.read().checks.into_iter();
        checks.find(|check| (check.streams, check.gap_ms) == (point.streams, point.gap_ms))
    }

    /// Adds a check. Whoever cannot be written is made again.
    fn keep(&self, check: &SelfCheck) {
        let Kept { mut checks, .. } = self.read();
        let same = |kept: &SelfCheck| (kept.streams, kept.gap_ms) == (check.streams, check.gap_ms);
        checks.retain(|kept| !same(kept));
        checks.push(check.clone());
        let kept = Kept { version: VERSION.to_owned(), checks };
        let folder = self.0.parent().unwrap_or(Path::new("."));
        let write = || -> anyhow::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, &kept)?;
            file.persist(&self.0)?;
            Ok(())
        };
        let _ = write();
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The most that is read of a cache, bytes.
const LONGEST_CACHE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{completed, ms};

    #[test]
    fn a_load_is_rounded_to_one_that_is_no_easier() {
        for (streams, gap_ms, expected) in [
            (1, 10, LoadPoint { streams: 1, gap_ms: 10.0 }),
            (3, 12, LoadPoint { streams: 5, gap_ms: 10.0 }),
            (100, 19, LoadPoint { streams: 100, gap_ms: 10.0 }),
            (101, 40, LoadPoint { streams: 200, gap_ms: 20.0 }),
        ] {
            let mut record = completed(&[60, 60 + gap_ms, 60 + 2 * gap_ms]);
            record.ended = ms(1000);
            let records = vec![record; streams];
            assert_eq!(LoadPoint::of(records.iter()), Some(expected), "{streams} at {gap_ms} ms");
        }
        assert_eq!(LoadPoint::of([].iter()), None);
    }

    #[test]
    fn requests_one_after_the_other_are_one_stream() {
        let after = |begin: u64| {
            let mut record = completed(&[60, 70]);
            (record.sent, record.ended) = (ms(begin), ms(begin + 80));
            record
        };
        let records = [after(0), after(80), after(160)];
        assert_eq!(LoadPoint::of(records.iter()).unwrap().streams, 1);
    }

    #[test]
    fn a_check_is_made_where_it_costs_little_or_is_asked_for() {
        let point = Some(LoadPoint { streams: 50, gap_ms: 200.0 });
        let of = |mode, s| of(mode, point, Duration::from_secs(s), &Stop::new());
        let error = of(SelfCheckMode::Auto, 10).unwrap_err().to_string();
        assert!(error.contains("more than a 20th of the case"), "{error}");
        assert!(of(SelfCheckMode::Never, 10_000).is_err());
    }

    #[test]
    fn a_check_says_how_far_the_client_is_from_the_truth() {
        let check = run(LoadPoint { streams: 50, gap_ms: 5.0 }, &Stop::new()).unwrap();
        assert_eq!(check.requests, 100);
        assert!(0.0 < check.added_ttft_ms_p50, "nothing is seen before it left: {check:?}");
        assert!(check.added_ttft_ms_p50 <= check.added_ttft_ms_p99);
        assert!(0.0 < check.chunk_gap_error_ms_p99);
    }

    #[test]
    fn a_check_is_kept_until_the_version_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache(folder.path().join("checks.json"));
        let point = LoadPoint { streams: 5, gap_ms: 10.0 };
        let check = SelfCheck {
            streams: 5,
            gap_ms: 10.0,
            requests: 100,
            added_ttft_ms_p50: 0.1,
            added_ttft_ms_p99: 0.2,
            chunk_gap_error_ms_p99: 0.3,
            from_cache: false,
        };
        assert_eq!(cache.find(point), None);
        cache.keep(&check);
        cache.keep(&SelfCheck { streams: 10, ..check.clone() });
        assert_eq!(cache.find(point), Some(check));
        let other = std::fs::read_to_string(&cache.0).unwrap().replace(VERSION, "0.0.0");
        std::fs::write(&cache.0, other).unwrap();
        assert_eq!(cache.find(point), None);
        std::fs::write(&cache.0, "half a fi").unwrap();
        assert_eq!(cache.find(point), None);
    }
}
