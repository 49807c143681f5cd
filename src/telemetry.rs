//! What was read of GPUs, of the server and of this machine while a case ran. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpu::{Energy, Lost, Process, ThrottleReason};
use crate::metric::{Gauge, Scalar, Statistic, Watched};
use crate::samples::Samples;
use crate::scrape::{self, Latencies};
use crate::series::Series;

/// Fewer readings while requests ran say too little of what was between them.
const LEAST_READINGS: usize = 3;
/// Why nothing is known of speculative decoding.
const NO_DRAFTS: &str = "the server's metrics tell of no drafts of speculative decoding";

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// What was read of what.
    pub sources: Vec<Source>,
    /// Why nothing was read of the others.
    pub absent: BTreeMap<Watched, String>,
    /// Why scalars are not known although something was read.
    pub unread: BTreeMap<Scalar, String>,
    /// What the server's own histograms counted.
    pub server_latencies: Latencies,
    /// How long a reading of the server's metrics took, mean and longest, s; `None` where none was read.
    pub metrics_reading_s: Option<(f64, f64)>,
    /// The version of the GPUs' driver.
    pub gpu_driver: Option<String>,
    /// The newest version of CUDA that it speaks.
    pub cuda: Option<String>,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
}

/// One thing that was watched.
#[derive(Clone, Debug)]
pub struct Source {
    /// Short and unique in a case: `gpu0`, `server`, `host`.
    pub name: String,
    /// What it is.
    pub watched: Watched,
    /// What it calls itself.
    pub what: String,
    /// The readings; times in seconds from the start of the case.
    pub series: Series,
    /// Whether it did the work of the case: a GPU that another process has is shown and counts for nothing.
    pub counts: bool,
    /// Why there are no readings of a column.
    pub missing: BTreeMap<String, String>,
    /// What else is known of a GPU.
    pub gpu: Option<GpuFacts>,
}

/// What is known of a GPU beside its readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuFacts {
    /// What it is called for good.
    pub uuid: Option<String>,
    /// All its memory, MiB.
    pub memory_total_mib: Option<f64>,
    /// The processes that computed on it.
    pub processes: Vec<Process>,
    /// Whether the server, or a process that it started, is among them; `null` where that is not known.
    pub used_by_server: Option<bool>,
    /// Where its energy comes from; `null` where it is not known.
    pub energy: Option<Energy>,
    /// For what it was held back.
    pub throttle_reasons: BTreeSet<ThrottleReason>,
    /// When and why it went away; `null` where it did not.
    pub lost: Option<Lost>,
}

/// Speculative decoding by the server's own counts. What it does not count is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speculation {
    /// Drafts.
    pub drafts: Option<u64>,
    /// Their tokens.
    pub draft_tokens: Option<u64>,
    /// Those that were accepted.
    pub accepted_tokens: Option<u64>,
    /// Share of the drafts of which the token at each place was accepted, the first place first.
    pub accepted_ratio_by_position: Option<Vec<f64>>,
}

impl Telemetry {
    /// The GPUs that were held back by heat or power, in words.
    pub fn throttled(&self) -> impl Iterator<Item = String> {
        self.of(Watched::Gpu).filter_map(|source| {
            let share = source.series.statistic("throttled", Statistic::Mean)?;
            let reasons = source.gpu.iter().flat_map(|gpu| &gpu.throttle_reasons);
            let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
            (0.0 < share).then(|| {
                format!(
                    "{} was held back in {:.0} % of the readings ({}): cool it, raise its power limit, or \
                     set lower clocks that it can hold",
                    source.name,
                    100.0 * share,
                    reasons.join(", ")
                )
            })
        })
    }

    /// The sources of a kind that count.
    pub fn of(&self, watched: Watched) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(move |source| source.watched == watched && source.counts)
    }

    /// All readings of a gauge, those of several GPUs together; of one that is of counts, the one value of the whole
    /// time. Or why there are none.
    pub fn gauge(&self, gauge: Gauge) -> Result<Samples, String> {
        let (watched, column) = gauge.column();
        if gauge == Gauge::PrefixCacheHitRatio
            && let Some(ratio) = self.prefix_hit_ratio()
        {
            return Ok(Samples::exact(vec![ratio]));
        }
        let values: Vec<f64> =
            self.of(watched).flat_map(|source| source.series.values(column)).collect();
        match values.len() {
            0 => Err(self.reason(watched, column)),
            few if few < LEAST_READINGS => Err(format!(
                "it was read {few} times while the requests that count ran, and less than {LEAST_READINGS} say too \
                 little: let the case run longer, or read more often (`interval`)"
            )),
            _ => Ok(Samples::exact(values)),
        }
    }

    /// Share of the prompt tokens that the server's prefix cache had, by its own counts over the whole time.
    pub fn prefix_hit_ratio(&self) -> Option<f64> {
        self.counted_ratio("prefix_cache_hits", "prefix_cache_queries")
    }

    /// What is known of speculative decoding; `None` where the server counts nothing of it.
    pub fn speculation(&self) -> Option<Speculation> {
        let counted = |column| self.counted(column).map(|count| count.round() as u64);
        let speculation = Speculation {
            drafts: counted("spec_drafts"),
            draft_tokens: counted("spec_draft_tokens"),
            accepted_tokens: counted("spec_accepted_tokens"),
            accepted_ratio_by_position: self.accepted_by_place(),
        };
        let Speculation { drafts, draft_tokens, accepted_tokens, .. } = speculation;
        drafts.or(draft_tokens).or(accepted_tokens).is_some().then_some(speculation)
    }

    /// Share of the drafts of which the token at each place was accepted.
    fn accepted_by_place(&self) -> Option<Vec<f64>> {
        let ratio = |place| self.counted_ratio(&scrape::accepted_at(place), "spec_drafts");
        let ratios: Vec<f64> = (0..u8::MAX).map_while(ratio).collect();
        (!ratios.is_empty()).then_some(ratios)
    }

    /// By how much one count of the server has grown for each that another has.
    fn counted_ratio(&self, part: &str, whole: &str) -> Option<f64> {
        let whole = self.counted(whole).filter(|whole| 0.0 < *whole)?;
        Some(self.counted(part)? / whole)
    }

    /// By how much a count of the server has grown.
    fn counted(&self, column: &str) -> Option<f64> {
        let servers = self.of(Watched::Server);
        let grown = servers.filter_map(|source| increase(&source.series, column));
        grown.reduce(|sum, grown| sum + grown)
    }

    fn reason(&self, watched: Watched, column: &str) -> String {
        let missing = self.of(watched).find_map(|source| source.missing.get(column));
        missing.or(self.absent.get(&watched)).cloned().unwrap_or_else(|| match watched {
            Watched::Gpu => {
                "no GPU was watched: --collect-gpu-stats reads this machine's".to_owned()
            }
            Watched::Server => format!("the server's metrics hold no {column}"),
            Watched::Host => "this machine was not watched".to_owned(),
        })
    }

    /// The scalar, where what was read has it, for a case that generated so many tokens; or why it has not.
    pub fn scalar(&self, scalar: Scalar, output_tokens: Option<u64>) -> Result<f64, String> {
        if let Some(reason) = self.unread.get(&scalar) {
            return Err(reason.clone());
        }
        let read = |watched, column: &str, of: &dyn Fn(&Series) -> Option<f64>| {
            let values: Vec<f64> =
                self.of(watched).filter_map(|source| of(&source.series)).collect();
            if values.is_empty() { Err(self.reason(watched, column)) } else { Ok(values) }
        };
        let per_token = |energy_j: f64| match output_tokens {
            Some(tokens) if 0 < tokens && 0.0 < energy_j => Ok(energy_j / tokens as f64),
            _ => Err("the generated tokens, or the energy they took, are not known".to_owned()),
        };
        let energy = || {
            let spent = read(Watched::Gpu, "energy_j", &|series| increase(series, "energy_j"))?;
            per_token(spent.iter().sum())
        };
        match scalar {
            Scalar::GpuMemoryPeak => {
                let column = "memory_used_mib";
                let peaks = read(Watched::Gpu, column, &|s| s.statistic(column, Statistic::Max))?;
                Ok(peaks.into_iter().fold(0.0, f64::max))
            }
            Scalar::EnergyPerOutputToken => energy(),
            Scalar::OutputTokensPerJoule => energy().map(|energy_j| 1.0 / energy_j),
            Scalar::GpuThrottledRatio => {
                let column = "throttled";
                let shares = read(Watched::Gpu, column, &|s| s.statistic(column, Statistic::Mean))?;
                Ok(shares.into_iter().fold(0.0, f64::max))
            }
            Scalar::SpecAcceptanceRatio => self
                .counted_ratio("spec_accepted_tokens", "spec_draft_tokens")
                .or_else(|| self.mean("spec_acceptance"))
                .ok_or_else(|| NO_DRAFTS.to_owned()),
            Scalar::SpecAcceptedLength => self
                // The token after those that were accepted is the target model's own.
                .counted_ratio("spec_accepted_tokens", "spec_drafts")
                .map(|accepted| 1.0 + accepted)
                .or_else(|| self.mean("spec_length").filter(|length| 0.0 < *length))
                .ok_or_else(|| NO_DRAFTS.to_owned()),
            Scalar::Preemptions => {
                let column = "preemptions";
                let increases = read(Watched::Server, column, &|series| increase(series, column))?;
                Ok(increases.iter().sum())
            }
            _ => Err("it is not read".to_owned()),
        }
    }

    /// The mean of the readings of a column of the server.
    fn mean(&self, column: &str) -> Option<f64> {
        self.of(Watched::Server).find_map(|source| source.series.statistic(column, Statistic::Mean))
    }

    /// The same at other times.
    #[must_use]
    pub fn moved(mut self, by_s: f64) -> Self {
        for source in &mut self.sources {
            source.series = std::mem::take(&mut source.series).moved(by_s);
        }
        self.server_latencies = self.server_latencies.moved(by_s);
        self
    }

    /// What was read in a stretch of the case.
    #[must_use]
    pub fn within(&self, from_s: f64, to_s: f64) -> Self {
        let mut part = self.clone();
        for source in &mut part.sources {
            source.series = source.series.within(from_s, to_s);
        }
        part.server_latencies = part.server_latencies.within(from_s, to_s);
        part
    }

    /// Adds what was read later.
    pub fn append(&mut self, next: Self) {
        for source in next.sources {
            match self.sources.iter_mut().find(|known| known.name == source.name) {
                Some(known) => {
                    known.series.append(source.series);
                    known.counts |= source.counts;
                    known.missing.extend(source.missing);
                    known.add_facts(source.gpu);
                }
                None => self.sources.push(source),
            }
        }
        self.metrics_reading_s = match (self.metrics_reading_s, next.metrics_reading_s) {
            (Some((mean, longest)), Some((later, longer))) => {
                Some((f64::midpoint(mean, later), longest.max(longer)))
            }
            (known, later) => known.or(later),
        };
        self.absent.extend(next.absent);
        self.unread.extend(next.unread);
        self.server_latencies.append(next.server_latencies);
        self.gpu_driver = self.gpu_driver.take().or(next.gpu_driver);
        self.cuda = self.cuda.take().or(next.cuda);
        let new = |warning: &String| !self.warnings.contains(warning);
        let new: Vec<String> = next.warnings.into_iter().filter(new).collect();
        self.warnings.extend(new);
    }
}

impl Source {
    /// Adds what became known of a GPU later.
    fn add_facts(&mut self, later: Option<GpuFacts>) {
        let (Some(facts), Some(later)) = (&mut self.gpu, later) else { return };
        facts.throttle_reasons.extend(later.throttle_reasons);
        facts.used_by_server = later.used_by_server.or(facts.used_by_server);
        facts.lost = facts.lost.take().or(later.lost);
        facts.processes = later.processes;
    }
}

/// By how much a column that only grows has grown; a fall, after which it counts anew, is none.
fn increase(series: &Series, column: &str) -> Option<f64> {
    let values: Vec<f64> = series.values(column).collect();
    let steps = values.windows(2).map(|pair| (pair[1] - pair[0]).max(0.0));
    (1 < values.len()).then(|| steps.sum())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// A source with a reading of a column each second.
    pub(crate) fn source(name: &str, watched: Watched, column: &str, values: &[f64]) -> Source {
        let mut series = Series::default();
        for (second, value) in (0..).zip(values) {
            series.push(Duration::from_secs(second), [(column, Some(*value))]);
        }
        Source {
            name: name.to_owned(),
            watched,
            what: name.to_owned(),
            series,
            counts: true,
            missing: BTreeMap::new(),
            gpu: None,
        }
    }

    fn of(sources: Vec<Source>) -> Telemetry {
        Telemetry { sources, ..Telemetry::default() }
    }

    #[test]
    fn a_gauge_is_of_all_gpus_that_count() {
        let one = source("gpu0", Watched::Gpu, "utilization_percent", &[80.0, 90.0]);
        let two = source("gpu1", Watched::Gpu, "utilization_percent", &[100.0]);
        let idle = source("gpu2", Watched::Gpu, "utilization_percent", &[0.0]);
        let telemetry = of(vec![one, two, Source { counts: false, ..idle }]);
        let samples = telemetry.gauge(Gauge::GpuUtilization).unwrap();
        assert_eq!(samples.statistic(Statistic::Mean), Some(90.0));
        assert_eq!(samples.statistic(Statistic::Max), Some(100.0));
    }

    #[test]
    fn energy_is_what_was_spent_between_the_readings() {
        let one = source("gpu0", Watched::Gpu, "energy_j", &[5.0, 25.0, 45.0]);
        let two = source("gpu1", Watched::Gpu, "energy_j", &[0.0, 60.0, 60.0]);
        let telemetry = of(vec![one, two]);
        assert_eq!(telemetry.scalar(Scalar::EnergyPerOutputToken, Some(200)), Ok(0.5));
        assert_eq!(telemetry.scalar(Scalar::OutputTokensPerJoule, Some(200)), Ok(2.0));
        assert!(telemetry.scalar(Scalar::EnergyPerOutputToken, None).is_err());
        let part = telemetry.within(1.0, 9.0);
        assert_eq!(part.scalar(Scalar::EnergyPerOutputToken, Some(20)), Ok(1.0));
    }

    #[test]
    fn a_counter_that_begins_anew_counts_on() {
        let server = source("server", Watched::Server, "preemptions", &[7.0, 9.0, 1.0, 2.0]);
        assert_eq!(of(vec![server]).scalar(Scalar::Preemptions, None), Ok(3.0));
    }

    #[test]
    fn a_ratio_of_counts_is_that_of_the_whole_time_and_no_mean_of_ratios() {
        // 10 of 100, then 890 of 900.
        let mut server =
            source("server", Watched::Server, "prefix_cache_queries", &[0.0, 100.0, 1000.0]);
        let hits = source("server", Watched::Server, "prefix_cache_hits", &[0.0, 10.0, 900.0]);
        server.series.columns.extend(hits.series.columns);
        let ratios = source("server", Watched::Server, "prefix_cache_hit_ratio", &[0.1, 0.98]);
        server.series.columns.insert(
            "prefix_cache_hit_ratio".to_owned(),
            [vec![None], ratios.series.columns["prefix_cache_hit_ratio"].clone()].concat(),
        );
        let samples = of(vec![server]).gauge(Gauge::PrefixCacheHitRatio).unwrap();
        assert_eq!(samples.statistic(Statistic::Mean), Some(0.9));
    }

    #[test]
    fn speculative_decoding_has_a_ratio_and_a_length_by_counts_or_by_what_the_server_says() {
        let mut counts = source("server", Watched::Server, "spec_drafts", &[5.0, 15.0]);
        for (column, values) in
            [("spec_draft_tokens", [15.0, 45.0]), ("spec_accepted_tokens", [10.0, 25.0])]
        {
            counts
                .series
                .columns
                .extend(source("server", Watched::Server, column, &values).series.columns);
        }
        let counts = of(vec![counts]);
        assert_eq!(counts.scalar(Scalar::SpecAcceptanceRatio, None), Ok(0.5));
        assert_eq!(counts.scalar(Scalar::SpecAcceptedLength, None), Ok(2.5));
        let said = of(vec![source("server", Watched::Server, "spec_length", &[2.0, 3.0])]);
        assert_eq!(said.scalar(Scalar::SpecAcceptedLength, None), Ok(2.5));
        assert!(said.scalar(Scalar::SpecAcceptanceRatio, None).is_err());
    }

    #[test]
    fn drafts_are_counted_over_a_stretch_of_time_and_what_is_not_told_is_unknown() {
        let mut server = source("server", Watched::Server, "spec_drafts", &[0.0, 10.0, 110.0]);
        for (column, values) in [
            ("spec_draft_tokens", [0.0, 30.0, 330.0]),
            ("spec_accepted_tokens", [0.0, 30.0, 150.0]),
            ("spec_accepted_tokens_at_0", [0.0, 10.0, 80.0]),
            ("spec_accepted_tokens_at_1", [0.0, 10.0, 50.0]),
            ("spec_accepted_tokens_at_2", [0.0, 10.0, 20.0]),
        ] {
            let counts = source("server", Watched::Server, column, &values);
            server.series.columns.extend(counts.series.columns);
        }
        let expected = Speculation {
            drafts: Some(100),
            draft_tokens: Some(300),
            accepted_tokens: Some(120),
            accepted_ratio_by_position: Some(vec![0.7, 0.4, 0.1]),
        };
        let all = of(vec![server]);
        assert_eq!(all.within(1.0, 2.0).speculation(), Some(expected));
        let tokens = source("server", Watched::Server, "spec_draft_tokens", &[5.0, 25.0]);
        let expected = Speculation {
            drafts: None,
            draft_tokens: Some(20),
            accepted_tokens: None,
            accepted_ratio_by_position: None,
        };
        assert_eq!(of(vec![tokens]).speculation(), Some(expected));
        assert_eq!(Telemetry::default().speculation(), None);
    }

    #[test]
    fn a_gauge_that_was_hardly_read_is_unknown() {
        let few = of(vec![source("server", Watched::Server, "requests_waiting", &[0.0, 0.0])]);
        let reason = few.gauge(Gauge::RequestsWaiting).unwrap_err();
        assert!(reason.contains("read 2 times"), "{reason}");
        let more =
            of(vec![source("server", Watched::Server, "requests_waiting", &[0.0, 0.0, 1.0])]);
        assert!(more.gauge(Gauge::RequestsWaiting).is_ok());
    }

    #[test]
    fn what_was_not_read_has_its_reason() {
        let mut gpu = source("gpu0", Watched::Gpu, "power_w", &[100.0]);
        gpu.missing.insert("temperature_c".to_owned(), "not supported".to_owned());
        let mut telemetry = of(vec![gpu]);
        assert_eq!(telemetry.gauge(Gauge::GpuTemperature).unwrap_err(), "not supported");
        telemetry.absent.insert(Watched::Server, "404 Not Found".to_owned());
        assert_eq!(telemetry.gauge(Gauge::KvCacheUsage).unwrap_err(), "404 Not Found");
        let none = Telemetry::default().gauge(Gauge::GpuUtilization).unwrap_err();
        assert!(none.contains("--collect-gpu-stats"), "{none}");
    }

    #[test]
    fn what_was_read_of_a_later_trial_is_put_behind() {
        let mut all = of(vec![source("gpu0", Watched::Gpu, "power_w", &[1.0, 2.0])]);
        let next = of(vec![source("gpu0", Watched::Gpu, "power_w", &[0.0, 3.0, 4.0])]);
        all.append(next.within(1.0, 9.0).moved(1.0));
        assert_eq!(all.sources[0].series.at_s, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(all.sources[0].series.values("power_w").sum::<f64>(), 10.0);
    }
}
