//! The devices that the driver shows, and a round of questions to one.

use std::collections::BTreeMap;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::query::{Answers, NVLINK_RX, NVLINK_TX, OF_GPU, OF_PART, Query, mib};
use super::{DeviceName, Devices, Gpu, Kind};
use crate::series::Series;

/// A device, and what it still answers.
#[derive(Debug)]
pub struct Watched<'nvml> {
    device: Device<'nvml>,
    queries: Vec<Query<'nvml>>,
}

/// Devices that can be read.
#[derive(Debug)]
pub struct Found<'nvml> {
    /// Each, and what is known of it before a reading.
    pub devices: Vec<(Watched<'nvml>, Gpu)>,
    /// What is wrong with the others that were asked for.
    pub warnings: Vec<String>,
}

/// Opens the devices that are asked for.
pub fn find<'nvml>(nvml: &'nvml Nvml, wanted: &Devices) -> Result<Found<'nvml>, NvmlError> {
    let mut closed = BTreeMap::new();
    let mut devices = Vec::new();
    for index in 0..nvml.device_count()? {
        match nvml.device_by_index(index) {
            Ok(device) => devices.extend(parts(index, device)),
            Err(error) => drop(closed.insert(index, format!("GPU {index}: {error}"))),
        }
    }
    let Devices::Named(names) = wanted else {
        return Ok(Found { devices, warnings: closed.into_values().collect() });
    };
    let is = |gpu: &Gpu, name: &DeviceName| match name {
        DeviceName::Index(index) => gpu.index == *index,
        DeviceName::Uuid(uuid) => gpu.uuid.as_ref() == Some(uuid),
    };
    let missing = names.iter().filter(|name| !devices.iter().any(|(_, gpu)| is(gpu, name)));
    let why = |name: &DeviceName| match name {
        DeviceName::Index(index) => {
            closed.get(index).cloned().unwrap_or_else(|| format!("there is no GPU {index}"))
        }
        DeviceName::Uuid(uuid) => format!("there is no GPU {uuid} that can be read"),
    };
    let warnings = missing.map(why).collect();
    devices.retain(|(_, gpu)| names.iter().any(|name| is(gpu, name)));
    Ok(Found { devices, warnings })
}

/// A GPU and its MIG instances.
fn parts(index: u32, device: Device<'_>) -> Vec<(Watched<'_>, Gpu)> {
    if !device.mig_mode().is_ok_and(|mode| mode.current != 0) {
        return vec![watch(index, Kind::Whole, device)];
    }
    // Numbers without an instance are refused.
    let most = device.mig_device_count().unwrap_or(0);
    let instances: Vec<_> = (0..most)
        .filter_map(|number| Some((number, device.mig_device_by_index(number).ok()?)))
        .collect();
    let instances = instances
        .into_iter()
        .map(|(number, instance)| watch(index, Kind::Instance { number }, instance));
    std::iter::once(watch(index, Kind::Divided, device)).chain(instances).collect()
}

fn watch(index: u32, kind: Kind, device: Device<'_>) -> (Watched<'_>, Gpu) {
    let monitored = match kind {
        Kind::Whole | Kind::Divided => monitored(&device),
        Kind::Instance { .. } => Ok(()),
    };
    let mut unread = BTreeMap::new();
    let mut note = |columns: &[&str], because: &str| {
        unread.extend(columns.iter().map(|column| ((*column).to_owned(), because.to_owned())));
    };
    match kind {
        Kind::Instance { .. } => note(&OF_GPU, "read of the GPU of which it is a part"),
        Kind::Divided => note(&OF_PART, "read of each of its MIG instances"),
        Kind::Whole => {}
    }
    if let Err(because) = &monitored {
        note(&[NVLINK_RX, NVLINK_TX], &format!("no performance monitoring (GPM): {because}"));
    }
    let gpu = Gpu {
        index,
        kind,
        uuid: device.uuid().ok(),
        name: device.name().ok(),
        memory_total_mib: device.memory_info().ok().map(|memory| mib(memory.total)),
        processes: Vec::new(),
        used_by_server: None,
        readings: Series::default(),
        energy: None,
        throttle_reasons: Default::default(),
        unread,
        lost: None,
    };
    (Watched { device, queries: Query::all(kind, monitored.is_ok()) }, gpu)
}

/// Whether the GPU monitors its performance, as those since Hopper do.
fn monitored(device: &Device) -> Result<(), NvmlError> {
    if !device.gpm_support()? {
        return Err(NvmlError::NotSupported);
    }
    device.gpm_sample().map(drop)
}

impl Watched<'_> {
    /// Asks what there is to ask. What is refused for good is not asked again.
    pub fn read(&mut self, with_seldom: bool) -> Answers {
        let mut answers = Answers::default();
        let Self { device, queries } = self;
        queries.retain_mut(|query| {
            if answers.lost.is_some() || (query.is_seldom() && !with_seldom) {
                return true;
            }
            let Err(error) = query.ask(device, &mut answers) else { return true };
            let columns = query.columns().iter();
            answers.unread.extend(columns.map(|column| (*column, error.to_string())));
            if is_loss(&error) {
                answers.lost = Some(error.to_string());
            }
            passes(&error)
        });
        if answers.lost.is_some() {
            queries.clear();
        }
        answers
    }
}

/// Whether the device is gone until somebody resets it.
fn is_loss(error: &NvmlError) -> bool {
    /// `NVML_ERROR_GPU_NOT_FOUND`, which the wrapper has no name for.
    const GPU_NOT_FOUND: u32 = 28;
    use NvmlError::{GpuLost, ResetRequired, UnexpectedVariant};
    matches!(error, GpuLost | ResetRequired | UnexpectedVariant(GPU_NOT_FOUND))
}

/// Whether the same question may be answered the next time.
fn passes(error: &NvmlError) -> bool {
    use NvmlError::{
        InUse, InsufficientMemory, InsufficientSize, IrqIssue, NoData, Timeout, Unknown,
    };
    matches!(
        error,
        Timeout | Unknown | NoData | InUse | InsufficientMemory | InsufficientSize(_) | IrqIssue
    )
}
