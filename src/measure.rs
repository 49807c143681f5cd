//! The steps of one case, in order: start or find the server, try it, send the schedule, count tokens,
//! judge. Owns no step's detail and prints nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::ZonedDateTime;

use crate::client::{Client, Limits, ReadyRequest};
use crate::clock::Clock;
use crate::config::StreamOptions;
use crate::descriptors;
use crate::drive;
use crate::flags::SelfCheckMode;
use crate::live::Live;
use crate::plan::{Address, Case, Server};
use crate::probe::Probe;
use crate::record::{Failure, Outcome, RequestRecord};
use crate::report::{Measured, Report};
use crate::schedule::Schedule;
use crate::self_check::{self, LoadPoint, SelfCheck};
use crate::sim::{Lexicon, SimServer};
use crate::stop::Stop;
use crate::strain::Strain;
use crate::summary::{Counted, Summary};
use crate::tokenizer::Tokenizer;
use crate::tokens;
use crate::validity::Validity;
use crate::verdict;
use crate::wire::Request;
use crate::workload::{PromptRequest, Workload};

/// Measures one case of a plan and reports on it; saves and prints nothing.
///
/// # Errors
///
/// If the tokenizer or the dataset cannot be read, the embedded engine not be started, or the server
/// refuses the request that is sent before the clock starts. Requests that fail later are data: see
/// [`Report::failed`].
pub fn measure(case: &Case) -> anyhow::Result<Report> {
    let prepared = prepare(case)?;
    check(case, &prepared)?;
    run(case, &prepared, &Options::default(), &Arc::default(), &Stop::new())
}

/// What a case sends, read and drawn before anything runs.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The case's tokenizer.
    pub tokenizer: Tokenizer,
    /// Its requests.
    pub workload: Arc<Workload>,
}

/// How a case is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Send one short request before the clock starts.
    pub test_prompt: bool,
    /// Whether the client is checked against the embedded engine.
    pub self_check: SelfCheckMode,
    /// What the user adds to the result.
    pub metadata: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { test_prompt: true, self_check: SelfCheckMode::Auto, metadata: Vec::new() }
    }
}

/// Reads the case's tokenizer and draws its requests.
pub fn prepare(case: &Case) -> anyhow::Result<Prepared> {
    let tokenizer = Tokenizer::load(&case.tokenizer)?;
    let workload = case.workload.dataset.sample(&tokenizer, case.prompts(), case.seed)?;
    Ok(Prepared { tokenizer, workload: Arc::new(workload) })
}

/// Makes sure that this machine can send what was drawn.
pub fn check(case: &Case, prepared: &Prepared) -> anyhow::Result<()> {
    descriptors::ensure(case, prepared.workload.requests.len())
}

/// Runs the case and reports on it. An error means that there is nothing to report: the server could
/// not be started, or refused the request before the run. A stop ends the run early; the report is
/// then partial.
pub fn run(
    case: &Case,
    prepared: &Prepared,
    options: &Options,
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<Report> {
    let (server, address) = start(case, &prepared.tokenizer)?;
    let runtime = drive::runtime(&case.load, live)?;
    let (records, strain) =
        runtime.block_on(records(case, prepared, options, &address, live, stop))?;
    let sent = records.len();
    let warm_up = schedule(case, prepared).warm_up;
    let measured = records.into_iter().filter(|record| warm_up <= record.scheduled);
    let requests = counted(measured, prepared)?;
    let interrupted = stop.is_requested();
    // The case's own server would be in the way of the check.
    drop(server);
    let load = LoadPoint::of(requests.iter().map(|(record, _)| record));
    let mode = if interrupted { SelfCheckMode::Never } else { options.self_check };
    let self_check = self_check::of(mode, load, strain.wall, stop);
    let run = Run { requests, sent, strain, self_check, interrupted };
    Ok(report(case, prepared, options, &address, run))
}

/// The server and where it is. The embedded engine runs until it is dropped.
fn start(case: &Case, tokenizer: &Tokenizer) -> anyhow::Result<(Option<SimServer>, Address)> {
    match &case.backend.server {
        Server::Remote(address) => Ok((None, address.clone())),
        Server::Unset { variable } => bail!("the environment variable {variable} is not set"),
        Server::Sim(config) => {
            let mut config = config.clone();
            config.lexicon = Lexicon::Tokenizer(tokenizer.shared());
            let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let server = SimServer::start(config, any_port).context("start the embedded engine")?;
            let endpoint = case.backend.protocol.default_endpoint();
            let address = Address::new(&server.base_url(), endpoint).map_err(anyhow::Error::msg)?;
            Ok((Some(server), address))
        }
    }
}

async fn records(
    case: &Case,
    prepared: &Prepared,
    options: &Options,
    address: &Address,
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<(Vec<RequestRecord>, Strain)> {
    let client = Client::new(&case.backend, &address.endpoint_url())?;
    let limits = Limits { timeout: case.timeout, stall_timeout: case.stall_timeout };
    let mut include_usage = case.backend.stream_options != StreamOptions::Off;
    // There is nothing to find out about the embedded engine.
    if options.test_prompt && !matches!(case.backend.server, Server::Sim(_)) {
        include_usage = try_out(case, &client, address, limits, stop, include_usage).await?;
    }
    let requests = &prepared.workload.requests;
    let ready: Vec<ReadyRequest> = requests
        .iter()
        .map(|request| client.prepare(&body(case, request, include_usage)))
        .collect();
    let schedule = schedule(case, prepared);
    drive::drive(&client, ready, &case.load, &schedule, limits, live, stop).await
}

/// The schedule of the case, which sends no more requests than were drawn unless its end is open.
fn schedule(case: &Case, prepared: &Prepared) -> Schedule {
    let mut course = case.course;
    if !course.is_open_ended() {
        let drawn = prepared.workload.requests.len();
        course.requests = course.requests.map(|requests| requests.min(drawn));
    }
    Schedule::new(&case.load, &course, case.arrivals, case.seed)
}

/// The body of one request: the protocol's own fields, and the backend's extra ones over them.
fn body(case: &Case, request: &PromptRequest, include_usage: bool) -> Vec<u8> {
    let backend = &case.backend;
    let mut body = backend.protocol.body(&Request {
        model: &case.model.id,
        prompt: &request.prompt,
        output_tokens: request.output_tokens,
        length_field: backend.length_field,
        ignore_eos: backend.ignore_eos,
        min_tokens: backend.min_tokens,
        include_usage,
    });
    body.extend(backend.extra_body.clone());
    serde_json::Value::Object(body).to_string().into_bytes()
}

/// Sends one short request before the clock starts, so that a wrong model or key is one clear error
/// and not hundreds of failures. Returns whether the server takes `stream_options`.
async fn try_out(
    case: &Case,
    client: &Client,
    address: &Address,
    limits: Limits,
    stop: &Stop,
    include_usage: bool,
) -> anyhow::Result<bool> {
    let prompt =
        PromptRequest { prompt: "Say hello.".to_owned(), prompt_tokens: 0, output_tokens: 8 };
    let ask = async |include_usage: bool| {
        let body = body(case, &prompt, include_usage);
        client.send(Clock::start(), &client.prepare(&body), limits, stop).await.outcome
    };
    let mut outcome = ask(include_usage).await;
    let refused = matches!(outcome, Outcome::Failed { failure: Failure::Http(400 | 422), .. });
    if refused && include_usage && case.backend.stream_options == StreamOptions::Auto {
        let without = ask(false).await;
        if without == Outcome::Completed {
            return Ok(false);
        }
        outcome = without;
    }
    let Outcome::Failed { failure, message } = outcome else { return Ok(include_usage) };
    if failure == Failure::Cancelled {
        return Ok(include_usage);
    }
    let url = address.below("/v1/models");
    let served = Probe::new(&case.backend, &url)?.models(url, case.backend.connect_timeout).await;
    let hint = match served {
        Some(models) if !models.contains(&case.model.id) => {
            format!("; it serves {}, not `{}`", models.join(", "), case.model.id)
        }
        _ => String::new(),
    };
    bail!("the test prompt to {address:?} failed: {failure}: {message}{hint}")
}

fn counted(
    records: impl Iterator<Item = RequestRecord>,
    prepared: &Prepared,
) -> anyhow::Result<Vec<Counted>> {
    let requests = &prepared.workload.requests;
    let count = |record: RequestRecord| {
        let request = &requests[record.index % requests.len()];
        let tokens = tokens::count(&record, request, &prepared.tokenizer)?;
        Ok((record, tokens))
    };
    records.map(count).collect()
}

/// What came of a case.
struct Run {
    /// The requests that count.
    requests: Vec<Counted>,
    /// Requests that were sent, those of the warm-up included.
    sent: usize,
    strain: Strain,
    self_check: anyhow::Result<SelfCheck>,
    interrupted: bool,
}

fn report(
    case: &Case,
    prepared: &Prepared,
    options: &Options,
    address: &Address,
    run: Run,
) -> Report {
    let Run { requests, sent, strain, self_check, interrupted } = run;
    let summary = Summary::new(&requests, case.goodput);
    let judgements = verdict::judge(&case.slos, &summary);
    let records = requests.iter().map(|(record, _)| record);
    let validity = Validity::new(&case.load, records, &summary, &strain, self_check.as_ref().ok());
    let doubted = !validity.doubts.is_empty();
    let verdict = (!interrupted).then(|| verdict::verdict(&judgements, doubted));
    let mut warnings = Vec::new();
    let drawn = prepared.workload.requests.len();
    let asked = case.course.requests.unwrap_or_default();
    if case.course.is_open_ended() && drawn < sent {
        warnings.push(format!(
            "{sent} requests were sent and the dataset gave {drawn}: prompts came again, and a prefix \
             cache may have answered them"
        ));
    } else if drawn < asked {
        warnings.push(format!(
            "the dataset holds {drawn} requests of a fitting length, fewer than the {asked} asked for"
        ));
    }
    let measured = Measured {
        case,
        base_url: Some(address.shown()),
        requests: &requests,
        sent,
        summary: &summary,
        judgements: &judgements,
        verdict,
        validity,
        self_check: self_check.map_err(|error| format!("{error:#}")),
        warnings,
        metadata: &options.metadata,
    };
    Report::new(measured, &ZonedDateTime::now())
}
