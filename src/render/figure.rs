//! The figures of a result by their metrics, with the names under which they leave the program. Pure.

use crate::metric::{Gauge, Latency, Quantity, Scalar, Statistic};
use crate::report::{ReadFigures, Report, Servebench};

/// The latencies that tools outside are given.
pub const LATENCIES: [Latency; 4] = [Latency::Ttft, Latency::Tpot, Latency::E2e, Latency::ChunkGap];
/// The statistics of each that trackers are given.
pub const STATISTICS: [Statistic; 3] =
    [Statistic::Mean, Statistic::Percentile(50.0), Statistic::Percentile(99.0)];

/// One figure of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub quantity: Quantity,
    /// ms for a latency; `None` where it is not known, or the sample cannot support it.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
}

impl Figure {
    /// That of a case.
    pub fn of(report: &Report, quantity: Quantity) -> Self {
        let own = &report.servebench;
        match quantity {
            Quantity::Latency(latency, statistic) => {
                let figure = statistic_of(own, latency, statistic);
                Self {
                    quantity,
                    value: figure.and_then(|figure| figure.estimate_ms),
                    interval: figure.and_then(|figure| figure.interval_ms),
                }
            }
            Quantity::Scalar(scalar) => {
                let value = own.scalars.get(scalar.name()).copied().flatten();
                Self { quantity, value, interval: None }
            }
            Quantity::Gauge(gauge, statistic) => {
                Self { quantity, value: read(own, gauge, statistic), interval: None }
            }
        }
    }

    /// The figures of a case that tools outside are given, those that are missing too.
    pub fn main(report: &Report) -> impl Iterator<Item = Self> {
        main_quantities().map(|quantity| Self::of(report, quantity))
    }
}

/// A statistic of what was read of all sources that count; `None` for one that a result does not keep.
fn read(own: &Servebench, gauge: Gauge, statistic: Statistic) -> Option<f64> {
    let (watched, column) = gauge.column();
    let sources = own.telemetry.sources.iter();
    let counting = sources.filter(|source| source.counts && source.kind == watched.name());
    let figures: Vec<_> = counting.filter_map(|source| source.figures.get(column)).collect();
    let all = |of: fn(&ReadFigures) -> f64| figures.iter().map(move |figures| of(figures));
    match statistic {
        Statistic::Max => all(|figures| figures.max).reduce(f64::max),
        Statistic::Min => all(|figures| figures.min).reduce(f64::min),
        Statistic::Mean => {
            let count: f64 = figures.iter().map(|figures| figures.count as f64).sum();
            let sum: f64 = figures.iter().map(|f| f.mean * f.count as f64).sum();
            (0.0 < count).then(|| sum / count)
        }
        Statistic::StdDev | Statistic::Percentile(_) => None,
    }
}

fn statistic_of(
    own: &Servebench,
    latency: Latency,
    statistic: Statistic,
) -> Option<&crate::report::Figure> {
    own.latencies.get(latency.name())?.statistics.get(&statistic.to_string())
}

/// What tools outside are given.
pub fn main_quantities() -> impl Iterator<Item = Quantity> {
    let latencies = LATENCIES.into_iter().flat_map(|latency| {
        STATISTICS.into_iter().map(move |statistic| Quantity::Latency(latency, statistic))
    });
    latencies.chain(Scalar::ALL.into_iter().map(Quantity::Scalar))
}

/// The unit in which a quantity is given; empty for a share.
pub fn unit(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Latency(..) => "ms",
        Quantity::Scalar(scalar) => scalar.unit(),
        Quantity::Gauge(gauge, _) => gauge.unit(),
    }
}

/// The name with its unit, words joined by `separator`: `ttft_p99_ms`, `output_throughput_tok_per_s`.
pub fn name(quantity: Quantity, separator: char) -> String {
    let unit = unit(quantity).replace('/', "_per_");
    let name = match quantity {
        // Its name has it.
        Quantity::Scalar(Scalar::GpuMemoryPeak) | Quantity::Gauge(..) => quantity.to_string(),
        _ => format!("{quantity}_{unit}"),
    };
    name.trim_end_matches('_').replace(['_', '.'], &separator.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_its_unit() {
        let named = |text: &str, separator| name(text.parse().unwrap(), separator);
        assert_eq!(named("ttft.p99.9", '-'), "ttft-p99-9-ms");
        assert_eq!(named("chunk_gap.mean", '_'), "chunk_gap_mean_ms");
        assert_eq!(named("output_throughput", '_'), "output_throughput_tok_per_s");
        assert_eq!(named("goodput", '-'), "goodput-req-per-s");
        assert_eq!(named("error_ratio", '-'), "error-ratio");
        assert_eq!(named("gpu_memory_peak_mib", '-'), "gpu-memory-peak-mib");
        assert_eq!(named("energy_per_output_token", '_'), "energy_per_output_token_J_per_tok");
    }
}
