//! What this client's own delays may have done to a figure: the figure again, with those delays taken out.
//! Pure.
//!
//! A read has one stamp: that of its last byte, by the kernel, or the moment of the read itself. Of a read that
//! brought several events only the last is stamped right, and where the stamps are the client's own none is. As
//! long as the loop is at work it reads an event before the next one comes, and a server or a gateway that sends
//! several at once is measured as what it is. Where the loop was held up, what came meanwhile is glued together:
//! the events of such a read are taken to have come evenly from when the loop was last at work.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::duration::as_ms;
use crate::evidence::latency_of;
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::record::{Chunk, RequestRecord};
use crate::samples::{Pool, Samples};
use crate::slo::Goodput;
use crate::strain::{HoldUp, Strain};
use crate::summary::{Counted, is_good};

/// How much of a figure of many requests the client may have made of its own before the figure is doubted.
const MAX_SHARE: f64 = 0.05;
/// Less than this matters to nobody: of a request's latency, and of one between tokens, ms.
const FLOOR_MS: f64 = 1.0;
const TOKEN_FLOOR_MS: f64 = 0.2;
/// The share of all reads from which those count that the kernel did not stamp: it leaves out the first ones.
const OWN_STAMPS: f64 = 0.01;
/// A hold-up reaches so far beyond its end: what it left to read is read then.
const CATCHING_UP: Duration = Duration::from_millis(3);

/// A figure as it was measured, and without what the client may have added to it or taken from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distortion {
    /// As it was measured.
    pub measured: f64,
    /// As it may be in truth.
    pub without: f64,
    floor: f64,
}

impl Distortion {
    /// The difference as a share of the smaller of the two: 1 where one is twice the other.
    pub fn share(self) -> f64 {
        let Self { measured, without, .. } = self;
        (measured - without).abs() / measured.min(without).max(f64::MIN_POSITIVE)
    }

    /// Whether it is more than a figure of so many requests may have.
    pub fn matters(self, requests: usize) -> bool {
        self.floor < (self.measured - self.without).abs() && max_share(requests) < self.share()
    }
}

/// How much of a figure of so many requests the client may have made: what chance makes of the figure of a few is
/// more, and hides it.
pub fn max_share(requests: usize) -> f64 {
    MAX_SHARE.max(1.0 / (requests.max(1) as f64).sqrt())
}

/// The figures among `quantities` that are latencies, or the share or rate of requests that are good, each with
/// what it may be without the client's delays. One that no delay touched, or that failed requests made infinite,
/// is left out.
pub fn distortions(
    quantities: &[Quantity],
    requests: &[Counted],
    strain: &Strain,
    goodput: Option<Goodput>,
) -> Vec<(Quantity, Distortion)> {
    if strain.hold_ups.is_empty() {
        return Vec::new();
    }
    let own = Stamps::of(strain);
    let mut latencies: BTreeMap<Latency, Pair> = BTreeMap::new();
    for quantity in quantities {
        if let Quantity::Latency(latency, _) = quantity
            && let Some(pair) = Pair::of(*latency)
        {
            latencies.entry(*latency).or_insert(pair);
        }
    }
    let (mut failed, mut good, mut good_without) = (0, 0_u32, 0_u32);
    for (record, tokens) in requests {
        let Some(view) = record.completed() else {
            failed += 1;
            continue;
        };
        let eased = eased(record, &strain.hold_ups, own);
        let without = eased.as_ref().and_then(RequestRecord::completed).unwrap_or(view);
        for (latency, pair) in &mut latencies {
            let of = |view| latency_of(*latency, view, tokens.streamed());
            match pair {
                Pair::Requests(measured, eased) => {
                    measured.extend(of(view).map(as_ms));
                    eased.extend(of(without).map(as_ms));
                }
                Pair::Gaps(measured, eased) => {
                    view.record().chunk_gaps().for_each(|gap| measured.record(gap, 1));
                    without.record().chunk_gaps().for_each(|gap| eased.record(gap, 1));
                }
            }
        }
        if let Some(goodput) = goodput {
            good += u32::from(is_good(view, *tokens, goodput));
            good_without += u32::from(is_good(without, *tokens, goodput));
        }
    }
    let statistics: BTreeMap<Latency, (Samples, Samples)> =
        latencies.into_iter().map(|(latency, pair)| (latency, pair.samples())).collect();
    let distortion = |quantity: &Quantity| match *quantity {
        Quantity::Latency(latency, statistic) => {
            let (measured, without) = statistics.get(&latency)?;
            // Failed requests are infinitely slow to an objective.
            let infinite = match measured {
                Samples::Exact(_) if latency.is_of_the_server() => failed,
                Samples::Exact(_) | Samples::Pool(_) => 0,
            };
            let of = |samples: &Samples| {
                let infinite =
                    if matches!(statistic, Statistic::Percentile(_)) { infinite } else { 0 };
                samples.statistic_with_infinite(statistic, infinite).filter(|ms| ms.is_finite())
            };
            let floor = match latency {
                Latency::Tpot | Latency::Itl | Latency::ChunkGap => TOKEN_FLOOR_MS,
                _ => FLOOR_MS,
            };
            Some(Distortion { measured: of(measured)?, without: of(without)?, floor })
        }
        // The rate is the share of what was sent, over the same time.
        Quantity::Scalar(Scalar::GoodputRatio | Scalar::Goodput) => {
            goodput?;
            let share = |good: u32| f64::from(good) / requests.len().max(1) as f64;
            Some(Distortion { measured: share(good), without: share(good_without), floor: 0.0 })
        }
        Quantity::Scalar(_) | Quantity::Gauge(..) => None,
    };
    let of = quantities.iter().filter_map(|quantity| Some((*quantity, distortion(quantity)?)));
    of.filter(|(_, distortion)| distortion.measured != distortion.without).collect()
}

/// The samples of a latency, as they were measured and without the client's delays.
enum Pair {
    Requests(Vec<f64>, Vec<f64>),
    Gaps(Box<Pool>, Box<Pool>),
}

impl Pair {
    /// `None` for what is the client's own.
    fn of(latency: Latency) -> Option<Self> {
        match latency {
            Latency::ChunkGap | Latency::Itl => Some(Self::Gaps(Box::default(), Box::default())),
            Latency::Lateness | Latency::Connect => None,
            _ => Some(Self::Requests(Vec::new(), Vec::new())),
        }
    }

    fn samples(self) -> (Samples, Samples) {
        match self {
            Self::Requests(measured, eased) => (Samples::exact(measured), Samples::exact(eased)),
            Self::Gaps(measured, eased) => (Samples::Pool(*measured), Samples::Pool(*eased)),
        }
    }
}

/// Whose stamps reads have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamps {
    /// The kernel's: when the last byte had arrived.
    Kernel,
    /// The client's own: when it read.
    Own,
}

impl Stamps {
    fn of(strain: &Strain) -> Self {
        let all = (strain.own_stamps + strain.kernel_stamps) as f64;
        match OWN_STAMPS * all < strain.own_stamps as f64 {
            true => Self::Own,
            false => Self::Kernel,
        }
    }
}

/// The record with its events at the times at which they may have come, were it not for `hold_ups`; `None` where
/// that is when they were read.
fn eased(record: &RequestRecord, hold_ups: &[HoldUp], stamps: Stamps) -> Option<RequestRecord> {
    // Most records meet no hold-up, and are not copied.
    let later = hold_ups.partition_point(|hold_up| hold_up.to + CATCHING_UP < record.sent);
    if hold_ups.get(later).is_none_or(|hold_up| record.ended < hold_up.from) {
        return None;
    }
    let mut eased: Option<(RequestRecord, Vec<Chunk>)> = None;
    let (mut before, mut place) = (record.sent, 0);
    let chunks: Vec<Chunk> = record.stream.chunks.iter().collect();
    for read in chunks.chunk_by(|one, next| one.at == next.at) {
        let at = read[0].at;
        let fixed = match stamps {
            Stamps::Kernel => 1,
            Stamps::Own => 0,
        };
        if fixed < read.len()
            && let Some(window) = window(hold_ups, before, at)
        {
            let (eased, all) = eased.get_or_insert_with(|| (record.clone(), chunks.clone()));
            let first_answer = eased.stream.first_answer == Some(at);
            let count = read.len() as u32;
            let chunks = &mut all[place..place + read.len()];
            for (chunk, number) in chunks.iter_mut().zip(1..) {
                chunk.at = at - window * (count - number + 1 - fixed as u32) / count;
            }
            if place == 0
                && let Some(first) = chunks.first_mut()
            {
                // An answer may have begun right after the loop was last at work.
                first.at = at - window;
            }
            if first_answer {
                eased.stream.first_answer = chunks.first().map(|chunk| chunk.at);
            }
        }
        (before, place) = (at, place + read.len());
    }
    eased.map(|(mut eased, chunks)| {
        eased.stream.chunks = chunks.into_iter().collect();
        eased
    })
}

/// How long before `at`, when a read was stamped, its first byte may have come, for a hold-up that covers it;
/// `before` nothing of it had come.
fn window(hold_ups: &[HoldUp], before: Duration, at: Duration) -> Option<Duration> {
    let place = hold_ups.partition_point(|hold_up| hold_up.to + CATCHING_UP < at);
    let hold_up = hold_ups.get(place).filter(|hold_up| hold_up.from <= at)?;
    let window = at - before.max(hold_up.from).min(at);
    (!window.is_zero()).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{completed, failed, ms};
    use crate::record::{Chunk, Failure};
    use crate::summary::Summary;
    use crate::summary::tests::counted;

    /// Streams of a token each 10 ms, a millisecond apart, as a client sees them whose loop is at work from the
    /// end of each hold-up to the beginning of the next: what comes meanwhile is read at the end, and by the
    /// kernel's stamps it has the time of the last byte.
    fn seen(streams: u64, tokens: u64, hold_ups: &[HoldUp], stamps: Stamps) -> Vec<Counted> {
        let read = |at: Duration, next: Duration| {
            let hold_up = hold_ups.iter().find(|hold_up| hold_up.from < at && at <= hold_up.to)?;
            Some(match stamps {
                Stamps::Own => hold_up.to,
                // The last that came before the end.
                Stamps::Kernel => match next <= hold_up.to {
                    true => hold_up.to,
                    false => at,
                },
            })
        };
        let stream = |stream: u64| {
            let sent = ms(stream);
            let times: Vec<Duration> = (0..=tokens).map(|n| sent + ms(50 + 10 * n)).collect();
            let mut record = completed(&[]);
            (record.scheduled, record.released, record.sent) = (sent, sent, sent);
            let mut at: Vec<Duration> =
                times.windows(2).map(|pair| read(pair[0], pair[1]).unwrap_or(pair[0])).collect();
            // One stamp a read: that of the last event in it.
            for place in (0..at.len() - 1).rev() {
                let same = |hold_up: &HoldUp| {
                    hold_up.from < times[place] && times[place + 1] <= hold_up.to
                };
                if hold_ups.iter().any(same) {
                    at[place] = at[place + 1];
                }
            }
            record.stream.chunks = at.iter().map(|&at| Chunk { at, tokens: None }).collect();
            record.ended = *at.last().unwrap();
            counted(record, tokens as u32)
        };
        (0..streams).map(stream).collect()
    }

    /// Held up for `long` ms, in each 100 ms.
    fn held_up(long: u64, times: u64) -> Vec<HoldUp> {
        let one = |n: u64| HoldUp {
            from: ms(100 * n + 60),
            due: ms(100 * n + 65),
            to: ms(100 * n + 60 + long),
        };
        (0..times).map(one).collect()
    }

    fn strain(hold_ups: &[HoldUp], stamps: Stamps) -> Strain {
        let (own_stamps, kernel_stamps) = match stamps {
            Stamps::Own => (1000, 0),
            Stamps::Kernel => (5, 1000),
        };
        Strain { hold_ups: hold_ups.to_vec(), own_stamps, kernel_stamps, ..Strain::default() }
    }

    /// What is doubted of what.
    fn doubted(requests: &[Counted], strain: &Strain, quantities: &[&str]) -> Vec<String> {
        let quantities: Vec<Quantity> =
            quantities.iter().map(|text| text.parse().unwrap()).collect();
        let goodput = Some(Goodput { ttft: Some(ms(55)), tpot: None, e2e: None });
        let of = distortions(&quantities, requests, strain, goodput);
        of.iter()
            .filter(|(_, distortion)| distortion.matters(requests.len()))
            .map(|(quantity, _)| quantity.to_string())
            .collect()
    }

    const ALL: [&str; 6] =
        ["ttft.p50", "chunk_gap.p50", "chunk_gap.p99", "tpot.mean", "e2e.p50", "goodput_ratio"];

    #[test]
    fn gaps_that_the_client_glued_together_are_doubted_and_what_they_do_not_touch_is_not() {
        let hold_ups = held_up(35, 12);
        let requests = seen(100, 100, &hold_ups, Stamps::Kernel);
        let summary = Summary::new(&requests, None);
        let shown = summary.quantity("chunk_gap.p99".parse().unwrap()).unwrap();
        assert!(19.0 < shown, "a glued gap hides another: {shown}");
        let doubted = doubted(&requests, &strain(&hold_ups, Stamps::Kernel), &ALL);
        assert!(doubted.contains(&"chunk_gap.p99".to_owned()), "{doubted:?}");
        for untouched in ["tpot.mean", "e2e.p50"] {
            assert!(!doubted.contains(&untouched.to_owned()), "{doubted:?}");
        }
    }

    #[test]
    fn the_figure_without_the_hold_ups_is_near_the_truth() {
        let hold_ups = held_up(35, 12);
        let requests = seen(100, 100, &hold_ups, Stamps::Kernel);
        let strain = strain(&hold_ups, Stamps::Kernel);
        let quantity = "ttft.p50".parse().unwrap();
        let found = distortions(&[quantity], &requests, &strain, None);
        for (_, distortion) in found {
            assert!((45.0..=60.0).contains(&distortion.without), "{distortion:?}");
        }
    }

    #[test]
    fn hold_ups_shorter_than_a_gap_glue_nothing_where_the_kernel_stamps() {
        let hold_ups = held_up(9, 12);
        let requests = seen(100, 100, &hold_ups, Stamps::Kernel);
        let none: [String; 0] = [];
        assert_eq!(doubted(&requests, &strain(&hold_ups, Stamps::Kernel), &ALL), none);
    }

    #[test]
    fn where_the_stamps_are_the_clients_own_each_hold_up_shows() {
        let hold_ups = held_up(9, 12);
        let requests = seen(100, 100, &hold_ups, Stamps::Own);
        let doubted = doubted(&requests, &strain(&hold_ups, Stamps::Own), &ALL);
        assert!(doubted.contains(&"chunk_gap.p99".to_owned()), "{doubted:?}");
    }

    #[test]
    fn a_server_that_sends_several_events_at_once_is_measured_as_what_it_is() {
        let mut record = completed(&[60, 60, 60, 60, 60, 110, 110, 110, 110, 110]);
        record.ended = ms(110);
        let requests = vec![counted(record, 10); 100];
        let elsewhere = [HoldUp { from: ms(70), due: ms(75), to: ms(100) }];
        let none: [String; 0] = [];
        for hold_ups in [&[][..], &elsewhere] {
            assert_eq!(doubted(&requests, &strain(hold_ups, Stamps::Kernel), &ALL), none);
        }
    }

    #[test]
    fn an_hour_with_one_hold_up_is_believed() {
        // Two of a thousand requests met it.
        let hold_up = [HoldUp { from: ms(60), due: ms(65), to: ms(160) }];
        let mut requests = seen(2, 10, &hold_up, Stamps::Kernel);
        for n in 1..500 {
            let by = ms(1000 * n);
            let more = seen(2, 10, &[], Stamps::Kernel);
            requests.extend(more.into_iter().map(|(record, tokens)| (record.later(by), tokens)));
        }
        let none: [String; 0] = [];
        assert_eq!(doubted(&requests, &strain(&hold_up, Stamps::Kernel), &ALL), none);
    }

    #[test]
    fn a_percentile_that_failed_requests_make_infinite_is_no_matter_of_the_client() {
        let hold_ups = held_up(35, 12);
        let mut requests = seen(100, 100, &hold_ups, Stamps::Kernel);
        requests.extend(vec![counted(failed(Failure::Http(500)), 0); 100]);
        let strain = strain(&hold_ups, Stamps::Kernel);
        let p99: Quantity = "ttft.p99".parse().unwrap();
        assert_eq!(distortions(&[p99], &requests, &strain, None), []);
    }
}
