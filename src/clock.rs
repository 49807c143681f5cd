//! The one monotonic clock. Every stamp is an offset from a [`Clock`]'s zero.

use std::time::Duration;

use tokio::time::Instant;

/// How long before its deadline a blocking wait stops sleeping and starts to spin: the kernel may
/// wake a sleeper this much late (its timer slack is 50 µs by default).
const SPIN: Duration = Duration::from_micros(120);

/// A zero point in time. Copies share it, so their offsets can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock whose zero is now.
    #[expect(clippy::disallowed_methods, reason = "this is the one module that reads the time")]
    pub fn start() -> Self {
        Self { zero: Instant::now() }
    }

    /// Time since the zero point.
    pub fn now(self) -> Duration {
        self.zero.elapsed()
    }

    /// Returns once `offset` is reached; at once if it has passed. As coarse as the runtime's
    /// timer, which ticks in whole milliseconds.
    pub async fn wait_until(self, offset: Duration) {
        tokio::time::sleep_until(self.zero + offset).await;
    }

    /// Blocks the thread until `offset`, within microseconds: sleeps until shortly before, then
    /// spins. For threads of their own only.
    pub fn block_until(self, offset: Duration) {
        if let Some(nap) = offset.checked_sub(self.now() + SPIN) {
            std::thread::sleep(nap);
        }
        while self.now() < offset {
            std::hint::spin_loop();
        }
    }
}
