//! What is read beside the requests of a trial: GPUs, and what the server says of itself.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use crate::clock::Clock;
use crate::gpu::{self, DeviceName, Devices, Gpu, Gpus, Sampled, Sampler};
use crate::headers;
use crate::host::{self, HostReadings, HostSampler};
use crate::metric::{Scalar, Watched};
use crate::plan::{Address, Backend, Case, GpuReading, Server};
use crate::scrape::{self, Scraped, Scraper};
use crate::secret::Secret;
use crate::telemetry::{GpuFacts, Source, Telemetry};

/// Reads until it is stopped.
pub(super) struct Watch {
    clock: Clock,
    gpus: Option<WatchedGpus>,
    server: Option<(Scraper, bool)>,
    host: HostSampler,
}

/// GPUs, and where they are.
enum WatchedGpus {
    /// Of this machine. They count where the server is here too.
    Here { sampler: Sampler, count: bool },
    /// Wherever a page of metrics shows them; they may be required.
    Elsewhere { scraper: Scraper, reading: GpuReading },
}

impl Watch {
    /// Starts to read what the case asks for, of the server at `address` whose process is known where it was
    /// started here. Blocks the thread for up to a second or two.
    pub(super) fn start(
        case: &Case,
        address: &Address,
        server_pid: Option<u32>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let backend = &case.backend;
        let gpus = match &case.gpu {
            None => None,
            Some(reading @ GpuReading { exporter: Some(page), interval, .. }) => {
                let options = scrape::Options::new(page.clone()).every(*interval);
                let scraper = Scraper::start(with_secrets(options, backend, address)?, clock);
                Some(WatchedGpus::Elsewhere { scraper, reading: reading.clone() })
            }
            Some(reading) => {
                let server = server_pid.or_else(|| local_process(backend, address));
                let sampler = Sampler::start(&options_of(reading), clock, server);
                let sampler = sampler.context("the case requires GPUs")?;
                Some(WatchedGpus::Here { sampler, count: backend.is_here() })
            }
        };
        let server = match &backend.metrics {
            None => None,
            Some(metrics) => {
                let options = scrape::Options::new(metrics.url(address)).every(metrics.interval);
                let options = scrape::Options { raw: metrics.raw.clone(), ..options };
                let options = with_secrets(options, backend, address)?;
                Some((Scraper::start(options, clock), metrics.asked))
            }
        };
        let host = HostSampler::start(host::DEFAULT_INTERVAL, clock);
        Ok(Self { clock, gpus, server, host })
    }

    /// What was read, at times of `clock`. Blocks the thread for up to a second or two.
    pub(super) fn stop(self, clock: Clock) -> anyhow::Result<Telemetry> {
        let mut telemetry = Telemetry::default();
        match self.gpus {
            None => {}
            Some(WatchedGpus::Here { sampler, count }) => {
                telemetry.add_gpus(sampler.stop(), count);
            }
            Some(WatchedGpus::Elsewhere { scraper, reading }) => {
                telemetry.add_exporter(scraper.stop(), &reading.devices);
                if let (true, Some(because)) =
                    (reading.require, telemetry.absent.get(&Watched::Gpu))
                {
                    bail!("the case requires GPUs: {because}");
                }
            }
        }
        if let Some((scraper, asked)) = self.server {
            telemetry.add_server(scraper.stop(), asked);
        }
        telemetry.add_host(self.host.stop());
        Ok(telemetry.moved(self.clock.seconds_after(clock)))
    }
}

/// The process of a server that was not started here, and runs here all the same.
fn local_process(backend: &Backend, address: &Address) -> Option<u32> {
    let here = matches!(backend.server, Server::Remote(_)) && backend.is_here();
    here.then(|| address.endpoint_url().port_or_known_default()).flatten().and_then(host::listener)
}

fn options_of(reading: &GpuReading) -> gpu::Options {
    let names = reading.devices.iter();
    let devices = match reading.devices.as_slice() {
        [] => Devices::All,
        _ => Devices::Named(names.map(|name| DeviceName::from(name.as_str())).collect()),
    };
    let (interval, require) = (reading.interval, reading.require);
    gpu::Options { interval, devices, require, ..gpu::Options::default() }
}

/// With what the server wants to be told, where it is the server that is asked, and nobody else.
fn with_secrets(
    options: scrape::Options,
    backend: &Backend,
    address: &Address,
) -> anyhow::Result<scrape::Options> {
    let tls = backend.tls.clone();
    if options.url.origin() != address.endpoint_url().origin() {
        return Ok(scrape::Options { tls, ..options });
    }
    let mut headers = Vec::new();
    for (name, value) in headers::told(backend, &options.url)? {
        headers.push((name.to_string(), Secret::new(value.to_str()?)));
    }
    Ok(scrape::Options { headers, tls, ..options })
}

impl Telemetry {
    /// Those of this machine. They count where `count` says so and the server uses them.
    fn add_gpus(&mut self, gpus: Gpus, count: bool) {
        let sampled = match gpus {
            Gpus::None { because } => {
                self.absent.insert(Watched::Gpu, because);
                return;
            }
            Gpus::Sampled(sampled) => sampled,
        };
        if !count {
            self.warnings.push(
                "the GPUs of this machine are not the server's, which is elsewhere, and count for \
                 nothing: name a page of metrics that shows its own with gpu = { exporter = \"…\" }"
                    .to_owned(),
            );
        }
        if count && sampled.totals().energy_j.is_none() {
            let reason =
                "not every GPU that counts said what energy it took, all the time".to_owned();
            self.unread.insert(Scalar::EnergyPerOutputToken, reason.clone());
            self.unread.insert(Scalar::OutputTokensPerJoule, reason);
        }
        let used: Vec<String> = sampled.used().map(Gpu::label).collect();
        let Sampled { driver_version, cuda_version, devices, warnings } = sampled;
        self.gpu_driver = driver_version;
        self.cuda = cuda_version;
        self.warnings.extend(warnings);
        for gpu in devices {
            let name = gpu.label();
            if let Some(lost) = &gpu.lost {
                self.warnings.push(format!("{name} went away: {}", lost.because));
            }
            self.sources.push(Source {
                counts: count && used.contains(&name),
                name,
                watched: Watched::Gpu,
                what: gpu.name.unwrap_or_default(),
                series: gpu.readings,
                missing: gpu.unread,
                gpu: Some(GpuFacts {
                    uuid: gpu.uuid,
                    memory_total_mib: gpu.memory_total_mib,
                    processes: gpu.processes,
                    used_by_server: gpu.used_by_server,
                    energy: gpu.energy,
                    throttle_reasons: gpu.throttle_reasons,
                    lost: gpu.lost,
                }),
            });
        }
    }

    /// Those of `devices`, by number or UUID, that a page of metrics shows; all, where it names none. They are
    /// the server's, or nobody would name them.
    fn add_exporter(&mut self, scraped: Scraped, devices: &[String]) {
        self.warnings.extend(scraped.warnings);
        let is_wanted = |gpu: &scrape::Gpu| {
            let named = |name: &String| *name == gpu.index || Some(name) == gpu.uuid.as_ref();
            devices.is_empty() || devices.iter().any(named)
        };
        let gpus: Vec<scrape::Gpu> = scraped.gpus.into_iter().filter(is_wanted).collect();
        if let Some(because) = scraped.absent {
            self.absent.insert(Watched::Gpu, because);
        } else if gpus.is_empty() {
            self.absent.insert(Watched::Gpu, "the exporter's page shows no such GPU".to_owned());
        }
        for gpu in gpus {
            let name = format!("gpu{}", gpu.index);
            let again = self.sources.iter().filter(|source| source.name.starts_with(&name)).count();
            self.sources.push(Source {
                // Exporters of several machines may stand behind one page.
                name: if again == 0 { name } else { format!("{name}-{again}") },
                watched: Watched::Gpu,
                what: gpu.model.unwrap_or_default(),
                series: gpu.series,
                counts: true,
                missing: BTreeMap::new(),
                gpu: Some(GpuFacts { uuid: gpu.uuid, ..GpuFacts::default() }),
            });
        }
    }

    /// This machine.
    fn add_host(&mut self, readings: HostReadings) {
        match readings.absent {
            Some(because) => drop(self.absent.insert(Watched::Host, because)),
            None => self.sources.push(Source {
                name: "host".to_owned(),
                watched: Watched::Host,
                what: "the machine that sent the requests".to_owned(),
                series: readings.series,
                counts: true,
                missing: BTreeMap::new(),
                gpu: None,
            }),
        }
    }

    /// What the server says of itself; that it says nothing is worth a warning where it was `asked`.
    fn add_server(&mut self, scraped: Scraped, asked: bool) {
        if asked || scraped.absent.is_none() {
            self.warnings.extend(scraped.warnings);
        }
        if let Some(because) = scraped.absent {
            self.absent.insert(Watched::Server, because);
            return;
        }
        self.server_latencies = scraped.histograms;
        let (refused, longest) = (scraped.refused, scraped.longest);
        let read_s = (0 < scraped.scrapes)
            .then(|| scraped.spent.as_secs_f64() / (scraped.scrapes + scraped.failures) as f64);
        self.metrics_reading_s = read_s.map(|mean| (mean, longest.as_secs_f64()));
        let series = |name: &str, series, counts| Source {
            name: name.to_owned(),
            watched: Watched::Server,
            what: scraped.engine.unwrap_or("an engine whose names are not known").to_owned(),
            series,
            counts,
            missing: BTreeMap::new(),
            gpu: None,
        };
        let server = series("server", scraped.server, true);
        self.sources.push(Source { missing: refused, ..server });
        if !scraped.raw.is_empty() {
            self.sources.push(series("server-raw", scraped.raw, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    /// What is sent to a page, for a backend that has a key and an `authorization` of the user's or none.
    fn sent(page: &str, own: &str) -> Vec<(String, String)> {
        let plan = format!(
            r#"
            [[backend]]
            name = "b"
            kind = "vllm"
            base_url = "http://near:8000/v1"
            models = ["m"]
            headers = {{ x-team = "a", {own} }}
            [[workload]]
            name = "w"
            dataset = "random"
            [[bench]]
            loads = ["1conc"]
            "#
        );
        let case = Plan::parse(&plan).unwrap().cases.remove(0);
        let mut backend = Backend::clone(&case.backend);
        backend.api_key = Some(Secret::new("key-1"));
        let Server::Remote(address) = &backend.server else { panic!("it has an address") };
        let options = scrape::Options::new(page.parse().unwrap());
        let options = with_secrets(options, &backend, address).unwrap();
        let headers = options.headers.iter();
        headers.map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect()
    }

    #[test]
    fn the_server_s_page_is_told_what_its_requests_are_and_no_other_is() {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let page = "http://near:8000/metrics";
        let team = named("x-team", "a");
        assert_eq!(sent(page, ""), [named("authorization", "Bearer key-1"), team.clone()]);
        let own = sent(page, "authorization = \"Basic own\"");
        let expected = [named("authorization", "Basic own"), team];
        assert_eq!(own, expected, "the user's own holds, as it does in requests");
        assert!(sent("http://near:9400/metrics", "").is_empty());
    }
}
