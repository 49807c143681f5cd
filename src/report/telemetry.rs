//! What was read of GPUs, of the server and of this machine, in the document.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::Statistic;
use crate::scrape::HistogramFigures;
use crate::series::Series;
use crate::telemetry::{GpuFacts, Source, Speculation, Telemetry};

/// The most rows of a series; of more, each is the mean of neighbours. The figures are of all of them.
const MAX_ROWS: usize = 600;

/// Everything that was read while the case ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct TelemetryReport {
    /// What was read of what.
    pub sources: Vec<SourceReport>,
    /// The server's own latencies by the names of the client's, as its histograms have them: what they counted
    /// between the readings nearest to the begin of the first request that counts and to the end of the last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub server_latencies: BTreeMap<String, HistogramFigures>,
    /// Speculative decoding by the server's own counts, of the requests that count; `null` where it counts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
    /// How long a reading of the server's metrics took on average, s; `null` where none was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_reading_s_mean: Option<f64>,
    /// The longest reading, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_reading_s_max: Option<f64>,
    /// Why nothing was read of a `gpu`, the `server` or the `host`.
    pub absent: BTreeMap<String, String>,
}

/// One thing that was watched.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SourceReport {
    /// Short and unique in a case: `gpu0`, `server`, `host`.
    pub source: String,
    /// `gpu`, `server` or `host`.
    pub kind: String,
    /// What it calls itself.
    pub what: String,
    /// Whether it did the work of the case, so that it counts in the case's own figures.
    pub counts: bool,
    /// Of the requests that count, by the name of the readings, which carries the unit.
    pub figures: BTreeMap<String, ReadFigures>,
    /// Why there are no readings of something.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// What else is known of a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuFacts>,
    /// The readings, at most 600 rows.
    pub series: Series,
}

/// Statistics of readings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadFigures {
    /// How many there are.
    pub count: usize,
    /// The mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The last one.
    pub last: f64,
}

impl TelemetryReport {
    /// That of everything that was read; the figures are of what `counted` holds.
    pub(super) fn new(telemetry: &Telemetry, counted: &Telemetry) -> Self {
        let sources = telemetry.sources.iter().zip(&counted.sources);
        Self {
            sources: sources
                .map(|(all, counted)| SourceReport::new(all, &counted.series))
                .collect(),
            server_latencies: counted
                .server_latencies
                .total()
                .iter()
                .filter_map(|(timing, counted)| {
                    Some((timing.name().to_owned(), counted.figures()?))
                })
                .collect(),
            speculation: counted.speculation(),
            metrics_reading_s_mean: telemetry.metrics_reading_s.map(|(mean, _)| mean),
            metrics_reading_s_max: telemetry.metrics_reading_s.map(|(_, longest)| longest),
            absent: telemetry
                .absent
                .iter()
                .map(|(watched, reason)| (watched.name().to_owned(), reason.clone()))
                .collect(),
        }
    }
}

impl SourceReport {
    fn new(source: &Source, counted: &Series) -> Self {
        let names = source.series.columns.keys();
        let figures =
            names.filter_map(|name| Some((name.clone(), ReadFigures::new(counted, name)?)));
        Self {
            source: source.name.clone(),
            kind: source.watched.name().to_owned(),
            what: source.what.clone(),
            counts: source.counts,
            figures: figures.collect(),
            missing: source.missing.clone(),
            gpu: source.gpu.clone(),
            series: source.series.decimated(MAX_ROWS),
        }
    }
}

impl ReadFigures {
    /// `None` where nothing was read.
    fn new(series: &Series, column: &str) -> Option<Self> {
        let of = |statistic| series.statistic(column, statistic);
        Some(Self {
            count: series.values(column).count(),
            mean: of(Statistic::Mean)?,
            min: of(Statistic::Min)?,
            max: of(Statistic::Max)?,
            last: series.values(column).last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Watched;
    use crate::scrape::counted_latencies;
    use crate::telemetry::tests::source;

    #[test]
    fn figures_are_of_all_readings_that_count_and_the_series_is_bounded() {
        let values: Vec<f64> = (0..6000).map(f64::from).collect();
        let telemetry = Telemetry {
            sources: vec![source("gpu0", Watched::Gpu, "power_w", &values)],
            ..Telemetry::default()
        };
        let report = TelemetryReport::new(&telemetry, &telemetry.within(1000.0, 1002.0));
        let gpu = &report.sources[0];
        assert_eq!(gpu.series.at_s.len(), MAX_ROWS);
        let figures =
            ReadFigures { count: 3, mean: 1001.0, min: 1000.0, max: 1002.0, last: 1002.0 };
        assert_eq!(gpu.figures["power_w"], figures);
    }

    #[test]
    fn the_server_s_own_latencies_are_of_what_counts() {
        // 10 in the warm-up, 5 in the drain.
        let telemetry = Telemetry {
            server_latencies: counted_latencies(&[0, 10, 200, 3000, 5]),
            ..Telemetry::default()
        };
        let report = TelemetryReport::new(&telemetry, &telemetry.within(1.1, 2.9));
        assert_eq!(report.server_latencies["ttft"].count, 3200);
    }

    #[test]
    fn what_was_not_read_while_requests_counted_has_no_figures() {
        let sources = vec![source("gpu0", Watched::Gpu, "power_w", &[1.0])];
        let telemetry = Telemetry { sources, ..Telemetry::default() };
        let mut counted = telemetry.clone();
        counted.sources[0].series = Series::default();
        let report = TelemetryReport::new(&telemetry, &counted);
        assert!(report.sources[0].figures.is_empty());
        assert_eq!(report.sources[0].series.at_s, [0.0]);
    }
}
