//! Whether the figures can be trusted: the load that was asked for against the load that was sent, and what
//! this client's own delays may have done to what is asserted. Pure.
//!
//! A delay is weighed against what it could falsify: one that cannot move a figure that is asserted by more than
//! 5 %, or than chance moves a figure of so few requests, is a note and no doubt.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backlog::KeptUp;
use crate::distortion::{Distortion, distortions, max_share};
use crate::duration::as_ms;
use crate::load::Load;
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::plan::Case;
use crate::record::RequestRecord;
use crate::samples::Samples;
use crate::self_check::SelfCheck;
use crate::slo::Goodput;
use crate::strain::{HoldUp, Strain};
use crate::summary::{Counted, Summary};

/// Requests of a schedule that leave later than this are another load; as is one whose lateness is more
/// than this share of the median of what is asserted.
const MAX_LATENESS_P99_MS: f64 = 20.0;
const MAX_LATENESS_OF_LATENCY: f64 = 0.1;
/// A client that adds more than this to a TTFT, and more than this share of it, has measured itself.
const MAX_ADDED_TTFT_MS: f64 = 2.0;
const MAX_ADDED_OF_TTFT: f64 = 0.1;
/// A loop that runs or waits for a processor for more than this share of the time has none to spare: what it
/// holds up is no longer bounded.
const MAX_BUSY_SHARE: f64 = 0.9;
/// How much slower than the schedule requests may leave, and how much later the last of them, at least.
const MAX_RATE_ERROR: f64 = 0.05;
const MIN_LATER: Duration = Duration::from_millis(20);
/// Fewer requests than this have no rate.
const MIN_REQUESTS_OF_RATE: usize = 20;
/// With less than this share of the requests, an open loop's server did not keep up, and bound the run.
const SERVER_KEEPS_UP: f64 = 0.9;
/// Fewer ticks than this say nothing about the tail.
const MIN_TICKS: usize = 100;
/// A clock that is ahead by less is one that was adjusted.
const MIN_SUSPENDED: Duration = Duration::from_millis(100);
/// What is worth a word though it changes no figure: a loop that did not run for this share of the time or so
/// long at once, or that waited for a processor for this share.
const HELD_UP_SHARE: f64 = 0.05;
const HELD_UP_AT_ONCE: Duration = Duration::from_millis(100);
const WAITED_SHARE: f64 = 0.1;
/// A case without an objective on a figure asserts what it shows where it has as many requests as a 99th percentile
/// needs; with fewer, its figures are rough and nobody says what they are to be.
const MIN_REQUESTS_TO_ASSERT: u64 = 100;
/// So many distorted figures are named in one doubt.
const NAMED: usize = 3;

/// What kept the run from going faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The schedule: the server kept up with it, as far as is known.
    Rate,
    /// The cap on the requests in flight, or the number of users.
    Cap,
    /// The server: it did not keep up, or everything was there at once.
    Server,
    /// This client: what is asserted may be its own.
    Client,
}

/// What is known about the measurement itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// What kept the run from going faster.
    pub bound: Bound,
    /// Why the figures that are asserted cannot be trusted, and what to do; empty where they can.
    pub doubts: Vec<String>,
    /// What the client did to no figure that is asserted, or not by enough to matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Figures of which this client's own delays may have made more than 5 % (of n requests, 1/√n where that is
    /// more), by name: as measured, and without those delays; ms for a latency.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distorted: BTreeMap<String, [f64; 2]>,
    /// Rate of the schedule, requests/s; `null` where there is none.
    pub requested_rate_per_s: Option<f64>,
    /// Rate at which requests left, requests/s.
    pub achieved_rate_per_s: Option<f64>,
    /// Share of the requests with which the server kept up, by the growth of what it had not ended and by what
    /// failed; `null` where no schedule sends them, where answers take as long as the requests to arrive, and
    /// where there are too few.
    pub server_kept_up_ratio: Option<f64>,
    /// Share of the time of a closed loop's users in which they waited for this client, which was held up, to
    /// send their next request; `null` where there are none.
    #[serde(default)]
    pub users_waited_share: Option<f64>,
    /// Processor time of the thread that sends and stamps, as a share of one processor.
    pub cpu_share: Option<f64>,
    /// Share of the run in which that thread could have run and got no processor.
    pub waited_share: Option<f64>,
    /// Its processor time per million output tokens, s.
    pub cpu_s_per_million_tokens: Option<f64>,
    /// How late the client's loop came to its work, ms; up to 1 ms of it is the timer's own.
    pub loop_lag_ms: LoopLag,
    /// For how long that loop did not come to work that was due, all hold-ups of more than 2.5 ms together, s.
    #[serde(default)]
    pub held_up_s: f64,
    /// For how long the machine slept or was paused, or how far its clock was set forward, s.
    #[serde(default)]
    pub suspended_s: f64,
    /// In how many periods a control group's quota kept the client's process from running; `null` where no
    /// control group says.
    #[serde(default)]
    pub throttled_periods: Option<u64>,
    /// For how long, all processors together, s.
    #[serde(default)]
    pub throttled_s: Option<f64>,
}

/// Which figures a case asserts: what its objectives are on, or, where none is on a figure, what a reader looks
/// at first.
#[derive(Clone, Debug)]
pub struct Asserted {
    /// They are doubted where the client may have distorted them.
    figures: Vec<Quantity>,
    /// No objective is on a figure: these are what a reader looks at first.
    is_usual: bool,
    /// What else may be compared with other results.
    others: Vec<Quantity>,
    goodput: Option<Goodput>,
}

impl Asserted {
    /// Those of a case.
    pub fn of(case: &Case) -> Self {
        let slos = case.slos.iter().map(|slo| slo.quantity);
        let compared = case.gate.metrics.iter().copied();
        match case.against {
            Some(_) => Self::new(slos.chain(compared).collect(), Vec::new(), case.goodput),
            None => Self::new(slos.collect(), compared.collect(), case.goodput),
        }
    }

    fn new(asserted: Vec<Quantity>, compared: Vec<Quantity>, goodput: Option<Goodput>) -> Self {
        let percentile =
            |latency, percent| Quantity::Latency(latency, Statistic::Percentile(percent));
        let usual = [
            percentile(Latency::Ttft, 50.0),
            Quantity::Latency(Latency::Tpot, Statistic::Mean),
            percentile(Latency::E2e, 50.0),
            percentile(Latency::ChunkGap, 50.0),
            percentile(Latency::ChunkGap, 99.0),
        ];
        let is_figure = |quantity: &Quantity| match quantity {
            Quantity::Latency(latency, _) => {
                !matches!(latency, Latency::Lateness | Latency::Connect)
            }
            Quantity::Scalar(scalar) => *scalar != Scalar::ErrorRatio && !scalar.is_read(),
            Quantity::Gauge(..) => false,
        };
        let mut figures: Vec<Quantity> = asserted.into_iter().filter(is_figure).collect();
        let is_usual = figures.is_empty();
        if is_usual {
            figures.extend(usual);
        }
        let others = compared.into_iter().chain(usual);
        let others = others.filter(|other| !figures.contains(other)).collect();
        Self { figures, is_usual, others, goodput }
    }

    fn asserts(&self, which: impl Fn(Latency) -> bool) -> bool {
        self.figures.iter().any(|figure| match figure {
            Quantity::Latency(latency, _) => which(*latency),
            Quantity::Scalar(scalar) => {
                matches!(scalar, Scalar::Goodput | Scalar::GoodputRatio | Scalar::MaxGoodput)
            }
            Quantity::Gauge(..) => false,
        })
    }
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
    /// That of the trial that strained the client most, with the doubts of all, and the least with which the
    /// server kept up.
    pub fn worst_of(trials: Vec<Self>) -> Self {
        let many = 1 < trials.len();
        let of_all = |lines: fn(&Self) -> &Vec<String>| -> Vec<String> {
            let of_trial = |(number, trial): (usize, &Self)| {
                let shown = move |line: &String| match many {
                    true => format!("trial {}: {line}", number + 1),
                    false => line.clone(),
                };
                lines(trial).iter().map(shown).collect::<Vec<_>>()
            };
            trials.iter().enumerate().flat_map(of_trial).collect()
        };
        let (doubts, notes) = (of_all(|trial| &trial.doubts), of_all(|trial| &trial.notes));
        let kept_up = trials.iter().filter_map(|trial| trial.server_kept_up_ratio);
        let kept_up = kept_up.reduce(f64::min);
        let distorted: BTreeMap<String, [f64; 2]> =
            trials.iter().flat_map(|trial| trial.distorted.clone()).collect();
        let strain = |trial: &Self| (trial.doubts.len(), trial.held_up_s);
        let worst = trials.into_iter().max_by(|one, other| {
            strain(one).partial_cmp(&strain(other)).unwrap_or(std::cmp::Ordering::Equal)
        });
        let worst = worst.expect("a case has at least one trial");
        Self { doubts, notes, distorted, server_kept_up_ratio: kept_up, ..worst }
    }

    /// What `requests` under `load`, their statistics and the strain say about the measurement of what is
    /// asserted.
    pub fn new(
        load: &Load,
        requests: &[Counted],
        summary: &Summary,
        strain: &Strain,
        self_check: Option<&SelfCheck>,
        asserted: &Asserted,
    ) -> Self {
        let lags = Samples::exact(strain.loop_lags.iter().copied().map(as_ms).collect());
        let loop_lag_ms = LoopLag {
            p50: lags.statistic(Statistic::Percentile(50.0)),
            p99: (MIN_TICKS <= strain.loop_lags.len())
                .then(|| lags.statistic(Statistic::Percentile(99.0)))
                .flatten(),
            max: lags.statistic(Statistic::Max),
        };
        let records = || requests.iter().map(|(record, _)| record);
        let scheduled = load.is_open_loop();
        let share = |time: Option<Duration>| {
            let wall = Some(strain.wall.as_secs_f64()).filter(|wall| 0.0 < *wall)?;
            Some(time?.as_secs_f64() / wall)
        };
        let (cpu_share, waited_share) = (share(strain.cpu), share(strain.waited));
        let users_waited_share = match load {
            Load::Closed(_) => users_waited(requests, &strain.hold_ups),
            _ => None,
        };
        let kept_up = match scheduled {
            true => KeptUp::of(records()),
            false => KeptUp::Unknown,
        };
        let asked: Vec<Quantity> = [&asserted.figures[..], &asserted.others].concat();
        let mut distorted = distortions(&asked, requests, strain, asserted.goodput);
        distorted.retain(|(_, distortion)| distortion.matters(requests.len()));

        let (mut doubts, mut notes) = (Vec::new(), Vec::new());
        let asserts = !asserted.is_usual || MIN_REQUESTS_TO_ASSERT <= summary.completed;
        let (of_figures, of_others): (Vec<_>, Vec<_>) = distorted
            .iter()
            .copied()
            .partition(|(quantity, _)| asserts && asserted.figures.contains(quantity));
        doubts.extend(distortion_of(&of_figures, strain));
        let most = max_share(requests.len());
        let kept_waiting = users_waited_share.filter(|share| asserts && most < *share);
        doubts.extend(kept_waiting.map(kept_users_waiting));
        if scheduled {
            doubts.extend(late(summary, asserted));
        }
        if scheduled && load.max_concurrency().is_none() {
            doubts.extend(slower(requests));
        }
        if asserted.asserts(|latency| latency != Latency::Tpot && !is_of_gaps(latency)) {
            doubts.extend(self_check.and_then(|check| slow(check, summary)));
        }
        if MIN_TICKS <= strain.loop_lags.len() {
            doubts.extend(saturated(cpu_share, waited_share));
        }
        if MIN_SUSPENDED < strain.suspended {
            let told = suspended(strain.suspended);
            match share(Some(strain.suspended)).is_none_or(|share| most < share) {
                true => doubts.push(told),
                false => notes.push(told),
            }
        }
        if doubts.is_empty() {
            let of_others = distortion_of(&of_others, strain);
            notes.extend(of_others.or_else(|| held_up(strain, waited_share, most)));
        }
        let held_back = records().any(|record| record.scheduled < record.released);
        let cpu_s = strain.cpu.map(|cpu| cpu.as_secs_f64());
        let tokens = summary.tokens.output.unwrap_or_default() as f64;
        Self {
            bound: bound(load, held_back, kept_up, !doubts.is_empty()),
            doubts,
            notes,
            distorted: distorted
                .iter()
                .map(|(figure, it)| (figure.to_string(), [it.measured, it.without]))
                .collect(),
            server_kept_up_ratio: kept_up.share(),
            users_waited_share,
            requested_rate_per_s: rate(records().map(|record| record.scheduled))
                .filter(|_| scheduled),
            achieved_rate_per_s: rate(records().map(|record| record.sent)),
            cpu_share,
            waited_share,
            cpu_s_per_million_tokens: cpu_s.filter(|_| 0.0 < tokens).map(|s| s / tokens * 1e6),
            loop_lag_ms,
            held_up_s: held_up_for(strain).as_secs_f64(),
            suspended_s: strain.suspended.as_secs_f64(),
            throttled_periods: strain.throttled.map(|throttled| throttled.periods),
            throttled_s: strain.throttled.map(|throttled| throttled.time.as_secs_f64()),
        }
    }

    /// Why those of `metrics` that are distorted cannot be compared with other results; `None` where none is.
    pub fn distorts(&self, metrics: &[&str]) -> Option<String> {
        let distorted = metrics.iter().filter(|metric| self.distorted.contains_key(**metric));
        let distorted: Vec<&str> = distorted.copied().collect();
        (!distorted.is_empty()).then(|| {
            format!(
                "this client was held up and may have made too much of {}: {REMEDY}",
                distorted.join(", ")
            )
        })
    }
}

/// What to do about a client that is held up.
const REMEDY: &str = "give the client a processor of its own, raise the CPU limit of its container, or send \
                      less per process";

fn is_of_gaps(latency: Latency) -> bool {
    matches!(latency, Latency::ChunkGap | Latency::Itl)
}

fn held_up_for(strain: &Strain) -> Duration {
    strain.hold_ups.iter().map(|hold_up| hold_up.lag()).sum()
}

/// How often and how long the client was held up, and by what as far as that is known.
fn how_held_up(strain: &Strain) -> String {
    let longest = strain.hold_ups.iter().map(|hold_up| hold_up.lag()).max().unwrap_or_default();
    let mut told = format!(
        "the client's loop was held up {} times, for {:.2} s of {:.1} s and up to {:.0} ms at once",
        strain.hold_ups.len(),
        held_up_for(strain).as_secs_f64(),
        strain.wall.as_secs_f64(),
        as_ms(longest)
    );
    if let Some(throttled) = strain.throttled.filter(|throttled| 0 < throttled.periods) {
        told.push_str(&format!(
            " (its container's CPU limit stopped it in {} periods)",
            throttled.periods
        ));
    }
    told
}

/// The figures that the client may have distorted.
fn distortion_of(distorted: &[(Quantity, Distortion)], strain: &Strain) -> Option<String> {
    if distorted.is_empty() {
        return None;
    }
    let shown = |(quantity, it): &(Quantity, Distortion)| match quantity {
        Quantity::Latency(..) => {
            format!("{quantity} is {:.2} ms and may be {:.2} ms", it.measured, it.without)
        }
        _ => format!("{quantity} may be off by {:.0} %", it.share() * 100.0),
    };
    let mut figures: Vec<String> = distorted.iter().take(NAMED).map(shown).collect();
    if NAMED < distorted.len() {
        figures.push(format!("{} more", distorted.len() - NAMED));
    }
    Some(format!(
        "{}: what arrived meanwhile has one time; {} without that; {REMEDY}",
        how_held_up(strain),
        figures.join(", ")
    ))
}

/// The share of their time in which users waited for a client that was held up. A server that leaves its
/// response open behind the end mark makes them wait too, and that is not the client's.
fn users_waited(requests: &[Counted], hold_ups: &[HoldUp]) -> Option<f64> {
    let (mut waited, mut all) = (Duration::ZERO, Duration::ZERO);
    for (record, _) in requests {
        all += record.ended.saturating_sub(record.released.min(record.sent));
        let later = hold_ups.partition_point(|hold_up| hold_up.to <= record.released);
        for hold_up in hold_ups[later..].iter().take_while(|it| it.from < record.sent) {
            let from = hold_up.from.max(record.released);
            waited += hold_up.to.min(record.sent).saturating_sub(from);
        }
    }
    (!all.is_zero()).then(|| waited.div_duration_f64(all))
}

fn kept_users_waiting(share: f64) -> String {
    format!(
        "users waited {:.0} % of their time for this client, which was held up, to send their next \
         request: the load sent was not the one asked for; {REMEDY}",
        share * 100.0
    )
}

/// The loop has no time to spare.
fn saturated(cpu_share: Option<f64>, waited_share: Option<f64>) -> Option<String> {
    let percent = |share: Option<f64>| format!("{:.0} %", share.unwrap_or_default() * 100.0);
    let busy = cpu_share.unwrap_or_default() + waited_share.unwrap_or_default();
    (MAX_BUSY_SHARE < busy).then(|| {
        format!(
            "the client used {} of its processor and waited for one for {} of the run: it was the \
             bottleneck; {REMEDY}",
            percent(cpu_share),
            percent(waited_share)
        )
    })
}

fn suspended(time: Duration) -> String {
    format!(
        "the machine slept or was paused for {:.1} s, or its clock was set, while requests ran: measure again",
        time.as_secs_f64()
    )
}

/// What held the client up, where it changed no figure that is asserted.
fn held_up(strain: &Strain, waited_share: Option<f64>, most: f64) -> Option<String> {
    let at_once = strain.hold_ups.iter().any(|hold_up| HELD_UP_AT_ONCE < hold_up.lag());
    let share =
        held_up_for(strain).as_secs_f64() / strain.wall.as_secs_f64().max(f64::MIN_POSITIVE);
    if at_once || HELD_UP_SHARE < share {
        return Some(format!(
            "{}; no figure that is asserted can be off by more than {:.0} % for it",
            how_held_up(strain),
            most * 100.0
        ));
    }
    waited_share.filter(|waited| WAITED_SHARE < *waited).map(|waited| {
        format!(
            "the client waited for a processor for {:.0} % of the run; no figure that is asserted can be off \
             by more than {:.0} % for it",
            waited * 100.0,
            most * 100.0
        )
    })
}

fn late(summary: &Summary, asserted: &Asserted) -> Option<String> {
    let statistic = |latency, percent| {
        let samples = summary.latencies.get(&latency)?.as_ref().ok()?;
        samples.statistic(Statistic::Percentile(percent))
    };
    let lateness = statistic(Latency::Lateness, 99.0)?;
    let touchy = asserted.asserts(|latency| {
        !matches!(latency, Latency::E2e | Latency::ScheduledE2e | Latency::Tpot)
    });
    let latency = if touchy { Latency::Ttft } else { Latency::E2e };
    let of_latency = statistic(latency, 50.0).unwrap_or(0.0) * MAX_LATENESS_OF_LATENCY;
    (MAX_LATENESS_P99_MS.max(of_latency) < lateness).then(|| {
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

/// Requests left more slowly than the schedule has them. A handful of them, or a burst, has no rate.
fn slower(requests: &[Counted]) -> Option<String> {
    let records = || requests.iter().map(|(record, _)| record);
    let span = |time: fn(&RequestRecord) -> Duration| {
        let times = records().map(time);
        Some(times.clone().max()?.saturating_sub(times.min()?))
    };
    let (asked, took) = (span(|record| record.scheduled)?, span(|record| record.sent)?);
    let (requested, achieved) =
        (rate(records().map(|record| record.scheduled))?, rate(records().map(|it| it.sent))?);
    let is_slower = MIN_REQUESTS_OF_RATE <= requests.len()
        && asked + MIN_LATER < took
        && achieved < requested * (1.0 - MAX_RATE_ERROR);
    is_slower.then(|| {
        format!(
            "{achieved:.1} requests/s left and the schedule has {requested:.1}: the client could not \
             send so fast; lower the rate"
        )
    })
}

fn bound(load: &Load, held_back: bool, kept_up: KeptUp, doubted: bool) -> Bound {
    match load {
        _ if doubted => Bound::Client,
        Load::Infinite | Load::Search(_) => Bound::Server,
        Load::Closed(_) => Bound::Cap,
        Load::Open { .. } | Load::Staged(_) | Load::Trace { .. } if held_back => Bound::Cap,
        Load::Open { .. } | Load::Staged(_) | Load::Trace { .. } => match kept_up {
            KeptUp::With(share) if share < SERVER_KEEPS_UP => Bound::Server,
            // As good as all at once.
            KeptUp::Outlasted => Bound::Server,
            KeptUp::With(_) | KeptUp::Unknown => Bound::Rate,
        },
    }
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
    use crate::record::tests::{completed, ms};
    use crate::strain::Throttled;
    use crate::summary::tests::counted;

    fn asserted(figures: &[&str]) -> Asserted {
        let figures = figures.iter().map(|text| text.parse().unwrap()).collect();
        Asserted::new(figures, Vec::new(), None)
    }

    /// A hundred requests, 100 ms apart on the schedule, each `late_ms` after its time.
    fn requests(late_ms: impl Fn(u64) -> u64) -> Vec<Counted> {
        let request = |n: u64| {
            let mut record = completed(&[60, 70]);
            let (shift, late) = (ms(100 * n), ms(late_ms(n)));
            record.scheduled = shift;
            record.released = shift;
            record.sent = shift + late;
            record.ended = shift + late + ms(80);
            record.stream.chunks.delay(shift + late);
            counted(record, 2)
        };
        (0..100).map(request).collect()
    }

    fn held_up(from: u64, to: u64) -> HoldUp {
        HoldUp { from: ms(from), due: ms(from + 5), to: ms(to) }
    }

    fn strain(hold_ups: &[HoldUp]) -> Strain {
        let lags = hold_ups.iter().map(|hold_up| hold_up.lag());
        Strain {
            wall: Duration::from_secs(10),
            cpu: Some(Duration::from_secs(1)),
            waited: Some(Duration::ZERO),
            kernel_stamps: 1000,
            loop_lags: lags.chain(vec![ms(1); 1000]).collect(),
            hold_ups: hold_ups.to_vec(),
            ..Strain::default()
        }
    }

    fn validity(load: &str, requests: &[Counted], strain: &Strain, figures: &[&str]) -> Validity {
        let summary = Summary::new(requests, None);
        Validity::new(&load.parse().unwrap(), requests, &summary, strain, None, &asserted(figures))
    }

    #[test]
    fn a_run_on_time_is_believed_and_bound_by_its_rate() {
        let validity = validity("10qps", &requests(|_| 0), &strain(&[]), &[]);
        assert_eq!((validity.bound, &validity.doubts[..]), (Bound::Rate, &[][..]));
        assert_eq!(validity.requested_rate_per_s.map(f64::round), Some(10.0));
        assert_eq!(validity.cpu_share, Some(0.1));
        assert_eq!(validity.cpu_s_per_million_tokens, Some(5000.0));
        assert_eq!(validity.server_kept_up_ratio, Some(1.0));
    }

    #[test]
    fn a_hold_up_is_weighed_against_the_figures_that_are_asserted() {
        // Both tokens of each request in one read: the first is stamped 10 ms late.
        let mut glued = requests(|_| 0);
        for (record, _) in &mut glued {
            let last = record.stream.chunks.last_at().unwrap();
            record.stream.chunks.edit(|_, chunk| chunk.at = last);
        }
        let hold_ups: Vec<HoldUp> = (0..100).map(|n| held_up(100 * n + 55, 100 * n + 75)).collect();
        for (figures, doubted) in [
            (&["ttft.p50"][..], true),
            (&["e2e.p50", "output_throughput"], false),
            (&["error_ratio"], true),
            (&[], true),
        ] {
            let validity = validity("10qps", &glued, &strain(&hold_ups), figures);
            let doubts = &validity.doubts;
            assert_eq!(!doubts.is_empty(), doubted, "{figures:?}: {doubts:?}");
            assert_eq!(validity.bound == Bound::Client, doubted);
            if doubted {
                assert!(doubts[0].contains("held up 100 times"), "{doubts:?}");
                assert!(doubts[0].contains("ttft.p50 is 70.00 ms and may be"), "{doubts:?}");
            } else {
                assert!(validity.notes[0].contains("held up 100 times"), "{:?}", validity.notes);
            }
            assert!(validity.distorts(&["e2e.p50", "ttft.p50"]).unwrap().contains("of ttft.p50:"));
            assert_eq!(validity.distorts(&["e2e.p50"]), None);
        }
    }

    #[test]
    fn a_loop_that_lags_behind_a_server_that_queues_for_seconds_is_no_doubt() {
        let mut slow = requests(|_| 0);
        for (record, _) in &mut slow {
            *record = record.clone();
            record.stream.chunks.delay(ms(35_000));
            record.ended += ms(35_000);
        }
        let hold_ups: Vec<HoldUp> = (0..1000).map(|n| held_up(50 * n, 50 * n + 20)).collect();
        let validity = validity("10qps", &slow, &strain(&hold_ups), &["ttft.p50", "e2e.p99"]);
        assert!(validity.doubts.is_empty(), "{:?}", validity.doubts);
        assert_ne!(validity.bound, Bound::Client);
        assert_eq!(validity.server_kept_up_ratio, None, "answers outlast the arrivals");
    }

    #[test]
    fn users_who_wait_for_a_client_that_was_stopped_are_another_load() {
        // One user, whose requests take 80 ms; it is stopped for 2 s in the 50th.
        let mut at = 0;
        let mut of_user = |stop: u64| -> Vec<Counted> {
            at = 0;
            (0..100)
                .map(|n| {
                    let mut record = completed(&[50, 80]);
                    record.sent = Duration::ZERO;
                    record.ended = ms(80);
                    let stopped = if n == 50 { stop } else { 0 };
                    (record.scheduled, record.released) = (ms(at), ms(at));
                    record.sent = ms(at + stopped);
                    record.ended = ms(at + stopped + 80);
                    let after = [50, 80];
                    record
                        .stream
                        .chunks
                        .edit(|number, chunk| chunk.at = ms(at + stopped + after[number]));
                    at += stopped + 80;
                    counted(record, 2)
                })
                .collect()
        };
        for (stop, doubted) in [(2000, true), (200, false), (0, false)] {
            let requests = of_user(stop);
            let hold_ups = [held_up(3995, 4000 + stop)];
            let strain = strain(if stop == 0 { &[] } else { &hold_ups });
            let validity = validity("1conc", &requests, &strain, &["ttft.p50"]);
            let share = validity.users_waited_share.unwrap();
            assert!((share - stop as f64 / (8000 + stop) as f64).abs() < 0.01, "{stop}: {share}");
            assert_eq!(!validity.doubts.is_empty(), doubted, "{stop}: {:?}", validity.doubts);
            assert_eq!(!validity.notes.is_empty(), stop == 200, "{:?}", validity.notes);
            // Who is not held up waits for the server.
            assert_eq!(users_waited(&requests, &[]), Some(0.0));
        }
    }

    #[test]
    fn a_machine_that_slept_is_doubted_where_it_slept_for_long() {
        for (slept, doubts, notes) in [(50, 0, 0), (300, 0, 1), (2000, 1, 0)] {
            let strain = Strain { suspended: ms(slept), ..strain(&[]) };
            let validity = validity("8conc", &requests(|_| 0), &strain, &[]);
            assert_eq!((validity.doubts.len(), validity.notes.len()), (doubts, notes), "{slept}");
        }
    }

    #[test]
    fn a_client_without_time_to_spare_is_doubted() {
        assert_eq!(saturated(Some(0.5), Some(0.3)), None);
        assert_eq!(saturated(None, None), None);
        let starved = saturated(Some(0.5), Some(0.45)).unwrap();
        assert!(starved.contains("waited for one for 45 % of the run"), "{starved}");
        let busy = saturated(Some(0.97), Some(0.01)).unwrap();
        assert!(busy.contains("used 97 % of its processor"), "{busy}");
        let strain = Strain { waited: Some(Duration::from_secs(4)), ..strain(&[]) };
        let validity = validity("8conc", &requests(|_| 0), &strain, &[]);
        assert!(validity.doubts.is_empty(), "{:?}", validity.doubts);
        assert!(validity.notes[0].contains("for 40 % of the run"), "{:?}", validity.notes);
    }

    #[test]
    fn a_quota_that_stopped_the_client_is_told() {
        let throttled = Throttled { periods: 40, time: ms(900) };
        let strain = Strain { throttled: Some(throttled), ..strain(&[held_up(0, 300)]) };
        let validity = validity("8conc", &requests(|_| 0), &strain, &["e2e.p50"]);
        assert!(validity.notes[0].contains("CPU limit stopped it in 40 periods"), "{validity:?}");
        assert_eq!((validity.throttled_periods, validity.throttled_s), (Some(40), Some(0.9)));
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
        for (figures, doubted) in [(&["ttft.p99"][..], true), (&["tpot.mean", "itl.p99"], false)] {
            let load = "8conc".parse().unwrap();
            let (strain, asserted) = (strain(&[]), asserted(figures));
            let check = check(5.1);
            let of = Validity::new(&load, &requests, &summary, &strain, Some(&check), &asserted);
            assert_eq!(!of.doubts.is_empty(), doubted, "{figures:?}");
        }
    }

    #[test]
    fn a_load_that_was_not_sent_is_doubted() {
        let validity = validity("10qps", &requests(|n| n * 10), &strain(&[]), &[]);
        assert_eq!(validity.bound, Bound::Client);
        assert!(validity.doubts[0].contains("after their time"), "{:?}", validity.doubts);
        assert!(validity.doubts[1].contains("9.1 requests/s left"), "{:?}", validity.doubts);
    }

    #[test]
    fn a_burst_or_a_handful_of_requests_has_no_rate_and_who_sent_faster_was_not_too_slow() {
        let at = |times_us: &[(u64, u64)]| -> Vec<Counted> {
            let request = |&(scheduled, sent): &(u64, u64)| {
                let mut record = completed(&[60, 70]);
                record.scheduled = Duration::from_micros(scheduled);
                record.released = record.scheduled;
                record.sent = Duration::from_micros(sent);
                counted(record, 2)
            };
            times_us.iter().map(request).collect()
        };
        let burst: Vec<(u64, u64)> = (0..100).map(|n| (200 * n, 400 * n)).collect();
        let faster: Vec<(u64, u64)> = (0..100).map(|n| (10_000 * n, 5_000 * n + 500_000)).collect();
        let slower: Vec<(u64, u64)> = (0..100).map(|n| (10_000 * n, 11_000 * n)).collect();
        for (times, doubted) in [
            (&[(0, 80), (200, 120), (400, 440), (600, 150)][..], false),
            (&burst, false),
            (&faster, false),
            (&slower, true),
            (&slower[..19], false),
        ] {
            assert_eq!(slower_is_told(&at(times)), doubted, "{:?}", &times[..4]);
        }
    }

    fn slower_is_told(requests: &[Counted]) -> bool {
        slower(requests).is_some_and(|doubt| doubt.contains("could not send so fast"))
    }

    #[test]
    fn users_and_everything_at_once_have_no_schedule_to_miss() {
        let requests = requests(|n| n * 10);
        assert!(validity("8conc", &requests, &strain(&[]), &[]).doubts.is_empty());
        let validity = validity("inf", &requests, &strain(&[]), &[]);
        assert!(validity.doubts.is_empty());
        assert_eq!((validity.bound, validity.requested_rate_per_s), (Bound::Server, None));
    }

    #[test]
    fn trials_have_the_doubts_of_all_and_the_least_with_which_the_server_kept_up() {
        let of = |late: u64| validity("10qps", &requests(|_| late), &strain(&[]), &[]);
        let mut slower = of(0);
        slower.server_kept_up_ratio = Some(0.5);
        let worst = Validity::worst_of(vec![of(0), of(50), slower]);
        assert_eq!(worst.server_kept_up_ratio, Some(0.5));
        assert!(worst.doubts[0].starts_with("trial 2: requests left"), "{:?}", worst.doubts);
    }
}
