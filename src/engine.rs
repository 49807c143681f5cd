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
use crate::schedule::Schedule;
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
/// the order of the workload. After a stop no further request is sent.
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
    sender: impl Sender,
) -> io::Result<Vec<RequestRecord>> {
    let mut records = match schedule {
        Schedule::Open { offsets, cap } => {
            open_loop(offsets, *cap, clock, pacing, stop, sender).await?
        }
        Schedule::Closed { users, requests } => {
            closed_loop(*users, *requests, clock, stop, sender).await
        }
    };
    records.sort_by_key(|record| record.index);
    Ok(records)
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
async fn open_loop<S: Sender>(
    offsets: &[Duration],
    cap: Option<usize>,
    clock: Clock,
    pacing: Pacing,
    stop: &Stop,
    sender: S,
) -> io::Result<Vec<RequestRecord>> {
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
    let mut pacer = Pacer::start(pacing, offsets.to_vec(), clock, depart)?;
    let mut in_flight = JoinSet::new();
    loop {
        let due = tokio::select! {
            biased;
            due = pacer.next() => due,
            () = stop.requested() => break,
        };
        let Some(due) = due else { break };
        let scheduled = offsets[due.index];
        in_flight.spawn(attend(due, scheduled, clock, places.clone(), sender.clone()));
    }
    for due in pacer.stop() {
        let scheduled = offsets[due.index];
        in_flight.spawn(attend(due, scheduled, clock, places.clone(), sender.clone()));
    }
    Ok(in_flight.join_all().await)
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

/// Lets each user send its next request as soon as its last one has ended.
async fn closed_loop(
    users: usize,
    requests: usize,
    clock: Clock,
    stop: &Stop,
    sender: impl Sender,
) -> Vec<RequestRecord> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..users.min(requests) {
        let (next, stop, sender) = (Arc::clone(&next), stop.clone(), sender.clone());
        all.spawn(async move {
            let mut records: Vec<RequestRecord> = Vec::new();
            while !stop.is_requested() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if requests <= index {
                    break;
                }
                // Due since the last one ended, which may have been before it was read.
                let now = match records.last() {
                    Some(last) => last.ended,
                    None => clock.now(),
                };
                let arrival = Arrival { index, scheduled: now, released: now };
                records.push(sender.finish(arrival, sender.start(index)).await);
            }
            records
        });
    }
    all.join_all().await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;
    use crate::record::{Outcome, Stream};

    fn open(offsets: &[u64], cap: Option<usize>) -> Schedule {
        Schedule::Open { offsets: offsets.iter().map(|&offset| ms(offset)).collect(), cap }
    }

    /// Requests that leave at once and are answered after `service`.
    #[derive(Clone)]
    struct Simulated {
        clock: Clock,
        service: Duration,
    }

    impl Sender for Simulated {
        /// When it left.
        type Started = Duration;

        fn start(&self, _: usize) -> Duration {
            self.clock.now()
        }

        async fn finish(&self, arrival: Arrival, sent: Duration) -> RequestRecord {
            self.clock.wait_until(sent + self.service).await;
            RequestRecord {
                index: arrival.index,
                scheduled: arrival.scheduled,
                released: arrival.released,
                sent,
                connect: None,
                ended: self.clock.now(),
                stream: Stream::default(),
                outcome: Outcome::Completed,
            }
        }
    }

    /// Runs the schedule with answers after `service`.
    async fn simulate(schedule: &Schedule, service: Duration, stop: &Stop) -> Vec<RequestRecord> {
        let clock = Clock::start();
        let sender = Simulated { clock, service };
        run(schedule, clock, Pacing::Timer, stop, sender).await.unwrap()
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
        let schedule = Schedule::Closed { users: 2, requests: 5 };
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
        for schedule in
            [open(&[0, 10, 20, 30, 40], None), Schedule::Closed { users: 1, requests: 5 }]
        {
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
}
