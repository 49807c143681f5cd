//! What is read while a case runs: what the plan says, or what is usual of a backend of that kind.

use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use toml::Spanned;
use url::Url;

use super::environment::{Expanded, expand, variable};
use super::{Address, Backend, Server};
use crate::config::{self, ConfigError, ConfigFile, GpuDevices, GpuName, Switched, Throttled};
use crate::duration::HumanDuration;
use crate::flags::Flags;
use crate::loopback::is_loopback;
use crate::wire::BackendKind;

/// From one reading of a GPU to the next.
const GPU_INTERVAL: Duration = Duration::from_millis(100);
/// From one look at a page of metrics to the next.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// How GPUs are read.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuReading {
    /// From one reading to the next.
    pub interval: Duration,
    /// Their numbers or UUIDs; empty for all.
    pub devices: Vec<String>,
    /// A page of metrics that shows them; `None` for those of this machine.
    pub exporter: Option<Url>,
    /// Whether a GPU that cannot be read fails the case.
    pub require: bool,
    /// Whether one that was held back makes the result invalid.
    pub throttled_is_invalid: bool,
}

/// How a server's own metrics are read.
#[derive(Clone, Debug)]
pub struct MetricsReading {
    /// Where the page is.
    pub place: MetricsPlace,
    /// From one look to the next.
    pub interval: Duration,
    /// Metrics that are kept as they are.
    pub raw: GlobSet,
    /// Whether the plan asks for them: a server without them is then worth a warning.
    pub asked: bool,
}

/// Where a page of metrics is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsPlace {
    /// Beside the API: below the base URL, without its `/v1`.
    Beside(String),
    /// On another port of the same host.
    Port(u16, &'static str),
    /// Anywhere.
    At(Url),
}

impl MetricsReading {
    /// What is usual of a kind; `None` for one that shows nothing.
    pub(super) fn usual(kind: BackendKind) -> Option<Self> {
        use BackendKind as Kind;
        let beside = |path: &str| MetricsPlace::Beside(path.to_owned());
        let place = match kind {
            // MAX has them on a port of their own, Triton too.
            Kind::Modular | Kind::ModularChat => MetricsPlace::Port(8001, "/metrics"),
            Kind::TrtLlm => MetricsPlace::Port(8002, "/metrics"),
            Kind::Vllm | Kind::VllmChat | Kind::Sglang | Kind::SglangChat => beside("/metrics"),
            Kind::LlamaCpp | Kind::LlamaCppChat | Kind::Tgi | Kind::Sim => beside("/metrics"),
            // Anybody's: nobody asked to be looked at.
            Kind::OpenAi | Kind::OpenAiChat | Kind::OpenAiResponses => return None,
        };
        let raw = GlobSet::empty();
        Some(Self { place, interval: METRICS_INTERVAL, raw, asked: false })
    }

    /// The page of the server at an address.
    pub fn url(&self, address: &Address) -> Url {
        match &self.place {
            MetricsPlace::Beside(path) => address.beside(path),
            MetricsPlace::Port(port, path) => {
                let mut url = address.beside(path);
                // A server behind another, whose URL names no port, has none.
                if url.port().is_some() {
                    // A URL with a host, as each address is, has room for a port.
                    let _ = url.set_port(Some(*port));
                }
                url
            }
            MetricsPlace::At(url) => url.clone(),
        }
    }
}

impl Backend {
    /// Whether it runs on this machine, so that this machine's GPUs may be its own.
    pub fn is_here(&self) -> bool {
        match &self.server {
            Server::Sim(_) => true,
            Server::Unset { .. } => false,
            Server::Remote(address) => {
                self.launch.is_some() || is_loopback(&address.endpoint_url())
            }
        }
    }
}

/// How the flags and the file say that GPUs are read; `None` where neither asks for it.
pub(super) fn gpu(
    file: &ConfigFile,
    flags: &Flags,
    setting: Option<Switched<config::Gpu>>,
) -> Result<Option<GpuReading>, ConfigError> {
    let wanted = flags.collect_gpu_stats || flags.require_gpu;
    let written = match setting {
        Some(Switched::On(written)) => written,
        Some(Switched::Off) | None if wanted => config::Gpu::default(),
        Some(Switched::Off) | None => return Ok(None),
    };
    let mut reading = by_flags(flags);
    if let Some(interval) = &written.interval {
        reading.interval = positive(file, interval)?;
    }
    reading.devices = match written.devices {
        None | Some(GpuDevices::All(_)) => Vec::new(),
        Some(GpuDevices::Named(names)) => names
            .into_iter()
            .map(|name| match name {
                GpuName::Number(number) => number.to_string(),
                GpuName::Text(text) => text,
            })
            .collect(),
    };
    reading.exporter = written.exporter.as_ref().map(|url| page(file, url)).transpose()?.flatten();
    reading.require |= written.require.unwrap_or(false);
    reading.throttled_is_invalid = written.throttled == Some(Throttled::Invalid);
    Ok(Some(reading))
}

/// How GPUs are read where no file says more.
pub(super) fn by_flags(flags: &Flags) -> GpuReading {
    GpuReading {
        interval: GPU_INTERVAL,
        devices: Vec::new(),
        exporter: None,
        require: flags.require_gpu,
        throttled_is_invalid: false,
    }
}

/// How the file says that the metrics of a backend are read.
pub(super) fn metrics(
    file: &ConfigFile,
    kind: BackendKind,
    setting: Option<&Switched<config::Metrics>>,
) -> Result<Option<MetricsReading>, ConfigError> {
    let written = match setting {
        None => return Ok(MetricsReading::usual(kind)),
        Some(Switched::Off) => return Ok(None),
        Some(Switched::On(written)) => written,
    };
    let usual = MetricsReading::usual(kind).map(|usual| usual.place);
    let place = match &written.url {
        None => usual.unwrap_or_else(|| MetricsPlace::Beside("/metrics".to_owned())),
        Some(url) if url.get_ref().starts_with('/') => MetricsPlace::Beside(url.get_ref().clone()),
        Some(url) => match page(file, url)? {
            Some(url) => MetricsPlace::At(url),
            None => return Ok(None),
        },
    };
    let interval = match &written.interval {
        Some(interval) => positive(file, interval)?,
        None => METRICS_INTERVAL,
    };
    let mut raw = GlobSetBuilder::new();
    for glob in &written.raw {
        let glob = Glob::new(glob.get_ref())
            .map_err(|error| file.error(glob.span(), format!("`raw`: {error}")))?;
        raw.add(glob);
    }
    let raw = raw.build().unwrap_or_default();
    Ok(Some(MetricsReading { place, interval, raw, asked: true }))
}

fn positive(file: &ConfigFile, interval: &Spanned<HumanDuration>) -> Result<Duration, ConfigError> {
    match interval.get_ref().0 {
        zero if zero.is_zero() => Err(file.error(interval.span(), "`interval` must be above zero")),
        interval => Ok(interval),
    }
}

/// The URL of a page; `None` where a variable that it names is not set.
fn page(file: &ConfigFile, written: &Spanned<String>) -> Result<Option<Url>, ConfigError> {
    let error = |message: String| file.error(written.span(), message);
    match expand(written.get_ref(), variable).map_err(error)? {
        Expanded::Unset(_) => Ok(None),
        Expanded::Text(text) => match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(url)),
            _ => Err(error("write a URL such as http://host:9400/metrics".to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn plan(defaults: &str, backend: &str) -> Result<Plan, String> {
        let plan = format!(
            r#"
            [defaults]
            {defaults}
            [[backend]]
            name = "b"
            kind = "modular"
            base_url = "http://far:8000/v1"
            models = ["m"]
            {backend}
            [[workload]]
            name = "w"
            dataset = "random"
            [[bench]]
            loads = ["1conc"]
            "#
        );
        Plan::parse(&plan).map_err(|error| error.to_string())
    }

    fn gpu_of(setting: &str) -> Option<GpuReading> {
        plan(setting, "").unwrap().cases[0].gpu.clone()
    }

    #[test]
    fn gpus_are_read_where_the_plan_asks_for_it() {
        assert_eq!(gpu_of(""), None);
        assert_eq!(gpu_of("gpu = false"), None);
        let usual = gpu_of("gpu = true").unwrap();
        assert_eq!((usual.interval, usual.devices.len()), (GPU_INTERVAL, 0));
        let reading = gpu_of("gpu = { interval = \"1s\", devices = [0, \"GPU-1\"], require = true, throttled = \"invalid\" }").unwrap();
        assert_eq!(reading.interval, Duration::from_secs(1));
        assert_eq!(reading.devices, ["0", "GPU-1"]);
        assert!(reading.require && reading.throttled_is_invalid);
        let exporter =
            gpu_of("gpu = { devices = \"all\", exporter = \"http://far:9400/metrics\" }");
        assert_eq!(exporter.unwrap().exporter.unwrap().as_str(), "http://far:9400/metrics");
    }

    fn metrics_url(backend: &str) -> Option<String> {
        let case = plan("", backend).unwrap().cases.remove(0);
        let Server::Remote(address) = &case.backend.server else { return None };
        Some(case.backend.metrics.as_ref()?.url(address).to_string())
    }

    #[test]
    fn metrics_are_where_a_server_of_the_kind_has_them_unless_the_plan_says_where() {
        assert_eq!(metrics_url("").as_deref(), Some("http://far:8001/metrics"));
        assert_eq!(metrics_url("metrics = false"), None);
        assert_eq!(metrics_url("metrics = true").as_deref(), Some("http://far:8001/metrics"));
        let below = metrics_url("metrics = { url = \"/stats\" }");
        assert_eq!(below.as_deref(), Some("http://far:8000/stats"));
        let other = metrics_url("metrics = { url = \"http://other:1/m\" }");
        assert_eq!(other.as_deref(), Some("http://other:1/m"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (defaults, backend, part) in [
            ("gpu = { interval = \"0s\" }", "", "must be above zero"),
            ("gpu = { devices = \"some\" }", "", "write \"all\""),
            ("gpu = { speed = 1 }", "", "unknown field `speed`"),
            ("gpu = 3", "", "true, false or a table"),
            ("", "metrics = { raw = [\"a[\"] }", "`raw`"),
            ("", "metrics = { url = \"far\" }", "write a URL such as"),
        ] {
            let error = plan(defaults, backend).unwrap_err();
            assert!(error.contains(part) && error.contains("plan:"), "{error}");
        }
    }
}
