//! A plan file and flags in, named and complete cases out, in order; every cross-check is made here.
//! Sends nothing and opens no dataset: it looks whether the files that are named are there.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use crate::config::{Alternate, StopSignal};
use crate::config::{Config, ConfigError, ConfigFile, StreamOptions};
use crate::course::{Course, RampShape, RampUp, WarmUp};
use crate::flags::{Flags, RequestRate};
use crate::load::{ArrivalProcess, Burstiness, Load, Search};
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::schedule::Schedule;
use crate::secret::Secret;
use crate::share::Share;
use crate::sim::SimConfig;
use crate::slo::{Goodput, Slo};
use crate::tls::TlsOptions;
use crate::wire::{BackendKind, LengthField, ProtocolKind};
use crate::workload::{Dataset, DatasetKind, Salt};

mod address;
mod backend;
mod environment;
mod file;
mod flags;
mod gate;
mod missing;
mod name;
mod outputs;
mod pairs;
mod selects;
mod size;
mod telemetry;
mod workload;

/// Requests of a case unless the plan says otherwise: the default of MAX's script.
const DEFAULT_REQUESTS: usize = 500;
/// How long a step of a search is unless the plan says so.
const DEFAULT_STEP: Duration = Duration::from_secs(30);
const DEFAULT_SEARCH_STEPS: usize = 12;
const DEFAULT_SWEEP_STEPS: usize = 8;
const DEFAULT_PRECISION: f64 = 0.05;
/// The most of a case that is to be quick.
const QUICK_REQUESTS: usize = 100;
const QUICK_DURATION: Duration = Duration::from_secs(10);
const DEFAULT_MIN_EFFECT: f64 = 0.05;
/// What the usual drift of a host between sessions does not explain.
const DEFAULT_LARGE_EFFECT: f64 = 0.3;
/// Trials of each server where two are compared.
const DEFAULT_PAIRS: usize = 5;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const DEFAULT_API_KEY_ENV: &str = "OPENAI_API_KEY";

/// Everything that may run, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cases; their names are unique.
    pub cases: Vec<Case>,
    /// Folder of the results.
    pub results: PathBuf,
    /// What is written beside them.
    pub outputs: Outputs,
    /// What the user should know about how the plan came about.
    pub notes: Vec<String>,
}

/// One named measurement: a workload under a load against a model of a backend.
#[derive(Clone, Debug)]
pub struct Case {
    /// `<backend>/<model>/<workload>@<load>`.
    pub name: String,
    /// The server.
    pub backend: Arc<Backend>,
    /// The model.
    pub model: Model,
    /// What is sent.
    pub workload: NamedDataset,
    /// How hard.
    pub load: Load,
    /// How the arrivals of an open loop are spaced.
    pub arrivals: ArrivalProcess,
    /// How the load goes through time.
    pub course: Course,
    /// How often it is repeated, each time with a seed of its own.
    pub trials: usize,
    /// How long trials are added until every objective is decided; `None` where their number is set.
    pub until_decided: Option<Duration>,
    /// Whether an objective that is undecided is none that is met.
    pub strict: bool,
    /// What it is measured in turn with, and compared with.
    pub against: Option<Against>,
    /// What is compared, and what matters.
    pub gate: Gate,
    /// How a load that is to be found is searched for.
    pub search: SearchOptions,
    /// Decides the prompts and the arrivals. The same for all cases of a plan, so that two backends
    /// get the same requests at the same times.
    pub seed: u64,
    /// Objectives of the case. One on errors is always among them.
    pub slos: Vec<Slo>,
    /// Objectives of each request.
    pub goodput: Option<Goodput>,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long a request may go without a byte.
    pub stall_timeout: Option<Duration>,
    /// What counts tokens.
    pub tokenizer: TokenizerChoice,
    /// Where the tokenizer's file is named and is not there. Only who reads it needs it.
    pub missing_tokenizer: Option<PlanError>,
    /// Whether the result holds an entry per request.
    pub details: bool,
    /// How GPUs are read while it runs; `None` where they are not.
    pub gpu: Option<GpuReading>,
}

impl Case {
    /// How many prompts the case needs; they come again where more requests are sent. `None` for all
    /// that the workload has.
    pub fn prompts(&self) -> Option<usize> {
        if matches!(self.load, Load::Trace { .. }) {
            // Those of the warm-up come on top of them, and only the trace knows how many they are.
            return self.course.requests.filter(|_| self.course.warm_up.is_none());
        }
        let schedule = Schedule::new(&self.load, &self.course, self.arrivals, self.seed);
        let requests = schedule.requests().or(self.course.requests).unwrap_or(DEFAULT_REQUESTS);
        Some(requests.max(1))
    }

    /// How many prompts its warm-up needs, which come again likewise; 0 where it has none, or where only a
    /// trace knows. `None` for as many as the case.
    pub fn warm_up_prompts(&self) -> Option<usize> {
        Schedule::new(&self.load, &self.course, self.arrivals, self.seed).warm_up_requests()
    }

    /// The backends that it needs: its own, and that of what it is measured in turn with.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        let partner = self.against.iter().map(|against| &*against.case.backend);
        std::iter::once(&*self.backend).chain(partner)
    }

    /// Why a file that it reads is not there; `None` where all may be.
    pub fn missing_file(&self) -> Option<&PlanError> {
        self.workload.missing_file.as_ref().or(self.missing_tokenizer.as_ref())
    }

    /// What the results call the tokenizer; `None` where there is none.
    pub fn tokenizer_id(&self) -> Option<String> {
        match &self.tokenizer {
            TokenizerChoice::Named(place) => Some(place.display().to_string()),
            TokenizerChoice::OfModel => Some(self.model.source.clone()),
            TokenizerChoice::None => None,
        }
    }
}

/// What a case is measured in turn with.
#[derive(Clone, Debug)]
pub struct Against {
    /// The same work by another server.
    pub case: Arc<Case>,
    /// It is the case itself: what differs is noise.
    pub is_itself: bool,
    /// How the two servers share the machine.
    pub alternate: Alternate,
}

/// What is compared, and what matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The metrics.
    pub metrics: Vec<Quantity>,
    /// The smallest relative change that matters, as a share.
    pub min_effect: f64,
    /// Of single metrics, where it is another.
    pub min_effects: Vec<(Quantity, f64)>,
    /// From where on a change against fewer than five sessions fails the build.
    pub large_effect: f64,
}

impl Gate {
    /// The smallest change of a metric that matters, as a share.
    pub fn min_effect_of(&self, quantity: Quantity) -> f64 {
        let own = self.min_effects.iter().find(|(other, _)| *other == quantity);
        own.map_or(self.min_effect, |(_, share)| *share)
    }

    fn of(
        compare: Option<Vec<Quantity>>,
        min_effect: Option<Share>,
        min_effects: Vec<(Quantity, f64)>,
    ) -> Self {
        let usual = || {
            let of = |latency, percent| Quantity::Latency(latency, Statistic::Percentile(percent));
            vec![
                of(Latency::Ttft, 50.0),
                of(Latency::Ttft, 90.0),
                of(Latency::Ttft, 99.0),
                of(Latency::Tpot, 50.0),
                of(Latency::Tpot, 99.0),
                of(Latency::E2e, 50.0),
                Quantity::Scalar(Scalar::OutputThroughput),
            ]
        };
        Self {
            metrics: compare.unwrap_or_else(usual),
            min_effect: min_effect.map_or(DEFAULT_MIN_EFFECT, Share::ratio),
            min_effects,
            large_effect: DEFAULT_LARGE_EFFECT,
        }
    }
}

/// How a load that is to be found is searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchOptions {
    /// The most steps of `max-goodput`, and the rates of `sweep`.
    pub steps: usize,
    /// How near each other the rates are to come between which the answer lies, as a share.
    pub precision: f64,
}

impl SearchOptions {
    fn of(load: &Load, steps: Option<NonZeroUsize>, precision: Option<Share>) -> Self {
        let usual = match load {
            Load::Search(Search::Sweep) => DEFAULT_SWEEP_STEPS,
            _ => DEFAULT_SEARCH_STEPS,
        };
        Self {
            steps: steps.map_or(usual, NonZeroUsize::get),
            precision: precision.map_or(DEFAULT_PRECISION, Share::ratio),
        }
    }
}

/// What counts tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// A tokenizer.json, a model's folder, or a model on the Hub.
    Named(PathBuf),
    /// That of the model, where the model's ID is a folder of this machine or the Hub knows it.
    OfModel,
    /// The server alone.
    None,
}

impl TokenizerChoice {
    /// The choice that a text is: `none`, or where the tokenizer is.
    fn of(place: Option<PathBuf>) -> Self {
        match place {
            None => Self::OfModel,
            Some(place) if place.as_os_str() == "none" => Self::None,
            Some(place) => Self::Named(place),
        }
    }

    /// Why there is none at the place that is named; `None` where there may be one.
    fn missing(&self) -> Option<String> {
        match self {
            Self::Named(place) => missing::tokenizer(place),
            Self::OfModel | Self::None => None,
        }
    }
}

/// A model under test.
#[derive(Clone, Debug)]
pub struct Model {
    /// What the server calls it.
    pub id: String,
    /// What the case name calls it.
    pub alias: String,
    /// What its tokenizer is looked up by: the ID, unless the server calls it something of its own.
    pub source: String,
}

impl Model {
    /// That of the embedded engine where nothing is said of it.
    fn embedded() -> Self {
        let name = || "sim".to_owned();
        Self { id: name(), alias: name(), source: name() }
    }
}

/// A dataset with the name that cases give it.
#[derive(Clone, Debug)]
pub struct NamedDataset {
    /// Third part of the case name.
    pub name: String,
    /// The dataset.
    pub dataset: Dataset,
    /// Where its file is named and is not there. Only who reads it needs it.
    pub missing_file: Option<PlanError>,
    /// What the system says before every prompt.
    pub system: Option<String>,
    /// What keeps prompts from sharing a beginning with those of other cases and runs.
    pub salt: Salt,
}

impl NamedDataset {
    /// Why a case cannot send it in this way.
    fn fault(&self, protocol: ProtocolKind, load: &Load) -> Option<String> {
        if self.dataset.sends_tokens() && !protocol.takes_tokens() {
            return Some(format!(
                "prompts cannot be sent as tokens by {}: leave `send` out, or measure a backend of \
                 completions",
                protocol.name()
            ));
        }
        if self.dataset.sends_tokens() && self.system.is_some() {
            return Some("a prompt of tokens has no room for `system`".to_owned());
        }
        let is_trace = self.dataset.kind() == DatasetKind::Trace;
        (matches!(load, Load::Trace { .. }) && !is_trace).then(|| {
            format!("the load `{load}` takes its times from a workload of the dataset trace")
        })
    }
}

/// A server and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Backend {
    /// First part of the case names.
    pub name: String,
    /// What it is.
    pub kind: BackendKind,
    /// What it speaks.
    pub protocol: ProtocolKind,
    /// Where it is.
    pub server: Server,
    /// Headers sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Fields added to every request body.
    pub extra_body: Map<String, Value>,
    /// Whether `stream_options` is sent.
    pub stream_options: StreamOptions,
    /// Whether `ignore_eos` is sent.
    pub ignore_eos: bool,
    /// How chat is told the longest answer.
    pub length_field: LengthField,
    /// Whether `min_tokens` is sent.
    pub min_tokens: bool,
    /// Whether a short request before the clock starts finds out how the server wants to be asked.
    pub probe: bool,
    /// Whether requests go by HTTP/2.
    pub http2: bool,
    /// How connections by https are made secure.
    pub tls: TlsOptions,
    /// How to start the server for its cases.
    pub launch: Option<Launch>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// Who says where it is.
    pub address_source: AddressSource,
    /// How long a server that was not started here is waited for while it loads.
    pub ready_timeout: Duration,
    /// Where the plan names a variable for its key that is not set. Only who sends something needs the key.
    pub missing_key: Option<ConfigError>,
    /// A missing server fails its cases instead of having them ignored.
    pub require_server: bool,
    /// How its own metrics are read while its cases run; `None` where they are not.
    pub metrics: Option<MetricsReading>,
}

/// Who says where a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// The plan file, which may speak of servers that are not everywhere.
    Plan,
    /// The command line, or the environment in its place: that very server is meant.
    CommandLine,
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Added to its environment.
    pub env: BTreeMap<String, Secret>,
    /// What answers 2xx when it is ready: a URL, or a path below the base URL.
    pub ready_url: String,
    /// How long it may take to be ready.
    pub ready_timeout: Duration,
    /// What asks it to end.
    pub stop_signal: StopSignal,
}

impl Backend {
    /// A backend of which nothing more is said.
    pub fn plain(kind: BackendKind, protocol: ProtocolKind, server: Server) -> Self {
        Self {
            name: kind.name().to_owned(),
            kind,
            protocol,
            server,
            headers: Vec::new(),
            api_key: None,
            extra_body: Map::new(),
            stream_options: StreamOptions::Auto,
            ignore_eos: kind.knows_ignore_eos(),
            length_field: LengthField::MaxTokens,
            min_tokens: kind.knows_min_tokens(),
            probe: true,
            http2: false,
            tls: TlsOptions::default(),
            launch: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            address_source: AddressSource::Plan,
            ready_timeout: Duration::ZERO,
            missing_key: None,
            require_server: false,
            metrics: MetricsReading::usual(kind),
        }
    }

    /// The embedded engine with these figures, as a backend of completions.
    pub fn embedded(config: SimConfig) -> Self {
        Self::plain(BackendKind::Sim, ProtocolKind::Completions, Server::Sim(config))
    }

    /// The same at another address, to which it was redirected. One that is of another origin is told nothing
    /// that may be secret.
    pub(crate) fn at(&self, address: &Address, is_known: bool) -> Self {
        let moved = Self { server: Server::Remote(address.clone()), ..self.clone() };
        if is_known {
            return moved;
        }
        let tls = TlsOptions { cert: None, key: None, ..self.tls.clone() };
        Self { headers: Vec::new(), api_key: None, tls, ..moved }
    }

    /// Whether it is told anything that may be secret.
    pub(crate) fn has_secrets(&self) -> bool {
        !self.secrets().is_empty() || self.tls.cert.is_some()
    }

    /// What is sent and must not be shown.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets: Vec<Secret> =
            self.headers.iter().map(|(_, value)| value).chain(&self.api_key).cloned().collect();
        if let Server::Remote(address) = &self.server {
            secrets.extend(address.secrets());
        }
        secrets.extend(Secret::of_body(&self.extra_body));
        secrets
    }
}

/// Where a backend is.
#[derive(Clone, Debug)]
pub enum Server {
    /// At an address.
    Remote(Address),
    /// Nowhere: an environment variable that the plan names is not set. Its cases are ignored.
    Unset {
        /// The variable.
        variable: String,
    },
    /// In this process, started for each case.
    Sim(SimConfig),
}

pub use address::Address;
pub use outputs::Outputs;
pub use telemetry::{GpuReading, MetricsPlace, MetricsReading};

/// Why there is no plan.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlanError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The flags are wrong.
    #[error("{0}")]
    Flags(String),
}

impl Plan {
    /// The plan that the text of a plan file describes.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let file = ConfigFile::parse(Path::new("plan"), text.to_owned())?;
        file::plan(&file, &Flags::default())
    }

    /// The plan that `flags` ask for: that of the plan file, or of the flags alone where they name a
    /// target that is no backend of the file.
    ///
    /// `default_config` is read where no flag names a file.
    pub fn new(flags: &Flags, default_config: &Path) -> Result<Self, PlanError> {
        flags::check(flags).map_err(PlanError::Flags)?;
        let path = flags.config.as_deref().unwrap_or(default_config);
        let named = flags.config.is_some();
        if !flags.name_a_target() {
            if !named && !path.exists() {
                return Err(PlanError::Flags(format!(
                    "there is no plan: `{}` does not exist; write it, name another with --config, \
                     or name a target with --base-url and --model",
                    path.display()
                )));
            }
            return file::plan(&ConfigFile::load(path)?, flags);
        }

        // A default file that is damaged does not matter to flags that say everything.
        let file = match ConfigFile::load(path) {
            Ok(file) => Some(file),
            Err(error) if named => return Err(error.into()),
            // A backend that is no kind can only be one of the file.
            Err(error) if path.exists() && flags::kind_of(flags).is_err() => {
                return Err(error.into());
            }
            Err(_) => None,
        };
        let backend = flags.backend.as_deref();
        match file {
            Some(file) if backend.is_some_and(|name| has_backend(&file.config, name)) => {
                file::plan(&file, flags)
            }
            Some(file) if named => Err(PlanError::Flags(format!(
                "--config names a plan and --backend, --base-url, --host, --port or --model a \
                 target: pick one of the plan's backends with --backend ({}), whose address and \
                 model the other flags then replace, or leave --config out",
                backend_names(&file.config)
            ))),
            file => {
                let mut plan = flags::plan(flags)?;
                if file.is_some() {
                    plan.notes.push(format!(
                        "the flags name the target, so `{}` is not used",
                        path.display()
                    ));
                }
                Ok(plan)
            }
        }
    }
}

fn has_backend(config: &Config, name: &str) -> bool {
    config.backend.iter().any(|backend| backend.name.get_ref() == name)
}

fn backend_names(config: &Config) -> String {
    let names: Vec<&str> =
        config.backend.iter().map(|backend| backend.name.get_ref().as_str()).collect();
    if names.is_empty() { "it has none".to_owned() } else { names.join(", ") }
}

/// The load that flags ask for; `None` where they ask for none.
fn load_of(flags: &Flags) -> Option<Load> {
    match (flags.request_rate, flags.max_concurrency) {
        (Some(RequestRate::Infinite), None) => Some(Load::Infinite),
        (Some(RequestRate::Infinite), Some(users)) => Some(Load::Closed(users)),
        (Some(RequestRate::PerSecond(rate)), cap) => Some(Load::Open { rate, cap }),
        (Some(RequestRate::Trace), cap) => Some(Load::Trace { cap }),
        (Some(RequestRate::Search(search)), _) => Some(Load::Search(search)),
        (None, Some(users)) => Some(Load::Closed(users)),
        (None, None) => None,
    }
}

/// The course that a plan file asks for; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    requests: Option<NonZeroUsize>,
    duration: Option<Duration>,
    ramp_up: Option<Duration>,
    ramp_shape: Option<RampShape>,
    warm_up: Option<WarmUp>,
    drain: Option<Duration>,
}

/// The course of a case under `load`: what the flags say, then what the file does.
fn course_of(load: &Load, flags: &Flags, asked: Asked) -> Course {
    // Each of the two says how long a case is: one of them alone takes the place of both.
    let number = flags.num_chat_sessions.or(flags.num_prompts);
    let (requests, duration) = match (number, flags.duration) {
        (None, None) => (asked.requests, asked.duration),
        length => length,
    };
    let requests = requests.map(NonZeroUsize::get);
    let drain = flags.drain.or(asked.drain);
    if *load == Load::Infinite {
        // What comes at once has no course but its end.
        let requests = Some(requests.unwrap_or(DEFAULT_REQUESTS));
        return Course { requests, drain, ..Course::default() };
    }
    let (requests, duration) = match load {
        // Stages say themselves how long they are.
        Load::Staged(_) => (None, None),
        Load::Trace { .. } => (requests, duration),
        Load::Search(_) if requests.is_none() && duration.is_none() => (None, Some(DEFAULT_STEP)),
        _ if duration.is_none() => (Some(requests.unwrap_or(DEFAULT_REQUESTS)), None),
        _ => (requests, duration),
    };
    let ramp_up = flags.ramp_up.or(asked.ramp_up).filter(|over| !over.is_zero());
    let shape = flags.ramp_shape.or(asked.ramp_shape).unwrap_or_default();
    Course {
        requests,
        duration,
        ramp_up: ramp_up.map(|over| RampUp { over, shape }),
        warm_up: flags.warm_up.or(asked.warm_up).unwrap_or_default(),
        drain,
    }
}

/// What to say where a warm-up is asked for and everything comes at once.
const NO_WARM_UP: &str = "loads of inf have no warm-up: everything comes at once";

/// The first of `slos` that makes no sense without objectives for each request.
fn on_goodput(slos: &[Slo]) -> Option<&Slo> {
    slos.iter().find(|slo| {
        matches!(slo.quantity, Quantity::Scalar(Scalar::Goodput | Scalar::GoodputRatio))
    })
}

/// Makes a case short: enough to see its objectives, and nothing else.
fn quick(case: &mut Case) {
    case.trials = 1;
    case.course.requests = case.course.requests.map(|requests| requests.min(QUICK_REQUESTS));
    case.course.duration = case.course.duration.map(|duration| duration.min(QUICK_DURATION));
}

/// Why these objectives make no sense under a load.
fn slo_fault(load: &Load, slos: &[Slo]) -> Option<String> {
    let is_errors = |slo: &&Slo| slo.quantity == Quantity::Scalar(Scalar::ErrorRatio);
    match (load, slos.iter().find(|slo| slo.is_on_max_goodput())) {
        (Load::Search(Search::MaxGoodput), _)
            if slos.iter().all(|slo| slo.is_on_max_goodput() || is_errors(&slo)) =>
        {
            let message = "`max-goodput` looks for the highest rate at which the objectives hold, and there is \
                           none: set for example slo = [\"ttft.p99 < 500ms\"]";
            Some(message.to_owned())
        }
        (Load::Search(_), _) | (_, None) => None,
        (_, Some(slo)) => Some(format!(
            "the objective `{slo}` is for the loads `max-goodput` and `sweep`, which look for that rate"
        )),
    }
}

/// The arrival process with gaps of this burstiness, where any is asked for.
fn arrivals_of(
    arrivals: ArrivalProcess,
    burstiness: Option<Burstiness>,
) -> Result<ArrivalProcess, &'static str> {
    let Some(burstiness) = burstiness else { return Ok(arrivals) };
    arrivals
        .with_burstiness(burstiness)
        .ok_or("constant arrivals have no burstiness: leave one of the two out")
}

/// `slos`, and one on errors where none of them speaks of errors.
fn with_no_errors(mut slos: Vec<Slo>) -> Vec<Slo> {
    let no_errors = Slo::no_errors();
    if !slos.iter().any(|slo| slo.quantity == no_errors.quantity) {
        slos.push(no_errors);
    }
    slos
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    /// The flags of a command line. Its words have no spaces, but for `~`.
    pub(super) fn flags(line: &str) -> Flags {
        let words = line.split_whitespace().map(|word| word.replace('~', " "));
        Line::try_parse_from(std::iter::once("servebench".to_owned()).chain(words)).unwrap().flags
    }

    /// The plan of a default file `plan.toml` that holds `text`, and flags.
    pub(super) fn plan(text: &str, line: &str) -> Result<Plan, PlanError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text).unwrap();
        Plan::new(&flags(&line.replace("PLAN", path.to_str().unwrap())), &path)
    }

    /// The error that they make, and that it holds each of `parts`.
    pub(super) fn assert_error(text: &str, line: &str, parts: &[&str]) {
        let error = plan(text, line).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text}\n{line}\nmisses {part}:\n{error}");
        }
    }

    const FILE: &str = r#"
[defaults]
tokenizer = "tokenizer.json"
[[backend]]
name = "mine"
kind = "vllm"
base_url = "http://mine:1"
models = ["org/m"]
[[workload]]
name = "chats"
path = "chats.json"
[[bench]]
loads = ["4qps"]
"#;

    const TARGET: &str = "--model org/other --dataset-path d.json --tokenizer t.json";

    fn only_case(plan: &Plan) -> &Case {
        assert_eq!(plan.cases.len(), 1, "{plan:?}");
        &plan.cases[0]
    }

    #[test]
    fn without_flags_the_default_file_is_the_plan() {
        let plan = plan(FILE, "").unwrap();
        assert_eq!(only_case(&plan).name, "mine/m/chats@4qps");
        assert_eq!(plan.results, Path::new("results"));
        assert!(plan.notes.is_empty());
    }

    #[test]
    fn without_a_file_and_a_target_there_is_no_plan() {
        let error = Plan::new(&flags(""), Path::new("benches/none.toml")).unwrap_err().to_string();
        for part in ["`benches/none.toml` does not exist", "--config", "--base-url", "--model"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_file_that_a_flag_names_must_exist() {
        for line in ["--config benches/none.toml", "--config benches/none.toml --backend mine"] {
            let error = Plan::new(&flags(line), Path::new("unused.toml")).unwrap_err().to_string();
            assert!(error.starts_with("benches/none.toml: cannot be read"), "{error}");
        }
    }

    #[test]
    fn a_target_of_the_flags_sets_the_default_file_aside_with_a_note() {
        let plan = plan(FILE, TARGET).unwrap();
        assert_eq!(only_case(&plan).name, "modular/other/sharegpt@inf");
        assert!(matches!(&plan.notes[..], [note] if note.contains("plan.toml` is not used")));
    }

    #[test]
    fn a_damaged_default_file_does_not_matter_to_flags_that_say_everything() {
        let plan = plan("sede = 1", TARGET).unwrap();
        assert_eq!(only_case(&plan).name, "modular/other/sharegpt@inf");
    }

    #[test]
    fn a_damaged_default_file_matters_to_flags_that_may_name_its_backend() {
        assert_error("sede = 1", "--backend mine", &["plan.toml:1:1", "unknown field `sede`"]);
    }

    #[test]
    fn a_plan_file_and_a_foreign_target_are_not_both_named() {
        for target in [TARGET, "--backend vllm", "--base-url http://h:1", "--host h", "--port 1"] {
            let line = format!("--config PLAN {target}");
            assert_error(FILE, &line, &["--config", "--backend (mine)", "leave --config out"]);
        }
    }

    #[test]
    fn a_backend_of_neither_the_file_nor_the_kinds_is_an_error() {
        let parts = ["--backend `vlm`", "modular", "llama-cpp-chat", "did you mean `vllm`?"];
        assert_error(FILE, "--backend vlm", &parts);
    }

    #[test]
    fn a_name_for_a_model_that_no_flag_names_is_an_error() {
        let parts = ["--model-alias `x`", "--model or --served-model-name", "alias = \"x\""];
        for line in ["", "--backend mine", "--config PLAN", "--base-url http://h:1"] {
            assert_error(FILE, &format!("{line} --model-alias x"), &parts);
        }
        for line in ["--model org/o", "--served-model-name o", "--backend mine --model org/o"] {
            let plan = plan(FILE, &format!("{line} --model-alias x")).unwrap();
            assert_eq!(only_case(&plan).model.alias, "x", "{line}");
        }
    }

    #[test]
    fn a_rate_of_the_flags_is_an_open_loop_and_a_concurrency_a_closed_one() {
        for (line, load) in [
            ("", None),
            ("--request-rate inf", Some("inf")),
            ("--request-rate 0.5", Some("0.5qps")),
            ("--max-concurrency 8", Some("8conc")),
            ("--request-rate trace", Some("trace")),
            ("--request-rate trace --max-concurrency 8", Some("trace-8conc")),
        ] {
            let shown = load_of(&flags(line)).map(|load| load.to_string());
            assert_eq!(shown.as_deref(), load, "{line}");
        }
    }

    #[test]
    fn a_case_may_have_no_errors_unless_an_objective_speaks_of_them() {
        let texts = |slos: &[&str]| {
            let slos = slos.iter().map(|text| text.parse().unwrap()).collect();
            with_no_errors(slos).iter().map(Slo::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(&[]), ["error_ratio == 0"]);
        assert_eq!(texts(&["ttft.p99 < 1s"]), ["ttft.p99 < 1000ms", "error_ratio == 0"]);
        assert_eq!(texts(&["error_ratio < 5%"]), ["error_ratio < 0.05"]);
    }
}
