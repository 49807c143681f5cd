//! What a run takes out of the client: processor time of its thread, and how late its loop comes to work
//! that is due. Measured beside the run, on the same loop.

use std::time::Duration;

use crate::clock::Clock;
use crate::nap;

/// How often the loop is looked at.
const TICK: Duration = Duration::from_millis(10);

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
    /// How late the loop came to each tick. Up to a millisecond of it is the timer's own.
    pub loop_lags: Vec<Duration>,
}

/// Runs `run` on this thread and watches what it takes.
pub async fn watch<T>(clock: Clock, run: impl Future<Output = T>) -> (T, Strain) {
    let (begun, cpu_before, waited_before) = (clock.now(), thread_cpu(), thread_waited());
    let unstamped_before = nap::unstamped();
    let mut loop_lags = Vec::new();
    let mut run = std::pin::pin!(run);
    let output = loop {
        let due = clock.now() + TICK;
        tokio::select! {
            output = &mut run => break output,
            () = clock.wait_until(due) => loop_lags.push(clock.now().saturating_sub(due)),
        }
    };
    let since =
        |before: Option<Duration>, now: Option<Duration>| Some(now?.saturating_sub(before?));
    let strain = Strain {
        wall: clock.now().saturating_sub(begun),
        cpu: since(cpu_before, thread_cpu()),
        waited: since(waited_before, thread_waited()),
        own_stamps: nap::unstamped() - unstamped_before,
        loop_lags,
    };
    (output, strain)
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
        if cfg!(unix) {
            // On a busy machine part of it is waited for.
            let held = strain.cpu.unwrap() + strain.waited.unwrap_or_default();
            assert!(ms(20) < held, "{:?} {:?}", strain.cpu, strain.waited);
        }
        assert!(ms(85) < strain.wall);
    }
}
