//! The steady state of a run: the window in which neither its beginning nor its end shows, the figures of
//! that window, and whether there is a trend in it. Pure.
//!
//! **The window of a closed loop** is the longest time in which at least 95 % of its users have a request
//! due or in flight, less its beginning: the users begin together, so that it counts from when half of the
//! requests in flight at its beginning have ended. It leaves out the ramp, the first burst of prompts,
//! and the end, in which users have nothing more to send and stragglers run alone. A cap that requests
//! wait for most of the time makes a closed loop of an open one.
//!
//! **The window of an open loop** lasts until the last request was sent, from when as many requests are in
//! flight as there are for three quarters of the time in which requests were sent. There is no level to
//! hold here: what is in flight varies by nature, and grows without bound where the server cannot keep up. It
//! is the lower quartile and not the median since the median would leave out the first half of
//! what grows, and with it half of the evidence.
//!
//! There is no window where everything is sent at once or the plan changes the rate, where the window is
//! under 25 % of the time in which requests were sent, or where fewer than 80 requests that were sent in it
//! completed. Its length is not held against that of the run, since a single straggler makes the run as
//! long as it likes.
//!
//! **A request counts** where it was sent in the window, failed or not; rates count what happened in the
//! window, whenever the request was sent. The window holds its first moment and not its last.
//!
//! **The trend.** Requests share a queue, so that each resembles the one before, and a test for a trend
//! among single requests nearly always finds one. So the window is cut into 20 batches (the method of
//! batch means), and the test of Mann and Kendall asks whether their medians, or the mean numbers in flight,
//! rise or fall. The run is not steady where one of them does beyond chance (p < 0.0005) and by more than
//! 10 % of its median over the window.
//!
//! Batches of a short run still resemble each other, which is what the level is so low for. Of 1000
//! simulated runs of 100, 200 and 500 requests it calls unsteady, in percent of those with a window (30 %
//! of the overloads of 100 requests have none):
//!
//! | queue | load | 100 | 200 | 500 |
//! | --- | --- | --- | --- | --- |
//! | M/M/1 | 0.7 | 3.8 | 1.0 | 0.0 |
//! | M/M/8 | 0.7 | 4.4 | 1.3 | 0.3 |
//! | M/D/8 | 0.7 | 0.6 | 0.2 | 0.0 |
//! | M/M/1 | 0.9 | 20 | 13 | 6.4 |
//! | M/D/8 | 0.9 | 13 | 9.5 | 3.5 |
//! | M/M/1 | 1.3 | 79 | 88 | 99 |
//! | M/D/8 | 1.3 | 91 | 98 | 100 |
//!
//! A queue near its limit wanders for longer than a short run lasts, and the figures of such a run do
//! depend on its length. To widen the test's variance by the correlation of the batches was tried: at the same
//! rate of false alarms it finds fewer overloads. A single step in the middle of a window is no trend and
//! may be missed.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::as_ms;
use crate::load::Load;
use crate::metric::Statistic;
use crate::record::{Completed, RequestRecord};
use crate::samples::Samples;
use crate::summary::{Counted, too_few};
use crate::tokens::RequestTokens;

/// A closed loop is at its height while this share of its users is at work.
const FULL: f64 = 0.95;
/// A window under this share of the time in which requests were sent says little about them.
const MIN_SHARE: f64 = 0.25;
/// Into so many batches the window is cut. With fewer, the test finds less at the same rate of false alarms.
const BATCHES: usize = 20;
/// With fewer requests a batch, a steady queue is called unsteady too often.
const MIN_REQUESTS: usize = 4 * BATCHES;
/// From this p-value on, a trend is chance. See the module's documentation for why it is so low.
const MAX_P_VALUE: f64 = 5e-4;
/// A drift over the window of less than this share of the median is of no interest.
const MIN_DRIFT: f64 = 0.1;
/// Independent arrivals that nothing holds up are a Poisson number in flight, whose standard deviation is
/// the root of its mean; a drift within so many of them is chance, however steadily it rises.
const IN_FLIGHT_DEVIATIONS: f64 = 3.0;

/// The figures of a run's steady state.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SteadyState {
    /// Where the window begins, from the start of the case.
    #[serde(rename = "from_s", with = "seconds")]
    #[schemars(with = "f64")]
    pub from: Duration,
    /// Where it ends.
    #[serde(rename = "to_s", with = "seconds")]
    #[schemars(with = "f64")]
    pub to: Duration,
    /// Its share of the time from the first `sent` to the last `ended`.
    pub share_of_run: f64,
    /// Requests sent in the window. The latencies are of these.
    pub requests: u64,
    /// Those that completed.
    pub completed: u64,
    /// Those that failed: they have no latency.
    pub failed: u64,
    /// Requests in flight, weighted by time.
    pub mean_in_flight: f64,
    /// Requests a second that ended in the window and completed.
    pub request_throughput_per_s: f64,
    /// Generated tokens a second that arrived in the window, of completed requests. A request's tokens are
    /// spread evenly over its chunks where the server does not count those of each.
    pub output_throughput_tok_per_s: f64,
    /// Time to first token; empty where an answer came in one block.
    pub ttft: LatencyFigures,
    /// Time per output token after the first chunk; empty where an answer came in one block.
    pub tpot: LatencyFigures,
    /// Time to the last event with output.
    pub e2e: LatencyFigures,
    /// What was tested for a trend.
    pub trends: Vec<Trend>,
    /// None of them has one.
    pub steady: bool,
}

/// One latency of the requests sent in the window; `null` where there are too few.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyFigures {
    /// How many samples.
    pub count: u64,
    /// The mean.
    pub mean_ms: Option<f64>,
    /// The median.
    pub p50_ms: Option<f64>,
    /// The 99th percentile.
    pub p99_ms: Option<f64>,
}

/// Whether something rose or fell over the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trend {
    /// What.
    pub quantity: Trending,
    /// How far it went over the window, as a share of its median; negative where it fell. `null` where
    /// the median is 0.
    pub drift_ratio: Option<f64>,
    /// How probable so clear a trend is by chance, were the batches independent.
    pub p_value: f64,
    /// It did neither.
    pub steady: bool,
}

/// What is tested for a trend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trending {
    /// Time to first token: it grows with the queue in front of the server.
    Ttft,
    /// Time per output token: it grows with what the server does at once, and does not depend on the lengths
    /// of answers or on the queue.
    Tpot,
    /// Time to the last event with output, where an answer came in one block.
    E2e,
    /// Requests in flight; of an open loop, since in a closed one they cannot grow.
    InFlight,
}

impl fmt::Display for Trending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttft => "TTFT",
            Self::Tpot => "TPOT",
            Self::E2e => "E2E",
            Self::InFlight => "the number in flight",
        })
    }
}

impl SteadyState {
    /// The steady state of `requests`, which were sent under `load`; or why there is none.
    pub fn new(requests: &[Counted], load: &Load) -> Result<Self, String> {
        let flights: Vec<Span> = requests.iter().map(|(record, _)| flight(record)).collect();
        let sending = sending(requests).ok_or("nothing was sent")?;
        let (window, held) = window(requests, &flights, sending, load)?;
        let mut begun: Vec<&Counted> =
            requests.iter().filter(|(record, _)| window.holds(record.sent)).collect();
        begun.sort_by_key(|(record, _)| record.sent);
        let completed: Vec<View<'_>> = begun.iter().copied().filter_map(view).collect();
        long_enough(window, sending, completed.len())?;

        let streamed = !completed.iter().any(|(view, _)| view.record().stream.one_block);
        let ms = |read: &dyn Fn(&View<'_>) -> Option<Duration>| -> Vec<f64> {
            completed.iter().filter_map(read).map(as_ms).collect()
        };
        let of_stream = |read: &dyn Fn(&View<'_>) -> Option<Duration>| {
            if streamed { ms(read) } else { Vec::new() }
        };
        let ttft = of_stream(&|(view, _)| Some(view.ttft()));
        let tpot = of_stream(&|(view, tokens)| view.tpot(tokens.streamed()?));
        let e2e = ms(&|(view, _)| Some(view.e2e()));

        let mut trends = Vec::new();
        trends.extend(Trend::of_latency(Trending::Ttft, &ttft));
        trends.extend(Trend::of_latency(Trending::Tpot, &tpot));
        if !streamed {
            trends.extend(Trend::of_latency(Trending::E2e, &e2e));
        }
        if !held {
            trends.push(Trend::of_in_flight(&flights, window));
        }

        let run_end = flights.iter().map(|flight| flight.to).max().unwrap_or_default();
        let run = Span { from: sending.from, to: run_end };
        let all = || requests.iter().filter_map(view);
        let ended = all().filter(|(view, _)| window.holds(view.record().ended)).count();
        let tokens: f64 = all().map(|view| tokens_within(view, window)).sum();
        let length_s = window.length().as_secs_f64();
        Ok(Self {
            from: window.from,
            to: window.to,
            share_of_run: window.overlap(run).div_duration_f64(run.length()),
            requests: begun.len() as u64,
            completed: completed.len() as u64,
            failed: (begun.len() - completed.len()) as u64,
            mean_in_flight: mean_in_flight(&flights, window),
            request_throughput_per_s: ended as f64 / length_s,
            output_throughput_tok_per_s: tokens / length_s,
            ttft: LatencyFigures::of(ttft),
            tpot: LatencyFigures::of(tpot),
            e2e: LatencyFigures::of(e2e),
            steady: trends.iter().all(|trend| trend.steady),
            trends,
        })
    }

    /// The line for below the table.
    pub fn line(&self) -> String {
        let s = |at: Duration| at.as_secs_f64();
        let (from, to) = (s(self.from), s(self.to));
        if !self.steady {
            let trends = self.trends.iter().filter(|trend| !trend.steady);
            let trends: Vec<String> = trends.map(Trend::to_string).collect();
            let trends = trends.join(" and ");
            return format!("steady   no: from {from:.1} s to {to:.1} s, {trends}");
        }
        let ms = |value: Option<f64>| {
            value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.2} ms"))
        };
        let (name, latency) =
            if self.ttft.count == 0 { ("E2E", self.e2e) } else { ("TTFT", self.ttft) };
        format!(
            "steady   from {from:.1} s to {to:.1} s ({:.0} % of the run), {:.1} in flight: {name} p50 {}, \
             p99 {}; {:.1} tok/s",
            self.share_of_run * 100.0,
            self.mean_in_flight,
            ms(latency.p50_ms),
            ms(latency.p99_ms),
            self.output_throughput_tok_per_s,
        )
    }

    /// What a reader of the figures of a run that was not steady should know.
    pub fn warning(&self) -> Option<String> {
        (!self.steady).then(|| {
            "the run was not steady: its figures depend on how long it lasts; lower the load, warm up, or \
             run longer"
                .to_owned()
        })
    }
}

impl LatencyFigures {
    fn of(samples_ms: Vec<f64>) -> Self {
        let samples = Samples::exact(samples_ms);
        let count = samples.count();
        let figure = |statistic| match too_few(statistic, count) {
            Some(_) => None,
            None => samples.statistic(statistic),
        };
        Self {
            count,
            mean_ms: figure(Statistic::Mean),
            p50_ms: figure(Statistic::Percentile(50.0)),
            p99_ms: figure(Statistic::Percentile(99.0)),
        }
    }
}

impl Trend {
    /// The trend of a latency in the order of sending; `None` where there are too few samples.
    fn of_latency(quantity: Trending, samples: &[f64]) -> Option<Self> {
        let bound = |batch: usize| batch * samples.len() / BATCHES;
        let medians = (0..BATCHES).map(|n| median(samples[bound(n)..bound(n + 1)].to_vec()));
        (MIN_REQUESTS <= samples.len())
            .then(|| Self::new(quantity, &medians.collect::<Vec<_>>(), 0.0))
    }

    fn of_in_flight(flights: &[Span], window: Span) -> Self {
        let step = window.length() / BATCHES as u32;
        let batch =
            |n: u32| Span { from: window.from + step * n, to: window.from + step * (n + 1) };
        let means: Vec<f64> =
            (0..BATCHES as u32).map(|n| mean_in_flight(flights, batch(n))).collect();
        let chance = IN_FLIGHT_DEVIATIONS * median(means.clone()).sqrt();
        Self::new(Trending::InFlight, &means, chance)
    }

    /// The trend of the batches, of which a drift up to `chance` is none.
    fn new(quantity: Trending, batches: &[f64], chance: f64) -> Self {
        let p_value = mann_kendall(batches);
        let drift = theil_sen(batches) * batches.len() as f64;
        let median = median(batches.to_vec());
        let large = (MIN_DRIFT * median).max(chance) < drift.abs();
        Self {
            quantity,
            drift_ratio: (0.0 < median).then(|| drift / median),
            p_value,
            steady: !(large && p_value < MAX_P_VALUE),
        }
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quantity, drift_ratio, p_value, .. } = self;
        write!(f, "{quantity} ")?;
        match drift_ratio {
            Some(ratio) => {
                let way = if *ratio < 0.0 { "falls" } else { "rises" };
                write!(f, "{way} by {:.0} % of its median", ratio.abs() * 100.0)?;
            }
            None => f.write_str("does not stay")?,
        }
        match p_value {
            p if *p < 1e-4 => f.write_str(" (p < 0.0001)"),
            p => write!(f, " (p = {p:.4})"),
        }
    }
}

/// A completed request with its token counts.
type View<'a> = (Completed<'a>, RequestTokens);

fn view((record, tokens): &Counted) -> Option<View<'_>> {
    Some((record.completed()?, *tokens))
}

/// A time that holds its first moment and not its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: Duration,
    to: Duration,
}

impl Span {
    fn length(self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    fn holds(self, at: Duration) -> bool {
        (self.from..self.to).contains(&at)
    }

    fn overlap(self, other: Self) -> Duration {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }.length()
    }
}

/// The time in which the request was in flight.
fn flight(record: &RequestRecord) -> Span {
    Span { from: record.sent, to: record.ended.max(record.sent) }
}

/// The time in which somebody waited for the request: that in which it was in flight, and that between it
/// being due and sent. A user of a closed loop has no gap between its requests here.
fn wait(record: &RequestRecord) -> Span {
    Span { from: record.scheduled.min(record.sent), ..flight(record) }
}

/// From the first request sent to the last.
fn sending(requests: &[Counted]) -> Option<Span> {
    let sent = requests.iter().map(|(record, _)| record.sent);
    Some(Span { from: sent.clone().min()?, to: sent.max()? })
}

/// The window, and whether the number of requests in flight was held in it.
fn window(
    requests: &[Counted],
    flights: &[Span],
    sending: Span,
    load: &Load,
) -> Result<(Span, bool), String> {
    if matches!(load, Load::Infinite) || sending.length().is_zero() {
        return Err("everything was sent at once".to_owned());
    }
    if matches!(load, Load::Staged(_)) {
        return Err("the plan changes the rate".to_owned());
    }
    if matches!(load, Load::Trace { .. }) {
        return Err("the trace changes the rate".to_owned());
    }
    let in_flight = levels(flights);
    let usual = level_at(&in_flight, sending, 0.5);
    let full = |places: usize| FULL * places as f64;
    let places = load.max_concurrency();
    let held =
        places.filter(|places| matches!(load, Load::Closed(_)) || full(*places) <= usual as f64);
    let Some(places) = held else {
        let least = level_at(&in_flight, sending, 0.25);
        let reached = in_flight.iter().find(|(_, level)| least <= *level);
        let from = reached.map_or(sending.to, |(at, _)| *at);
        return Ok((Span { from, to: sending.to }, false));
    };
    let waits: Vec<Span> = requests.iter().map(|(record, _)| wait(record)).collect();
    let span = longest_at(&levels(&waits), full(places)).ok_or_else(|| {
        format!("fewer than {:.0} % of the {places} users were ever at work", FULL * 100.0)
    })?;
    let from = half_ended(&waits, span.from).min(span.to);
    Ok((Span { from, ..span }, true))
}

fn long_enough(window: Span, sending: Span, completed: usize) -> Result<(), String> {
    let share = window.overlap(sending).div_duration_f64(sending.length());
    if share < MIN_SHARE {
        return Err(format!(
            "its window is {:.1} % of the time in which requests were sent, and must be {:.0} %",
            share * 100.0,
            MIN_SHARE * 100.0
        ));
    }
    if completed < MIN_REQUESTS {
        return Err(format!(
            "of the requests sent in its window {completed} completed, and it takes {MIN_REQUESTS}"
        ));
    }
    Ok(())
}

/// How many of the spans hold each moment: each moment at which that may change, in order, and how many
/// do from then on.
fn levels(spans: &[Span]) -> Vec<(Duration, usize)> {
    let mut begins: Vec<Duration> = spans.iter().map(|span| span.from).collect();
    let mut ends: Vec<Duration> = spans.iter().map(|span| span.to).collect();
    begins.sort_unstable();
    ends.sort_unstable();
    let mut moments = [&begins[..], &ends[..]].concat();
    moments.sort_unstable();
    moments.dedup();
    let until = |times: &[Duration], at| times.partition_point(|time| *time <= at);
    moments.into_iter().map(|at| (at, until(&begins, at) - until(&ends, at))).collect()
}

/// The level that is not exceeded for this share of the time in `span`.
fn level_at(levels: &[(Duration, usize)], span: Span, share: f64) -> usize {
    let mut lasting: Vec<(usize, Duration)> = levels
        .windows(2)
        .map(|pair| (pair[0].1, Span { from: pair[0].0, to: pair[1].0 }.overlap(span)))
        .collect();
    lasting.sort_unstable();
    let mut rest = span.length().mul_f64(share);
    for (level, time) in lasting {
        if rest <= time {
            return level;
        }
        rest -= time;
    }
    0
}

/// The longest span whose level is never below `least`.
fn longest_at(levels: &[(Duration, usize)], least: f64) -> Option<Span> {
    let mut spans = Vec::new();
    let mut since = None;
    for (at, level) in levels {
        if least <= *level as f64 {
            since = since.or(Some(*at));
        } else if let Some(from) = since.take() {
            spans.push(Span { from, to: *at });
        }
    }
    spans.into_iter().max_by_key(|span| span.length())
}

/// When half of the spans that hold `at` have ended.
fn half_ended(spans: &[Span], at: Duration) -> Duration {
    let mut ends: Vec<Duration> =
        spans.iter().filter(|span| span.holds(at)).map(|span| span.to).collect();
    ends.sort_unstable();
    ends.get(ends.len().saturating_sub(1) / 2).copied().unwrap_or(at)
}

/// In whole nanoseconds, so that it is exact.
fn mean_in_flight(flights: &[Span], window: Span) -> f64 {
    let nanos: u128 = flights.iter().map(|flight| flight.overlap(window).as_nanos()).sum();
    if window.length().is_zero() {
        return 0.0;
    }
    nanos as f64 / window.length().as_nanos() as f64
}

/// The request's tokens that arrived in the window.
fn tokens_within((view, tokens): View<'_>, window: Span) -> f64 {
    let arrivals = tokens.arrivals(view.record());
    arrivals.filter(|(at, _)| window.holds(*at)).map(|(_, tokens)| tokens).sum()
}

/// 0 where there is no value.
fn median(values: Vec<f64>) -> f64 {
    Samples::exact(values).statistic(Statistic::Percentile(50.0)).unwrap_or(0.0)
}

/// The pairs of values, the earlier one first, and how far they are apart.
fn pairs(values: &[f64]) -> impl Iterator<Item = (f64, f64, f64)> {
    values.iter().enumerate().flat_map(move |(i, earlier)| {
        let later = values[i + 1..].iter().zip(1_u32..);
        later.map(move |(later, apart)| (*earlier, *later, f64::from(apart)))
    })
}

/// The two-sided p-value of the Mann-Kendall test for a trend (H. B. Mann, "Nonparametric tests against
/// trend", Econometrica 13, 1945), by the normal approximation with continuity correction, its variance
/// corrected for ties (M. G. Kendall, "Rank correlation methods", 4th edition, 1975). 1 where all are equal.
fn mann_kendall(values: &[f64]) -> f64 {
    // Pairs that rise, less pairs that fall.
    let score: f64 = pairs(values)
        .map(|(earlier, later, _)| match later.total_cmp(&earlier) {
            std::cmp::Ordering::Less => -1.0,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => 1.0,
        })
        .sum();
    let term = |n: usize| n as f64 * (n as f64 - 1.0) * (2.0 * n as f64 + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let ties = sorted.chunk_by(|a, b| a.total_cmp(b).is_eq());
    let variance = (term(values.len()) - ties.map(|tie| term(tie.len())).sum::<f64>()) / 18.0;
    if variance <= 0.0 {
        return 1.0;
    }
    let z = (score.abs() - 1.0).max(0.0) / variance.sqrt();
    libm::erfc(z / std::f64::consts::SQRT_2)
}

/// The Theil-Sen slope: the median of the slopes of all pairs (P. K. Sen, "Estimates of the regression
/// coefficient based on Kendall's tau", JASA 63, 1968). Per step from a value to the next.
fn theil_sen(values: &[f64]) -> f64 {
    median(pairs(values).map(|(earlier, later, apart)| (later - earlier) / apart).collect())
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;

    use super::*;
    use crate::load::{Stage, Stages};
    use crate::record::tests::{completed, failed, ms};
    use crate::record::{Chunk, Failure};
    use crate::summary::tests::counted;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn load(text: &str) -> Load {
        text.parse().unwrap()
    }

    /// A request sent when it was due, with a token in each chunk; `chunks` count from `sent`.
    fn request(sent: Duration, chunks: &[Duration]) -> Counted {
        let mut record = completed(&[]);
        (record.scheduled, record.released, record.sent) = (sent, sent, sent);
        record.stream.chunks =
            chunks.iter().map(|&after| Chunk { at: sent + after, tokens: None }).collect();
        record.ended = sent + *chunks.last().unwrap();
        counted(record, chunks.len() as u32)
    }

    fn fail(request: &mut Counted) {
        request.0.outcome = failed(Failure::Timeout).outcome;
    }

    /// Each user sends its next request when the last has ended; the `n`th takes `chunks(n)`.
    fn closed_loop(
        starts: &[Duration],
        requests: usize,
        chunks: impl Fn(usize) -> Vec<Duration>,
    ) -> Vec<Counted> {
        let mut free: BinaryHeap<Reverse<Duration>> = starts.iter().copied().map(Reverse).collect();
        let one = |n| {
            let Reverse(sent) = free.pop().unwrap();
            let request = request(sent, &chunks(n));
            free.push(Reverse(request.0.ended));
            request
        };
        (0..requests).map(one).collect()
    }

    fn exponential(rng: &mut ChaCha12Rng) -> f64 {
        -(1.0 - rng.random::<f64>()).ln()
    }

    /// Poisson arrivals at `rate` times the capacity of `servers` that take 1 s on average, first come first
    /// served; TTFT is the wait and a tenth of the service.
    fn queue(seed: u64, requests: usize, servers: usize, rate: f64, random: bool) -> Vec<Counted> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut free: BinaryHeap<Reverse<Duration>> = vec![Reverse(Duration::ZERO); servers].into();
        let mut now = Duration::ZERO;
        let one = |_| {
            now += s(exponential(&mut rng) / (rate * servers as f64));
            let Reverse(free_at) = free.pop().unwrap();
            let service = s(if random { exponential(&mut rng) } else { 1.0 });
            let begun = free_at.max(now);
            free.push(Reverse(begun + service));
            let wait = begun - now;
            request(now, &[wait + service / 10, wait + service])
        };
        (0..requests).map(one).collect()
    }

    /// The share of seeds whose run is called unsteady.
    fn unsteady(seeds: u64, run: impl Fn(u64) -> Vec<Counted>) -> f64 {
        let called =
            (0..seeds).filter(|&seed| !SteadyState::new(&run(seed), &load("1qps")).unwrap().steady);
        called.count() as f64 / seeds as f64
    }

    #[test]
    fn the_window_of_a_closed_loop_leaves_out_the_ramp_and_the_straggler() {
        // Four users, one more each second, and requests of a second. The last of them takes 100.
        let starts = [0, 1, 2, 3].map(Duration::from_secs);
        let requests = closed_loop(&starts, 200, |n| {
            let gap = if n == 199 { Duration::from_secs(10) } else { ms(100) };
            (1..=10).map(|k| gap * k).collect()
        });
        let steady = SteadyState::new(&requests, &load("4conc")).unwrap();
        assert_eq!((steady.from, steady.to), (s(4.0), s(51.0)));
        assert_eq!((steady.requests, steady.completed, steady.failed), (188, 188, 0));
        assert_eq!(steady.share_of_run, 47.0 / 151.0);
        assert_eq!(steady.mean_in_flight, 4.0);
        assert_eq!(steady.request_throughput_per_s, 4.0);
        assert!((steady.output_throughput_tok_per_s - 40.0).abs() < 1e-9, "{steady:?}");
        assert_eq!(steady.e2e.p99_ms, Some(1000.0));
        assert_eq!(
            steady.line(),
            "steady   from 4.0 s to 51.0 s (31 % of the run), 4.0 in flight: TTFT p50 100.00 ms, \
             p99 100.00 ms; 40.0 tok/s"
        );
    }

    #[test]
    fn the_first_burst_of_prompts_is_not_in_the_window() {
        let starts: Vec<Duration> = (0..8).map(|user| ms(user) / 5).collect();
        let requests = closed_loop(&starts, 120, |n| {
            let ttft = ms(if n < 8 { 2000 + 100 * n as u64 } else { 100 });
            vec![ttft, ttft + s(1.0)]
        });
        let steady = SteadyState::new(&requests, &load("8conc")).unwrap();
        assert_eq!(steady.ttft.p99_ms, Some(100.0), "{steady:?}");
        assert_eq!(steady.from, requests[3].0.ended, "half of the burst has ended");
    }

    #[test]
    fn a_client_that_is_late_does_not_end_the_window_and_shows_in_what_was_in_flight() {
        let mut requests = closed_loop(&[Duration::ZERO], 100, |_| vec![ms(50), ms(100)]);
        for (record, _) in &mut requests {
            record.sent += ms(20);
        }
        let steady = SteadyState::new(&requests, &load("1conc")).unwrap();
        assert_eq!((steady.from, steady.to), (ms(100), ms(10_000)));
        assert_eq!(steady.mean_in_flight, 0.8);
    }

    #[test]
    fn the_window_of_an_open_loop_leaves_out_its_beginning_and_the_drain() {
        // Ten a second, of two seconds each: twenty in flight from the twentieth on.
        let mut requests: Vec<Counted> =
            (0..200).map(|n| request(ms(100 * n), &[ms(500), ms(2000)])).collect();
        requests[199].0.ended = s(1000.0);
        for text in ["10qps", "10qps-100conc"] {
            let steady = SteadyState::new(&requests, &load(text)).unwrap();
            assert_eq!((steady.from, steady.to), (ms(1900), ms(19_900)), "{text}");
            assert_eq!((steady.requests, steady.mean_in_flight), (180, 20.0));
            assert_eq!(steady.trends.last().unwrap().quantity, Trending::InFlight);
            assert!(steady.steady);
        }
    }

    #[test]
    fn a_cap_that_most_requests_wait_for_makes_a_closed_loop() {
        let starts: Vec<Duration> = (0..8).map(|user| ms(100 * user)).collect();
        let mut requests = closed_loop(&starts, 200, |_| vec![ms(500), ms(1000)]);
        for (n, (record, _)) in (0..).zip(&mut requests) {
            record.scheduled = (ms(50) * n).min(record.sent);
        }
        let steady = SteadyState::new(&requests, &load("20qps-8conc")).unwrap();
        assert!(steady.from < s(2.0) && s(24.0) < steady.to, "{steady:?}");
        assert!(steady.trends.iter().all(|trend| trend.quantity != Trending::InFlight));
    }

    #[test]
    fn in_flight_is_weighted_by_time() {
        let span = |from, to| Span { from: ms(from), to: ms(to) };
        let flights = [span(0, 4), span(1, 3), span(2, 6), span(5, 5)];
        assert_eq!(mean_in_flight(&flights, span(1, 5)), 2.0);
        let levels = levels(&flights);
        let expected = [(0, 1), (1, 2), (2, 3), (3, 2), (4, 1), (5, 1), (6, 0)];
        assert_eq!(levels, expected.map(|(at, level)| (ms(at), level)));
        assert_eq!(level_at(&levels, span(0, 6), 0.5), 1);
        assert_eq!(level_at(&levels, span(1, 4), 0.5), 2);
        assert_eq!(level_at(&levels, span(1, 4), 0.7), 3);
        assert_eq!(longest_at(&levels, 2.0), Some(span(1, 4)));
        assert_eq!(longest_at(&levels, 3.5), None);
        assert_eq!(half_ended(&flights, ms(2)), ms(4), "of 3, 4 and 6");
    }

    #[test]
    fn a_failed_request_counts_and_has_no_latency() {
        let mut requests = closed_loop(&[ms(0), ms(1)], 200, |_| vec![ms(10), ms(100)]);
        let all = SteadyState::new(&requests, &load("2conc")).unwrap();
        requests.iter_mut().step_by(4).for_each(fail);
        let steady = SteadyState::new(&requests, &load("2conc")).unwrap();
        assert_eq!((steady.from, steady.to), (all.from, all.to));
        assert_eq!((steady.requests, steady.failed), (198, 49));
        assert_eq!(steady.ttft.count, steady.completed);
        let ratio = steady.request_throughput_per_s / all.request_throughput_per_s;
        assert!((ratio - 0.75).abs() < 0.01, "{ratio}");
    }

    #[test]
    fn tokens_count_when_they_arrive_and_by_chunk_where_the_server_says_so() {
        let window = Span { from: ms(15), to: ms(40) };
        let tokens = |request: &Counted| tokens_within(view(request).unwrap(), window);
        let (mut record, counts) = request(ms(0), &[ms(10), ms(20), ms(30), ms(40)]);
        let of_eight = counted(record.clone(), 8);
        assert_eq!(tokens(&of_eight), 4.0, "two of four chunks");
        record.stream.chunks.edit(|number, chunk| chunk.tokens = Some([1, 4, 2, 1][number]));
        assert_eq!(tokens(&counted(record.clone(), 8)), 6.0);
        assert_eq!(tokens(&(record, counts)), 3.0, "the server's sum is the request's");
    }

    #[test]
    fn a_run_that_is_too_short_says_why() {
        let why = |requests: &[Counted], text: &str| {
            SteadyState::new(requests, &load(text)).map(|_| ()).unwrap_err()
        };
        let run = |starts: &[Duration], n| closed_loop(starts, n, |_| vec![ms(10), ms(100)]);
        assert_eq!(why(&[], "4conc"), "nothing was sent");
        assert_eq!(why(&run(&[ms(0); 8], 100), "inf"), "everything was sent at once");
        assert_eq!(why(&run(&[ms(0); 8], 8), "8conc"), "everything was sent at once");
        assert_eq!(
            why(&run(&[ms(0); 4], 100), "8conc"),
            "fewer than 95 % of the 8 users were ever at work"
        );
        assert_eq!(
            why(&run(&[ms(0), s(8.0)], 100), "2conc"),
            "its window is 9.0 % of the time in which requests were sent, and must be 25 %"
        );
        assert_eq!(
            why(&run(&[ms(0); 4], 60), "4conc"),
            "of the requests sent in its window 56 completed, and it takes 80"
        );
        let stage = |rate| Stage { from_per_s: rate, to_per_s: rate, length: s(5.0) };
        let stages = Stages { name: "steps".to_owned(), stages: vec![stage(1.0), stage(2.0)] };
        let staged = SteadyState::new(&run(&[ms(0); 4], 100), &Load::Staged(stages.into()));
        assert_eq!(staged.unwrap_err(), "the plan changes the rate");
    }

    /// The p-values and slopes were computed by hand from the formulas.
    #[test]
    fn the_trend_test_is_that_of_mann_and_kendall_with_the_slope_of_theil_and_sen() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        // S = 45, variance 125.
        let rising: Vec<f64> = (0..10).map(f64::from).collect();
        assert!(close(mann_kendall(&rising), 8.303_07e-5), "{}", mann_kendall(&rising));
        // S = 8, variance (300 - 2 x 18) / 18.
        let tied = [1.0, 1.0, 2.0, 2.0, 3.0];
        assert!(close(mann_kendall(&tied), 0.067_577_5), "{}", mann_kendall(&tied));
        assert_eq!(mann_kendall(&[5.0; 20]), 1.0);
        assert_eq!(mann_kendall(&[]), 1.0);
        assert_eq!(theil_sen(&[0.0, 2.0, 4.0, 600.0, 8.0]), 2.0, "one outlier moves nothing");
        assert_eq!(theil_sen(&[1.0]), 0.0);
    }

    #[test]
    fn a_steady_queue_is_seldom_called_unsteady() {
        for (servers, random, requests) in
            [(1, true, 100), (1, true, 400), (8, true, 100), (8, false, 100), (8, false, 400)]
        {
            let share = unsteady(200, |seed| queue(seed, requests, servers, 0.7, random));
            assert!(share <= 0.05, "{servers} servers, {requests} requests: {share}");
        }
    }

    #[test]
    fn an_overload_is_called_unsteady() {
        for (servers, random) in [(1, true), (8, false)] {
            let share = unsteady(200, |seed| queue(seed, 600, servers, 1.3, random));
            assert!(0.95 <= share, "{servers} servers: {share}");
        }
        let overload = SteadyState::new(&queue(1, 1000, 8, 1.3, false), &load("10qps")).unwrap();
        let steady: Vec<_> =
            overload.trends.iter().map(|trend| (trend.quantity, trend.steady)).collect();
        let expected =
            [(Trending::Ttft, false), (Trending::Tpot, true), (Trending::InFlight, false)];
        assert_eq!(steady, expected, "each token takes as long as before");
    }

    #[test]
    fn a_drift_of_half_is_found_on_either_way_and_one_of_a_twentieth_is_none() {
        let run = |seed, drift: f64| -> Vec<Counted> {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let one = |n| {
                let noise = 0.8 + 0.4 * rng.random::<f64>();
                let ttft = s(0.2 * noise * (1.0 + drift * f64::from(n) / 600.0));
                request(ms(100) * n, &[ttft, ttft + ms(500)])
            };
            (0..600).map(one).collect()
        };
        for (drift, low, high) in [(0.5, 0.2, 0.6), (-0.5, -0.9, -0.5)] {
            for seed in 0..20 {
                let steady = SteadyState::new(&run(seed, drift), &load("10qps")).unwrap();
                let ttft = steady.trends[0];
                assert!(!steady.steady && !ttft.steady, "{ttft:?}");
                assert!((low..high).contains(&ttft.drift_ratio.unwrap()), "{ttft:?}");
            }
        }
        assert_eq!(unsteady(20, |seed| run(seed, 0.05)), 0.0);
    }

    #[test]
    fn a_run_that_is_not_steady_says_what_changed() {
        let requests: Vec<Counted> =
            (0..200).map(|n| request(ms(100) * n, &[ms(100) + ms(2) * n, ms(700)])).collect();
        let steady = SteadyState::new(&requests, &load("10qps")).unwrap();
        assert_eq!(
            steady.line(),
            "steady   no: from 0.6 s to 19.9 s, TTFT rises by 128 % of its median (p < 0.0001) and TPOT \
             falls by 97 % of its median (p < 0.0001)"
        );
        assert!(steady.warning().unwrap().starts_with("the run was not steady"));
    }

    #[test]
    fn what_never_changes_is_steady_and_has_nothing_to_warn_of() {
        let requests = closed_loop(&[ms(0); 2], 200, |_| vec![ms(0), ms(100)]);
        let steady = SteadyState::new(&requests, &load("2conc")).unwrap();
        let ttft = steady.trends[0];
        assert_eq!((ttft.p_value, ttft.drift_ratio, ttft.steady), (1.0, None, true));
        assert_eq!(steady.warning(), None);
    }

    #[test]
    fn answers_in_one_block_have_an_end_and_nothing_before_it() {
        let mut requests = closed_loop(&[ms(0); 2], 200, |_| vec![ms(100)]);
        requests.iter_mut().for_each(|(record, _)| record.stream.one_block = true);
        let steady = SteadyState::new(&requests, &load("2conc")).unwrap();
        assert_eq!((steady.ttft.count, steady.tpot.count), (0, 0));
        assert_eq!(steady.trends[0].quantity, Trending::E2e);
        assert!(steady.line().contains("E2E p50 100.00 ms"), "{}", steady.line());
    }

    #[test]
    fn the_result_has_units_in_its_names_and_null_for_what_is_missing() {
        let requests = closed_loop(&[ms(0); 2], 90, |_| vec![ms(0), ms(100)]);
        let steady = SteadyState::new(&requests, &load("2conc")).unwrap();
        let json = serde_json::to_value(&steady).unwrap();
        assert_eq!((&json["from_s"], &json["to_s"]), (&0.1.into(), &4.5.into()));
        assert_eq!(json["e2e"]["mean_ms"], 100.0);
        assert_eq!(json["e2e"]["p99_ms"], serde_json::Value::Null, "88 requests have no p99");
        assert_eq!(json["trends"][0]["quantity"], "ttft");
        assert_eq!(json["steady"], true);
    }

    /// When it was due, how long it waited, when its chunks came and how it ended, all in steps so large that
    /// many fall together.
    fn any_request() -> impl Strategy<Value = Counted> {
        let chunks = prop::collection::vec((0..40_u64, prop::option::of(0..3_u32)), 0..4);
        (0..200_u64, 0..3_u64, 0..300_u64, chunks, prop::bool::weighted(0.2), 0..9_u32).prop_map(
            |(due, late, ended, chunks, fails, tokens)| {
                let mut record = completed(&[]);
                record.scheduled = ms(10 * due);
                record.sent = ms(10 * (due + late));
                record.ended = ms(10 * ended);
                let chunks = chunks.into_iter();
                record.stream.chunks = chunks
                    .map(|(after, tokens)| Chunk { at: ms(10 * (due + after)), tokens })
                    .collect();
                let mut request = counted(record, tokens);
                if fails {
                    fail(&mut request);
                }
                request
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn whatever_was_recorded_the_window_is_inside_the_run(
            requests in prop::collection::vec(any_request(), 0..600),
            text in prop::sample::select(vec!["inf", "4qps", "4qps-8conc", "1conc", "64conc"]),
        ) {
            let Ok(steady) = SteadyState::new(&requests, &load(text)) else { return Ok(()) };
            let sent = requests.iter().map(|(record, _)| record.sent);
            let last = requests.iter().map(|(record, _)| record.ended.max(record.sent));
            prop_assert!(sent.min().unwrap() <= steady.from);
            prop_assert!(steady.from < steady.to);
            prop_assert!(steady.to <= last.max().unwrap());
            prop_assert!((0.0..=1.0).contains(&steady.share_of_run));
            prop_assert_eq!(steady.completed + steady.failed, steady.requests);
            prop_assert!(steady.requests <= requests.len() as u64);
            for value in [steady.mean_in_flight, steady.output_throughput_tok_per_s] {
                prop_assert!(0.0 <= value && value.is_finite());
            }
            for trend in &steady.trends {
                prop_assert!((0.0..=1.0).contains(&trend.p_value));
            }
        }
    }
}
