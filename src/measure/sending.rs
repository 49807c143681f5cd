//! Sends what was prepared: finds or starts the server, tries it, drives the schedule, and reads what there is
//! to read meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::watch::Watch;
use super::{Controls, Prepared};
use crate::client::ReadyRequest;
use crate::drive::{self, Conversations, Driven, Sent};
use crate::environment;
use crate::load::Load;
use crate::plan::{Address, Case, Server};
use crate::schedule::Schedule;
use crate::sim::{Lexicon, SimServer};
use crate::telemetry::Telemetry;
use crate::tokenizer::Tokenizer;
use crate::trial::{self, Way};
use crate::watchdog::Limits;
use crate::workload::{PromptRequest, Workload};

/// How long a server may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(1);

/// The server and where it is. The embedded engine runs until it is dropped.
pub(super) fn start(
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

pub(super) async fn records(
    case: &Case,
    prepared: &Prepared,
    address: &Address,
    schedule: &Schedule,
    Controls { options, live, stop, .. }: Controls<'_>,
) -> anyhow::Result<Sending> {
    let limits = Limits { timeout: case.timeout, stall_timeout: case.stall_timeout };
    // There is nothing to find out about the embedded engine.
    let unknown = case.backend.probe && !matches!(case.backend.server, Server::Sim(_));
    let way = if options.test_prompt && unknown {
        trial::try_out(case, address, limits, stop).await?
    } else {
        Way::of(case, address)?
    };
    let mut notes = way.notes();
    let Way { case, address, client, manners, .. } = way;
    let (case, address) = (&case, &address);
    let ready = |workload: &Workload| -> Vec<ReadyRequest> {
        let requests = workload.requests.iter();
        requests
            .map(|request| client.prepare(&manners.body(case, request), request.output_tokens))
            .collect()
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
    let pid = options.servers.pids().get(&case.backend.name).copied();
    let watch = Watch::start(case, address, pid)?;
    let throttled = environment::throttled();
    let mut driven = drive::drive(&client, sent, &case.load, schedule, limits, live, stop).await?;
    let now = environment::throttled();
    driven.strain.throttled = throttled.zip(now).map(|(before, now)| now.since(before));
    let telemetry = watch.stop(driven.clock)?;
    notes.extend(client.note_of_addresses());
    Ok(Sending { driven, telemetry, notes, version, address: address.clone() })
}

/// What came of sending a schedule.
pub(super) struct Sending {
    pub(super) driven: Driven,
    pub(super) telemetry: Telemetry,
    /// What was found out before the clock started.
    pub(super) notes: Vec<String>,
    /// Where the server is: where it was said to be, or where that redirects to.
    pub(super) address: Address,
    /// The version that the server says it is.
    pub(super) version: Option<String>,
}

/// The schedule of the case, which sends no more requests than were drawn unless its end is open.
pub(super) fn schedule(case: &Case, prepared: &Prepared) -> Schedule {
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
