//! What is known of a case while it runs: counters that requests bump at their start and their end, and
//! that progress reads. Off the hot path: no event of a stream touches them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::record::{Outcome, RequestRecord};

/// The counters of one case.
#[derive(Debug, Default)]
pub struct Live {
    sent: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    ttft_us: AtomicU64,
    e2e_us: AtomicU64,
}

/// What the counters said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that have left.
    pub sent: u64,
    /// Requests that completed.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Mean time to first token of the completed ones.
    pub mean_ttft: Option<Duration>,
    /// Mean end-to-end latency of the completed ones.
    pub mean_e2e: Option<Duration>,
}

impl Live {
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
                    let (ttft, e2e) = (completed.ttft(), completed.e2e());
                    self.ttft_us.fetch_add(ttft.as_micros() as u64, Relaxed);
                    self.e2e_us.fetch_add(e2e.as_micros() as u64, Relaxed);
                }
                self.completed.fetch_add(1, Relaxed);
            }
        }
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let completed = self.completed.load(Relaxed);
        let mean = |sum_us: &AtomicU64| {
            let us = sum_us.load(Relaxed).checked_div(completed)?;
            Some(Duration::from_micros(us))
        };
        Snapshot {
            sent: self.sent.load(Relaxed),
            completed,
            failed: self.failed.load(Relaxed),
            mean_ttft: mean(&self.ttft_us),
            mean_e2e: mean(&self.e2e_us),
        }
    }
}

impl Snapshot {
    /// Requests that have ended.
    pub fn ended(self) -> u64 {
        self.completed + self.failed
    }

    /// Requests under way.
    pub fn in_flight(self) -> u64 {
        self.sent.saturating_sub(self.ended())
    }

    /// One line for people, with the rate over `elapsed`.
    pub fn describe(self, elapsed: Duration) -> String {
        let rate = self.ended() as f64 / elapsed.as_secs_f64().max(1e-3);
        let ttft = match self.mean_ttft {
            Some(ttft) => format!("mean TTFT {:.0} ms", ttft.as_secs_f64() * 1e3),
            None => "no TTFT yet".to_owned(),
        };
        let failed =
            if 0 < self.failed { format!(", {} failed", self.failed) } else { String::new() };
        format!("{rate:.1} req/s, {} in flight, {ttft}{failed}", self.in_flight())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed, ms};

    #[test]
    fn what_is_in_flight_is_what_was_sent_and_has_not_ended() {
        let live = Live::default();
        for _ in 0..4 {
            live.begin();
        }
        live.end(&completed(&[60, 70]));
        live.end(&completed(&[110, 120]));
        live.end(&failed(Failure::Timeout));
        let snapshot = live.snapshot();
        assert_eq!((snapshot.in_flight(), snapshot.mean_ttft), (1, Some(ms(75))));
        assert_eq!(
            snapshot.describe(ms(1500)),
            "2.0 req/s, 1 in flight, mean TTFT 75 ms, 1 failed"
        );
    }
}
