//! Whether the numbers can be trusted: the load that was asked for against the load that was sent, and
//! what sending it took out of the client. Pure.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::as_ms;
use crate::load::Load;
use crate::metric::{Latency, Statistic};
use crate::record::RequestRecord;
use crate::samples::Samples;
use crate::self_check::SelfCheck;
use crate::strain::Strain;
use crate::summary::Summary;

/// A loop that comes to its work later than this, of which 1 ms is the timer's, stamps reads too late to
/// be believed: half of a usual gap between tokens. An idle machine shows 2 ms.
const MAX_LOOP_LAG_P99_MS: f64 = 5.0;
/// Where the kernel stamps what arrives, the loop may be later: only users of a closed loop then wait for it.
const MAX_LOOP_LAG_P99_MS_STAMPED: f64 = 25.0;
/// More of the run than this without a processor, or more than this on it, and the client was short of one.
const MAX_WAITED_SHARE: f64 = 0.1;
const MAX_CPU_SHARE: f64 = 0.9;
/// Requests of a schedule that leave later than this are another load; as is one whose lateness is more
/// than this share of the median TTFT.
const MAX_LATENESS_P99_MS: f64 = 20.0;
const MAX_LATENESS_OF_TTFT: f64 = 0.1;
/// A client that adds more than this to a TTFT, and more than this share of it, has measured itself.
const MAX_ADDED_TTFT_MS: f64 = 2.0;
const MAX_ADDED_OF_TTFT: f64 = 0.1;
/// How far the rate that was sent may be from that of the schedule.
const MAX_RATE_ERROR: f64 = 0.05;
/// With less than this share of the requests, an open loop's server did not keep up, and bound the run.
const SERVER_KEEPS_UP: f64 = 0.9;
/// Fewer requests than this say nothing about whether the server kept up.
const MIN_REQUESTS_TO_KEEP_UP: usize = 20;
/// Fewer ticks than this say nothing about the tail.
const MIN_TICKS: usize = 100;

/// What kept the run from going faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The schedule: the server kept up with it.
    Rate,
    /// The cap on the requests in flight, or the number of users.
    Cap,
    /// The server.
    Server,
    /// This client: the numbers are its own.
    Client,
}

/// What is known about the measurement itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// What kept the run from going faster.
    pub bound: Bound,
    /// Why the numbers cannot be trusted, and what to do; empty where they can.
    pub doubts: Vec<String>,
    /// Rate of the schedule, requests/s; `null` where there is none.
    pub requested_rate_per_s: Option<f64>,
    /// Rate at which requests left, requests/s.
    pub achieved_rate_per_s: Option<f64>,
    /// Share of the requests with which the server kept up: 1, less what had piled up in it when the last
    /// one was sent; `null` where no schedule sends them.
    pub server_kept_up_ratio: Option<f64>,
    /// Processor time of the thread that sends and stamps, as a share of one processor.
    pub cpu_share: Option<f64>,
    /// Share of the run in which that thread could have run and got no processor.
    pub waited_share: Option<f64>,
    /// Its processor time per million output tokens, s.
    pub cpu_s_per_million_tokens: Option<f64>,
    /// How late the client's loop came to its work, ms; up to 1 ms of it is the timer's own.
    pub loop_lag_ms: LoopLag,
}

/// Statistics of the loop's lag; `null` for a run too short to have any.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LoopLag {
    /// The median.
    pub p50: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl Validity {
    /// That of the trial that strained the client most, with the doubts of all.
    pub fn worst_of(trials: Vec<Self>) -> Self {
        let many = 1 < trials.len();
        let doubts = trials.iter().enumerate().flat_map(|(number, trial)| {
            let shown = move |doubt: &String| match many {
                true => format!("trial {}: {doubt}", number + 1),
                false => doubt.clone(),
            };
            trial.doubts.iter().map(shown)
        });
        let doubts = doubts.collect();
        let strain = |trial: &Self| (trial.doubts.len(), trial.loop_lag_ms.p99.unwrap_or_default());
        let worst = trials.into_iter().max_by(|one, other| {
            strain(one).partial_cmp(&strain(other)).unwrap_or(std::cmp::Ordering::Equal)
        });
        let mut worst = worst.expect("a case has at least one trial");
        worst.doubts = doubts;
        worst
    }

    /// What `requests` under `load`, their statistics and the strain say about the measurement.
    pub fn new<'a>(
        load: &Load,
        requests: impl Iterator<Item = &'a RequestRecord> + Clone,
        summary: &Summary,
        strain: &Strain,
        self_check: Option<&SelfCheck>,
    ) -> Self {
        let lags = Samples::exact(strain.loop_lags.iter().copied().map(as_ms).collect());
        let loop_lag_ms = LoopLag {
            p50: lags.statistic(Statistic::Percentile(50.0)),
            p99: (MIN_TICKS <= strain.loop_lags.len())
                .then(|| lags.statistic(Statistic::Percentile(99.0)))
                .flatten(),
            max: lags.statistic(Statistic::Max),
        };
        let scheduled = load.is_open_loop();
        let requested = rate(requests.clone().map(|record| record.scheduled));
        let requested = requested.filter(|_| scheduled);
        let achieved = rate(requests.clone().map(|record| record.sent));
        let share = |time: Option<Duration>| {
            let wall = Some(strain.wall.as_secs_f64()).filter(|wall| 0.0 < *wall)?;
            Some(time?.as_secs_f64() / wall)
        };
        let (cpu_share, waited_share) = (share(strain.cpu), share(strain.waited));
        let mut doubts = Vec::new();
        doubts.extend(lagged(loop_lag_ms, strain.own_stamps));
        if MIN_TICKS <= strain.loop_lags.len() {
            doubts.extend(short_of_processor(cpu_share, waited_share));
        }
        if scheduled {
            doubts.extend(late(summary));
        }
        doubts.extend(self_check.and_then(|check| slow(check, summary)));
        if scheduled && load.max_concurrency().is_none() {
            doubts.extend(requested.zip(achieved).and_then(|(asked, sent)| off(asked, sent)));
        }
        let kept_up = kept_up(requests.clone()).filter(|_| scheduled);
        let held_back = requests.clone().any(|record| record.scheduled < record.released);
        let cpu_s = strain.cpu.map(|cpu| cpu.as_secs_f64());
        let tokens = summary.tokens.output.unwrap_or_default() as f64;
        Self {
            bound: bound(load, held_back, kept_up, !doubts.is_empty()),
            doubts,
            server_kept_up_ratio: kept_up,
            requested_rate_per_s: requested,
            achieved_rate_per_s: achieved,
            cpu_share,
            waited_share,
            cpu_s_per_million_tokens: cpu_s.filter(|_| 0.0 < tokens).map(|s| s / tokens * 1e6),
            loop_lag_ms,
        }
    }
}

fn lagged(lag: LoopLag, own_stamps: u64) -> Option<String> {
    let (limit_ms, harm) = match own_stamps {
        0 => (MAX_LOOP_LAG_P99_MS_STAMPED, "users may send as late"),
        _ => (MAX_LOOP_LAG_P99_MS, "stamps may be as late"),
    };
    let p99 = lag.p99.filter(|p99| limit_ms < *p99)?;
    Some(format!(
        "the client's loop came to its work up to {p99:.0} ms late (p99): {harm}; send less per \
         process, or give the client a processor of its own"
    ))
}

fn short_of_processor(cpu_share: Option<f64>, waited_share: Option<f64>) -> Option<String> {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let what = match (cpu_share, waited_share) {
        (_, Some(waited)) if MAX_WAITED_SHARE < waited => {
            format!("waited for a processor for {} of the run", percent(waited))
        }
        (Some(cpu), _) if MAX_CPU_SHARE < cpu => {
            format!("used {} of its processor", percent(cpu))
        }
        _ => return None,
    };
    Some(format!(
        "the client {what}: it was the bottleneck; send less per process, or give the client a \
         processor of its own"
    ))
}

fn late(summary: &Summary) -> Option<String> {
    let statistic = |latency, percent| {
        let samples = summary.latencies.get(&latency)?.as_ref().ok()?;
        samples.statistic(Statistic::Percentile(percent))
    };
    let lateness = statistic(Latency::Lateness, 99.0)?;
    let of_ttft = statistic(Latency::Ttft, 50.0).unwrap_or(0.0) * MAX_LATENESS_OF_TTFT;
    (MAX_LATENESS_P99_MS.max(of_ttft) < lateness).then(|| {
        format!(
            "requests left up to {lateness:.0} ms after their time (p99): the load sent was not the \
             one asked for; lower the rate, or give the client a processor of its own"
        )
    })
}

fn slow(check: &SelfCheck, summary: &Summary) -> Option<String> {
    let ttft = summary.latencies.get(&Latency::Ttft)?.as_ref().ok()?;
    let ttft_ms = ttft.statistic(Statistic::Percentile(50.0))?;
    let added_ms = check.added_ttft_ms_p50;
    (MAX_ADDED_TTFT_MS.max(ttft_ms * MAX_ADDED_OF_TTFT) < added_ms).then(|| {
        format!(
            "this client adds {added_ms:.1} ms (p50) to a TTFT at this load, and the median of what was \
             measured is {ttft_ms:.1} ms: send less per process, or give the client a processor of its own"
        )
    })
}

fn off(requested: f64, achieved: f64) -> Option<String> {
    let error = (achieved / requested - 1.0).abs();
    (MAX_RATE_ERROR < error).then(|| {
        format!(
            "{achieved:.1} requests/s left and the schedule has {requested:.1}: the client could not \
             send so fast; lower the rate"
        )
    })
}

fn bound(load: &Load, held_back: bool, kept_up: Option<f64>, doubted: bool) -> Bound {
    match load {
        _ if doubted => Bound::Client,
        Load::Infinite | Load::Search(_) => Bound::Server,
        Load::Closed(_) => Bound::Cap,
        Load::Open { .. } | Load::Staged(_) | Load::Trace { .. } if held_back => Bound::Cap,
        Load::Open { .. } | Load::Staged(_) | Load::Trace { .. }
            if kept_up.is_some_and(|kept_up| kept_up < SERVER_KEEPS_UP) =>
        {
            Bound::Server
        }
        Load::Open { .. } | Load::Staged(_) | Load::Trace { .. } => Bound::Rate,
    }
}

/// 1, less the share of the requests that piled up: those in flight when the last one was sent, beyond
/// those that are in flight at such a rate when nothing piles up (Little's law, with the latency of the
/// first quarter).
fn kept_up<'a>(requests: impl Iterator<Item = &'a RequestRecord> + Clone) -> Option<f64> {
    let count = requests.clone().count();
    let (first, last) =
        (requests.clone().map(|r| r.sent).min()?, requests.clone().map(|r| r.sent).max()?);
    let span_s = last.saturating_sub(first).as_secs_f64();
    if count < MIN_REQUESTS_TO_KEEP_UP || span_s == 0.0 {
        return None;
    }
    let quarter = first + (last - first) / 4;
    let early = requests.clone().filter(|record| record.sent <= quarter);
    let latencies: Vec<f64> =
        early.map(|record| record.ended.saturating_sub(record.sent).as_secs_f64()).collect();
    let mean_s = latencies.iter().sum::<f64>() / latencies.len().max(1) as f64;
    let usual = count as f64 / span_s * mean_s;
    let in_flight = requests.filter(|record| last < record.ended).count() as f64;
    Some(1.0 - (in_flight - usual).max(0.0) / count as f64)
}

/// Events a second between the first and the last; `None` for fewer than two, or all at once.
fn rate(times: impl Iterator<Item = Duration> + Clone) -> Option<f64> {
    let (first, last) = (times.clone().min()?, times.clone().max()?);
    let span = last.saturating_sub(first).as_secs_f64();
    (0.0 < span).then(|| (times.count() - 1) as f64 / span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::summary::tests::counted;

    /// A hundred requests, 100 ms apart on the schedule, each `late_ms` after its time.
    fn validity(load: &str, late_ms: impl Fn(u64) -> u64, lags: &[u64]) -> Validity {
        let requests: Vec<_> = (0..100)
            .map(|n| {
                let mut record = completed(&[60, 70]);
                let shift = Duration::from_millis(100 * n);
                let late = Duration::from_millis(late_ms(n));
                record.scheduled = shift;
                record.released = shift;
                record.sent = shift + late;
                record.ended = shift + late + Duration::from_millis(80);
                for chunk in &mut record.stream.chunks {
                    chunk.at += shift + late;
                }
                counted(record, 2)
            })
            .collect();
        let summary = Summary::new(&requests, None);
        let lags = lags.iter().map(|&lag| Duration::from_millis(lag)).collect();
        let strain = Strain {
            wall: Duration::from_secs(10),
            cpu: Some(Duration::from_secs(1)),
            waited: Some(Duration::ZERO),
            own_stamps: 1,
            loop_lags: lags,
        };
        let records = requests.iter().map(|(record, _)| record);
        Validity::new(&load.parse().unwrap(), records, &summary, &strain, None)
    }

    #[test]
    fn a_run_on_time_is_believed_and_bound_by_its_rate() {
        let validity = validity("10qps", |_| 0, &[1; 1000]);
        assert_eq!((validity.bound, &validity.doubts[..]), (Bound::Rate, &[][..]));
        assert_eq!(validity.requested_rate_per_s.map(f64::round), Some(10.0));
        assert_eq!(validity.cpu_share, Some(0.1));
        assert_eq!(validity.cpu_s_per_million_tokens, Some(5000.0));
    }

    #[test]
    fn a_loop_that_lags_makes_the_client_the_bound() {
        let mut lags = vec![0; 1000];
        lags[..20].fill(50);
        let validity = validity("10qps", |_| 0, &lags);
        assert_eq!(validity.bound, Bound::Client);
        assert!(validity.doubts[0].contains("up to 50 ms late"), "{:?}", validity.doubts);
    }

    #[test]
    fn a_loop_may_be_later_where_the_kernel_stamps() {
        let lag = |p99| LoopLag { p50: None, p99: Some(p99), max: None };
        assert_eq!(lagged(lag(10.0), 0), None);
        assert!(lagged(lag(10.0), 1).unwrap().contains("stamps may be as late"));
        assert!(lagged(lag(30.0), 0).unwrap().contains("users may send as late"));
    }

    #[test]
    fn a_client_short_of_a_processor_is_doubted() {
        assert_eq!(short_of_processor(Some(0.5), Some(0.05)), None);
        assert_eq!(short_of_processor(None, None), None);
        let starved = short_of_processor(Some(0.5), Some(0.45)).unwrap();
        assert!(starved.contains("waited for a processor for 45 % of the run"), "{starved}");
        let saturated = short_of_processor(Some(0.97), Some(0.01)).unwrap();
        assert!(saturated.contains("used 97 % of its processor"), "{saturated}");
    }

    #[test]
    fn a_client_that_adds_much_to_a_ttft_has_measured_itself() {
        let requests = vec![counted(completed(&[60, 70]), 2); 100];
        let summary = Summary::new(&requests, None);
        let check = |added_ttft_ms_p50| SelfCheck {
            streams: 100,
            gap_ms: 10.0,
            requests: 100,
            added_ttft_ms_p50,
            added_ttft_ms_p99: 20.0,
            chunk_gap_error_ms_p99: 1.0,
            from_cache: false,
        };
        assert_eq!(slow(&check(4.9), &summary), None);
        let doubt = slow(&check(5.1), &summary).unwrap();
        assert!(doubt.contains("adds 5.1 ms (p50)") && doubt.contains("50.0 ms"), "{doubt}");
    }

    #[test]
    fn now_and_then_a_hold_up_is_no_doubt() {
        let mut lags = vec![0; 1000];
        lags[..9].fill(200);
        assert!(validity("10qps", |_| 0, &lags).doubts.is_empty());
    }

    #[test]
    fn a_load_that_was_not_sent_is_doubted() {
        let validity = validity("10qps", |n| n * 10, &[]);
        assert_eq!(validity.bound, Bound::Client);
        assert!(validity.doubts[0].contains("after their time"), "{:?}", validity.doubts);
        assert!(validity.doubts[1].contains("9.1 requests/s left"), "{:?}", validity.doubts);
    }

    #[test]
    fn users_and_everything_at_once_have_no_schedule_to_miss() {
        assert!(validity("8conc", |n| n * 10, &[]).doubts.is_empty());
        let validity = validity("inf", |n| n * 10, &[]);
        assert!(validity.doubts.is_empty());
        assert_eq!((validity.bound, validity.requested_rate_per_s), (Bound::Server, None));
    }
}
