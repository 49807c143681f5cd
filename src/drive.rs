//! Drives one client by one schedule: opens its connections, sends its requests when they are due and
//! watches what that takes, on a runtime of one thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;

use crate::client::{Client, Exchange, ReadyRequest, Started};
use crate::clock::Clock;
use crate::engine::{self, Arrival, FollowUp, Sender, Ticket};
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
use crate::workload::{PromptRequest, Workload};

/// An open loop without a cap keeps the connections for the arrivals of this part of a second open.
const RESERVE: usize = 10;
/// The most connections that are opened before they are known to be needed.
const MOST_OPENED: usize = 512;

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

/// The runtime for a client. `waiting` says whether a request waits for the end of another: under a
/// closed loop, or for its turn.
pub fn runtime(waiting: bool, live: &Arc<Live>) -> anyhow::Result<Runtime> {
    let naps = Mutex::new(Naps::new());
    let live = Arc::clone(live);
    let consider_nap = move || {
        let traffic = live.traffic();
        let users = if waiting { Users::Waiting(traffic.mean_e2e) } else { Users::Absent };
        let situation = Situation { in_flight: traffic.in_flight, users };
        lock(&naps).consider(situation);
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(consider_nap)
        .build()
        .context("start the runtime")
}

/// What is sent: ready requests; of conversations, the first turns.
pub struct Sent {
    /// They come again where more are sent than there are.
    pub requests: Vec<ReadyRequest>,
    /// Those of the warm-up, likewise; empty where there is none.
    pub warm_up: Vec<ReadyRequest>,
    /// How they go on; `None` where no conversation has a second turn.
    pub conversations: Option<Conversations>,
}

/// How conversations go on.
#[derive(Clone)]
pub struct Conversations {
    /// The workload.
    pub workload: Arc<Workload>,
    /// That of the warm-up.
    pub warm_up: Arc<Workload>,
    /// Whether what was said is sent message by message.
    pub chat: bool,
    /// Makes the body of a request.
    pub body: Arc<Body>,
}

/// The body of a request.
pub type Body = dyn Fn(&PromptRequest) -> Vec<u8> + Send + Sync;

/// What came of a run.
pub struct Driven {
    /// The requests, in no order.
    pub records: Vec<RequestRecord>,
    /// What it took.
    pub strain: Strain,
    /// Its zero is that of the schedule and of all stamps.
    pub clock: Clock,
}

/// Sends what is to be sent as `schedule`, which is that of `load`, says.
pub async fn drive(
    client: &Client,
    sent: Sent,
    load: &Load,
    schedule: &Schedule,
    limits: Limits,
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<Driven> {
    client.open(connections(load, schedule), stop).await;
    let cut = Stop::new();
    let clock = Clock::start();
    let sender = ClientSender {
        client: client.clone(),
        requests: sent.requests.into(),
        warm_up: sent.warm_up.into(),
        conversations: sent.conversations,
        clock,
        limits,
        live: Arc::clone(live),
        cut: cut.clone(),
    };
    let reserve = async {
        match reserve(load, schedule) {
            Some(connections) => client.keep_reserve(connections).await,
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
    Ok(Driven { records: records.context("start the pacing thread")?, strain, clock })
}

/// Sends requests by a client.
#[derive(Clone)]
struct ClientSender {
    client: Client,
    requests: Arc<[ReadyRequest]>,
    warm_up: Arc<[ReadyRequest]>,
    conversations: Option<Conversations>,
    clock: Clock,
    limits: Limits,
    live: Arc<Live>,
    cut: Stop,
}

impl ClientSender {
    /// They come again where there are fewer than are sent.
    fn request(&self, ticket: Ticket) -> &ReadyRequest {
        let requests = if ticket.warm_up { &self.warm_up } else { &self.requests };
        &requests[ticket.index % requests.len()]
    }
}

/// A request on its way; of a later turn, with what is to be sent.
struct OnItsWay {
    started: Started,
    turn: Option<Box<ReadyRequest>>,
}

impl Sender for ClientSender {
    type Started = OnItsWay;
    type Turn = Box<ReadyRequest>;

    fn start(&self, ticket: Ticket) -> OnItsWay {
        self.live.begin();
        OnItsWay { started: self.client.start(self.clock, self.request(ticket)), turn: None }
    }

    async fn finish(&self, arrival: Arrival, on_its_way: OnItsWay) -> RequestRecord {
        let OnItsWay { started, turn } = on_its_way;
        let request = turn.as_deref().unwrap_or_else(|| self.request(arrival.ticket));
        let exchange =
            self.client.finish(self.clock, request, started, self.limits, &self.cut).await;
        let record = record(arrival, exchange);
        self.live.end(&record);
        record
    }

    async fn follow_up(&self, turns: &[RequestRecord]) -> Option<FollowUp<Box<ReadyRequest>>> {
        let Conversations { workload, warm_up, chat, body } = self.conversations.as_ref()?;
        let first = turns.first()?;
        let workload = if first.warm_up { warm_up } else { workload };
        let conversation = workload.request(first.index);
        let think = conversation.follow_ups.get(turns.len() - 1)?.think;
        // Reasoning is no part of what was said.
        let answers = turns.iter().map(|turn| turn.stream.text.as_str());
        let request = conversation.after(answers, *chat)?;
        let prepare = {
            let (client, body) = (self.client.clone(), Arc::clone(body));
            move || Box::new(client.prepare(&body(&request), request.output_tokens))
        };
        // Long bodies take their time, in which the loop would read nothing.
        let turn = if think.is_zero() {
            prepare()
        } else {
            tokio::task::spawn_blocking(prepare).await.ok()?
        };
        Some(FollowUp { think, turn })
    }

    fn start_turn(&self, turn: Box<ReadyRequest>) -> OnItsWay {
        self.live.begin();
        OnItsWay { started: self.client.start(self.clock, &turn), turn: Some(turn) }
    }
}

/// How many connections an open loop that nothing holds back keeps open for the arrivals to come.
fn reserve(load: &Load, schedule: &Schedule) -> Option<usize> {
    match (load, &schedule.sends) {
        // Its arrivals come in bursts, and each may be as large as the largest.
        (Load::Trace { cap: None }, Sends::Open { offsets, .. }) => {
            let burst = busiest(offsets, Duration::from_secs(1) / RESERVE as u32);
            Some(burst.clamp(1, MOST_OPENED))
        }
        _ => open_rate(load, schedule).map(|per_s| per_s.div_ceil(RESERVE)),
    }
}

/// The most arrivals, which are in order, in any stretch of so much time.
fn busiest(offsets: &[Duration], stretch: Duration) -> usize {
    let mut begin = 0;
    let within = |(end, at): (usize, &Duration)| {
        while stretch <= at.saturating_sub(offsets[begin]) {
            begin += 1;
        }
        end + 1 - begin
    };
    offsets.iter().enumerate().map(within).max().unwrap_or(0)
}

/// The highest rate of an open loop that nothing holds back, requests per second.
fn open_rate(load: &Load, schedule: &Schedule) -> Option<usize> {
    let per_s = match load {
        Load::Open { rate, cap: None } => rate.as_per_s(),
        Load::Staged(stages) => {
            let rates = stages.stages.iter().map(|stage| stage.from_per_s.max(stage.to_per_s));
            rates.fold(0.0, f64::max)
        }
        Load::Trace { cap: None } => match &schedule.sends {
            Sends::Open { offsets, .. } => return Some(busiest(offsets, Duration::from_secs(1))),
            Sends::Closed { .. } => return None,
        },
        Load::Open { cap: Some(_), .. }
        | Load::Trace { cap: Some(_) }
        | Load::Search(_)
        | Load::Infinite
        | Load::Closed(_) => return None,
    };
    Some(per_s.ceil() as usize)
}

/// How many connections to open before the clock starts: as many as the load will need, where it says.
/// An open loop is given those of a second's arrivals, and opens more as it needs them.
fn connections(load: &Load, schedule: &Schedule) -> usize {
    let needed = match open_rate(load, schedule) {
        Some(per_s) => per_s.clamp(8, MOST_OPENED),
        None => load.max_concurrency().unwrap_or(usize::MAX),
    };
    match &schedule.sends {
        Sends::Open { offsets, .. } => needed.min(offsets.len()),
        Sends::Closed { starts, .. } => needed.min(starts.len()),
    }
}

fn record(arrival: Arrival, exchange: Exchange) -> RequestRecord {
    let Exchange { sent, connect, ended, resent, mut stream, outcome, refusal: _ } = exchange;
    // A run may hold millions of them.
    stream.chunks.shrink();
    stream.text.shrink_to_fit();
    stream.reasoning.shrink_to_fit();
    let Arrival { ticket: Ticket { index, warm_up }, turn, scheduled, released } = arrival;
    RequestRecord {
        index,
        warm_up,
        turn,
        scheduled,
        released,
        sent,
        connect,
        resent,
        ended,
        stream,
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::Course;
    use crate::record::tests::ms;

    #[test]
    fn a_trace_has_the_connections_of_its_busiest_second_and_a_reserve_for_its_largest_burst() {
        let arrivals: Vec<Duration> =
            [0, 10, 900, 2000, 2000, 2000, 2050, 2150, 2900, 9000].map(ms).to_vec();
        assert_eq!(busiest(&arrivals, ms(1000)), 6);
        assert_eq!(busiest(&arrivals, ms(100)), 4);
        assert_eq!(busiest(&[], ms(100)), 0);
        let schedule = Schedule::replay(&arrivals, None, &Course::default());
        let load = Load::Trace { cap: None };
        assert_eq!(connections(&load, &schedule), 8, "no fewer than eight");
        assert_eq!(reserve(&load, &schedule), Some(4));
        let long: Vec<Duration> = (0..20_000).map(|n| ms(50 * n)).collect();
        let long = Schedule::replay(&long, None, &Course::default());
        assert_eq!(connections(&load, &long), 20, "not one for each request of the trace");
    }
}
