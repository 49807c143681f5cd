//! The questions that a device is asked, and the columns that the answers fill.

use std::collections::BTreeSet;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::{Device, GpmSample};

use super::{Kind, Process, ThrottleReason};

pub const UTILIZATION_PERCENT: &str = "utilization_percent";
pub const MEMORY_UTILIZATION_PERCENT: &str = "memory_utilization_percent";
pub const MEMORY_USED_MIB: &str = "memory_used_mib";
pub const MEMORY_FREE_MIB: &str = "memory_free_mib";
pub const POWER_W: &str = "power_w";
pub const ENERGY_J: &str = "energy_j";
pub const TEMPERATURE_C: &str = "temperature_c";
pub const SM_CLOCK_MHZ: &str = "sm_clock_mhz";
pub const MEMORY_CLOCK_MHZ: &str = "memory_clock_mhz";
pub const THROTTLED: &str = "throttled";
pub const PCIE_RX: &str = "pcie_rx_mib_per_s";
pub const PCIE_TX: &str = "pcie_tx_mib_per_s";
pub const NVLINK_RX: &str = "nvlink_rx_mib_per_s";
pub const NVLINK_TX: &str = "nvlink_tx_mib_per_s";
/// No column, but it can be refused as they can.
pub const PROCESSES: &str = "processes";

/// Columns that a GPU in MIG mode has and its instances have not.
pub const OF_GPU: [&str; 10] = [
    POWER_W,
    ENERGY_J,
    TEMPERATURE_C,
    SM_CLOCK_MHZ,
    MEMORY_CLOCK_MHZ,
    THROTTLED,
    PCIE_RX,
    PCIE_TX,
    NVLINK_RX,
    NVLINK_TX,
];
/// Columns that the instances have.
pub const OF_PART: [&str; 4] =
    [UTILIZATION_PERCENT, MEMORY_UTILIZATION_PERCENT, MEMORY_USED_MIB, MEMORY_FREE_MIB];

const MIB: f64 = 1024.0 * 1024.0;

/// What the rates over the two buses are called by the driver's performance monitoring (GPM).
const TRAFFIC: [(&str, GpmMetricId); 4] = [
    (PCIE_RX, GpmMetricId::PcieRxPerSec),
    (PCIE_TX, GpmMetricId::PcieTxPerSec),
    (NVLINK_RX, GpmMetricId::NvlinkTotalRxPerSec),
    (NVLINK_TX, GpmMetricId::NvlinkTotalTxPerSec),
];

/// The reasons that hold a device back. The others are what the user set, and that it has nothing to do.
const HELD_BACK: [(ThrottleReasons, ThrottleReason); 6] = [
    (ThrottleReasons::SW_POWER_CAP, ThrottleReason::SwPowerCap),
    (ThrottleReasons::HW_SLOWDOWN, ThrottleReason::HwSlowdown),
    (ThrottleReasons::SYNC_BOOST, ThrottleReason::SyncBoost),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, ThrottleReason::SwThermalSlowdown),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, ThrottleReason::HwThermalSlowdown),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, ThrottleReason::HwPowerBrakeSlowdown),
];

/// One question.
#[derive(Debug)]
pub enum Query<'nvml> {
    Utilization,
    Memory,
    Power,
    Energy { first_mj: Option<u64> },
    Temperature,
    SmClock,
    MemoryClock,
    Throttle,
    Traffic { before: Option<GpmSample<'nvml>> },
    Pcie,
    Processes,
}

/// The answers of one round.
#[derive(Debug, Default)]
pub struct Answers {
    pub row: Vec<(&'static str, f64)>,
    pub throttle_reasons: BTreeSet<ThrottleReason>,
    pub processes: Vec<Process>,
    /// Columns that were not filled, and why.
    pub unread: Vec<(&'static str, String)>,
    /// Why there will be no more answers.
    pub lost: Option<String>,
}

impl<'nvml> Query<'nvml> {
    /// What a device of this kind is asked: memory belongs to an instance and all else to its GPU.
    pub fn all(kind: Kind, is_monitored: bool) -> Vec<Self> {
        let traffic = if is_monitored { Self::Traffic { before: None } } else { Self::Pcie };
        let of_gpu = [
            Self::Power,
            Self::Energy { first_mj: None },
            Self::Temperature,
            Self::SmClock,
            Self::MemoryClock,
            Self::Throttle,
            traffic,
        ];
        let of_part = [Self::Utilization, Self::Memory];
        let asked = of_gpu.into_iter().filter(|_| !matches!(kind, Kind::Instance { .. }));
        let asked = asked.chain(of_part.into_iter().filter(|_| kind != Kind::Divided));
        asked.chain([Self::Processes]).collect()
    }

    /// Whether it is asked about once a second only. The answer to the one takes the driver 20 ms for each
    /// direction, and the other is long.
    pub fn is_seldom(&self) -> bool {
        matches!(self, Self::Pcie | Self::Processes)
    }

    /// What the answer fills.
    pub fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Utilization => &[UTILIZATION_PERCENT, MEMORY_UTILIZATION_PERCENT],
            Self::Memory => &[MEMORY_USED_MIB, MEMORY_FREE_MIB],
            Self::Power => &[POWER_W],
            Self::Energy { .. } => &[ENERGY_J],
            Self::Temperature => &[TEMPERATURE_C],
            Self::SmClock => &[SM_CLOCK_MHZ],
            Self::MemoryClock => &[MEMORY_CLOCK_MHZ],
            Self::Throttle => &[THROTTLED],
            Self::Traffic { .. } => &[PCIE_RX, PCIE_TX, NVLINK_RX, NVLINK_TX],
            Self::Pcie => &[PCIE_RX, PCIE_TX],
            Self::Processes => &[PROCESSES],
        }
    }

    /// Asks, and adds the answer.
    pub fn ask(&mut self, device: &Device<'nvml>, answers: &mut Answers) -> Result<(), NvmlError> {
        let mut fill = |column, value| answers.row.push((column, value));
        match self {
            Self::Utilization => {
                let rates = device.utilization_rates()?;
                fill(UTILIZATION_PERCENT, rates.gpu.into());
                fill(MEMORY_UTILIZATION_PERCENT, rates.memory.into());
            }
            Self::Memory => {
                let memory = device.memory_info()?;
                fill(MEMORY_USED_MIB, mib(memory.used));
                fill(MEMORY_FREE_MIB, mib(memory.free));
            }
            Self::Power => fill(POWER_W, f64::from(device.power_usage()?) / 1e3),
            Self::Energy { first_mj } => {
                let now_mj = device.total_energy_consumption()?;
                let first_mj = *first_mj.get_or_insert(now_mj);
                // A driver that starts anew counts from 0.
                if let Some(spent_mj) = now_mj.checked_sub(first_mj) {
                    fill(ENERGY_J, spent_mj as f64 / 1e3);
                }
            }
            Self::Temperature => {
                fill(TEMPERATURE_C, device.temperature(TemperatureSensor::Gpu)?.into());
            }
            Self::SmClock => fill(SM_CLOCK_MHZ, device.clock_info(Clock::SM)?.into()),
            Self::MemoryClock => fill(MEMORY_CLOCK_MHZ, device.clock_info(Clock::Memory)?.into()),
            Self::Throttle => {
                let set = device.current_throttle_reasons()?;
                let held_back = HELD_BACK.iter().filter(|(reason, _)| set.contains(*reason));
                answers.throttle_reasons = held_back.map(|(_, reason)| *reason).collect();
                fill(THROTTLED, f64::from(u8::from(!answers.throttle_reasons.is_empty())));
            }
            Self::Traffic { before } => {
                let now = device.gpm_sample()?;
                if let Some(before) = before {
                    let wanted = TRAFFIC.map(|(_, metric)| metric);
                    let rates = gpm_metrics_get(device.nvml(), before, &now, &wanted)?;
                    for ((column, _), rate) in TRAFFIC.into_iter().zip(rates) {
                        match rate {
                            // `nvml.h` has them in MiB/s.
                            Ok(rate) => answers.row.push((column, rate.value)),
                            Err(error) => answers.unread.push((column, error.to_string())),
                        }
                    }
                }
                *before = Some(now);
            }
            Self::Pcie => {
                let kib_per_s = |counter| device.pcie_throughput(counter).map(f64::from);
                fill(PCIE_RX, kib_per_s(PcieUtilCounter::Receive)? / 1024.0);
                fill(PCIE_TX, kib_per_s(PcieUtilCounter::Send)? / 1024.0);
            }
            Self::Processes => {
                let used = |memory| match memory {
                    UsedGpuMemory::Used(bytes) => Some(mib(bytes)),
                    UsedGpuMemory::Unavailable => None,
                };
                let running = device.running_compute_processes()?.into_iter();
                answers.processes = running
                    .map(|it| Process { pid: it.pid, used_memory_mib: used(it.used_gpu_memory) })
                    .collect();
            }
        }
        Ok(())
    }
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
