//! The devices of a run as one. Pure.

use std::collections::BTreeSet;

use super::query::{
    ENERGY_J, MEMORY_FREE_MIB, MEMORY_USED_MIB, POWER_W, THROTTLED, UTILIZATION_PERCENT,
};
use super::{Gpu, Kind, Sampled, ThrottleReason};
use crate::metric::Statistic;

/// Figures over the devices that a run used; `None` where they were not read.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Mean over the devices of the mean of each over time, %.
    pub utilization_percent: Option<f64>,
    /// The most memory in use of any device at any time, MiB.
    pub memory_peak_mib: Option<f64>,
    /// The least memory that any device had free at any time, MiB.
    pub memory_available_mib: Option<f64>,
    /// Sum over the GPUs of the mean power of each, W. `None` where one was not read or went away.
    pub power_w: Option<f64>,
    /// Sum over the GPUs of the energy from the first reading to the last, J. `None` where one was not read
    /// or went away.
    pub energy_j: Option<f64>,
    /// Whether a GPU was held back at any time.
    pub throttled: Option<bool>,
    /// By what.
    pub throttle_reasons: BTreeSet<ThrottleReason>,
}

impl Sampled {
    /// The devices on which the server ran; all where that is not known, as with a server elsewhere or one
    /// whose IDs of processes are not this machine's.
    pub fn used(&self) -> impl Iterator<Item = &Gpu> {
        let known = self.devices.iter().any(|gpu| gpu.used_by_server == Some(true));
        self.devices.iter().filter(move |gpu| !known || gpu.used_by_server == Some(true))
    }

    /// Over the devices that were used. Memory and utilization are as MAX's script has them, which keeps one
    /// figure a device.
    pub fn totals(&self) -> Totals {
        let each = |column, statistic| {
            self.used().filter_map(move |gpu| gpu.readings.statistic(column, statistic))
        };
        let utilizations: Vec<f64> = each(UTILIZATION_PERCENT, Statistic::Mean).collect();
        let count = utilizations.len() as f64;
        let gpus = || self.used().filter(|gpu| !matches!(gpu.kind, Kind::Instance { .. }));
        let sum = |column, statistic| {
            let whole = |gpu: &Gpu| match gpu.lost {
                Some(_) => None,
                None => gpu.readings.statistic(column, statistic),
            };
            let sum = gpus().map(whole).sum::<Option<f64>>();
            sum.filter(|_| gpus().next().is_some())
        };
        let throttled = each(THROTTLED, Statistic::Max).reduce(f64::max).map(|most| 0.0 < most);
        Totals {
            utilization_percent: (0.0 < count).then(|| utilizations.iter().sum::<f64>() / count),
            memory_peak_mib: each(MEMORY_USED_MIB, Statistic::Max).reduce(f64::max),
            memory_available_mib: each(MEMORY_FREE_MIB, Statistic::Min).reduce(f64::min),
            power_w: sum(POWER_W, Statistic::Mean),
            energy_j: sum(ENERGY_J, Statistic::Max),
            throttled,
            throttle_reasons: self
                .used()
                .flat_map(|gpu| gpu.throttle_reasons.iter().copied())
                .collect(),
        }
    }
}
