//! Tells when a request has taken too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::record::Failure;

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub timeout: Duration,
    /// Without a byte; `None` where only `timeout` counts.
    pub stall_timeout: Option<Duration>,
}

/// A moment of a request that its reader sets and its watchdog reads.
#[derive(Debug)]
pub struct Stamp(AtomicU64);

impl Stamp {
    /// A stamp that says `at`.
    pub fn new(at: Duration) -> Self {
        let stamp = Self(AtomicU64::new(0));
        stamp.set(at);
        stamp
    }

    /// Has it say `at`.
    pub fn set(&self, at: Duration) {
        // 584 years fit.
        self.0.store(at.as_nanos() as u64, Ordering::Relaxed);
    }

    /// What it says.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// The failure of a request that did not end in time.
pub fn timed_out(timeout: Duration) -> (Failure, String) {
    (Failure::Timeout, format!("no end after {timeout:?}"))
}

/// Returns when the request has taken too long. Wakes once for each limit that may have passed, not
/// once for each read.
pub async fn watch(
    clock: Clock,
    begun: Duration,
    last_byte: &Stamp,
    limits: Limits,
) -> (Failure, String) {
    let deadline = begun + limits.timeout;
    loop {
        let stall = limits.stall_timeout.map(|patience| last_byte.get() + patience);
        clock.wait_until(stall.map_or(deadline, |stall| stall.min(deadline))).await;
        let now = clock.now();
        if deadline <= now {
            return timed_out(limits.timeout);
        }
        if let Some(patience) = limits.stall_timeout
            && last_byte.get() + patience <= now
        {
            return (Failure::Stalled, format!("no byte for {patience:?}"));
        }
    }
}
