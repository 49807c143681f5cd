//! The one monotonic clock. A stamp is a [`Moment`], or the offset of one from a [`Clock`]'s zero.

use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::SystemTime;

use tokio::time::Instant;

/// How long before its deadline a blocking wait stops sleeping and starts to spin: the kernel may
/// wake a sleeper this much late, and later where its timer has slack, which a punctual thread gives up.
const SPIN: Duration = Duration::from_micros(60);

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

    /// How long its zero is after that of `other`, s; negative where it is before.
    pub fn seconds_after(self, other: Self) -> f64 {
        let after = self.zero.saturating_duration_since(other.zero).as_secs_f64();
        after - other.zero.saturating_duration_since(self.zero).as_secs_f64()
    }

    /// Time since the zero point.
    pub fn now(self) -> Duration {
        self.zero.elapsed()
    }

    /// The offset of `moment`; zero for one before the zero point.
    pub fn at(self, moment: Moment) -> Duration {
        moment.0.saturating_duration_since(self.zero)
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

/// A point in time, for those who know no zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Instant);

impl Moment {
    /// This moment.
    #[expect(clippy::disallowed_methods, reason = "this is the one module that reads the time")]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// The moment at which the wall clock showed `wall` since the Unix epoch. Both clocks are read, so
    /// that a wall clock that is slewed does no harm; this one and not a later one where it was set.
    #[cfg(target_os = "linux")]
    #[expect(clippy::disallowed_methods, reason = "this is the one module that reads the time")]
    pub fn of_wall(wall: Duration) -> Self {
        let (now, wall_now) = (Instant::now(), SystemTime::now());
        let since_epoch = wall_now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ago = since_epoch.saturating_sub(wall);
        Self(now.checked_sub(ago).unwrap_or(now))
    }

    /// How long ago it was.
    pub fn age(self) -> Duration {
        self.0.elapsed()
    }
}
