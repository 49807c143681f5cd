//! Drives one client by one schedule: opens its connections, sends its requests when they are due and
//! watches what that takes, on a runtime of one thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::runtime::Runtime;

use crate::client::{Client, Exchange, ReadyRequest, Started};
use crate::clock::Clock;
use crate::engine::{self, Arrival, Sender};
use crate::live::Live;
use crate::load::Load;
use crate::lock::lock;
use crate::nap::{Naps, Situation, Users};
use crate::pacer::Pacing;
use crate::plan::Address;
use crate::record::RequestRecord;
use crate::schedule::{Schedule, Sends};
use crate::sim::{SimConfig, SimServer};
use crate::stop::Stop;
use crate::strain::{self, Strain};
use crate::watchdog::Limits;
use crate::wire::ProtocolKind;

/// An open loop without a cap keeps the connections for the arrivals of this part of a second open.
const RESERVE: usize = 10;

/// Starts the embedded engine on a port of its own, to speak `protocol` with; it runs until it is dropped.
pub fn start_embedded(
    config: SimConfig,
    protocol: ProtocolKind,
) -> anyhow::Result<(SimServer, Address)> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = SimServer::start(config, any_port).context("start the embedded engine")?;
    let address = Address::new(&server.base_url(), protocol.default_endpoint());
    Ok((server, address.map_err(anyhow::Error::msg)?))
}

/// The runtime for a client under `load`.
pub fn runtime(load: &Load, live: &Arc<Live>) -> anyhow::Result<Runtime> {
    let naps = Mutex::new(Naps::new());
    let (live, closed) = (Arc::clone(live), matches!(load, Load::Closed(_)));
    let consider_nap = move || {
        let live = live.snapshot();
        let users = if closed { Users::Waiting(live.mean_e2e) } else { Users::Absent };
        let situation = Situation { in_flight: live.in_flight(), users };
        lock(&naps).consider(situation);
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(consider_nap)
        .build()
        .context("start the runtime")
}

/// Sends `requests` as `schedule`, which is that of `load`, says. They come again where it has more.
pub async fn drive(
    client: &Client,
    requests: Vec<ReadyRequest>,
    load: &Load,
    schedule: &Schedule,
    limits: Limits,
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<(Vec<RequestRecord>, Strain)> {
    client.open(connections(load, schedule), stop).await;
    let cut = Stop::new();
    let clock = Clock::start();
    let sender = ClientSender {
        client: client.clone(),
        requests: requests.into(),
        clock,
        limits,
        live: Arc::clone(live),
        cut: cut.clone(),
    };
    let reserve = async {
        match open_rate(load) {
            Some(per_s) => client.keep_reserve(per_s.div_ceil(RESERVE)).await,
            None => std::future::pending().await,
        }
    };
    let run = async {
        tokio::select! {
            records = engine::run(schedule, clock, Pacing::Thread, stop, &cut, sender) => records,
            () = reserve => unreachable!("it does not end"),
        }
    };
    let (records, strain) = strain::watch(clock, run).await;
    Ok((records.context("start the pacing thread")?, strain))
}

/// Sends requests by a client.
#[derive(Clone)]
struct ClientSender {
    client: Client,
    requests: Arc<[ReadyRequest]>,
    clock: Clock,
    limits: Limits,
    live: Arc<Live>,
    cut: Stop,
}

impl ClientSender {
    /// Requests come again where there are fewer than are sent.
    fn request(&self, index: usize) -> &ReadyRequest {
        &self.requests[index % self.requests.len()]
    }
}

impl Sender for ClientSender {
    type Started = Started;

    fn start(&self, index: usize) -> Started {
        self.live.begin();
        self.client.start(self.clock, self.request(index))
    }

    async fn finish(&self, arrival: Arrival, started: Started) -> RequestRecord {
        let request = self.request(arrival.index);
        let exchange =
            self.client.finish(self.clock, request, started, self.limits, &self.cut).await;
        let record = record(arrival, exchange);
        self.live.end(&record);
        record
    }
}

/// The highest rate of an open loop that nothing holds back, requests per second.
fn open_rate(load: &Load) -> Option<usize> {
    let per_s = match load {
        Load::Open { rate, cap: None } => rate.as_per_s(),
        Load::Staged(stages) => {
            let rates = stages.stages.iter().map(|stage| stage.from_per_s.max(stage.to_per_s));
            rates.fold(0.0, f64::max)
        }
        Load::Open { cap: Some(_), .. }
        | Load::Trace { .. }
        | Load::Search(_)
        | Load::Infinite
        | Load::Closed(_) => return None,
    };
    Some(per_s.ceil() as usize)
}

/// How many connections to open before the clock starts: as many as the load will need, where it says.
/// An open loop is given those of a second's arrivals, and opens more as it needs them.
fn connections(load: &Load, schedule: &Schedule) -> usize {
    let needed = match open_rate(load) {
        Some(per_s) => per_s.clamp(8, 512),
        None => load.max_concurrency().unwrap_or(usize::MAX),
    };
    match &schedule.sends {
        Sends::Open { offsets, .. } => needed.min(offsets.len()),
        Sends::Closed { starts, .. } => needed.min(starts.len()),
    }
}

fn record(arrival: Arrival, exchange: Exchange) -> RequestRecord {
    let Exchange { sent, connect, ended, stream, outcome } = exchange;
    let Arrival { index, scheduled, released } = arrival;
    RequestRecord { index, scheduled, released, sent, connect, ended, stream, outcome }
}
