//! The steps of one case, in order: start or find the server, try it, send the schedule, count tokens,
//! judge. Owns no step's detail and prints nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::bail;
use jiff::ZonedDateTime;

use crate::client::{Client, ReadyRequest};
use crate::clock::Clock;
use crate::compare::Trial;
use crate::descriptors;
use crate::drive::{self, Conversations, Driven, Sent};
use crate::environment::{self, Environment};
use crate::evidence::{Looks, Requests};
use crate::files::Files;
use crate::flags::SelfCheckMode;
use crate::journal::Part;
use crate::launch;
use crate::live::{Goal, Live};
use crate::load::Load;
use crate::metric::Watched;
use crate::plan::{Address, Case, Server, TokenizerChoice};
use crate::record::RequestRecord;
use crate::report::{Measured, Report};
use crate::schedule::Schedule;
use crate::self_check::{self, LoadPoint, SelfCheck};
use crate::sim::{Lexicon, SimServer};
use crate::steady::SteadyState;
use crate::stop::Stop;
use crate::strain::Strain;
use crate::summary::{Counted, Summary};
use crate::telemetry::Telemetry;
use crate::tokenizer::Tokenizer;
use crate::tokens;
use crate::trial::{self, Manners};
use crate::turns::Turns;
use crate::validity::Validity;
use crate::verdict::{self, Finding, Judgement};
use crate::watchdog::Limits;
use crate::workload::{PromptRequest, Sampling, Workload};

use watch::Watch;

mod pair;
mod search;
mod watch;

/// Measures one case of a plan and reports on it; saves and prints nothing.
///
/// # Errors
///
/// If the tokenizer or the dataset cannot be read, the embedded engine not be started, or the server
/// refuses the request that is sent before the clock starts. Requests that fail later are data: see
/// [`Report::failed`].
pub fn measure(case: &Case) -> anyhow::Result<Report> {
    let prepared = prepare(case, None, &Files::new(|_| {}))?;
    check(case, &prepared)?;
    let logs = std::env::temp_dir().join("servebench-logs");
    let mut launched = BTreeMap::new();
    for backend in case.backends() {
        let server = launch::launch(backend, &logs, &Stop::new())?;
        launched.extend(server.map(|server| (backend.name.clone(), server)));
    }
    let server_pids = launched.iter().map(|(name, server)| (name.clone(), server.pid())).collect();
    let options = Options { server_pids, ..Options::default() };
    run(case, &prepared, &options, &Arc::default(), &Stop::new())
}

/// What a case sends, read and drawn before anything runs.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The case's tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// Its requests before they were salted: cases that send the same share them.
    pub drawn: Arc<Workload>,
    /// How many were asked for; `None` for all.
    pub asked: Option<usize>,
    /// Its requests.
    pub workload: Arc<Workload>,
    /// Requests of the same kind and of other words, for its warm-up; empty where it has none.
    pub warm_up: Arc<Workload>,
    /// Decided what was drawn.
    pub seed: u64,
    /// What they were salted with.
    pub salt: Option<String>,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
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
    /// How many cases of the run are compared: the more there are, the more it takes to find a change.
    pub compared_cases: usize,
    /// The processes of the servers that were started for the run, by their backends' names.
    pub server_pids: BTreeMap<String, u32>,
    /// Is told how a case of many steps gets on, a line at a time.
    pub say: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        let self_check = SelfCheckMode::Auto;
        Self {
            test_prompt: true,
            self_check,
            metadata: Vec::new(),
            compared_cases: 1,
            server_pids: BTreeMap::new(),
            say: |_| {},
        }
    }
}

/// Whether two cases send the same where they ask for as much by the same seed, so that one may take what was
/// prepared for the other.
pub fn send_alike(one: &Case, other: &Case) -> bool {
    let work = |case: &Case| {
        let named = &case.workload;
        (named.dataset.clone(), named.system.clone(), case.backend.protocol.is_chat())
    };
    (&one.tokenizer, &one.model.id) == (&other.tokenizer, &other.model.id)
        && work(one) == work(other)
}

/// Reads the case's tokenizer and draws its requests, or takes both from `alike`, a case that was prepared
/// for the same work.
pub fn prepare(case: &Case, alike: Option<&Prepared>, files: &Files) -> anyhow::Result<Prepared> {
    let (tokenizer, notes) = match alike {
        Some(alike) => (alike.tokenizer.clone(), alike.notes.clone()),
        None => tokenizer(case, files)?,
    };
    let named = &case.workload;
    let salt = named.salt.of(&case.name, *RUN);
    let sampling = Sampling {
        files,
        tokenizer: tokenizer.as_ref(),
        chat: case.backend.protocol.is_chat(),
        requests: case.prompts(),
        seed: case.seed,
        salt: None,
    };
    let salted = Sampling { salt: salt.as_deref(), ..sampling };
    let sample = |sampling: &Sampling<'_>| {
        let workload = named.dataset.sample(sampling)?;
        match &named.system {
            None => Ok(workload),
            Some(system) => workload.with_system(system, sampling),
        }
    };
    let words_are_salted = named.dataset.is_made_up() && named.system.is_none();
    let (drawn, workload) = if words_are_salted {
        let made_up = Arc::new(sample(&salted)?);
        (Arc::clone(&made_up), made_up)
    } else {
        let is_enough = |alike: &&Prepared| match (case.prompts(), alike.asked) {
            (_, None) => true,
            (Some(wanted), Some(asked)) => wanted <= asked,
            (None, Some(_)) => false,
        };
        let is_same = |alike: &&Prepared| alike.seed == case.seed && is_enough(alike);
        let drawn = match alike.filter(is_same) {
            Some(alike) => Arc::clone(&alike.drawn),
            None => Arc::new(sample(&sampling)?),
        };
        let workload = drawn.as_sent(&salted)?;
        (drawn, Arc::new(workload))
    };
    let warm_up_prompts = match (&case.load, &drawn.arrivals) {
        (Load::Trace { .. }, Some(arrivals)) => Some(case.course.warm_up.of(arrivals)),
        _ => case.warm_up_prompts(),
    };
    let warm_up_salt = named.salt.of_warm_up(&case.name, *RUN);
    let for_warm_up = Sampling {
        salt: Some(&warm_up_salt),
        requests: warm_up_prompts.or(sampling.requests),
        ..sampling
    };
    let warm_up = match warm_up_prompts {
        Some(0) => drawn.first_as_sent(0, &for_warm_up)?,
        _ if words_are_salted => sample(&for_warm_up)?,
        prompts => drawn.first_as_sent(prompts.unwrap_or(usize::MAX), &for_warm_up)?,
    };
    let warm_up = Arc::new(warm_up);
    let notes = [notes, files.take_notes()].concat();
    let (asked, seed) = (case.prompts(), case.seed);
    Ok(Prepared { tokenizer, drawn, asked, workload, warm_up, seed, salt, notes })
}

/// How long a server may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(1);

/// A number that no other run has.
static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// The tokenizer that the case asks for, and what to say where the model's own cannot be had.
fn tokenizer(case: &Case, files: &Files) -> anyhow::Result<(Option<Tokenizer>, Vec<String>)> {
    match &case.tokenizer {
        TokenizerChoice::None => Ok((None, Vec::new())),
        TokenizerChoice::Named(place) => Ok((Some(Tokenizer::find(place, files)?), Vec::new())),
        // It has no tokenizer of its own.
        TokenizerChoice::OfModel if matches!(case.backend.server, Server::Sim(_)) => {
            Ok((None, Vec::new()))
        }
        TokenizerChoice::OfModel => match Tokenizer::find(Path::new(&case.model.id), files) {
            Ok(tokenizer) => Ok((Some(tokenizer), Vec::new())),
            Err(error) => {
                let note = format!(
                    "there is no tokenizer, and tokens are as the server counts them: {error:#}"
                );
                Ok((None, vec![note]))
            }
        },
    }
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
    let controls = Controls { options, live, stop, is_step: false };
    match (&case.load, &case.against) {
        (Load::Search(kind), _) => search::run(case, *kind, prepared, controls),
        (_, Some(against)) => pair::run(case, against, prepared, controls),
        (_, None) => run_trials(case, prepared, controls),
    }
}

/// What a run is steered and watched by.
#[derive(Clone, Copy)]
struct Controls<'a> {
    options: &'a Options,
    live: &'a Arc<Live>,
    stop: &'a Stop,
    /// What runs is a step of a search.
    is_step: bool,
}

/// Runs a case that has one load, as often as it asks for.
fn run_trials(case: &Case, prepared: &Prepared, controls: Controls<'_>) -> anyhow::Result<Report> {
    let Controls { options, stop, .. } = controls;
    let clock = Clock::start();
    let mut trials = Trials::default();
    controls.live.begin_run(goal(case, prepared, 0, controls));
    trials.add(case, prepared, controls)?;
    let goes_on = |trials: &Trials| match case.until_decided {
        _ if stop.is_requested() => false,
        _ if trials.runs.len() < case.trials => true,
        Some(budget) => clock.now() < budget && !trials.are_decisive(case),
        None => false,
    };
    while goes_on(&trials) {
        let number = trials.runs.len();
        let (of_case, prepared) = of_trial(case, prepared, number)?;
        controls.live.begin_run(goal(case, &prepared, number, controls));
        trials.add(&of_case, &prepared, controls)?;
        let of = match case.until_decided {
            Some(_) => String::new(),
            None => format!(" of {}", case.trials),
        };
        (options.say)(&format!("{}: trial {}{of}", case.name, number + 1));
    }
    let self_check = trials.self_check(controls);
    Ok(report(case, prepared, trials, self_check, controls))
}

/// What the trial of this number is to come to.
fn goal(case: &Case, prepared: &Prepared, number: usize, controls: Controls<'_>) -> Goal {
    let requests = prepared.workload.turns() + prepared.warm_up.turns();
    let warm_up = case.course.warm_up.time().unwrap_or_default();
    Goal {
        name: match (case.until_decided, case.trials) {
            _ if controls.is_step => format!("step {}", case.load),
            (Some(_), _) => format!("trial {}", number + 1),
            (None, 1) => String::new(),
            (None, trials) => format!("trial {} of {trials}", number + 1),
        },
        requests: (!case.course.is_open_ended()).then_some(requests as u64),
        duration: case.course.duration.map(|duration| warm_up + duration),
        more: case.trials.saturating_sub(number + 1),
    }
}

/// A trial of a case but the first: the same work by another seed, with prompts that no trial before it has
/// left in a cache.
fn of_trial(case: &Case, prepared: &Prepared, number: usize) -> anyhow::Result<(Case, Prepared)> {
    let seed = case.seed.wrapping_add(number as u64);
    let case = Case { seed, ..case.clone() };
    let salted = Case { name: format!("{}#{number}", case.name), ..case.clone() };
    let prepared = prepare(&salted, Some(prepared), &Files::only_here())?;
    Ok((case, prepared))
}

/// The server and where it is. The embedded engine runs until it is dropped.
fn start(
    case: &Case,
    tokenizer: Option<&Tokenizer>,
) -> anyhow::Result<(Option<SimServer>, Address)> {
    match &case.backend.server {
        Server::Remote(address) => Ok((None, address.clone())),
        Server::Unset { variable } => bail!("the environment variable {variable} is not set"),
        Server::Sim(config) => {
            let mut config = config.clone();
            if let Some(tokenizer) = tokenizer {
                config.lexicon = Lexicon::Tokenizer(tokenizer.shared());
            }
            let (server, address) = drive::start_embedded(config, case.backend.protocol)?;
            Ok((Some(server), address))
        }
    }
}

async fn records(
    case: &Case,
    prepared: &Prepared,
    address: &Address,
    schedule: &Schedule,
    Controls { options, live, stop, .. }: Controls<'_>,
) -> anyhow::Result<Sending> {
    let client = Client::new(&case.backend, &address.endpoint_url())?;
    let limits = Limits { timeout: case.timeout, stall_timeout: case.stall_timeout };
    // There is nothing to find out about the embedded engine.
    let unknown = case.backend.probe && !matches!(case.backend.server, Server::Sim(_));
    let manners = if options.test_prompt && unknown {
        trial::try_out(case, &client, address, limits, stop).await?
    } else {
        Manners::of(&case.backend)
    };
    let notes = manners.notes.clone();
    let ready = |workload: &Workload| -> Vec<ReadyRequest> {
        let requests = workload.requests.iter();
        requests.map(|request| client.prepare(&manners.body(case, request))).collect()
    };
    let (requests, warm_up) = (ready(&prepared.workload), ready(&prepared.warm_up));
    let conversations = prepared.workload.has_turns().then(|| {
        let (workload, warm_up) = (Arc::clone(&prepared.workload), Arc::clone(&prepared.warm_up));
        let case = case.clone();
        let chat = case.backend.protocol.is_chat();
        let body = Arc::new(move |request: &PromptRequest| manners.body(&case, request));
        Conversations { workload, warm_up, chat, body }
    });
    let sent = Sent { requests, warm_up, conversations };
    let version = match unknown {
        true => environment::server_version(&case.backend, address, VERSION_PATIENCE).await,
        false => None,
    };
    let pid = options.server_pids.get(&case.backend.name).copied();
    let watch = Watch::start(case, address, pid)?;
    let driven = drive::drive(&client, sent, &case.load, schedule, limits, live, stop).await?;
    let telemetry = watch.stop(driven.clock)?;
    Ok(Sending { driven, telemetry, notes, version })
}

/// What came of sending a schedule.
struct Sending {
    driven: Driven,
    telemetry: Telemetry,
    /// What was found out before the clock started.
    notes: Vec<String>,
    /// The version that the server says it is.
    version: Option<String>,
}

/// The schedule of the case, which sends no more requests than were drawn unless its end is open.
fn schedule(case: &Case, prepared: &Prepared) -> Schedule {
    let mut course = case.course;
    if !course.is_open_ended() {
        let drawn = prepared.workload.requests.len();
        course.requests = course.requests.map(|requests| requests.min(drawn));
    }
    match (&case.load, &prepared.workload.arrivals) {
        (Load::Trace { cap }, Some(arrivals)) => Schedule::replay(arrivals, *cap, &course),
        _ => Schedule::new(&case.load, &course, case.arrivals, case.seed),
    }
}

/// `records` are in order, the turns of a conversation one after the other.
fn counted(
    records: Vec<RequestRecord>,
    prepared: &Prepared,
    chat: bool,
) -> anyhow::Result<Vec<Counted>> {
    let (workload, tokenizer) = (&prepared.workload, prepared.tokenizer.as_ref());
    let mut tokens = Vec::with_capacity(records.len());
    for conversation in records.chunk_by(|one, next| one.index == next.index) {
        let request = workload.request(conversation[0].index);
        for turns in 1..=conversation.len() {
            tokens.push(tokens::count(&conversation[..turns], request, tokenizer, chat)?);
        }
    }
    Ok(records.into_iter().zip(tokens).collect())
}

/// What came of the trials of a case, one after the other as if no time had passed between them.
#[derive(Default)]
struct Trials {
    /// The requests that count.
    requests: Vec<Counted>,
    runs: Vec<TrialRun>,
    /// What is compared of them.
    compared: Vec<Trial>,
    /// What was read while they ran.
    telemetry: Telemetry,
    /// What of it was read while the requests ran that count.
    counted_telemetry: Telemetry,
    end: Duration,
}

/// The time in which requests ran that count.
struct Counting {
    from_s: f64,
    to_s: f64,
}

impl Counting {
    fn of(requests: &[Counted]) -> Self {
        let sent = requests.iter().map(|(record, _)| record.sent).min().unwrap_or_default();
        let ended = requests.iter().map(|(record, _)| record.ended).max().unwrap_or_default();
        Self { from_s: sent.as_secs_f64(), to_s: ended.as_secs_f64() }
    }
}

/// What came of a trial.
struct TrialRun {
    /// Which of the requests are its own.
    requests: Range<usize>,
    summary: Summary,
    workload: Arc<Workload>,
    /// Requests that were sent, those of the warm-up included.
    sent: usize,
    /// Those that count, one for all turns of a conversation.
    began: usize,
    strain: Strain,
    /// What was found out before the clock started.
    notes: Vec<String>,
    version: Option<String>,
    address: Address,
}

impl Trials {
    /// Runs the case once more.
    fn add(
        &mut self,
        case: &Case,
        prepared: &Prepared,
        controls: Controls<'_>,
    ) -> anyhow::Result<()> {
        let (server, address) = start(case, prepared.tokenizer.as_ref())?;
        let schedule = schedule(case, prepared);
        controls.live.begin_part(|| Part {
            backend: case.backend.name.clone(),
            load: case.load.to_string(),
            seed: case.seed,
        });
        let waiting = matches!(case.load, Load::Closed(_)) || prepared.workload.has_turns();
        let runtime = drive::runtime(waiting, controls.live)?;
        let sending = runtime.block_on(records(case, prepared, &address, &schedule, controls))?;
        let Sending { driven: Driven { records, strain, .. }, telemetry, notes, version } = sending;
        let sent = records.len();
        let measured: Vec<RequestRecord> =
            records.into_iter().filter(|record| !record.warm_up).collect();
        let began = measured.iter().filter(|record| record.turn == 0).count();
        let requests = counted(measured, prepared, case.backend.protocol.is_chat())?;
        // The case's own server would be in the way of the next one.
        drop(server);
        let counted = Counting::of(&requests);
        let counted_telemetry = telemetry.within(counted.from_s, counted.to_s);
        let summary = Summary::new(&requests, case.goodput).with(&counted_telemetry);
        self.compared.push(Trial::new(case.seed, requests.len(), &summary));
        let workload = Arc::clone(&prepared.workload);
        let (requests, by_s) = self.append(requests);
        let telemetry = match self.runs.as_slice() {
            [] => telemetry,
            // What was read before its first request belongs to the trial before.
            _ => telemetry.within(counted.from_s, f64::INFINITY),
        };
        self.telemetry.append(telemetry.moved(by_s));
        self.counted_telemetry.append(counted_telemetry.moved(by_s));
        self.runs.push(TrialRun {
            requests,
            summary,
            workload,
            sent,
            began,
            strain,
            notes,
            version,
            address,
        });
        Ok(())
    }

    /// Adds the requests of a trial behind those of the trials before: which they are then, and how much
    /// later.
    fn append(&mut self, requests: Vec<Counted>) -> (Range<usize>, f64) {
        let begin = self.requests.len();
        let first = requests.iter().map(|(record, _)| record.sent).min().unwrap_or_default();
        let last = requests.iter().map(|(record, _)| record.ended).max().unwrap_or_default();
        let by = if begin == 0 { Duration::ZERO } else { self.end.saturating_sub(first) };
        let later = |(record, tokens): Counted| (record.later(by), tokens);
        self.requests.extend(requests.into_iter().map(later));
        self.end = last + by;
        (begin..self.requests.len(), by.as_secs_f64())
    }

    fn of(&self, run: &TrialRun) -> &[Counted] {
        &self.requests[run.requests.clone()]
    }

    /// The statistics of all of them together.
    fn summary(&self, case: &Case) -> Summary {
        match self.runs.as_slice() {
            [one] => one.summary.clone(),
            _ => Summary::new(&self.requests, case.goodput).with(&self.counted_telemetry),
        }
    }

    /// What they say about the objectives.
    fn judge(&self, case: &Case, summary: &Summary) -> Vec<Judgement> {
        let parts = self.runs.iter().map(|run| run.requests.clone()).collect();
        let evidence = Requests::new(&self.requests, parts, case.goodput);
        let looks = match case.until_decided {
            None => Looks::One,
            Some(_) => Looks::Many(u32::try_from(self.runs.len()).unwrap_or(u32::MAX)),
        };
        verdict::judge(&case.slos, summary, &evidence, looks)
    }

    /// Whether they settle every objective.
    fn are_decisive(&self, case: &Case) -> bool {
        self.judge(case, &self.summary(case)).iter().all(|judgement| {
            !judgement.is_undecided() && !matches!(judgement.finding, Finding::Unknown(_))
        })
    }

    /// The check of the client at the load of the first trial.
    fn self_check(
        &self,
        Controls { options, stop, .. }: Controls<'_>,
    ) -> anyhow::Result<SelfCheck> {
        let Some(first) = self.runs.first() else { bail!("the run was interrupted") };
        let load = LoadPoint::of(self.of(first).iter().map(|(record, _)| record));
        let interrupted = stop.is_requested();
        let mode = if interrupted { SelfCheckMode::Never } else { options.self_check };
        self_check::of(mode, load, first.strain.wall, stop)
    }
}

/// What the trials, of which there is one at least, ran on.
fn environment_of(trials: &Trials) -> Environment {
    let telemetry = &trials.telemetry;
    let gpus: Vec<String> = telemetry.of(Watched::Gpu).map(|gpu| gpu.what.clone()).collect();
    Environment {
        gpus: Some(gpus).filter(|gpus| !gpus.is_empty()),
        gpu_driver: telemetry.gpu_driver.clone(),
        cuda: telemetry.cuda.clone(),
        server_version: trials.runs[0].version.clone(),
        ..Environment::here().clone()
    }
}

/// `trials` holds one at least.
fn report(
    case: &Case,
    prepared: &Prepared,
    trials: Trials,
    self_check: anyhow::Result<SelfCheck>,
    Controls { options, stop, .. }: Controls<'_>,
) -> Report {
    let interrupted = stop.is_requested();
    let validity = |run: &TrialRun| {
        let records = trials.of(run).iter().map(|(record, _)| record);
        Validity::new(&case.load, records, &run.summary, &run.strain, self_check.as_ref().ok())
    };
    let validity = Validity::worst_of(trials.runs.iter().map(validity).collect());
    let first = &trials.runs[0];
    let steady_state = SteadyState::new(trials.of(first), &case.load);
    let has_turns = prepared.workload.has_turns();
    let turns = has_turns.then(|| Turns::new(trials.of(first), &first.workload));
    let (sent, began) = (trials.runs.iter().map(|run| run.sent).sum(), first.began);
    let summary = trials.summary(case);
    let judgements = trials.judge(case, &summary);
    let mut validity = validity;
    let throttled: Vec<String> = trials.counted_telemetry.throttled().collect();
    let throttled_is_invalid = case.gpu.as_ref().is_some_and(|gpu| gpu.throttled_is_invalid);
    if throttled_is_invalid {
        validity.doubts.extend(throttled.iter().cloned());
    }
    let doubted = !validity.doubts.is_empty();
    let verdict = (!interrupted).then(|| verdict::verdict(&judgements, doubted, case.strict));
    let notes = first.notes.clone();
    let trial_summaries: Vec<&Summary> = trials.runs.iter().map(|run| &run.summary).collect();
    let mut warnings = notes;
    warnings.extend(trials.telemetry.warnings.iter().cloned());
    if !throttled_is_invalid {
        warnings.extend(throttled);
    }
    warnings.extend(prepared.notes.iter().chain(&prepared.workload.notes).cloned());
    if case.backend.ignore_eos || case.backend.min_tokens {
        warnings.extend(summary.tokens.shortfall());
    }
    warnings.extend(steady_state.as_ref().ok().and_then(SteadyState::warning));
    let drawn = prepared.workload.requests.len();
    let asked = case.course.requests.unwrap_or_default();
    let what = if has_turns { "conversations" } else { "requests" };
    if case.course.is_open_ended() && drawn < began {
        warnings.push(format!(
            "{began} {what} were sent and the dataset gave {drawn}: prompts came again, and a prefix \
             cache may have answered them"
        ));
    } else if !case.course.is_open_ended() && drawn < asked {
        warnings.push(format!(
            "the dataset holds {drawn} {what} of a fitting length, fewer than the {asked} asked for"
        ));
    }
    warnings.extend(turns.as_ref().and_then(Turns::warning));
    let measured = Measured {
        case,
        base_url: Some(first.address.shown()),
        requests: &trials.requests,
        trials: &trials.compared,
        trial_summaries: &trial_summaries,
        sent,
        summary: &summary,
        steady_state,
        turns,
        judgements: &judgements,
        verdict,
        validity,
        telemetry: &trials.telemetry,
        counted_telemetry: &trials.counted_telemetry,
        self_check: self_check.map_err(|error| format!("{error:#}")),
        warnings,
        workload: &prepared.workload,
        salt: prepared.salt.as_deref(),
        environment: environment_of(&trials),
        metadata: &options.metadata,
    };
    Report::new(measured, &ZonedDateTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    /// What is sent of a workload under a load with `more` said of it.
    fn prepared(workload: &str, load: &str, more: &str) -> Prepared {
        let plan = format!(
            r#"
            defaults = {{ requests = 9, tokenizer = "fixtures/tokenizer.json" }}
            backend = [{{ name = "sim", kind = "sim" }}]
            workload = [{{ name = "w", salt = "s", {workload} }}]
            bench = [{{ loads = ["{load}"], arrivals = "constant", {more} }}]
            "#
        );
        let case = Plan::parse(&plan).unwrap().cases.remove(0);
        prepare(&case, None, &Files::only_here()).unwrap()
    }

    const SHAREGPT: &str = "path = \"fixtures/sharegpt.json\"";
    const RANDOM: &str = "dataset = \"random\", input_tokens = 50, prefix_tokens = 20";
    const TALKS: &str = "dataset = \"multi_turn\", input_tokens = 50";
    const TRACE: &str = "dataset = \"trace\", path = \"fixtures/traces/azure.csv\"";

    #[test]
    fn a_warm_up_has_requests_of_the_same_shape_and_none_that_is_measured() {
        for workload in [SHAREGPT, RANDOM, TALKS] {
            let plain = prepared(workload, "4conc", "drain = \"1s\"");
            assert!(plain.warm_up.requests.is_empty());
            let Prepared { workload: counting, warm_up, .. } =
                prepared(workload, "4conc", "warm_up = 6");
            assert_eq!(counting, plain.workload, "what counts is what counts without a warm-up");
            assert_eq!((counting.requests.len(), warm_up.requests.len()), (9, 6));
            let beginning = |request: &PromptRequest| -> String {
                request.prompt.text().chars().take(12).collect()
            };
            for (one, two) in warm_up.requests.iter().zip(&counting.requests) {
                assert_ne!(beginning(one), beginning(two), "{workload}");
                assert_eq!(one.output_tokens, two.output_tokens);
                assert_eq!(one.turns(), two.turns());
            }
        }
    }

    #[test]
    fn a_warm_up_has_as_many_prompts_as_it_sends_where_that_is_known() {
        for (load, more, prompts) in [
            ("10qps", "warm_up = \"2s\"", 20),
            ("10qps", "warm_up = 5", 5),
            ("4conc", "warm_up = 1", 4),
            ("4conc", "warm_up = \"2s\"", 9),
            ("inf", "warm_up = \"2s\"", 0),
        ] {
            let prepared = prepared(RANDOM, load, more);
            assert_eq!(prepared.warm_up.requests.len(), prompts, "{load}, {more}");
            assert_eq!(prepared.workload.requests.len(), 9, "{load}, {more}");
        }
        let trace = prepared(TRACE, "trace", "warm_up = 7");
        assert_eq!(trace.warm_up.requests.len(), 7);
        let lengths = |requests: &[PromptRequest]| -> Vec<Option<u32>> {
            requests.iter().map(|request| request.prompt_tokens).collect()
        };
        let of_trace = lengths(&trace.workload.requests[..7]);
        assert_eq!(lengths(&trace.warm_up.requests), of_trace, "each at its time");
    }

    #[test]
    fn the_result_says_how_many_requests_warmed_up() {
        let plan = r#"
            defaults = { requests = 6, tokenizer = "fixtures/tokenizer.json" }
            backend = [{ name = "sim", kind = "sim", preset = "large" }]
            workload = [{ name = "w", path = "fixtures/sharegpt.json", output_tokens = 4 }]
            bench = [{ loads = ["3conc", "200qps"], warm_up = 4 }]
        "#;
        for case in Plan::parse(plan).unwrap().cases {
            let report = measure(&case).unwrap();
            let plan = &report.servebench.plan;
            assert_eq!((report.completed, plan.requests_counted), (6, 6));
            // More than asked for where a server is faster than users begin.
            assert!((4..=6).contains(&plan.warm_up_requests), "{}", plan.warm_up_requests);
            assert_eq!(plan.requests_sent, 6 + plan.warm_up_requests);
            assert_eq!(plan.warm_up_s, None);
            let again = |warning: &String| warning.contains("came again");
            assert!(!report.servebench.warnings.iter().any(again));
        }
    }
}
