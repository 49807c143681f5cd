//! The figures of a result by their metrics, with the names under which they leave the program. Pure.

use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::report::{Report, Servebench};

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
        }
    }

    /// The figures of a case that tools outside are given, those that are missing too.
    pub fn main(report: &Report) -> impl Iterator<Item = Self> {
        main_quantities().map(|quantity| Self::of(report, quantity))
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
    }
}

/// The name with its unit, words joined by `separator`: `ttft_p99_ms`, `output_throughput_tok_per_s`.
pub fn name(quantity: Quantity, separator: char) -> String {
    let unit = unit(quantity).replace('/', "_per_");
    let name = format!("{quantity}_{unit}");
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
    }
}
