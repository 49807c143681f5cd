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
use crate::record::RequestRecord;
use crate::schedule::{Schedule, Sends};
use crate::stop::Stop;

/// One request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which request of the workload.
    pub index: usize,
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

    /// Lets the request leave if it can at once. Does not wait.
    fn start(&self, index: usize) -> Self::Started;

    /// Lets it leave if it has not, and reads the answer. After a stop it ends soon.
    fn finish(
        &self,
        arrival: Arrival,
        started: Self::Started,
    ) -> impl Future<Output = RequestRecord> + Send;
}

/// Runs a schedule to its end, the last answers included. Every arrival that was due has a record, in
/// the order in which they were due. After a stop no further request is sent. `cut` is asked for when
/// those in flight are to end: after a stop, and when the time to drain is over.
///
/// # Errors
///
/// If the pacing thread cannot be started.
///
/// # Panics
///
/// If `sender` panics.
pub async fn run(
    schedule: &Schedule,
    clock: Clock,
    pacing: Pacing,
    stop: &Stop,
    cut: &Stop,
    sender: impl Sender,
) -> io::Result<Vec<RequestRecord>> {
    let mut in_flight = JoinSet::new();
    match &schedule.sends {
        Sends::Open { offsets, cap } => {
            let arrivals = OpenLoop { offsets, cap: *cap, clock, pacing, stop };
            arrivals.send(&mut in_flight, sender).await?;
        }
        Sends::Closed { starts, requests, end } => {
            let tickets = Tickets::new(*requests, *end, schedule.warm_up);
            let users = ClosedLoop { starts, tickets: Arc::new(tickets), clock, pacing, stop };
            users.send(&mut in_flight, sender).await?;
        }
    }
    let mut records = drained(in_flight, schedule.drain, clock, stop, cut).await;
    records.sort_by_key(|record| record.index);
    Ok(records)
}

/// What is in flight, when all of it has ended.
async fn drained(
    in_flight: JoinSet<Vec<RequestRecord>>,
    drain: Option<Duration>,
    clock: Clock,
    stop: &Stop,
    cut: &Stop,
) -> Vec<RequestRecord> {
    let patience = async {
        match drain {
            Some(drain) => clock.wait_until(clock.now() + drain).await,
            None => std::future::pending().await,
        }
    };
    let all = in_flight.join_all();
    tokio::pin!(all);
    let ended = tokio::select! {
        ended = &mut all => ended,
        () = patience => {
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

/// Sends each request at its time, however slow the server is; with `cap` requests in flight, those
/// that come after them wait in the order of their arrival.
struct OpenLoop<'a> {
    offsets: &'a [Duration],
    cap: Option<usize>,
    clock: Clock,
    pacing: Pacing,
    stop: &'a Stop,
}

impl OpenLoop<'_> {
    /// Returns when all are sent.
    async fn send<S: Sender>(
        self,
        in_flight: &mut JoinSet<Vec<RequestRecord>>,
        sender: S,
    ) -> io::Result<()> {
        let Self { offsets, cap, clock, pacing, stop } = self;
        let places = cap.map(Places::new);
        let depart = {
            let (sender, places) = (sender.clone(), places.clone());
            move |index| {
                let place = match &places {
                    None => Some(None),
                    Some(places) => places.take_at_once().map(Some),
                };
                let left = place.map(|place| (sender.start(index), place));
                Due { index, left }
            }
        };
        let pacer = Pacer::start(pacing, offsets.to_vec(), clock, depart)?;
        let see_through = |due: Due<S::Started>| {
            let scheduled = offsets[due.index];
            let (places, sender) = (places.clone(), sender.clone());
            in_flight
                .spawn(async move { vec![attend(due, scheduled, clock, places, sender).await] });
        };
        each(pacer, stop, see_through).await;
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
    clock: Clock,
    places: Option<Places>,
    sender: S,
) -> RequestRecord {
    let Due { index, left } = due;
    let mut arrival = Arrival { index, scheduled, released: scheduled };
    let (started, _place) = match (left, places) {
        (Some(left), _) => left,
        (None, Some(places)) => {
            let place = places.take().await;
            arrival.released = clock.now();
            (sender.start(index), Some(place))
        }
        (None, None) => (sender.start(index), None),
    };
    sender.finish(arrival, started).await
}

/// Gives the requests of a closed loop their numbers, until no more are to be sent.
struct Tickets {
    next: AtomicUsize,
    counting: AtomicUsize,
    requests: Option<usize>,
    end: Option<Duration>,
    warm_up: Duration,
}

impl Tickets {
    fn new(requests: Option<usize>, end: Option<Duration>, warm_up: Duration) -> Self {
        let (next, counting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { next, counting, requests, end, warm_up }
    }

    /// The number of a request that is due at `at`.
    fn take(&self, at: Duration) -> Option<usize> {
        if self.end.is_some_and(|end| end <= at) {
            return None;
        }
        if let Some(requests) = self.requests
            && self.warm_up <= at
            && requests <= self.counting.fetch_add(1, Ordering::Relaxed)
        {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Lets each user begin at its time, and send its next request as soon as its last one has ended.
struct ClosedLoop<'a> {
    starts: &'a [Duration],
    tickets: Arc<Tickets>,
    clock: Clock,
    pacing: Pacing,
    stop: &'a Stop,
}

impl ClosedLoop<'_> {
    /// Returns when all users have begun.
    async fn send<S: Sender>(
        self,
        in_flight: &mut JoinSet<Vec<RequestRecord>>,
        sender: S,
    ) -> io::Result<()> {
        let Self { starts, tickets, clock, pacing, stop } = self;
        let begin = {
            let (sender, tickets, starts) = (sender.clone(), Arc::clone(&tickets), starts.to_vec());
            move |user: usize| {
                let index = tickets.take(starts[user])?;
                let arrival = Arrival { index, scheduled: starts[user], released: starts[user] };
                Some((arrival, sender.start(index)))
            }
        };
        let pacer = Pacer::start(pacing, starts.to_vec(), clock, begin)?;
        let go_on = |begun: Option<_>| {
            let Some((arrival, started)) = begun else { return };
            let (tickets, stop, sender) = (Arc::clone(&tickets), stop.clone(), sender.clone());
            in_flight.spawn(async move { user(arrival, started, &tickets, &stop, &sender).await });
        };
        each(pacer, stop, go_on).await;
        Ok(())
    }
}

/// The requests of one user, of which the first is on its way.
async fn user<S: Sender>(
    mut arrival: Arrival,
    mut started: S::Started,
    tickets: &Tickets,
    stop: &Stop,
    sender: &S,
) -> Vec<RequestRecord> {
    let mut records = Vec::new();
    loop {
        let record = sender.finish(arrival, started).await;
        // Its next one is due since the end of this one, which may have been before it was read.
        let at = record.ended;
        records.push(record);
        let index = if stop.is_requested() { None } else { tickets.take(at) };
        let Some(index) = index else { return records };
        arrival = Arrival { index, scheduled: at, released: at };
        started = sender.start(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;
    use crate::record::{Failure, Outcome, Stream};

    fn schedule(sends: Sends) -> Schedule {
        Schedule { sends, warm_up: Duration::ZERO, drain: None }
    }

    fn open(offsets: &[u64], cap: Option<usize>) -> Schedule {
        let offsets = offsets.iter().map(|&offset| ms(offset)).collect();
        schedule(Sends::Open { offsets, cap })
    }

    fn closed(users: usize, requests: Option<usize>, end: Option<Duration>) -> Schedule {
        schedule(Sends::Closed { starts: vec![Duration::ZERO; users], requests, end })
    }

    /// Requests that leave at once and are answered after `service`.
    #[derive(Clone)]
    struct Simulated {
        clock: Clock,
        service: Duration,
        cut: Stop,
    }

    impl Sender for Simulated {
        /// When it left.
        type Started = Duration;

        fn start(&self, _: usize) -> Duration {
            self.clock.now()
        }

        async fn finish(&self, arrival: Arrival, sent: Duration) -> RequestRecord {
            let outcome = tokio::select! {
                () = self.clock.wait_until(sent + self.service) => Outcome::Completed,
                () = self.cut.requested() => {
                    Outcome::Failed { failure: Failure::Cancelled, message: String::new() }
                }
            };
            RequestRecord {
                index: arrival.index,
                scheduled: arrival.scheduled,
                released: arrival.released,
                sent,
                connect: None,
                ended: self.clock.now(),
                stream: Stream::default(),
                outcome,
            }
        }
    }

    /// Runs the schedule with answers after `service`.
    async fn simulate(schedule: &Schedule, service: Duration, stop: &Stop) -> Vec<RequestRecord> {
        let clock = Clock::start();
        let cut = Stop::new();
        let sender = Simulated { clock, service, cut: cut.clone() };
        run(schedule, clock, Pacing::Timer, stop, &cut, sender).await.unwrap()
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
}
