//! What a run takes out of the client: processor time of its thread, and how late its loop comes to work
//! that is due. Measured beside the run, on the same loop.

use std::time::Duration;

use crate::clock::Clock;
use crate::nap;

/// How often the loop is looked at. What holds it up for longer is seen; so this is shorter than the gaps
/// between tokens that are asserted.
const TICK: Duration = Duration::from_millis(5);
/// The timer rounds up to whole milliseconds, and the loop naps for up to one: later than this, and something
/// held it up.
const HELD_UP: Duration = Duration::from_micros(2500);

/// What one run took.
#[derive(Clone, Debug, Default)]
pub struct Strain {
    /// How long it ran.
    pub wall: Duration,
    /// Processor time of the thread that sends and stamps; `None` where the system does not say.
    pub cpu: Option<Duration>,
    /// How long that thread could have run and got no processor; `None` where the system does not say.
    pub waited: Option<Duration>,
    /// Reads whose stamp is the client's own, and so as late as the loop was.
    pub own_stamps: u64,
    /// Reads whose stamp is the kernel's.
    pub kernel_stamps: u64,
    /// How late the loop came to each tick. Up to a millisecond of it is the timer's own.
    pub loop_lags: Vec<Duration>,
    /// When it was held up, in order.
    pub hold_ups: Vec<HoldUp>,
    /// How much further the wall clock, or the clock that counts sleep, went than the clock of all stamps: the
    /// machine slept or was paused, or its clock was set.
    pub suspended: Duration,
    /// How its control groups held it back; `None` where they do not say.
    pub throttled: Option<Throttled>,
}

impl Strain {
    /// The same, with all that happened later by so much.
    #[must_use]
    pub fn later(mut self, by: Duration) -> Self {
        for HoldUp { from, due, to } in &mut self.hold_ups {
            for time in [from, due, to] {
                *time += by;
            }
        }
        self
    }
}

/// A time in which the loop did not come to work that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldUp {
    /// When it was last seen at work.
    pub from: Duration,
    /// When it was due.
    pub due: Duration,
    /// When it came.
    pub to: Duration,
}

impl HoldUp {
    /// How late it came.
    pub fn lag(self) -> Duration {
        self.to.saturating_sub(self.due)
    }
}

/// How often, and for how long, control groups kept a process from running because it had used up its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// In how many periods.
    pub periods: u64,
    /// For how long, all processors together.
    pub time: Duration,
}

impl Throttled {
    /// What has come since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            periods: self.periods.saturating_sub(before.periods),
            time: self.time.saturating_sub(before.time),
        }
    }
}

/// Runs `run` on this thread and watches what it takes.
pub async fn watch<T>(clock: Clock, run: impl Future<Output = T>) -> (T, Strain) {
    let (begun, cpu_before, waited_before) = (clock.now(), thread_cpu(), thread_waited());
    let (reads_before, clocks_before) = (nap::reads(), OtherClocks::now());
    let (mut loop_lags, mut hold_ups) = (Vec::new(), Vec::new());
    let mut run = std::pin::pin!(run);
    let mut from = begun;
    let output = loop {
        let due = from + TICK;
        tokio::select! {
            output = &mut run => break output,
            () = clock.wait_until(due) => {
                let to = clock.now();
                let hold_up = HoldUp { from, due, to };
                loop_lags.push(hold_up.lag());
                if HELD_UP < hold_up.lag() {
                    hold_ups.push(hold_up);
                }
                from = to;
            }
        }
    };
    let since =
        |before: Option<Duration>, now: Option<Duration>| Some(now?.saturating_sub(before?));
    let reads = nap::reads();
    let strain = Strain {
        wall: clock.now().saturating_sub(begun),
        cpu: since(cpu_before, thread_cpu()),
        waited: since(waited_before, thread_waited()),
        own_stamps: reads.others - reads_before.others,
        kernel_stamps: reads.stamped - reads_before.stamped,
        loop_lags,
        hold_ups,
        suspended: OtherClocks::now().ahead_since(clocks_before),
        throttled: None,
    };
    (output, strain)
}

/// The clocks that go on where the clock of all stamps stands still, and that one.
#[derive(Clone, Copy, Debug, Default)]
struct OtherClocks {
    monotonic: Duration,
    others: [Option<Duration>; 2],
}

impl OtherClocks {
    /// What they show.
    #[cfg(target_os = "linux")]
    fn now() -> Self {
        use nix::time::{ClockId, clock_gettime};
        let read = |clock| clock_gettime(clock).ok().map(Duration::from);
        Self {
            monotonic: read(ClockId::CLOCK_MONOTONIC).unwrap_or_default(),
            others: [ClockId::CLOCK_BOOTTIME, ClockId::CLOCK_REALTIME].map(read),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Self {
        Self::default()
    }

    /// By how much the one that went furthest is ahead, since `before`.
    fn ahead_since(self, before: Self) -> Duration {
        let went = self.monotonic.saturating_sub(before.monotonic);
        let ahead = self
            .others
            .into_iter()
            .zip(before.others)
            .filter_map(|(now, then)| Some(now?.saturating_sub(then?).saturating_sub(went)));
        ahead.max().unwrap_or_default()
    }
}

/// Processor time that this thread has used.
#[cfg(unix)]
fn thread_cpu() -> Option<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(Duration::from(time))
}

#[cfg(not(unix))]
fn thread_cpu() -> Option<Duration> {
    None
}

/// Time that this thread has spent on a run queue, which Linux counts.
fn thread_waited() -> Option<Duration> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    // Time on a processor, time on a run queue, turns.
    statistics.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;

    #[tokio::test]
    async fn a_loop_that_is_held_up_lags_and_costs_processor_time() {
        let clock = Clock::start();
        let hold_up = async {
            clock.wait_until(ms(15)).await;
            // Between two awaits nobody else gets a turn.
            clock.block_until(ms(15));
            let until = clock.now() + ms(60);
            while clock.now() < until {
                std::hint::spin_loop();
            }
            clock.wait_until(clock.now() + ms(15)).await;
        };
        let ((), strain) = watch(clock, hold_up).await;
        let worst = strain.loop_lags.iter().max().unwrap();
        assert!(ms(40) < *worst, "{worst:?}");
        let longest = strain.hold_ups.iter().max_by_key(|hold_up| hold_up.lag()).unwrap();
        assert_eq!(longest.lag(), *worst);
        // It was at work until it was held up, and from then on not.
        assert!(longest.from <= longest.due && ms(75) <= longest.to, "{longest:?}");
        assert!(strain.suspended < ms(100), "{:?}", strain.suspended);
        if cfg!(unix) {
            // On a busy machine part of it is waited for.
            let held = strain.cpu.unwrap() + strain.waited.unwrap_or_default();
            assert!(ms(20) < held, "{:?} {:?}", strain.cpu, strain.waited);
        }
        assert!(ms(85) < strain.wall);
    }

    #[test]
    fn a_machine_that_slept_is_told_by_the_clocks_that_went_on() {
        let at = |monotonic, boot: Option<u64>, wall| OtherClocks {
            monotonic: ms(monotonic),
            others: [boot.map(ms), Some(ms(wall))],
        };
        let before = at(1000, Some(5000), 90_000);
        for (now, ahead) in [
            (at(3000, Some(7000), 92_000), 0),
            (at(3000, Some(9000), 92_000), 2000),
            (at(3000, None, 92_500), 500),
            (at(3000, Some(7000), 10_000), 0),
        ] {
            assert_eq!(now.ahead_since(before), ms(ahead), "{now:?}");
        }
    }
}
