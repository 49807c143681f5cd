//! What is known of a case while it runs: counters that requests bump at their start and their end, and
//! that progress reads. Off the hot path: no event of a stream touches them.

use std::array;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Clock;
use crate::journal::{Entries, Part};
use crate::lock::lock;
use crate::record::{Outcome, RequestRecord};

/// Buckets of an octave, and octaves from 1 µs on: latencies of up to an hour, to 5 %.
const PER_OCTAVE: usize = 16;
const OCTAVES: usize = 32;

/// The counters of one run: a case, or one of its trials or steps.
#[derive(Debug)]
pub struct Live {
    sent: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    e2e_us: AtomicU64,
    ttft: Histogram,
    run: Mutex<Option<(Goal, Clock)>>,
    journal: Option<Entries>,
}

/// What a run is to come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// Which of several runs it is: `trial 2 of 5`; empty for the only one.
    pub name: String,
    /// Requests that it will send; `None` where time ends it.
    pub requests: Option<u64>,
    /// How long it sends; `None` where their number ends it.
    pub duration: Option<Duration>,
    /// How many runs of the same kind follow.
    pub more: usize,
}

/// What the counters said at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What the run is to come to.
    pub goal: Goal,
    /// How long it has run.
    pub elapsed: Duration,
    /// Requests that have left.
    pub sent: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Median time to first token of the completed ones, to 5 %.
    pub ttft_p50: Option<Duration>,
    /// Its 99th percentile, likewise.
    pub ttft_p99: Option<Duration>,
}

/// How many requests are on their way, and how long one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Requests under way.
    pub in_flight: u64,
    /// Mean end-to-end latency of the completed ones.
    pub mean_e2e: Option<Duration>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            sent: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            e2e_us: AtomicU64::new(0),
            ttft: Histogram::default(),
            run: Mutex::new(None),
            journal: None,
        }
    }
}

impl Live {
    /// A run begins, which is this part of the case, and everything is counted anew. No request is under
    /// way.
    pub fn begin_run(&self, goal: Goal, part: Part) {
        if let Some(journal) = &self.journal {
            journal.begin(part);
        }
        *lock(&self.run) = Some((goal, Clock::start()));
        for counter in [&self.sent, &self.completed, &self.failed, &self.e2e_us] {
            counter.store(0, Relaxed);
        }
        self.ttft.clear();
    }

    /// Those of a case whose requests are written down as they end.
    pub fn with_journal(journal: Option<Entries>) -> Self {
        Self { journal, ..Self::default() }
    }

    /// A request is about to leave.
    pub fn begin(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// A request has ended.
    pub fn end(&self, record: &RequestRecord) {
        match &record.outcome {
            Outcome::Failed { .. } => drop(self.failed.fetch_add(1, Relaxed)),
            Outcome::Completed => {
                if let Some(completed) = record.completed() {
                    self.ttft.record(completed.ttft());
                    self.e2e_us.fetch_add(completed.e2e().as_micros() as u64, Relaxed);
                }
                self.completed.fetch_add(1, Relaxed);
            }
        }
        if let Some(journal) = &self.journal {
            journal.end(record);
        }
    }

    /// What is on its way now.
    pub fn traffic(&self) -> Traffic {
        let completed = self.completed.load(Relaxed);
        let ended = completed + self.failed.load(Relaxed);
        let mean = self.e2e_us.load(Relaxed).checked_div(completed);
        Traffic {
            in_flight: self.sent.load(Relaxed).saturating_sub(ended),
            mean_e2e: mean.map(Duration::from_micros),
        }
    }

    /// The counters now; `None` before anything runs.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let (goal, clock) = lock(&self.run).clone()?;
        let [ttft_p50, ttft_p99] = self.ttft.quantiles([0.5, 0.99]);
        Some(Snapshot {
            goal,
            elapsed: clock.now(),
            sent: self.sent.load(Relaxed),
            completed: self.completed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            ttft_p50,
            ttft_p99,
        })
    }
}

/// Counts on a logarithmic scale that one thread bumps and another reads.
#[derive(Debug)]
struct Histogram(Box<[AtomicU64; PER_OCTAVE * OCTAVES]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Histogram {
    fn record(&self, latency: Duration) {
        let us = latency.as_secs_f64() * 1e6;
        let bucket = (us.max(1.0).log2() * PER_OCTAVE as f64) as usize;
        self.0[bucket.min(self.0.len() - 1)].fetch_add(1, Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }

    /// Each in the middle of its bucket; `None` where there is nothing.
    fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [Option<Duration>; N] {
        let counts: Vec<u64> = self.0.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        shares.map(|share| {
            let rank = (share * total as f64).ceil().max(1.0) as u64;
            let mut below = 0;
            let bucket = counts.iter().position(|count| {
                below += count;
                rank <= below
            })?;
            let us = ((bucket as f64 + 0.5) / PER_OCTAVE as f64).exp2();
            Some(Duration::from_secs_f64(us / 1e6))
        })
    }
}

impl Snapshot {
    /// Requests that have ended.
    pub fn ended(&self) -> u64 {
        self.completed + self.failed
    }

    /// How much of the run is done, from 0 to 1; `None` where nobody can say.
    pub fn share(&self) -> Option<f64> {
        let of_requests = self.goal.requests.map(|all| self.ended() as f64 / all.max(1) as f64);
        let of_time = self.goal.duration.map(|all| self.elapsed.as_secs_f64() / all.as_secs_f64());
        // Whichever comes first ends it.
        [of_requests, of_time].into_iter().flatten().reduce(f64::max).map(|share| share.min(1.0))
    }

    /// How much longer the case takes if all goes on as it did.
    pub fn remaining(&self) -> Option<Duration> {
        let share = self.share().filter(|share| 0.0 < *share)?;
        let run_s = self.elapsed.as_secs_f64() / share;
        let left_s = run_s * (1.0 - share) + run_s * self.goal.more as f64;
        Duration::try_from_secs_f64(left_s).ok()
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let rate = self.ended() as f64 / self.elapsed.as_secs_f64().max(1e-3);
        let in_flight = self.sent.saturating_sub(self.ended());
        let ended = match self.goal.requests {
            Some(all) => format!("{}/{all}", self.ended()),
            None => format!("{} requests", self.ended()),
        };
        let mut parts = vec![ended, format!("{rate:.1} req/s"), format!("{in_flight} in flight")];
        parts.push(match (self.ttft_p50, self.ttft_p99) {
            (Some(p50), Some(p99)) => {
                let ms = |time: Duration| time.as_secs_f64() * 1e3;
                format!("TTFT p50 {:.0} p99 {:.0} ms", ms(p50), ms(p99))
            }
            _ => "no TTFT yet".to_owned(),
        });
        if 0 < self.failed {
            parts.push(format!("{} failed", self.failed));
        }
        if let Some(remaining) = self.remaining() {
            parts.push(format!("ETA {}", minutes(remaining)));
        }
        let name = &self.goal.name;
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        name + &parts.join(", ")
    }
}

/// `4s`, `1m04s` or `2h05m`.
fn minutes(duration: Duration) -> String {
    let s = duration.as_secs_f64().ceil() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed, ms};

    fn snapshot(goal: Goal, elapsed: Duration) -> Snapshot {
        Snapshot {
            goal,
            elapsed,
            sent: 4,
            completed: 2,
            failed: 1,
            ttft_p50: Some(ms(75)),
            ttft_p99: Some(ms(100)),
        }
    }

    #[test]
    fn what_is_in_flight_is_what_was_sent_and_has_not_ended() {
        let live = Live::default();
        assert_eq!(live.snapshot(), None, "nothing runs");
        let part = Part { backend: "sim".to_owned(), load: "4qps".to_owned(), seed: 0 };
        live.begin_run(Goal { requests: Some(12), ..Goal::default() }, part.clone());
        for _ in 0..4 {
            live.begin();
        }
        live.end(&completed(&[60, 70]));
        live.end(&completed(&[110, 120]));
        live.end(&failed(Failure::Timeout));
        assert_eq!(live.traffic(), Traffic { in_flight: 1, mean_e2e: Some(ms(85)) });
        let snapshot = live.snapshot().unwrap();
        assert_eq!((snapshot.completed, snapshot.failed, snapshot.share()), (2, 1, Some(0.25)));
        let near = |time: Option<Duration>, ms: f64| {
            (time.unwrap().as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.05
        };
        assert!(near(snapshot.ttft_p50, 50.0) && near(snapshot.ttft_p99, 100.0), "{snapshot:?}");
        live.begin_run(Goal::default(), part);
        assert_eq!(live.snapshot().unwrap().ended(), 0, "each run counts anew");
        assert_eq!(live.snapshot().unwrap().ttft_p50, None);
    }

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let goal = Goal { requests: Some(12), ..Goal::default() };
        assert_eq!(
            snapshot(goal, ms(1500)).describe(),
            "3/12, 2.0 req/s, 1 in flight, TTFT p50 75 p99 100 ms, 1 failed, ETA 5s"
        );
        let duration = Some(Duration::from_secs(60));
        let goal = Goal { name: "trial 1 of 3".to_owned(), duration, more: 2, requests: None };
        assert_eq!(
            snapshot(goal, ms(30_000)).describe(),
            "trial 1 of 3: 3 requests, 0.1 req/s, 1 in flight, TTFT p50 75 p99 100 ms, 1 failed, \
             ETA 2m30s"
        );
        let unknown = snapshot(Goal::default(), ms(1500));
        assert_eq!((unknown.share(), unknown.remaining()), (None, None));
        assert!(!unknown.describe().contains("ETA"));
    }

    #[test]
    fn times_are_as_people_say_them() {
        for (s, text) in [(4, "4s"), (64, "1m04s"), (7500, "2h05m")] {
            assert_eq!(minutes(Duration::from_secs(s)), text);
        }
    }
}
