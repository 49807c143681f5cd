//! Reads the devices on a thread of its own, because a driver may take its time.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nvml_wrapper::{Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use super::device::{self, Found, Watched};
use super::query::{Answers, PROCESSES};
use super::{Gpu, Gpus, Lost, Options, Process, Sampled, library, process};
use crate::clock::Clock;
use crate::lock::lock;

/// How long a driver may take to start and answer once. One that keeps no state between its users takes
/// seconds.
const START: Duration = Duration::from_secs(10);
/// How long the end of a run waits for a last reading.
const END: Duration = Duration::from_secs(1);
/// How often what is asked seldom is asked.
const SELDOM: Duration = Duration::from_secs(1);

/// Devices that are being read. Dropping it ends that as well.
#[derive(Debug)]
pub struct Sampler {
    gpus: Arc<Mutex<Gpus>>,
    stop: Sender<()>,
    /// Hears once that the first round is over, and is hung up on after the last.
    thread: Receiver<()>,
}

impl Sampler {
    /// Begins, and returns when each device was read once. Readings are stamped by `clock`. `server` is the
    /// server's process, where it is known.
    ///
    /// Only where the GPUs are required is it an error that there are none, or not those that were named.
    pub fn start(options: &Options, clock: Clock, server: Option<u32>) -> anyhow::Result<Self> {
        let silent = format!("the driver did not answer within {} s", START.as_secs());
        let gpus = Arc::new(Mutex::new(Gpus::None { because: silent }));
        let (stop, stopped) = mpsc::channel();
        let (begun, thread) = mpsc::channel();
        let work = {
            let (options, gpus) = (options.clone(), Arc::clone(&gpus));
            move || {
                let reader = Reader { clock, server, gpus: &gpus, begun, stopped };
                if let Err(because) = reader.run(&options) {
                    *lock(&gpus) = Gpus::None { because };
                }
            }
        };
        std::thread::Builder::new()
            .name("servebench-gpu".to_owned())
            .spawn(work)
            .context("start the thread that reads the GPUs")?;
        // One that failed has hung up, and the reason is in its place.
        let _ = thread.recv_timeout(START);
        if options.require {
            match &*lock(&gpus) {
                Gpus::None { because } => bail!("GPUs are required: {because}"),
                Gpus::Sampled(Sampled { warnings, .. }) => {
                    if let Some(warning) = warnings.first() {
                        bail!("GPUs are required: {warning}");
                    }
                }
            }
        }
        Ok(Self { gpus, stop, thread })
    }

    /// Reads once more and ends. Waits for a driver for a second at most.
    pub fn stop(self) -> Gpus {
        drop(self.stop);
        // There may be word of a late start before it.
        let ended = loop {
            if let Err(ended) = self.thread.recv_timeout(END) {
                break ended;
            }
        };
        let taken = Gpus::None { because: String::new() };
        let mut gpus = std::mem::replace(&mut *lock(&self.gpus), taken);
        if let Gpus::Sampled(sampled) = &mut gpus {
            if ended == RecvTimeoutError::Timeout {
                let within = END.as_secs();
                sampled.warnings.push(format!(
                    "the driver did not answer within {within} s at the end: the last readings are missing"
                ));
            }
            sampled.devices.iter_mut().for_each(Gpu::settle_energy);
        }
        gpus
    }
}

#[cfg(all(test, unix))]
impl Sampler {
    /// How often each device was read so far.
    pub fn rounds(&self) -> usize {
        match &*lock(&self.gpus) {
            Gpus::Sampled(sampled) => {
                sampled.devices.iter().map(|gpu| gpu.readings.at_s.len()).min().unwrap_or(0)
            }
            Gpus::None { .. } => 0,
        }
    }
}

/// What the thread has.
struct Reader<'a> {
    clock: Clock,
    server: Option<u32>,
    gpus: &'a Mutex<Gpus>,
    begun: Sender<()>,
    stopped: Receiver<()>,
}

impl Reader<'_> {
    /// Reads until it is stopped, or says why nothing can be read.
    fn run(&self, options: &Options) -> Result<(), String> {
        let nvml = library::open(options.library.as_deref())?;
        let Found { devices, warnings } = device::find(&nvml, &options.devices)
            .map_err(|error| format!("the driver does not count its GPUs: {error}"))?;
        if devices.is_empty() {
            let none = || "the driver shows no GPU".to_owned();
            return Err(warnings.into_iter().reduce(|a, b| a + "; " + &b).unwrap_or_else(none));
        }
        let (mut watched, devices): (Vec<Watched>, Vec<Gpu>) = devices.into_iter().unzip();
        *lock(self.gpus) = Gpus::Sampled(Sampled {
            driver_version: nvml.sys_driver_version().ok(),
            cuda_version: cuda_version(&nvml),
            devices,
            warnings,
        });
        self.read_at(options.interval.max(Duration::from_millis(1)), &mut watched);
        Ok(())
    }

    fn read_at(&self, interval: Duration, watched: &mut [Watched]) {
        // Devices take turns with what takes long.
        let seldom = SELDOM.as_nanos().div_ceil(interval.as_nanos()) as usize;
        let mut due = self.clock.now();
        self.round(watched, |_| true);
        let _ = self.begun.send(());
        for round in 1.. {
            let now = self.clock.now();
            while due <= now {
                due += interval;
            }
            let is_over = self.stopped.recv_timeout(due - now) != Err(RecvTimeoutError::Timeout);
            self.round(watched, |number| !is_over && (round + number) % seldom == 0);
            if is_over {
                return;
            }
        }
    }

    fn round(&self, watched: &mut [Watched], with_seldom: impl Fn(usize) -> bool) {
        for (number, device) in watched.iter_mut().enumerate() {
            let at = self.clock.now();
            // A driver that hangs must not hold the lock.
            let answers = device.read(with_seldom(number));
            if let Gpus::Sampled(sampled) = &mut *lock(self.gpus) {
                sampled.devices[number].take(at, answers, self.server);
            }
        }
    }
}

/// As NVIDIA writes it: `13.0`.
fn cuda_version(nvml: &Nvml) -> Option<String> {
    let version = nvml.sys_cuda_driver_version().ok()?;
    let (major, minor) = (cuda_driver_version_major(version), cuda_driver_version_minor(version));
    Some(format!("{major}.{minor}"))
}

impl Gpu {
    /// Adds a reading.
    fn take(&mut self, at: Duration, answers: Answers, server: Option<u32>) {
        let Answers { row, throttle_reasons, processes, unread, lost } = answers;
        self.readings.push(at, row.into_iter().map(|(column, value)| (column, Some(value))));
        self.throttle_reasons.extend(throttle_reasons);
        self.unread.extend(unread.into_iter().map(|(column, why)| (column.to_owned(), why)));
        for process in processes {
            self.meet(process, server);
        }
        if self.used_by_server.is_none() && !self.unread.contains_key(PROCESSES) {
            self.used_by_server = server.map(|_| false);
        }
        if let Some(because) = lost {
            self.lost = Some(Lost { at_s: at.as_secs_f64(), because });
        }
    }

    fn meet(&mut self, process: Process, server: Option<u32>) {
        match self.processes.iter_mut().find(|known| known.pid == process.pid) {
            Some(known) => {
                let most = [known.used_memory_mib, process.used_memory_mib];
                known.used_memory_mib = most.into_iter().flatten().reduce(f64::max);
            }
            None => {
                if server.is_some_and(|server| process::descends(process.pid, server)) {
                    self.used_by_server = Some(true);
                }
                self.processes.push(process);
            }
        }
    }
}
