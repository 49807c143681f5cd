//! Samples a driver of our own, which answers from a script.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::query::{
    ENERGY_J, MEMORY_CLOCK_MHZ, MEMORY_FREE_MIB, MEMORY_USED_MIB, MEMORY_UTILIZATION_PERCENT,
    NVLINK_RX, NVLINK_TX, PCIE_RX, PCIE_TX, POWER_W, SM_CLOCK_MHZ, TEMPERATURE_C, THROTTLED,
    UTILIZATION_PERCENT,
};
use super::*;
use crate::clock::Clock;

/// So long that there is one reading at the start and one at the end.
const TWO_READINGS: Duration = Duration::from_secs(3600);
/// So short that there are many.
const MANY: Duration = Duration::from_millis(2);

/// A driver of its own for each test: a copy of the library with its script beside it.
struct Driver {
    folder: TempDir,
}

impl Driver {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(built(), folder.path().join("nvml.so")).unwrap();
        std::fs::write(folder.path().join("nvml.so.script"), script).unwrap();
        Self { folder }
    }

    fn options(&self, interval: Duration) -> Options {
        let library = Some(self.folder.path().join("nvml.so"));
        Options { interval, library, ..Options::default() }
    }

    fn start(&self, interval: Duration) -> Sampler {
        Sampler::start(&self.options(interval), Clock::start(), None).unwrap()
    }

    /// What two readings say.
    fn read_twice(&self) -> Sampled {
        sampled(self.start(TWO_READINGS).stop())
    }

    /// What so many readings say, or some more.
    fn read_times(&self, rounds: usize) -> Sampled {
        let sampler = self.start(MANY);
        wait_for(&sampler, rounds);
        sampled(sampler.stop())
    }

    /// How often a line of the script was asked, until the driver was shut down.
    fn calls(&self, line: &str) -> u32 {
        let calls = std::fs::read_to_string(self.folder.path().join("nvml.so.calls")).unwrap();
        let count = calls.lines().find_map(|call| call.strip_prefix(line)?.trim().parse().ok());
        count.unwrap_or_else(|| panic!("{line} is not in {calls}"))
    }
}

fn built() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("nvml.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvml/fake_nvml.c");
        let flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"];
        let built = Command::new("cc").args(flags).args([&library, Path::new(source)]).status();
        assert!(built.unwrap().success());
        (folder, library)
    });
    library
}

fn wait_for(sampler: &Sampler, rounds: usize) {
    while sampler.rounds() < rounds {
        thread::sleep(MANY);
    }
}

fn sampled(gpus: Gpus) -> Sampled {
    match gpus {
        Gpus::Sampled(sampled) => sampled,
        Gpus::None { because } => panic!("{because}"),
    }
}

fn reason(gpus: Gpus) -> String {
    match gpus {
        Gpus::None { because } => because,
        Gpus::Sampled(sampled) => panic!("{sampled:?}"),
    }
}

#[track_caller]
fn assert_column(gpu: &Gpu, column: &str, expected: [Option<f64>; 2]) {
    assert_eq!(gpu.readings.columns[column], expected, "{column} of {}", gpu.label());
}

#[test]
fn each_quantity_has_the_unit_of_its_name() {
    let driver = Driver::new(
        "driver version 580.95.05
         driver cuda 13010
         0 uuid GPU-5a6b
         0 name NVIDIA-H100
         0 utilization 90/40 70/35
         0 memory_mib 0/80000 30000/50000 37000.5/42999.5
         0 power_mw 650500 700000
         0 energy_mj 5000000 5004500
         0 temperature_c 61 63
         0 sm_clock_mhz 1980 1410
         0 memory_clock_mhz 2619
         0 throttle_bits 1 0
         0 pcie_rx_kib_per_s 2048
         0 pcie_tx_kib_per_s 512",
    );
    let sampled = driver.read_twice();
    assert_eq!(sampled.driver_version.as_deref(), Some("580.95.05"));
    assert_eq!(sampled.cuda_version.as_deref(), Some("13.1"));
    let [gpu] = &sampled.devices[..] else { panic!("{sampled:?}") };
    assert_eq!((gpu.index, gpu.kind), (0, Kind::Whole));
    assert_eq!(gpu.uuid.as_deref(), Some("GPU-5a6b"));
    assert_eq!(gpu.name.as_deref(), Some("NVIDIA-H100"));
    assert_eq!(gpu.memory_total_mib, Some(80000.0));
    assert_column(gpu, UTILIZATION_PERCENT, [Some(90.0), Some(70.0)]);
    assert_column(gpu, MEMORY_UTILIZATION_PERCENT, [Some(40.0), Some(35.0)]);
    assert_column(gpu, MEMORY_USED_MIB, [Some(30000.0), Some(37000.5)]);
    assert_column(gpu, MEMORY_FREE_MIB, [Some(50000.0), Some(42999.5)]);
    assert_column(gpu, POWER_W, [Some(650.5), Some(700.0)]);
    assert_column(gpu, ENERGY_J, [Some(0.0), Some(4.5)]);
    assert_column(gpu, TEMPERATURE_C, [Some(61.0), Some(63.0)]);
    assert_column(gpu, SM_CLOCK_MHZ, [Some(1980.0), Some(1410.0)]);
    assert_column(gpu, MEMORY_CLOCK_MHZ, [Some(2619.0), Some(2619.0)]);
    // A GPU with nothing to do is not held back.
    assert_column(gpu, THROTTLED, [Some(0.0), Some(0.0)]);
    // Read seldom, because it takes long.
    assert_column(gpu, PCIE_RX, [Some(2.0), None]);
    assert_column(gpu, PCIE_TX, [Some(0.5), None]);
    assert!(gpu.unread[NVLINK_RX].contains("GPM"), "{:?}", gpu.unread);
    assert_eq!(gpu.energy, Some(Energy::Counter));
    assert_eq!(
        sampled.totals(),
        Totals {
            utilization_percent: Some(80.0),
            memory_peak_mib: Some(37000.5),
            memory_available_mib: Some(42999.5),
            power_w: Some(675.25),
            energy_j: Some(4.5),
            throttled: Some(false),
            throttle_reasons: BTreeSet::new(),
        }
    );
}

#[test]
fn readings_follow_each_other_at_the_interval_and_last_to_the_end() {
    let driver = Driver::new("0 utilization 10/1 20/2 30/3 40/4");
    let clock = Clock::start();
    let sampler = Sampler::start(&driver.options(MANY), clock, None).unwrap();
    let started = clock.now();
    wait_for(&sampler, 5);
    let stopping = clock.now();
    let sampled = sampled(sampler.stop());
    let readings = &sampled.devices[0].readings;
    let percent: Vec<f64> = readings.values(UTILIZATION_PERCENT).collect();
    assert!(5 < percent.len(), "{percent:?}");
    let script = [10.0, 20.0, 30.0, 40.0].into_iter().chain(std::iter::repeat(40.0));
    assert!(percent.iter().copied().eq(script.take(percent.len())), "{percent:?}");
    assert!(readings.at_s.is_sorted());
    assert!(readings.at_s[0] <= started.as_secs_f64(), "read before the first request");
    assert!(stopping.as_secs_f64() <= *readings.at_s.last().unwrap(), "read after the last");
    let written = serde_json::to_string(&Gpus::Sampled(sampled.clone())).unwrap();
    assert_eq!(serde_json::from_str::<Gpus>(&written).unwrap(), Gpus::Sampled(sampled));
}

#[test]
fn energy_that_is_not_counted_is_integrated_from_power_and_says_so() {
    let driver = Driver::new("0 power_mw 100000 300000");
    let sampler = driver.start(TWO_READINGS);
    thread::sleep(Duration::from_millis(20));
    let sampled = sampled(sampler.stop());
    let gpu = &sampled.devices[0];
    let [begin_s, end_s] = gpu.readings.at_s[..] else { panic!("{gpu:?}") };
    let expected = 200.0 * (end_s - begin_s);
    assert!(4.0 <= expected);
    let energy_j = sampled.totals().energy_j.unwrap();
    assert!((energy_j - expected).abs() < 1e-9, "{energy_j} is not {expected}");
    assert_eq!(gpu.energy, Some(Energy::IntegratedPower));
    assert_eq!(gpu.unread.get(ENERGY_J), None);
}

#[test]
fn a_quantity_that_is_refused_has_no_value_but_a_reason_and_is_not_asked_again() {
    let driver = Driver::new(
        "0 utilization 50/50
         0 power_mw not_supported
         0 temperature_c no_permission
         0 sm_clock_mhz 1500 timeout 1500",
    );
    let sampled = driver.read_times(5);
    let gpu = &sampled.devices[0];
    let rows = gpu.readings.at_s.len();
    assert!(gpu.unread[POWER_W].contains("not available"), "{:?}", gpu.unread);
    assert!(gpu.unread[TEMPERATURE_C].contains("permission"), "{:?}", gpu.unread);
    assert!(gpu.unread.contains_key(MEMORY_USED_MIB), "a symbol that answers no device");
    for column in [POWER_W, TEMPERATURE_C, MEMORY_USED_MIB, ENERGY_J, THROTTLED] {
        assert!(!gpu.readings.columns.contains_key(column), "{column}");
    }
    assert_eq!(gpu.readings.values(UTILIZATION_PERCENT).count(), rows);
    assert_eq!((driver.calls("0 power_mw"), driver.calls("0 temperature_c")), (1, 1));
    // What may pass is asked again, and leaves one gap.
    assert_eq!(gpu.readings.values(SM_CLOCK_MHZ).count(), rows - 1);
    assert_eq!(gpu.readings.columns[SM_CLOCK_MHZ][1], None);
    assert!(gpu.unread[SM_CLOCK_MHZ].contains("timeout"), "{:?}", gpu.unread);
    let totals = sampled.totals();
    assert_eq!((totals.power_w, totals.energy_j, totals.throttled), (None, None, None));
    assert_eq!(totals.utilization_percent, Some(50.0));
}

#[test]
fn a_device_that_goes_away_keeps_its_readings_and_the_others_go_on() {
    let driver = Driver::new(
        "0 utilization 60/0 gpu_lost
         0 power_mw 100000
         1 utilization 80/0
         1 power_mw 200000",
    );
    let sampled = driver.read_times(5);
    let [lost, other] = &sampled.devices[..] else { panic!("{sampled:?}") };
    assert_eq!(lost.readings.columns[UTILIZATION_PERCENT][..2], [Some(60.0), None]);
    let loss = lost.lost.as_ref().unwrap();
    assert!(loss.because.contains("fell off the bus"), "{loss:?}");
    assert_eq!(loss.at_s, lost.readings.at_s[1]);
    // Powers of the second reading and later are gaps: nothing more is asked of it.
    assert_eq!(lost.readings.values(POWER_W).count(), driver.calls("0 power_mw") as usize);
    assert_eq!(driver.calls("0 utilization"), 2);
    assert_eq!(other.lost, None);
    assert_eq!(other.readings.values(UTILIZATION_PERCENT).count(), other.readings.at_s.len());
    let totals = sampled.totals();
    assert_eq!(totals.utilization_percent, Some(70.0));
    assert_eq!(totals.energy_j, None, "a part of the energy is not all of it");
}

#[test]
fn the_devices_of_the_servers_process_and_its_children_are_those_that_count() {
    let mut child = Command::new("sleep").arg("30").spawn().unwrap();
    let script = format!(
        "0 utilization 90/0
         0 power_mw 300000
         0 processes {child}:30000/1:100 {child}:31000.5
         1 utilization 10/0
         1 power_mw 50000
         1 processes 1:5000
         2 utilization 0/0
         2 processes no_permission",
        child = child.id()
    );
    let driver = Driver::new(&script);
    let server = Some(std::process::id());
    let options = driver.options(TWO_READINGS);
    let known = sampled(Sampler::start(&options, Clock::start(), server).unwrap().stop());
    let unknown = driver.read_twice();
    child.kill().unwrap();
    child.wait().unwrap();
    let used = |sampled: &Sampled| {
        sampled.devices.iter().map(|gpu| gpu.used_by_server).collect::<Vec<_>>()
    };
    assert_eq!(used(&known), [Some(true), Some(false), None]);
    let processes = [(child.id(), 30000.0), (1, 100.0)]
        .map(|(pid, mib)| Process { pid, used_memory_mib: Some(mib) });
    assert_eq!(known.devices[0].processes, processes);
    assert!(known.devices[2].unread["processes"].contains("permission"));
    assert_eq!(known.used().map(Gpu::label).collect::<Vec<_>>(), ["gpu0"]);
    assert_eq!(known.totals().utilization_percent, Some(90.0));
    assert_eq!(known.totals().power_w, Some(300.0));
    assert_eq!(used(&unknown), [None; 3]);
    assert_eq!(unknown.used().count(), 3);
}

#[test]
fn all_devices_count_where_the_servers_process_is_on_none() {
    let driver = Driver::new("0 processes 1:10\n1 processes 1:20");
    let options = driver.options(TWO_READINGS);
    let server = Some(std::process::id());
    let sampled = sampled(Sampler::start(&options, Clock::start(), server).unwrap().stop());
    assert_eq!(sampled.used().count(), 2);
}

#[test]
fn two_gpus_make_the_mean_utilization_the_worst_memory_and_the_sum_of_power() {
    let driver = Driver::new(
        "0 utilization 90/0
         0 memory_mib 1/9 70/10 60/20
         0 power_mw 300000
         0 energy_mj 100 2100
         0 throttle_bits 4 0
         1 utilization 70/0 50/0
         1 memory_mib 1/9 20/60
         1 power_mw 100000 200000
         1 energy_mj 7 1007
         1 throttle_bits 2 72",
    );
    let totals = driver.read_twice().totals();
    let reasons =
        [ThrottleReason::SwPowerCap, ThrottleReason::HwSlowdown, ThrottleReason::HwThermalSlowdown];
    assert_eq!(
        totals,
        Totals {
            utilization_percent: Some(75.0),
            memory_peak_mib: Some(70.0),
            memory_available_mib: Some(10.0),
            power_w: Some(450.0),
            energy_j: Some(3.0),
            throttled: Some(true),
            throttle_reasons: BTreeSet::from(reasons),
        }
    );
}

#[test]
fn a_mig_instance_has_the_memory_and_its_gpu_the_power() {
    let driver = Driver::new(
        "0 uuid GPU-a
         0 power_mw 400000
         0 energy_mj 1000 3000
         0 memory_mib 70/10
         0.1 uuid MIG-b
         0.1 name NVIDIA-H100-MIG-3g.40gb
         0.1 memory_mib 0/40 30/10
         0.1 power_mw not_supported
         0.4 uuid MIG-c
         0.4 memory_mib 0/20 5/15
         1 uuid GPU-d
         1 memory_mib 10/70",
    );
    let sampled = driver.read_twice();
    let labels: Vec<String> = sampled.devices.iter().map(Gpu::label).collect();
    assert_eq!(labels, ["gpu0", "gpu0.mig1", "gpu0.mig4", "gpu1"]);
    let [divided, first, second, whole] = &sampled.devices[..] else { panic!("{labels:?}") };
    assert_eq!(
        [divided.kind, first.kind, second.kind, whole.kind],
        [Kind::Divided, Kind::Instance { number: 1 }, Kind::Instance { number: 4 }, Kind::Whole]
    );
    assert_eq!(first.uuid.as_deref(), Some("MIG-b"));
    assert_eq!(first.memory_total_mib, Some(40.0));
    assert_column(first, MEMORY_USED_MIB, [Some(30.0); 2]);
    assert_column(divided, POWER_W, [Some(400.0); 2]);
    assert!(divided.unread[MEMORY_USED_MIB].contains("instances"));
    assert!(first.unread[POWER_W].contains("part"));
    assert_eq!(driver.calls("0.1 power_mw"), 0, "it is known to have none");
    let totals = sampled.totals();
    assert_eq!(totals.memory_peak_mib, Some(30.0), "an instance is a device of its own");
    assert_eq!(totals.power_w, None, "GPU 1 does not say its power");
    let options =
        Options { devices: Devices::Named(vec!["0".into()]), ..driver.options(TWO_READINGS) };
    let one = self::sampled(Sampler::start(&options, Clock::start(), None).unwrap().stop());
    assert_eq!((one.devices.len(), one.totals().power_w), (3, Some(400.0)));
    assert!(one.totals().energy_j.is_some());
}

#[test]
fn traffic_is_of_the_time_since_the_reading_before() {
    let driver = Driver::new("0 traffic_mib_per_s 9/9/9/9 9/9/9/9 1.5/2.5/3000/4000");
    let sampled = driver.read_twice();
    let gpu = &sampled.devices[0];
    assert_column(gpu, PCIE_RX, [None, Some(1.5)]);
    assert_column(gpu, PCIE_TX, [None, Some(2.5)]);
    assert_column(gpu, NVLINK_RX, [None, Some(3000.0)]);
    assert_column(gpu, NVLINK_TX, [None, Some(4000.0)]);
}

#[test]
fn where_performance_is_not_monitored_pcie_is_asked_for_and_nvlink_has_the_reason() {
    let driver = Driver::new(
        "0 traffic_mib_per_s no_permission
         0 pcie_rx_kib_per_s 1024
         0 pcie_tx_kib_per_s 3072",
    );
    let sampled = driver.read_twice();
    let gpu = &sampled.devices[0];
    assert_column(gpu, PCIE_RX, [Some(1.0), None]);
    assert_column(gpu, PCIE_TX, [Some(3.0), None]);
    assert!(gpu.unread[NVLINK_RX].contains("permission"), "{:?}", gpu.unread);
}

#[test]
fn only_the_devices_that_were_named_are_read() {
    let driver = Driver::new("0 uuid GPU-a\n1 uuid GPU-b\n2 uuid GPU-c");
    let read = |names: &[&str], require| {
        let devices = Devices::Named(names.iter().map(|name| (*name).into()).collect());
        let options = Options { devices, require, ..driver.options(TWO_READINGS) };
        Sampler::start(&options, Clock::start(), None).map(Sampler::stop)
    };
    let two = sampled(read(&["2", "GPU-a", "GPU-z"], false).unwrap());
    assert_eq!(two.devices.iter().map(Gpu::label).collect::<Vec<_>>(), ["gpu0", "gpu2"]);
    assert_eq!(two.warnings, ["there is no GPU GPU-z that can be read"]);
    assert_eq!(reason(read(&["7"], false).unwrap()), "there is no GPU 7");
    let refused = read(&["2", "GPU-z"], true).unwrap_err().to_string();
    assert_eq!(refused, "GPUs are required: there is no GPU GPU-z that can be read");
    assert!(read(&["2"], true).is_ok());
}

#[test]
fn a_machine_without_a_driver_costs_nothing_but_a_reason_unless_gpus_are_required() {
    let nowhere = Some(PathBuf::from("/nowhere/libnvidia-ml.so.1"));
    let options = Options { library: nowhere, ..Options::default() };
    let because = reason(Sampler::start(&options, Clock::start(), None).unwrap().stop());
    assert!(because.contains("/nowhere/libnvidia-ml.so.1"), "{because}");
    let options = Options { require: true, ..options };
    let refused = Sampler::start(&options, Clock::start(), None).unwrap_err().to_string();
    assert!(refused.starts_with("GPUs are required: no NVIDIA driver was found"), "{refused}");

    let driver = Driver::new("driver init not_loaded\n0 utilization 1/1");
    assert!(reason(driver.start(MANY).stop()).ends_with("NVIDIA driver is not loaded"));
    let driver = Driver::new("driver version 1");
    assert_eq!(reason(driver.start(MANY).stop()), "the driver shows no GPU");
}

#[test]
fn a_gpu_that_cannot_be_opened_is_a_warning() {
    let driver = Driver::new("0 open gpu_lost\n1 utilization 1/1");
    let sampled = driver.read_twice();
    assert_eq!(sampled.devices.iter().map(Gpu::label).collect::<Vec<_>>(), ["gpu1"]);
    assert!(sampled.warnings[0].starts_with("GPU 0: device fell off the bus"));
    let options = Options {
        devices: Devices::Named(vec!["1".into()]),
        require: true,
        ..driver.options(TWO_READINGS)
    };
    assert!(Sampler::start(&options, Clock::start(), None).is_ok(), "nobody asked for GPU 0");
}

#[test]
fn a_driver_that_hangs_does_not_hold_up_the_end_of_a_run() {
    let driver = Driver::new("0 utilization 10/1 20/2 hang");
    let sampler = driver.start(MANY);
    wait_for(&sampler, 2);
    let clock = Clock::start();
    let sampled = sampled(sampler.stop());
    let waited = clock.now();
    assert!(waited < Duration::from_secs(10), "the driver hangs for a minute; {waited:?}");
    let percent: Vec<f64> = sampled.devices[0].readings.values(UTILIZATION_PERCENT).collect();
    assert_eq!(percent, [10.0, 20.0]);
    assert!(sampled.warnings[0].contains("did not answer"), "{:?}", sampled.warnings);
}

#[test]
fn eight_gpus_cost_little_of_a_processor() {
    let script: String = (0..8)
        .map(|gpu| {
            format!(
                "{gpu} utilization 90/40\n{gpu} memory_mib 30000/50000\n{gpu} power_mw 650500
                 {gpu} energy_mj 5000000\n{gpu} temperature_c 61\n{gpu} sm_clock_mhz 1980
                 {gpu} memory_clock_mhz 2619\n{gpu} throttle_bits 4\n{gpu} processes 1:30000
                 {gpu} traffic_mib_per_s 1/2/3/4\n"
            )
        })
        .collect();
    let driver = Driver::new(&script);
    let sampler = driver.start(Options::default().interval);
    thread::sleep(Duration::from_secs(1));
    let sampled = sampled(sampler.stop());
    let readings = sampled.devices[0].readings.at_s.len();
    let cpu_us = driver.calls("thread cpu_us");
    assert!(cpu_us < 50_000, "{cpu_us} us of a second for {readings} readings");
}
