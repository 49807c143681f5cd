//! The client's own machine, read again and again while a case runs: whether it had processor time,
//! memory and network to spare.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::series::Series;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod listener;
#[cfg(target_os = "linux")]
use linux::run;
#[cfg(target_os = "linux")]
pub use listener::listener;

/// How often it is read, where nothing else is said.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct HostReadings {
    /// The columns, each over the time since the row before, but for the memory: `cpu_share` (of all
    /// processors, from 0 to 1), `memory_available_mib`, `network_rx_mib_per_s` and
    /// `network_tx_mib_per_s` (of all devices but the loopback).
    pub series: Series,
    /// Why there are none.
    pub absent: Option<String>,
}

/// Reads the machine, on a thread of its own, until it is stopped. Dropping it ends it as well.
#[derive(Debug)]
pub struct HostSampler {
    stop: mpsc::Sender<()>,
    /// None could be started, for this reason.
    thread: Result<JoinHandle<HostReadings>, String>,
}

impl HostSampler {
    /// Starts it. The first row comes after an interval.
    pub fn start(interval: Duration, clock: Clock) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || run(interval, clock, &stopped))
            .map_err(|error| format!("this machine was not watched: {error}"));
        Self { stop, thread }
    }

    /// Reads a last time, and gives what was read.
    pub fn stop(self) -> HostReadings {
        // It may have ended.
        let _ = self.stop.send(());
        let joined = self.thread.and_then(|thread| {
            thread.join().map_err(|_| "the thread that watches this machine has died".to_owned())
        });
        joined.unwrap_or_else(|reason| HostReadings {
            absent: Some(reason),
            ..HostReadings::default()
        })
    }
}

/// Nobody knows here.
#[cfg(not(target_os = "linux"))]
pub fn listener(_: u16) -> Option<u32> {
    None
}

#[cfg(not(target_os = "linux"))]
fn run(_: Duration, _: Clock, _: &mpsc::Receiver<()>) -> HostReadings {
    let absent = Some("the machine is watched on Linux only".to_owned());
    HostReadings { absent, ..HostReadings::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_busy_machine_is_seen_to_be_busy() {
        let clock = Clock::start();
        let sampler = HostSampler::start(50 * MS, clock);
        while clock.now() < 400 * MS {
            std::hint::spin_loop();
        }
        let readings = sampler.stop();
        if !cfg!(target_os = "linux") {
            assert!(readings.series.is_empty() && readings.absent.is_some());
            return;
        }
        assert_eq!(readings.absent, None);
        let at_s = &readings.series.at_s;
        assert!(2 < at_s.len() && at_s.is_sorted(), "{at_s:?}");
        assert!(readings.series.values("cpu_share").all(|share| (0.0..=1.0).contains(&share)));
        // One processor of those that there are spins all the time.
        let most = readings.series.values("cpu_share").fold(0.0, f64::max);
        let cpus = thread::available_parallelism().unwrap().get() as f64;
        assert!(0.3 / cpus < most, "{most} of {cpus}");
        assert!(readings.series.values("memory_available_mib").all(|free| 0.0 < free));
        assert!(readings.series.values("network_rx_mib_per_s").all(|rate| 0.0 <= rate));
    }
}
