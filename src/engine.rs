//! Sends every arrival of a schedule when it is due and collects what became of each. Knows no HTTP:
//! it is given a [`Sender`] that performs one request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::pacer::{Pacer, Pacing};
use crate::record::{Outcome, RequestRecord};
use crate::schedule::{Schedule, Sends};
use crate::stop::Stop;

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which request of the workload; of a workload of conversations, which of them.
    pub index: usize,
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
    fn start(&self, index: usize) -> Self::Started;

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

/// Runs a schedule to its end, the last answers included. Every arrival that was due has a record, in
/// the order in which they were due, the turns of a conversation one after the other. After a stop no
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
    let play = |places| {
        let (stop, cut) = (stop.clone(), cut.clone());
        Arc::new(Play { sender: sender.clone(), clock, places, end: schedule.end, stop, cut })
    };
    let mut sold_out = None;
    match &schedule.sends {
        Sends::Open { offsets, cap } => {
            let play = play(cap.map(Places::new));
            OpenLoop { offsets, pacing, play }.send(&mut in_flight).await?;
        }
        Sends::Closed { starts, requests } => {
            let tickets = Arc::new(Tickets::new(*requests, schedule.end, schedule.warm_up));
            let users =
                ClosedLoop { starts, tickets: Arc::clone(&tickets), pacing, play: play(None) };
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
    let mut records = ended(in_flight, drained, stop, cut).await;
    records.sort_by_key(|record| record.index);
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

/// What all requests of a run share.
struct Play<S> {
    sender: S,
    clock: Clock,
    /// `None` where requests in flight are not counted.
    places: Option<Places>,
    /// No turn is due from then on.
    end: Option<Duration>,
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
            let (index, turn, at) = (last.index, last.turn + 1, last.ended);
            let Some(next) = self.sender.follow_up(&records[first..]).await else { break };
            let scheduled = at + next.think;
            if self.end.is_some_and(|end| end <= scheduled) {
                return Ended::BrokenOff;
            }
            if self.clock.now() < scheduled {
                tokio::select! {
                    () = self.clock.wait_until(scheduled) => {}
                    () = self.cut.requested() => {}
                }
            }
            let mut arrival = Arrival { index, turn, scheduled, released: scheduled };
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
    index: usize,
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

/// Sends each request at its time, however slow the server is; with a cap on the requests in flight, those
/// that come after them wait in the order of their arrival.
struct OpenLoop<'a, S> {
    offsets: &'a [Duration],
    pacing: Pacing,
    play: Arc<Play<S>>,
}

impl<S: Sender> OpenLoop<'_, S> {
    /// Returns when all are sent; of conversations, the first turns.
    async fn send(self, in_flight: &mut JoinSet<Vec<RequestRecord>>) -> io::Result<()> {
        let Self { offsets, pacing, play } = self;
        let depart = {
            let play = Arc::clone(&play);
            move |index| {
                let place = match &play.places {
                    None => Some(None),
                    Some(places) => places.take_at_once().map(Some),
                };
                let left = place.map(|place| (play.sender.start(index), place));
                Due { index, left }
            }
        };
        let pacer = Pacer::start(pacing, offsets.to_vec(), play.clock, depart)?;
        let see_through = |due: Due<S::Started>| {
            let (scheduled, play) = (offsets[due.index], Arc::clone(&play));
            in_flight.spawn(async move {
                let mut records = vec![attend(due, scheduled, &play).await];
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

/// Sees one arrival through.
async fn attend<S: Sender>(
    due: Due<S::Started>,
    scheduled: Duration,
    play: &Play<S>,
) -> RequestRecord {
    let Due { index, left } = due;
    let mut arrival = Arrival { index, turn: 0, scheduled, released: scheduled };
    let (started, _place) = match (left, &play.places) {
        (Some(left), _) => left,
        (None, Some(places)) => {
            let place = places.take().await;
            arrival.released = play.clock.now();
            (play.sender.start(index), Some(place))
        }
        (None, None) => (play.sender.start(index), None),
    };
    play.sender.finish(arrival, started).await
}

/// Gives the requests of a closed loop their numbers, until no more are to be sent.
struct Tickets {
    next: AtomicUsize,
    counting: AtomicUsize,
    requests: Option<usize>,
    end: Option<Duration>,
    warm_up: Duration,
    /// Asked for when there are no more.
    sold_out: Stop,
}

impl Tickets {
    fn new(requests: Option<usize>, end: Option<Duration>, warm_up: Duration) -> Self {
        let (next, counting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { next, counting, requests, end, warm_up, sold_out: Stop::new() }
    }

    /// The number of a request that is due at `at`.
    fn take(&self, at: Duration) -> Option<usize> {
        if self.end.is_some_and(|end| end <= at) {
            return None;
        }
        if let Some(requests) = self.requests
            && self.warm_up <= at
        {
            let counting = self.counting.fetch_add(1, Ordering::Relaxed);
            if requests <= counting + 1 {
                self.sold_out.request();
            }
            if requests <= counting {
                return None;
            }
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns when the last has been taken, or there is no more time for one.
    async fn sold_out(&self, clock: Clock) {
        let over = async {
            match self.end {
                Some(end) => clock.wait_until(end).await,
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
                let (index, at) = (tickets.take(starts[user])?, starts[user]);
                let arrival = Arrival { index, turn: 0, scheduled: at, released: at };
                Some((arrival, play.sender.start(index)))
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
        let Some((index, at)) = next else { return records };
        arrival = Arrival { index, turn: 0, scheduled: at, released: at };
        started = play.sender.start(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;
    use crate::record::{Failure, Outcome, Stream};

    fn schedule(sends: Sends) -> Schedule {
        Schedule { sends, warm_up: Duration::ZERO, end: None, drain: None }
    }

    fn open(offsets: &[u64], cap: Option<usize>) -> Schedule {
        let offsets = offsets.iter().map(|&offset| ms(offset)).collect();
        schedule(Sends::Open { offsets, cap })
    }

    fn closed(users: usize, requests: Option<usize>, end: Option<Duration>) -> Schedule {
        let sends = Sends::Closed { starts: vec![Duration::ZERO; users], requests };
        Schedule { end, ..schedule(sends) }
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

        fn start(&self, _: usize) -> Duration {
            self.clock.now()
        }

        async fn finish(&self, arrival: Arrival, sent: Duration) -> RequestRecord {
            let failed = |failure| Outcome::Failed { failure, message: String::new() };
            let outcome = tokio::select! {
                () = self.clock.wait_until(sent + self.service) => {
                    match self.failing == Some((arrival.index, arrival.turn)) {
                        true => failed(Failure::Truncated),
                        false => Outcome::Completed,
                    }
                }
                () = self.cut.requested() => failed(Failure::Cancelled),
            };
            RequestRecord {
                index: arrival.index,
                turn: arrival.turn,
                scheduled: arrival.scheduled,
                released: arrival.released,
                sent,
                connect: None,
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

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_a_warm_up_come_before_those_that_are_asked_for() {
        let warm = Schedule { warm_up: ms(25), ..closed(1, Some(4), None) };
        let records = simulate(&warm, ms(10), &Stop::new()).await;
        let counting = records.iter().filter(|record| ms(25) <= record.scheduled).count();
        assert_eq!((records.len(), counting), (3 + 4, 4));
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
        for schedule in [open(&[0], None), closed(1, None, None)] {
            let timed = Schedule { end: Some(ms(35)), ..schedule.clone() };
            let records = play(&timed, ms(10), &Stop::new(), &[10, 10], None).await;
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
