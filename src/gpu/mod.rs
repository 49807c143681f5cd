//! What the GPUs of this machine did while requests ran, as their driver says. Of NVIDIA's so far.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::series::Series;

mod device;
mod energy;
mod library;
mod process;
mod query;
mod sampler;
#[cfg(test)]
mod tests;
mod totals;

pub use sampler::Sampler;
pub use totals::Totals;

/// How often which devices are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// From one reading to the next. A driver that takes longer is read less often.
    pub interval: Duration,
    /// Which are read.
    pub devices: Devices,
    /// Whether it is an error where one of them cannot be read.
    pub require: bool,
    /// The driver's library. `None` for the system's, and where it has none for the one that `NVML_PATH` names.
    pub library: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let interval = Duration::from_millis(100);
        Self { interval, devices: Devices::All, require: false, library: None }
    }
}

/// A choice of devices.
#[derive(Clone, Debug, PartialEq)]
pub enum Devices {
    /// Each that the driver shows.
    All,
    /// Those with these names.
    Named(Vec<DeviceName>),
}

/// How a user names a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The driver's number of a GPU, with all its MIG instances.
    Index(u32),
    /// The UUID of a GPU or of a MIG instance.
    Uuid(String),
}

impl From<&str> for DeviceName {
    /// A number is an index, anything else a UUID.
    fn from(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Uuid(name.to_owned()), Self::Index)
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gpus {
    /// Nothing.
    None {
        /// Why not.
        because: String,
    },
    /// Of one device at least.
    Sampled(Sampled),
}

/// The devices that were read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sampled {
    /// The version of the driver.
    pub driver_version: Option<String>,
    /// The newest version of CUDA that the driver speaks.
    pub cuda_version: Option<String>,
    /// In the order of the driver; MIG instances follow their GPU.
    pub devices: Vec<Gpu>,
    /// What went wrong beside the quantities of a device: devices that could not be opened, a driver that
    /// did not answer in time.
    pub warnings: Vec<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// The driver's number of the GPU.
    pub index: u32,
    /// Whether it is a whole GPU.
    pub kind: Kind,
    /// What it is called for good.
    pub uuid: Option<String>,
    /// Its product's name.
    pub name: Option<String>,
    /// All its memory, MiB.
    pub memory_total_mib: Option<f64>,
    /// Those that computed on it.
    pub processes: Vec<Process>,
    /// Whether the server's process, or one that it started, is among them; `None` where that is not known.
    pub used_by_server: Option<bool>,
    /// One row a reading. A column that could never be read is not there; `unread` says why.
    pub readings: Series,
    /// Where the column `energy_j` comes from, where there is one.
    pub energy: Option<Energy>,
    /// Each reason for which the column `throttled` was 1 in a reading.
    pub throttle_reasons: BTreeSet<ThrottleReason>,
    /// Why a quantity could not be read, ever or at times, by the name of its column. The processes are
    /// under `processes`.
    pub unread: BTreeMap<String, String>,
    /// Set where the device went away in mid-run. What was read before stays.
    pub lost: Option<Lost>,
}

impl Gpu {
    /// Short and unique on a machine: `gpu0`, `gpu0.mig1`.
    pub fn label(&self) -> String {
        match self.kind {
            Kind::Whole | Kind::Divided => format!("gpu{}", self.index),
            Kind::Instance { number } => format!("gpu{}.mig{number}", self.index),
        }
    }
}

/// A GPU, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A GPU in one piece.
    Whole,
    /// A GPU in MIG mode: it has the power, the temperature and the clocks. Its instances have the memory.
    Divided,
    /// A MIG instance.
    Instance {
        /// Its number on its GPU.
        number: u32,
    },
}

/// One that computed on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its ID, as the driver's host counts.
    pub pid: u32,
    /// The most memory that it was seen to use, MiB.
    pub used_memory_mib: Option<f64>,
}

/// Where a device's energy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Energy {
    /// The device counts it.
    Counter,
    /// The sum of the trapezoids under the readings of its power.
    IntegratedPower,
}

/// A device that went away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// When that was seen, s from the zero of the readings.
    pub at_s: f64,
    /// What the driver said.
    pub because: String,
}

/// Why a device runs slower than it could. What the user set, and that there is nothing to do, are none.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ThrottleReason {
    /// It would draw more than its power limit.
    SwPowerCap,
    /// Heat, the power supply or a surge halved its clocks, or worse.
    HwSlowdown,
    /// Another GPU of its group was held back.
    SyncBoost,
    /// It, or its memory, is hotter than it should be.
    SwThermalSlowdown,
    /// Heat halved its clocks, or worse.
    HwThermalSlowdown,
    /// The power supply had it halve its clocks, or worse.
    HwPowerBrakeSlowdown,
}

impl fmt::Display for ThrottleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SwPowerCap => "sw_power_cap",
            Self::HwSlowdown => "hw_slowdown",
            Self::SyncBoost => "sync_boost",
            Self::SwThermalSlowdown => "sw_thermal_slowdown",
            Self::HwThermalSlowdown => "hw_thermal_slowdown",
            Self::HwPowerBrakeSlowdown => "hw_power_brake_slowdown",
        })
    }
}
