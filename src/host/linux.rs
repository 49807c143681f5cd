//! The machine as Linux counts its work.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use procfs::{Current as _, CurrentSI as _};

use super::HostReadings;
use crate::clock::Clock;

/// Reads the machine at each interval, until it is stopped or nobody is left to stop it.
pub fn run(interval: Duration, clock: Clock, stopped: &mpsc::Receiver<()>) -> HostReadings {
    let mut readings = HostReadings::default();
    let mut before = match Counts::now() {
        Ok(counts) => (clock.now(), counts),
        Err(reason) => return HostReadings { absent: Some(reason), ..readings },
    };
    let mut due = before.0 + interval;
    loop {
        let wait = due.saturating_sub(clock.now());
        let ended = stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
        let at = clock.now();
        // Counts of a processor's time are too coarse for a shorter time.
        if interval / 2 <= at - before.0
            && let Ok(now) = Counts::now()
        {
            readings.series.push(at, now.row_since(&before.1, at - before.0));
            before = (at, now);
        }
        if ended {
            return readings;
        }
        due = (due + interval).max(at);
    }
}

/// What the system has counted since its start, and what is free now.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Time of all processors, in any unit.
    busy: u64,
    idle: u64,
    received_bytes: u64,
    sent_bytes: u64,
    memory_available_bytes: Option<u64>,
}

const MIB: f64 = 1024.0 * 1024.0;

impl Counts {
    fn row_since(self, before: &Self, span: Duration) -> [(&'static str, Option<f64>); 4] {
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let busy = grown(self.busy, before.busy);
        let all = busy + grown(self.idle, before.idle);
        // A device that goes takes its count along.
        let rate = |now: u64, before: u64| {
            (before <= now).then(|| grown(now, before) / MIB / span.as_secs_f64())
        };
        [
            ("cpu_share", (0.0 < all).then(|| busy / all)),
            ("memory_available_mib", self.memory_available_bytes.map(|bytes| bytes as f64 / MIB)),
            ("network_rx_mib_per_s", rate(self.received_bytes, before.received_bytes)),
            ("network_tx_mib_per_s", rate(self.sent_bytes, before.sent_bytes)),
        ]
    }

    /// As Linux counts them.
    fn now() -> Result<Self, String> {
        let failed = |error: procfs::ProcError| format!("this machine does not say: {error}");
        let cpu = procfs::KernelStats::current().map_err(failed)?.total;
        let idle = cpu.idle + cpu.iowait.unwrap_or(0);
        // What guests take is in the user's time.
        let busy = cpu.user
            + cpu.nice
            + cpu.system
            + cpu.irq.unwrap_or(0)
            + cpu.softirq.unwrap_or(0)
            + cpu.steal.unwrap_or(0);
        let devices = procfs::net::dev_status().map_err(failed)?;
        // Bridges and the like carry once more what a device has carried. A container has no device.
        let is_real = |name: &str| Path::new("/sys/class/net").join(name).join("device").exists();
        let any_real = devices.keys().any(|name| is_real(name));
        let counts = |name: &str| if any_real { is_real(name) } else { name != "lo" };
        let (mut received_bytes, mut sent_bytes) = (0, 0);
        for (_, device) in devices.iter().filter(|(name, _)| counts(name)) {
            received_bytes += device.recv_bytes;
            sent_bytes += device.sent_bytes;
        }
        let memory = procfs::Meminfo::current().map_err(failed)?;
        let memory_available_bytes = memory.mem_available;
        Ok(Self { busy, idle, received_bytes, sent_bytes, memory_available_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_row_is_of_the_time_since_the_row_before() {
        let before = Counts {
            busy: 100,
            idle: 300,
            received_bytes: 5,
            sent_bytes: 9,
            memory_available_bytes: None,
        };
        let now = Counts {
            busy: 150,
            idle: 450,
            received_bytes: 5 + 3 * 1024 * 1024,
            sent_bytes: 0,
            memory_available_bytes: Some(512 * 1024 * 1024),
        };
        let row = now.row_since(&before, 2000 * MS);
        let expected = [
            ("cpu_share", Some(0.25)),
            ("memory_available_mib", Some(512.0)),
            ("network_rx_mib_per_s", Some(1.5)),
            ("network_tx_mib_per_s", None),
        ];
        assert_eq!(row, expected);
        assert_eq!(before.row_since(&before, 2000 * MS)[0], ("cpu_share", None));
    }
}
