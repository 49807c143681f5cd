//! GPUs as an exporter of metrics shows them: NVIDIA's `dcgm-exporter` and AMD's
//! `device-metrics-exporter`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::text::Sample;
use crate::series::Series;

/// A metric of a GPU and the column that it fills. Of several for a column the first counts.
struct Field {
    name: &'static str,
    /// The label that a value must have.
    label: Option<(&'static str, &'static str)>,
    column: &'static str,
    /// What the value is to be multiplied with.
    unit: f64,
}

const fn field(name: &'static str, column: &'static str, unit: f64) -> Field {
    Field { name, label: None, column, unit }
}

const fn clock(kind: &'static str, column: &'static str) -> Field {
    Field { name: "gpu_clock", label: Some(("clock_type", kind)), column, unit: 1.0 }
}

/// As `etc/default-counters.csv` of the one and `docs/configuration/metricslist.md` of the other have
/// them. What AMD calls MB of memory are MiB.
const FIELDS: [Field; 21] = [
    field("DCGM_FI_DEV_GPU_UTIL", "utilization_percent", 1.0),
    field("DCGM_FI_DEV_MEM_COPY_UTIL", "memory_utilization_percent", 1.0),
    field("DCGM_FI_DEV_FB_USED", "memory_used_mib", 1.0),
    field("DCGM_FI_DEV_FB_FREE", "memory_free_mib", 1.0),
    field("DCGM_FI_DEV_POWER_USAGE", "power_w", 1.0),
    field("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", ENERGY, 1e-3),
    field("DCGM_FI_DEV_GPU_TEMP", "temperature_c", 1.0),
    field("DCGM_FI_DEV_SM_CLOCK", "sm_clock_mhz", 1.0),
    field("DCGM_FI_DEV_MEM_CLOCK", "memory_clock_mhz", 1.0),
    field("gpu_gfx_activity", "utilization_percent", 1.0),
    field("gpu_umc_activity", "memory_utilization_percent", 1.0),
    field("gpu_used_vram", "memory_used_mib", 1.0),
    field("gpu_free_vram", "memory_free_mib", 1.0),
    field("gpu_power_usage", "power_w", 1.0),
    field("gpu_package_power", "power_w", 1.0),
    field("gpu_average_package_power", "power_w", 1.0),
    field("gpu_energy_consumed", ENERGY, 1e-6),
    field("gpu_junction_temperature", "temperature_c", 1.0),
    field("gpu_edge_temperature", "temperature_c", 1.0),
    clock("system", "sm_clock_mhz"),
    clock("memory", "memory_clock_mhz"),
];

const ENERGY: &str = "energy_j";

/// A GPU, or a part of one.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its number on its machine; with that of the part, where it is one: `0`, `0.7`.
    pub index: String,
    /// What tells it from every other.
    pub uuid: Option<String>,
    /// What it is.
    pub model: Option<String>,
    /// Its columns.
    pub series: Series,
    energy: Option<Energy>,
}

/// A counter that begins anew with the driver.
#[derive(Clone, Copy, Debug)]
struct Energy {
    last_j: f64,
    since_first_j: f64,
}

impl Energy {
    fn count_on(before: Option<Self>, now_j: f64) -> Self {
        let since_first_j = match before {
            None => 0.0,
            Some(before) if now_j < before.last_j => before.since_first_j + now_j,
            Some(before) => before.since_first_j + (now_j - before.last_j),
        };
        Self { last_j: now_j, since_first_j }
    }
}

/// The GPUs that were seen so far.
#[derive(Clone, Debug, Default)]
pub struct SeenGpus {
    by_id: BTreeMap<Id, Gpu>,
}

/// Number, part and UUID.
type Id = (String, Option<String>, Option<String>);

/// The values of one GPU by column: the place of the best field that was found, the sum and the number
/// of its values.
type Row = BTreeMap<&'static str, (usize, f64, u32)>;

impl SeenGpus {
    /// Adds a look at a page.
    pub fn add(&mut self, at: Duration, samples: &[Sample<'_>]) {
        let mut rows: BTreeMap<Id, Row> = BTreeMap::new();
        for sample in samples {
            let Some((place, field)) = field_of(sample) else { continue };
            if is_blank(sample.value) {
                continue;
            }
            let Some(id) = id_of(sample) else { continue };
            self.by_id.entry(id.clone()).or_insert_with(|| Gpu::new(&id, sample));
            let row = rows.entry(id).or_default();
            let cell = row.entry(field.column).or_insert((place, 0.0, 0));
            if place < cell.0 {
                *cell = (place, 0.0, 0);
            }
            if place == cell.0 {
                // Several dies of a GPU have each a clock.
                *cell = (place, cell.1 + sample.value * field.unit, cell.2 + 1);
            }
        }
        for (id, row) in rows {
            if let Some(gpu) = self.by_id.get_mut(&id) {
                gpu.add(at, &row);
            }
        }
    }

    /// All of them, in order of their numbers.
    pub fn into_all(self) -> Vec<Gpu> {
        self.by_id.into_values().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl Gpu {
    fn new((index, part, uuid): &Id, sample: &Sample<'_>) -> Self {
        let model = ["modelName", "card_series", "card_model"];
        let model = model.iter().find_map(|label| sample.label(label));
        let index = match part {
            Some(part) => format!("{index}.{part}"),
            None => index.clone(),
        };
        Self {
            index,
            uuid: uuid.clone(),
            model: model.map(str::to_owned),
            series: Series::default(),
            energy: None,
        }
    }

    fn add(&mut self, at: Duration, row: &Row) {
        let mut cells = Vec::new();
        for (column, (_, sum, count)) in row {
            let mut value = sum / f64::from(*count);
            if *column == ENERGY {
                let energy = Energy::count_on(self.energy, value);
                self.energy = Some(energy);
                value = energy.since_first_j;
            }
            cells.push((*column, Some(value)));
        }
        self.series.push(at, cells);
    }
}

fn field_of(sample: &Sample<'_>) -> Option<(usize, &'static Field)> {
    // AMD's exporter can be told to put `amd_` before each name.
    let name = sample.name.strip_prefix("amd_").unwrap_or(&sample.name);
    FIELDS.iter().enumerate().find(|(_, field)| {
        field.name == name
            && field.label.is_none_or(|(label, wanted)| sample.label(label) == Some(wanted))
    })
}

fn id_of(sample: &Sample<'_>) -> Option<Id> {
    let of = |labels: &[&str]| labels.iter().find_map(|label| sample.label(label));
    let index = of(&["gpu", "gpu_id"])?;
    // A GPU that is not parted is part 0 of itself for AMD.
    let part = of(&["GPU_I_ID"]).or(of(&["gpu_partition_id"]).filter(|part| *part != "0"));
    let uuid = of(&["UUID", "uuid", "gpu_uuid", "serial_number"]);
    Some((index.to_owned(), part.map(str::to_owned), uuid.map(str::to_owned)))
}

/// What DCGM writes for what it does not know: the last numbers that 32 and 64 bits hold, and 2^47 for a
/// fraction (`dcgm_structs.h`).
fn is_blank(value: f64) -> bool {
    const I32: std::ops::RangeInclusive<f64> = 2_147_483_632.0..=2_147_483_647.0;
    const F64: std::ops::RangeInclusive<f64> = 140_737_488_355_328.0..=140_737_488_355_343.0;
    !value.is_finite() || 9.2e18 <= value || I32.contains(&value) || F64.contains(&value)
}

#[cfg(test)]
mod tests {
    use super::super::text::Page;
    use super::*;

    fn seen(pages: &[&str]) -> Vec<Gpu> {
        let mut gpus = SeenGpus::default();
        for (second, page) in (0..).zip(pages) {
            gpus.add(Duration::from_secs(second), &Page::parse(page).samples);
        }
        gpus.into_all()
    }

    fn column(gpu: &Gpu, name: &str) -> Vec<Option<f64>> {
        gpu.series.columns.get(name).cloned().unwrap_or_default()
    }

    #[test]
    fn dcgm_s_page_has_a_set_of_columns_for_each_gpu() {
        let page = |energy_mj: u64| {
            format!(
                r#"# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{{gpu="0",UUID="GPU-a",pci_bus_id="00000000:04:00.0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",hostname="x"}} 1980
DCGM_FI_DEV_SM_CLOCK{{gpu="1",UUID="GPU-b",pci_bus_id="00000000:05:00.0",device="nvidia1",modelName="NVIDIA H100 80GB HBM3",hostname="x"}} 345
DCGM_FI_DEV_MEMORY_TEMP{{gpu="0",UUID="GPU-a"}} 40
DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-a"}} 9223372036854775794
DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-a"}} 97
DCGM_FI_DEV_FB_USED{{gpu="0",UUID="GPU-a"}} 70000
DCGM_FI_DEV_FB_FREE{{gpu="0",UUID="GPU-a"}} 11000
DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="GPU-a"}} 640.5
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="GPU-a"}} {energy_mj}
"#
            )
        };
        let gpus = seen(&[&page(7_000_000), &page(7_640_500), &page(1_000)]);
        assert_eq!(gpus.len(), 2);
        assert_eq!((gpus[0].index.as_str(), gpus[1].index.as_str()), ("0", "1"));
        assert_eq!(gpus[0].uuid.as_deref(), Some("GPU-a"));
        assert_eq!(gpus[0].model.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(column(&gpus[0], "power_w"), [Some(640.5); 3]);
        assert_eq!(column(&gpus[0], "memory_used_mib"), [Some(70_000.0); 3]);
        assert_eq!(column(&gpus[1], "sm_clock_mhz"), [Some(345.0); 3]);
        let energy = column(&gpus[0], "energy_j");
        assert_eq!(energy, [Some(0.0), Some(640.5), Some(641.5)], "joules since the first look");
        assert!(column(&gpus[0], "temperature_c").is_empty(), "DCGM says that it does not know");
    }

    #[test]
    fn a_mig_instance_is_a_gpu_of_its_own() {
        let gpus = seen(&[
            r#"DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7"} 1
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",GPU_I_PROFILE="1g.10gb",GPU_I_ID="8"} 2"#,
        ]);
        assert_eq!(gpus.iter().map(|gpu| gpu.index.as_str()).collect::<Vec<_>>(), ["0.7", "0.8"]);
    }

    #[test]
    fn amd_s_page_fills_the_same_columns() {
        let of = r#"gpu_id="2",gpu_partition_id="0",gpu_uuid="ccff",card_series="AMD Instinct MI300X OAM""#;
        let page = |joules: u64| {
            format!(
                r#"gpu_gfx_activity{{{of}}} 88
amd_gpu_umc_activity{{{of}}} 12
gpu_package_power{{{of}}} 700
gpu_power_usage{{{of}}} 690
gpu_used_vram{{{of}}} 1000
gpu_free_vram{{{of}}} 195000
gpu_junction_temperature{{{of}}} 61
gpu_edge_temperature{{{of}}} 50
gpu_energy_consumed{{{of}}} {joules}000000
gpu_clock{{{of},clock_type="system",clock_index="0"}} 2000
gpu_clock{{{of},clock_type="system",clock_index="1"}} 2100
gpu_clock{{{of},clock_type="memory",clock_index="8"}} 900
gpu_clock{{{of},clock_type="soc",clock_index="9"}} 29
"#
            )
        };
        let gpus = seen(&[&page(50), &page(57)]);
        assert_eq!((gpus.len(), gpus[0].index.as_str()), (1, "2"));
        assert_eq!(gpus[0].model.as_deref(), Some("AMD Instinct MI300X OAM"));
        for (name, value) in [
            ("utilization_percent", 88.0),
            ("memory_utilization_percent", 12.0),
            ("memory_used_mib", 1000.0),
            ("memory_free_mib", 195_000.0),
            ("power_w", 690.0),
            ("temperature_c", 61.0),
            ("sm_clock_mhz", 2050.0),
            ("memory_clock_mhz", 900.0),
            ("energy_j", 7.0),
        ] {
            assert_eq!(column(&gpus[0], name)[1], Some(value), "{name}");
        }
    }
}
