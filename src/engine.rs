//! Sends every arrival of a schedule when it is due and collects what became of each. Knows no HTTP:
//! it is given a [`Sender`] that performs one request.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::course::WarmUp;
use crate::lock::lock;
use crate::pacer::{Pacer, Pacing};
use crate::record::{Outcome, RequestRecord};
use crate::schedule::{Schedule, Sends};
use crate::stop::Stop;

/// A request or a conversation, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Which of the workload, or of the warm-up.
    pub index: usize,
    /// Whether it is of the warm-up.
    pub warm_up: bool,
}

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which request; of a workload of conversations, which of them.
    pub ticket: Ticket,
    /// Which turn of the conversation; 0 for the first.
    pub turn: u32,
    /// When it is due.
    pub scheduled: Duration,
    /// When it might leave: later than `scheduled` where a cap held it back.
    pub released: Duration,
}

/// Performs requests, each in two steps, so that the first can be taken at the very moment by whoever
/// keeps the time.
pub trait Sender: Clone + Send + Sync + 'static {
    /// A request that is on its way, or is still to leave.
    type Started: Send + 'static;
    /// A later turn of a conversation, ready to leave.
    type Turn: Send + 'static;

    /// Lets the request leave if it can at once; of a conversation, the first turn. Does not wait.
    fn start(&self, ticket: Ticket) -> Self::Started;

    /// Lets it leave if it has not, and reads the answer. After a stop it ends soon.
    fn finish(
        &self,
        arrival: Arrival,
        started: Self::Started,
    ) -> impl Future<Output = RequestRecord> + Send;

    /// What follows `turns`, those of one conversation so far, all of which completed. `None` where it is
    /// over.
    fn follow_up(
        &self,
        turns: &[RequestRecord],
    ) -> impl Future<Output = Option<FollowUp<Self::Turn>>> + Send;

    /// Lets a later turn leave if it can at once. Does not wait.
    fn start_turn(&self, turn: Self::Turn) -> Self::Started;
}

/// A turn that follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowUp<T> {
    /// How long after the end of the one before it is due.
    pub think: Duration,
    /// What is sent.
    pub turn: T,
}

/// Runs a schedule to its end, the last answers included. Every arrival that was due has a record: those of
/// the warm-up, then the others, each in the order of their numbers, the turns of a conversation one after
/// the other. After a stop no
/// further request is sent. `cut` is asked for when those in flight are to end: after a stop, and when the
/// time to drain is over.
///
/// # Errors
///
/// If the pacing thread cannot be started.
///
/// # Panics
///
/// If `sender` panics.
pub async fn run<S: Sender>(
    schedule: &Schedule,
    clock: Clock,
    pacing: Pacing,
    stop: &Stop,
    cut: &Stop,
    sender: S,
) -> io::Result<Vec<RequestRecord>> {
    let mut in_flight = JoinSet::new();
    let play = |places, end| {
        let (stop, cut) = (stop.clone(), cut.clone());
        Arc::new(Play { sender: sender.clone(), clock, places, end, stop, cut })
    };
    let mut sold_out = None;
    let mut records = Vec::new();
    match &schedule.sends {
        Sends::Open { offsets, warm_up, first, cap, end } => {
            let play = play(cap.map(Places::new), End::at(*end));
            let numbers = Numbers { warm_up: *warm_up, first: *first };
            OpenLoop { offsets, numbers, pacing, play }.send(&mut in_flight, &mut records).await?;
        }
        Sends::Closed { starts, warm_up, requests, duration } => {
            let tickets = Arc::new(Tickets::new(starts.len(), *warm_up, *requests, *duration));
            let play = play(None, tickets.end.clone());
            let users = ClosedLoop { starts, tickets: Arc::clone(&tickets), pacing, play };
            users.send(&mut in_flight).await?;
            sold_out = Some(tickets);
        }
    }
    let drained = async {
        match schedule.drain {
            Some(drain) => {
                if let Some(tickets) = &sold_out {
                    tickets.sold_out(clock).await;
                }
                clock.wait_until(clock.now() + drain).await;
            }
            None => std::future::pending().await,
        }
    };
    records.extend(ended(in_flight, drained, stop, cut).await);
    records.sort_by_key(|record| (!record.warm_up, record.index));
    Ok(records)
}

/// What is in flight, when all of it has ended; it is cut when `drained` returns.
async fn ended(
    in_flight: JoinSet<Vec<RequestRecord>>,
    drained: impl Future<Output = ()>,
    stop: &Stop,
    cut: &Stop,
) -> Vec<RequestRecord> {
    let all = in_flight.join_all();
    tokio::pin!(all);
    let ended = tokio::select! {
        ended = &mut all => ended,
        () = drained => {
            cut.request();
            all.await
        }
        () = stop.requested() => {
            cut.request();
            all.await
        }
    };
    ended.into_iter().flatten().collect()
}

/// When no more requests are due, where time ends the run and it is known by now. Copies share it.
#[derive(Clone, Debug, Default)]
struct End(Arc<OnceLock<Duration>>);

impl End {
    fn at(end: Option<Duration>) -> Self {
        Self(Arc::new(end.map(OnceLock::from).unwrap_or_default()))
    }

    fn is_past(&self, at: Duration) -> bool {
        self.0.get().is_some_and(|end| *end <= at)
    }
}

/// What all requests of a run share.
struct Play<S> {
    sender: S,
    clock: Clock,
    /// `None` where requests in flight are not counted.
    places: Option<Places>,
    /// No turn is due from then on.
    end: End,
    stop: Stop,
    cut: Stop,
}

/// How the turns of a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// With its last turn, or with one that failed.
    Over,
    /// There was no time for the next one.
    BrokenOff,
}

impl<S: Sender> Play<S> {
    /// Whether no further request is to be sent.
    fn is_over(&self) -> bool {
        self.stop.is_requested() || self.cut.is_requested()
    }

    /// Plays a conversation to its end. Its turns so far are those of `records` from `first` on, and the
    /// others are added to them.
    async fn go_on(&self, records: &mut Vec<RequestRecord>, first: usize) -> Ended {
        while let Some(last) = records.last().filter(|last| last.outcome == Outcome::Completed) {
            let (turn, at) = (last.turn + 1, last.ended);
            let ticket = Ticket { index: last.index, warm_up: last.warm_up };
            let Some(next) = self.sender.follow_up(&records[first..]).await else { break };
            let scheduled = at + next.think;
            if self.end.is_past(scheduled) {
                return Ended::BrokenOff;
            }
            if self.clock.now() < scheduled {
                tokio::select! {
                    () = self.clock.wait_until(scheduled) => {}
                    () = self.cut.requested() => {}
                }
            }
            let mut arrival = Arrival { ticket, turn, scheduled, released: scheduled };
            let _place = match self.places.as_ref().map(|places| (places, places.take_at_once())) {
                None => None,
                Some((_, Some(place))) => Some(place),
                Some((places, None)) => {
                    let place = places.take().await;
                    arrival.released = self.clock.now();
                    Some(place)
                }
            };
            if self.is_over() {
                return Ended::BrokenOff;
            }
            let started = self.sender.start_turn(next.turn);
            records.push(self.sender.finish(arrival, started).await);
        }
        Ended::Over
    }
}

/// An arrival of the open loop at its time.
struct Due<S> {
    place: usize,
    /// None where the cap did not let it leave.
    left: Option<(S, Place)>,
}

/// A place among the requests in flight, held as long as this is; `None` where they are not counted.
type Place = Option<OwnedSemaphorePermit>;

/// The places of a cap. Copies share them.
#[derive(Clone, Debug)]
struct Places {
    free: Arc<Semaphore>,
    /// Arrivals that wait for one.
    waiting: Arc<AtomicUsize>,
}

impl Places {
    fn new(cap: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(cap)), waiting: Arc::default() }
    }

    /// A place, if one is free and nobody came before. `None` counts the caller among those who wait.
    fn take_at_once(&self) -> Option<OwnedSemaphorePermit> {
        if self.waiting.load(Ordering::Acquire) == 0
            && let Ok(place) = Arc::clone(&self.free).try_acquire_owned()
        {
            return Some(place);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        None
    }

    /// The next place, for one who was told to wait. Places are given in the order of the calls.
    async fn take(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.free).acquire_owned().await;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        place.expect("the semaphore is never closed")
    }
}

/// The numbers of the arrivals of an open loop.
#[derive(Clone, Copy)]
struct Numbers {
    /// So many are of the warm-up.
    warm_up: usize,
    /// The number of the first that is not.
    first: usize,
}

impl Numbers {
    fn of(self, place: usize) -> Ticket {
        match place.checked_sub(self.warm_up) {
            None => Ticket { index: place, warm_up: true },
            Some(place) => Ticket { index: self.first + place, warm_up: false },
        }
    }
}

/// Sends each request at its time, however slow the server is; with a cap on the requests in flight, those
/// that come after them wait in the order of their arrival.
struct OpenLoop<'a, S> {
    offsets: &'a [Duration],
    numbers: Numbers,
    pacing: Pacing,
    play: Arc<Play<S>>,
}

impl<S: Sender> OpenLoop<'_, S> {
    /// Returns when all are sent; of conversations, the first turns.
    async fn send(
        self,
        in_flight: &mut JoinSet<Vec<RequestRecord>>,
        finished: &mut Vec<RequestRecord>,
    ) -> io::Result<()> {
        let Self { offsets, numbers, pacing, play } = self;
        let depart = {
            let play = Arc::clone(&play);
            move |place| {
                let room = match &play.places {
                    None => Some(None),
                    Some(places) => places.take_at_once().map(Some),
                };
                let left = room.map(|room| (play.sender.start(numbers.of(place)), room));
                Due { place, left }
            }
        };
        let pacer = Pacer::start(pacing, offsets.to_vec(), play.clock, depart)?;
        let see_through = |due: Due<S::Started>| {
            // A task holds its memory until it is joined, which is far more than its record.
            while let Some(Ok(records)) = in_flight.try_join_next() {
                finished.extend(records);
            }
            let (scheduled, ticket) = (offsets[due.place], numbers.of(due.place));
            let play = Arc::clone(&play);
            in_flight.spawn(async move {
                let mut records = vec![attend(due.left, ticket, scheduled, &play).await];
                play.go_on(&mut records, 0).await;
                records
            });
        };
        each(pacer, &play.stop, see_through).await;
        Ok(())
    }
}

/// Calls `go_on` with what the pacer returns, to its end or a stop; all that it had done by then
/// included.
async fn each<T: Send + 'static>(mut pacer: Pacer<T>, stop: &Stop, mut go_on: impl FnMut(T)) {
    loop {
        tokio::select! {
            biased;
            done = pacer.next() => match done {
                Some(done) => go_on(done),
                None => return,
            },
            () = stop.requested() => break,
        }
    }
    pacer.stop().into_iter().for_each(go_on);
}

/// Sees one arrival through, which has `left` unless the cap did not let it.
async fn attend<S: Sender>(
    left: Option<(S::Started, Place)>,
    ticket: Ticket,
    scheduled: Duration,
    play: &Play<S>,
) -> RequestRecord {
    let mut arrival = Arrival { ticket, turn: 0, scheduled, released: scheduled };
    let (started, _place) = match (left, &play.places) {
        (Some(left), _) => left,
        (None, Some(places)) => {
            let place = places.take().await;
            arrival.released = play.clock.now();
            (play.sender.start(ticket), Some(place))
        }
        (None, None) => (play.sender.start(ticket), None),
    };
    play.sender.finish(arrival, started).await
}

/// Gives the requests of a closed loop their numbers, until no more are to be sent.
struct Tickets {
    given: Mutex<Given>,
    users: usize,
    warm_up: WarmUp,
    requests: Option<usize>,
    duration: Option<Duration>,
    end: End,
    /// Asked for when the first that counts has been given.
    counting: Stop,
    /// Asked for when the last has been given.
    sold_out: Stop,
}

/// How many tickets have been given.
#[derive(Default)]
struct Given {
    warm_up: usize,
    counting: usize,
    /// Users who have had their first.
    begun: usize,
}

impl Tickets {
    fn new(
        users: usize,
        warm_up: WarmUp,
        requests: Option<usize>,
        duration: Option<Duration>,
    ) -> Self {
        let end = warm_up.time().zip(duration).map(|(warm_up, duration)| warm_up + duration);
        Self {
            given: Mutex::default(),
            users,
            warm_up,
            requests,
            duration,
            end: End::at(end),
            counting: Stop::new(),
            sold_out: Stop::new(),
        }
    }

    /// The first ticket of a user who begins at `at`.
    fn take_first(&self, at: Duration) -> Option<Ticket> {
        let mut given = lock(&self.given);
        let ticket = self.give(&mut given, at);
        given.begun += 1;
        ticket
    }

    /// A ticket for what is due at `at`.
    fn take(&self, at: Duration) -> Option<Ticket> {
        self.give(&mut lock(&self.given), at)
    }

    fn give(&self, given: &mut Given, at: Duration) -> Option<Ticket> {
        let warm_up = match self.warm_up {
            WarmUp::Time(time) => at < time,
            // Not before all users have begun: what counts is to find them all at work.
            WarmUp::Requests(requests) => {
                0 < requests && (given.warm_up < requests || given.begun < self.users)
            }
        };
        if warm_up {
            given.warm_up += 1;
            return Some(Ticket { index: given.warm_up - 1, warm_up });
        }
        if given.counting == 0 {
            if let Some(duration) = self.duration {
                self.end.0.get_or_init(|| at + duration);
            }
            self.counting.request();
        }
        let left = self.requests.is_none_or(|requests| given.counting < requests);
        if !left || self.end.is_past(at) {
            return None;
        }
        given.counting += 1;
        if self.requests == Some(given.counting) {
            self.sold_out.request();
        }
        Some(Ticket { index: given.counting - 1, warm_up })
    }

    /// Returns when the last has been given, or there is no more time for one.
    async fn sold_out(&self, clock: Clock) {
        let over = async {
            if self.end.0.get().is_none() {
                self.counting.requested().await;
            }
            match self.end.0.get() {
                Some(end) => clock.wait_until(*end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.sold_out.requested() => {}
            () = over => {}
        }
    }
}

/// Lets each user begin at its time, and send its next request, or begin its next conversation, as soon as
/// its last one has ended.
struct ClosedLoop<'a, S> {
    starts: &'a [Duration],
    tickets: Arc<Tickets>,
    pacing: Pacing,
    play: Arc<Play<S>>,
}

impl<S: Sender> ClosedLoop<'_, S> {
    /// Returns when all users have begun.
    async fn send(self, in_flight: &mut JoinSet<Vec<RequestRecord>>) -> io::Result<()> {
        let Self { starts, tickets, pacing, play } = self;
        let begin = {
            let (play, tickets, starts) =
                (Arc::clone(&play), Arc::clone(&tickets), starts.to_vec());
            move |user: usize| {
                let (ticket, at) = (tickets.take_first(starts[user])?, starts[user]);
                let arrival = Arrival { ticket, turn: 0, scheduled: at, released: at };
                Some((arrival, play.sender.start(ticket)))
            }
        };
        let pacer = Pacer::start(pacing, starts.to_vec(), play.clock, begin)?;
        let go_on = |begun: Option<_>| {
            let Some((arrival, started)) = begun else { return };
            let (tickets, play) = (Arc::clone(&tickets), Arc::clone(&play));
            in_flight.spawn(async move { user(arrival, started, &tickets, &play).await });
        };
        each(pacer, &play.stop, go_on).await;
        Ok(())
    }
}

/// The requests of one user, of which the first is on its way.
async fn user<S: Sender>(
    mut arrival: Arrival,
    mut started: S::Started,
    tickets: &Tickets,
    play: &Play<S>,
) -> Vec<RequestRecord> {
    let mut records = Vec::new();
    loop {
        let first = records.len();
        records.push(play.sender.finish(arrival, started).await);
        if play.go_on(&mut records, first).await == Ended::BrokenOff || play.is_over() {
            return records;
        }
        // Its next one is due since the end of this one, which may have been before it was read.
        let ended = records.last().map(|last| last.ended);
        let next = ended.and_then(|at| Some((tickets.take(at)?, at)));
        let Some((ticket, at)) = next else { return records };
        arrival = Arrival { ticket, turn: 0, scheduled: at, released: at };
        started = play.sender.start(ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;
    use crate::record::{Failure, Outcome, Stream};

    fn schedule(sends: Sends) -> Schedule {
        Schedule { sends, drain: None }
    }

    fn open(offsets: &[u64], cap: Option<usize>) -> Schedule {
        let offsets = offsets.iter().map(|&offset| ms(offset)).collect();
        schedule(Sends::Open { offsets, warm_up: 0, first: 0, cap, end: None })
    }

    fn closed(users: usize, requests: Option<usize>, end: Option<Duration>) -> Schedule {
        warm(users, WarmUp::default(), requests, end)
    }

    /// The same with a warm-up, behind which comes so much that counts.
    fn warm(
        users: usize,
        warm_up: WarmUp,
        requests: Option<usize>,
        duration: Option<Duration>,
    ) -> Schedule {
        let starts = vec![Duration::ZERO; users];
        schedule(Sends::Closed { starts, warm_up, requests, duration })
    }

    /// Requests that leave at once and are answered after `service`.
    #[derive(Clone)]
    struct Simulated {
        clock: Clock,
        service: Duration,
        cut: Stop,
        /// How long users think before each turn but the first.
        thinks: &'static [u64],
        /// The turn of a conversation that fails.
        failing: Option<(usize, u32)>,
    }

    impl Sender for Simulated {
        /// When it left.
        type Started = Duration;
        /// Which it is.
        type Turn = usize;

        fn start(&self, _: Ticket) -> Duration {
            self.clock.now()
        }

        async fn finish(&self, arrival: Arrival, sent: Duration) -> RequestRecord {
            let failed = |failure| Outcome::Failed { failure, message: String::new() };
            let outcome = tokio::select! {
                () = self.clock.wait_until(sent + self.service) => {
                    match self.failing == Some((arrival.ticket.index, arrival.turn)) {
                        true => failed(Failure::Truncated),
                        false => Outcome::Completed,
                    }
                }
                () = self.cut.requested() => failed(Failure::Cancelled),
            };
            RequestRecord {
                index: arrival.ticket.index,
                warm_up: arrival.ticket.warm_up,
                turn: arrival.turn,
                scheduled: arrival.scheduled,
                released: arrival.released,
                sent,
                connect: None,
                resent: false,
                ended: self.clock.now(),
                stream: Stream::default(),
                outcome,
            }
        }

        async fn follow_up(&self, turns: &[RequestRecord]) -> Option<FollowUp<usize>> {
            let places = turns.iter().map(|turn| turn.turn as usize);
            assert!(places.eq(0..turns.len()), "a conversation is given with all its turns");
            let think = ms(*self.thinks.get(turns.len() - 1)?);
            Some(FollowUp { think, turn: turns.len() })
        }

        fn start_turn(&self, _: usize) -> Duration {
            self.clock.now()
        }
    }

    /// Runs the schedule with answers after `service`.
    async fn simulate(schedule: &Schedule, service: Duration, stop: &Stop) -> Vec<RequestRecord> {
        play(schedule, service, stop, &[], None).await
    }

    /// Runs it with conversations in which users think so many milliseconds before each further turn.
    async fn play(
        schedule: &Schedule,
        service: Duration,
        stop: &Stop,
        thinks: &'static [u64],
        failing: Option<(usize, u32)>,
    ) -> Vec<RequestRecord> {
        let clock = Clock::start();
        let cut = Stop::new();
        let sender = Simulated { clock, service, cut: cut.clone(), thinks, failing };
        run(schedule, clock, Pacing::Timer, stop, &cut, sender).await.unwrap()
    }

    /// Conversation, turn, when it was scheduled and when it was sent, ms.
    fn seen(records: &[RequestRecord]) -> Vec<(usize, u32, u128, u128)> {
        let seen = |record: &RequestRecord| {
            let (scheduled, sent) = (record.scheduled.as_millis(), record.sent.as_millis());
            (record.index, record.turn, scheduled, sent)
        };
        records.iter().map(seen).collect()
    }

    fn completed(records: &[RequestRecord]) -> usize {
        records.iter().filter(|record| record.outcome == Outcome::Completed).count()
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_past_the_cap_wait_and_the_wait_counts_from_the_schedule() {
        // Coordinated omission: a service of 500 ms, an arrival every 100 ms, one at a time.
        let schedule = open(&[0, 100, 200, 300, 400, 500, 600, 700], Some(1));
        let records = simulate(&schedule, ms(500), &Stop::new()).await;
        for (record, k) in records.iter().zip(0..) {
            let near = |duration: Duration, expected: u64| {
                let off = duration.as_millis().abs_diff(u128::from(expected));
                assert!(off <= 10, "request {k}: {duration:?}, not {expected} ms");
            };
            near(record.ended - record.sent, 500);
            near(record.ended - record.scheduled, 500 + 400 * k);
            assert!(record.lateness() <= ms(1), "the wait is the plan's, not the client's");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_does_not_delay_later_arrivals() {
        let schedule = open(&[10, 20, 30], None);
        let records = simulate(&schedule, ms(60), &Stop::new()).await;
        assert_eq!(records.len(), 3, "a request still running at the end is kept");
        for record in records {
            // The runtime's timer rounds up to its next millisecond.
            assert!(record.lateness() <= ms(1), "{:?}", record.lateness());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_that_are_due_at_once_leave_at_once() {
        let schedule = open(&[0; 100], None);
        let records = simulate(&schedule, ms(5), &Stop::new()).await;
        assert!(records.iter().all(|record| record.sent == Duration::ZERO));
        assert!(records.iter().map(|record| record.index).eq(0..100));
    }

    #[tokio::test(start_paused = true)]
    async fn users_send_their_next_request_when_their_last_has_ended() {
        let schedule = closed(2, Some(5), None);
        let records = simulate(&schedule, ms(10), &Stop::new()).await;
        let mut sent: Vec<u128> = records.iter().map(|record| record.sent.as_millis()).collect();
        sent.sort_unstable();
        assert_eq!(sent.len(), 5);
        assert_eq!(sent[..2], [0, 0]);
        for n in 2..5 {
            assert!(10 <= sent[n] - sent[n - 2], "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stop_nothing_is_sent_and_what_was_sent_is_kept() {
        for schedule in [open(&[0, 10, 20, 30, 40], None), closed(1, Some(5), None)] {
            let stop = Stop::new();
            let stopper = stop.clone();
            tokio::spawn(async move {
                Clock::start().wait_until(ms(25)).await;
                stopper.request();
            });
            let records = simulate(&schedule, ms(10), &stop).await;
            assert_eq!(records.len(), 3, "{schedule:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn users_send_until_their_time_is_over_and_what_is_in_flight_still_ends() {
        let records = simulate(&closed(2, None, Some(ms(35))), ms(10), &Stop::new()).await;
        assert_eq!(records.len(), 2 * 4, "at 0, 10, 20 and 30 ms");
        assert!(records.iter().all(|record| record.outcome == Outcome::Completed));
    }

    /// How many records are of the warm-up, and the numbers of the others.
    fn numbers(records: &[RequestRecord]) -> (usize, Vec<usize>) {
        let (warm_up, counting): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record.warm_up);
        assert!(warm_up.iter().map(|record| record.index).eq(0..warm_up.len()));
        (warm_up.len(), counting.iter().map(|record| record.index).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_a_warm_up_have_numbers_of_their_own_and_those_that_count_begin_at_0() {
        let users = warm(1, WarmUp::Time(ms(25)), Some(4), None);
        let records = simulate(&users, ms(10), &Stop::new()).await;
        assert_eq!(numbers(&records), (3, vec![0, 1, 2, 3]));
        let counted = records.iter().filter(|record| !record.warm_up);
        assert!(counted.clone().all(|record| ms(25) <= record.scheduled));

        let offsets = (0..5).map(|n| ms(n * 10)).collect();
        let open = Sends::Open { offsets, warm_up: 2, first: 0, cap: None, end: None };
        let records = simulate(&schedule(open), ms(10), &Stop::new()).await;
        assert_eq!(numbers(&records), (2, vec![0, 1, 2]));
        let offsets = (0..5).map(|n| ms(n * 10)).collect();
        let trace = Sends::Open { offsets, warm_up: 2, first: 2, cap: None, end: None };
        let records = simulate(&schedule(trace), ms(10), &Stop::new()).await;
        assert_eq!(numbers(&records), (2, vec![2, 3, 4]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_warm_up_of_a_number_hands_over_without_a_pause() {
        let schedule = warm(2, WarmUp::Requests(5), Some(4), None);
        let records = simulate(&schedule, ms(10), &Stop::new()).await;
        assert_eq!(numbers(&records), (5, vec![0, 1, 2, 3]));
        let mut sent: Vec<u128> = records.iter().map(|record| record.sent.as_millis()).collect();
        sent.sort_unstable();
        assert_eq!(sent, [0, 0, 10, 10, 20, 20, 30, 30, 40]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_counts_before_every_user_has_begun() {
        let starts = vec![ms(0), ms(35)];
        let warm_up = WarmUp::Requests(2);
        let sends = Sends::Closed { starts, warm_up, requests: Some(3), duration: None };
        let records = simulate(&schedule(sends), ms(10), &Stop::new()).await;
        assert_eq!(numbers(&records), (5, vec![0, 1, 2]), "at 0, 10, 20, 30 and 35 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_run_begins_behind_a_warm_up_of_a_number() {
        let schedule = warm(1, WarmUp::Requests(3), None, Some(ms(25)));
        let schedule = Schedule { drain: Some(ms(100)), ..schedule };
        let records = simulate(&schedule, ms(10), &Stop::new()).await;
        assert_eq!(numbers(&records), (3, vec![0, 1, 2]), "at 30, 40 and 50 ms");
        assert_eq!(completed(&records), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conversation_of_the_warm_up_is_of_it_in_all_its_turns() {
        let schedule = warm(1, WarmUp::Time(ms(5)), Some(1), None);
        let records = play(&schedule, ms(10), &Stop::new(), &[0], None).await;
        let seen = records.iter().map(|record| (record.warm_up, record.index, record.turn));
        assert!(seen.eq([(true, 0, 0), (true, 0, 1), (false, 0, 0), (false, 0, 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_what_takes_longer() {
        for schedule in [open(&[0, 10], None), closed(2, Some(2), None)] {
            for (drain, cut) in [(ms(100), 2), (ms(1000), 0)] {
                let schedule = Schedule { drain: Some(drain), ..schedule.clone() };
                let records = simulate(&schedule, ms(500), &Stop::new()).await;
                let failed = |record: &&RequestRecord| record.outcome != Outcome::Completed;
                assert_eq!(records.iter().filter(failed).count(), cut, "{schedule:?}");
                assert!(cut == 0 || records.iter().all(|record| record.ended < ms(200)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_waits_for_the_answer_before_it_and_for_the_think_time() {
        let schedule = open(&[0, 30], None);
        let records = play(&schedule, ms(100), &Stop::new(), &[200, 0], None).await;
        assert_eq!(
            seen(&records),
            [
                (0, 0, 0, 0),
                (0, 1, 300, 300),
                (0, 2, 400, 400),
                (1, 0, 30, 30),
                (1, 1, 330, 330),
                (1, 2, 430, 430),
            ]
        );
        assert!(records.iter().all(|record| record.lateness() == Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_fails_ends_its_conversation_and_no_other() {
        let schedule = open(&[0, 0], None);
        let records = play(&schedule, ms(10), &Stop::new(), &[5, 5], Some((0, 1))).await;
        let turns: Vec<(usize, u32)> =
            records.iter().map(|record| (record.index, record.turn)).collect();
        assert_eq!(turns, [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(completed(&records), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_goes_on_to_the_next_conversation_when_one_is_over() {
        let schedule = closed(1, Some(3), None);
        let records = play(&schedule, ms(10), &Stop::new(), &[20], Some((1, 0))).await;
        assert_eq!(
            seen(&records),
            [(0, 0, 0, 0), (0, 1, 30, 30), (1, 0, 40, 40), (2, 0, 50, 50), (2, 1, 80, 80)],
            "conversation 1 ends with its first turn, which fails"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_cap_is_on_requests_and_a_user_who_thinks_holds_no_place() {
        let schedule = open(&[0, 0], Some(1));
        let records = play(&schedule, ms(100), &Stop::new(), &[50], None).await;
        // The second conversation has the place while the first thinks, and keeps it beyond that.
        let expected = [(0, 0, 0, 0), (0, 1, 150, 200), (1, 0, 0, 100), (1, 1, 250, 300)];
        assert_eq!(seen(&records), expected);
        assert!(records.iter().all(|record| record.lateness() == Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stop_no_further_turn_is_sent_and_nobody_is_waited_for() {
        for schedule in [open(&[0], None), open(&[0], Some(1)), closed(1, Some(9), None)] {
            let stop = Stop::new();
            let stopper = stop.clone();
            tokio::spawn(async move {
                Clock::start().wait_until(ms(25)).await;
                stopper.request();
            });
            let clock = Clock::start();
            let records = play(&schedule, ms(10), &stop, &[1_000_000], None).await;
            assert_eq!((records.len(), completed(&records)), (1, 1), "{schedule:?}");
            assert!(clock.now() < ms(100), "a user who thinks is not waited for");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_turn_is_due_after_the_time_of_the_run_or_sent_after_the_drain() {
        let end = Some(ms(35));
        let timed = Sends::Open { offsets: vec![ms(0)], warm_up: 0, first: 0, cap: None, end };
        for schedule in [schedule(timed), closed(1, None, end)] {
            let records = play(&schedule, ms(10), &Stop::new(), &[10, 10], None).await;
            assert_eq!(seen(&records), [(0, 0, 0, 0), (0, 1, 20, 20)], "the third is due at 40 ms");
        }
        let drained = Schedule { drain: Some(ms(35)), ..open(&[0], None) };
        let records = play(&drained, ms(10), &Stop::new(), &[10, 10], None).await;
        assert_eq!(seen(&records), [(0, 0, 0, 0), (0, 1, 20, 20)]);
        assert_eq!(completed(&records), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_of_users_begins_when_there_is_nothing_left_to_begin() {
        let drain = Some(ms(100));
        let by_number = Schedule { drain, ..closed(2, Some(40), None) };
        let by_time = Schedule { drain, ..closed(2, None, Some(ms(400))) };
        for schedule in [by_number, by_time] {
            let records = simulate(&schedule, ms(20), &Stop::new()).await;
            assert_eq!((records.len(), completed(&records)), (40, 40), "{schedule:?}");
        }
    }
}
