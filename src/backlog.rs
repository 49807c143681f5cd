//! Whether a server kept up with what arrived: by the growth of what it had not yet ended. Pure.

use std::time::Duration;

use crate::record::RequestRecord;

/// Fewer requests than this say nothing about it.
const MIN_REQUESTS: usize = 20;
/// The requests by which the latency of a server that nothing piles up in is known: this part of them, the
/// first, and no fewer than so many.
const FIRST: usize = 10;
const MIN_FIRST: usize = 5;
/// From so many of such latencies on, as many requests end as arrive.
const LATENCIES: u32 = 3;
/// Independent arrivals make a number in flight that varies by the root of its mean: what grew by no more than so
/// many of its deviations has not grown. Arrivals that are spaced more evenly, or less, vary by less or more, but
/// answers that differ in length leave at least this part of the variance.
const DEVIATIONS: f64 = 2.0;
const MIN_VARIANCE: f64 = 0.25;
/// Answers that take longer than half of the time of arrivals pile up by themselves: what piled up says that the
/// server did not keep up only where it ended fewer than this share.
const CLEARLY_LESS: f64 = 0.5;

/// How much of what arrived a server kept up with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeptUp {
    /// This share: 1 where nothing piled up and nothing failed.
    With(f64),
    /// Answers took as long as the requests took to arrive: there was no rate to keep up with.
    Outlasted,
    /// There were too few to say.
    Unknown,
}

impl KeptUp {
    /// The share, where it is known.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::With(share) => Some(share),
            Self::Outlasted | Self::Unknown => None,
        }
    }

    /// How a server kept up with `requests`, which arrived by a schedule. What waits for a place under a cap
    /// has arrived and not ended.
    pub fn of<'a>(requests: impl Iterator<Item = &'a RequestRecord>) -> Self {
        let mut requests: Vec<&RequestRecord> = requests.collect();
        requests.sort_by_key(|record| record.scheduled);
        let (Some(first), Some(last)) = (requests.first(), requests.last()) else {
            return Self::Unknown;
        };
        let (first, last) = (first.scheduled, last.scheduled);
        let span = last - first;
        let count = requests.len();
        let completed = |record: &&&RequestRecord| record.completed().is_some();
        let early = &requests[..(count / FIRST).max(MIN_FIRST).min(count)];
        let mut early: Vec<Duration> = early
            .iter()
            .filter(completed)
            .map(|record| record.ended.saturating_sub(record.scheduled))
            .collect();
        early.sort_unstable();
        let of_early = |share: f64| {
            let place = (early.len().saturating_sub(1) as f64 * share).round() as usize;
            early.get(place).copied()
        };
        let known = (of_early(0.25), of_early(0.5), of_early(0.9));
        let (Some(quick), Some(usual), Some(long)) = known else { return Self::Unknown };
        if span < 2 * quick {
            return Self::Outlasted;
        }
        if count < MIN_REQUESTS {
            return Self::Unknown;
        }
        // What piled up from when as many end as arrive.
        let from = first + (LATENCIES * usual).min(span / 2);
        let in_flight = |at: Duration| {
            let there = requests.iter().filter(|it| it.scheduled <= at && at < it.ended);
            there.count() as f64
        };
        let (then, now) = (in_flight(from), in_flight(last));
        let arrived = requests.iter().filter(|record| from < record.scheduled).count() as f64;
        let growth = now - then;
        let chance = DEVIATIONS * ((now + then) * dispersion(&requests).max(MIN_VARIANCE)).sqrt();
        let ended = match growth <= chance || arrived == 0.0 {
            true => 1.0,
            false => (1.0 - growth / arrived).max(0.0),
        };
        if span < 2 * long && (CLEARLY_LESS..1.0).contains(&ended) {
            return Self::Outlasted;
        }
        let completed = requests.iter().filter(completed).count() as f64;
        Self::With(ended * completed / count as f64)
    }
}

/// How unevenly the requests, which are in order, arrive: the squared coefficient of variation of the gaps. 1 for
/// independent arrivals, 0 for evenly spaced ones.
fn dispersion(requests: &[&RequestRecord]) -> f64 {
    let gaps =
        requests.windows(2).map(|pair| (pair[1].scheduled - pair[0].scheduled).as_secs_f64());
    let count = gaps.clone().count().max(1) as f64;
    let mean = gaps.clone().sum::<f64>() / count;
    let variance = gaps.map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
    variance / (mean * mean).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha12Rng;

    use super::*;
    use crate::record::tests::{completed, failed, ms};
    use crate::record::{Chunk, Failure};

    /// Requests at `per_s` that each take one of `slots` for `service(n)` ms.
    fn served(
        count: u64,
        per_s: f64,
        slots: usize,
        service: impl Fn(u64) -> u64,
        arrive: impl Fn(u64) -> f64,
    ) -> Vec<RequestRecord> {
        let mut free: BinaryHeap<Reverse<Duration>> = vec![Reverse(Duration::ZERO); slots].into();
        let one = |n: u64| {
            let at = Duration::from_secs_f64(arrive(n) / per_s);
            let Reverse(slot) = free.pop().unwrap();
            let ended = slot.max(at) + ms(service(n));
            free.push(Reverse(ended));
            let mut record = completed(&[]);
            (record.scheduled, record.released, record.sent, record.ended) = (at, at, at, ended);
            record.stream.chunks = [Chunk { at: ended, tokens: None }].into_iter().collect();
            record
        };
        (0..count).map(one).collect()
    }

    fn evenly(n: u64) -> f64 {
        n as f64
    }

    fn share(requests: &[RequestRecord]) -> Option<f64> {
        KeptUp::of(requests.iter()).share()
    }

    #[test]
    fn a_server_that_does_a_part_of_the_rate_keeps_up_with_that_part() {
        for (slots, per_s, expected) in [
            (1, 100.0, 0.1), // one slot of 100 ms does 10 a second
            (16, 1600.0, 0.1),
            (16, 320.0, 0.5),
            (16, 200.0, 0.8),
            (16, 160.0, 1.0),
            (16, 80.0, 1.0),
        ] {
            for count in [800, 4000] {
                let found = share(&served(count, per_s, slots, |_| 100, evenly)).unwrap();
                assert!((found - expected).abs() < 0.12, "{slots} at {per_s}/s: {found}");
            }
        }
    }

    #[test]
    fn a_server_that_keeps_up_is_not_blamed_for_chance_and_long_answers() {
        for seed in 0..50 {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let (mut at, mut times) = (0.0, Vec::new());
            for _ in 0..300 {
                at -= (1.0 - rng.random::<f64>()).ln();
                times.push(at);
            }
            let lengths: Vec<u64> = (0..300).map(|_| rng.random_range(100..900)).collect();
            // A hundred slots, of which fifty are at work.
            let service = |n: u64| lengths[n as usize];
            let requests = served(300, 100.0, 100, service, |n| times[n as usize]);
            let found = KeptUp::of(requests.iter());
            assert!(found.share().is_none_or(|share| 0.9 <= share), "{seed}: {found:?}");
        }
    }

    #[test]
    fn where_answers_outlast_the_arrivals_there_is_no_rate_to_keep_up_with() {
        for (count, per_s, service) in [(4, 6000.0, 20), (100, 100.0, 5000), (30, 10.0, 2000)] {
            let requests = served(count, per_s, 1000, |_| service, evenly);
            assert_eq!(KeptUp::of(requests.iter()), KeptUp::Outlasted, "{count} at {per_s}/s");
        }
    }

    #[test]
    fn a_handful_of_requests_says_nothing() {
        let requests = served(5, 1.0, 1, |_| 10, evenly);
        assert_eq!(KeptUp::of(requests.iter()), KeptUp::Unknown);
        assert_eq!(KeptUp::of([].iter()), KeptUp::Unknown);
    }

    #[test]
    fn what_is_refused_is_not_kept_up_with() {
        let mut requests = served(200, 100.0, 100, |_| 20, evenly);
        for record in requests.iter_mut().skip(10).filter(|record| !record.scheduled.is_zero()) {
            if record.scheduled.as_millis() % 100 != 0 {
                record.outcome = failed(Failure::Http(429)).outcome;
            }
        }
        let found = share(&requests).unwrap();
        assert!(found < 0.2, "{found}");
    }
}
