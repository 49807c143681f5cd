//! Sends every arrival of a schedule when it is due and collects what became of each. Knows no HTTP:
//! it is given a function that performs one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::pacer::Pacer;
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

/// Runs a schedule to its end, the last answers included. `pacer` is for the arrivals of this very
/// schedule. Every arrival that was due has a record,
/// in the order of the workload. After a stop no further request is sent; `send` is to end those in
/// flight.
///
/// # Panics
///
/// If `send` panics.
pub async fn run<S, F>(
    schedule: &Schedule,
    clock: Clock,
    pacer: Pacer,
    stop: &Stop,
    send: S,
) -> Vec<RequestRecord>
where
    S: Fn(Arrival) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = RequestRecord> + Send,
{
    let mut records = match schedule {
        Schedule::Open { offsets, cap } => open_loop(offsets, *cap, clock, pacer, stop, send).await,
        Schedule::Closed { users, requests } => {
            closed_loop(*users, *requests, clock, stop, send).await
        }
    };
    records.sort_by_key(|record| record.index);
    records
}

/// Sends each request at its time, however slow the server is; with `cap` requests in flight, those
/// that come after them wait in the order of their arrival.
async fn open_loop<S, F>(
    offsets: &[Duration],
    cap: Option<usize>,
    clock: Clock,
    mut pacer: Pacer,
    stop: &Stop,
    send: S,
) -> Vec<RequestRecord>
where
    S: Fn(Arrival) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = RequestRecord> + Send,
{
    let places = cap.map(|cap| Arc::new(Semaphore::new(cap)));
    let mut in_flight = JoinSet::new();
    for (index, &scheduled) in offsets.iter().enumerate() {
        tokio::select! {
            biased;
            () = pacer.next(scheduled, clock) => {}
            () = stop.requested() => {}
        }
        if stop.is_requested() {
            break;
        }
        let (places, send) = (places.clone(), send.clone());
        in_flight.spawn(async move {
            let mut arrival = Arrival { index, scheduled, released: scheduled };
            let _place = match &places {
                Some(places) => Some(take_place(places, clock, &mut arrival).await),
                None => None,
            };
            send(arrival).await
        });
    }
    in_flight.join_all().await
}

/// Waits for a place among the requests in flight; the arrival is released when it has one.
async fn take_place<'a>(
    places: &'a Semaphore,
    clock: Clock,
    arrival: &mut Arrival,
) -> SemaphorePermit<'a> {
    if let Ok(place) = places.try_acquire() {
        return place;
    }
    let place = places.acquire().await.expect("the semaphore is never closed");
    arrival.released = clock.now();
    place
}

/// Lets each user send its next request as soon as its last one has ended.
async fn closed_loop<S, F>(
    users: usize,
    requests: usize,
    clock: Clock,
    stop: &Stop,
    send: S,
) -> Vec<RequestRecord>
where
    S: Fn(Arrival) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = RequestRecord> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..users.min(requests) {
        let (next, stop, send) = (Arc::clone(&next), stop.clone(), send.clone());
        all.spawn(async move {
            let mut records = Vec::new();
            while !stop.is_requested() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if requests <= index {
                    break;
                }
                let now = clock.now();
                records.push(send(Arrival { index, scheduled: now, released: now }).await);
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

    #[tokio::test(start_paused = true)]
    async fn arrivals_past_the_cap_wait_and_the_wait_counts_from_the_schedule() {
        // Coordinated omission: a service of 500 ms, an arrival every 100 ms, one at a time.
        let schedule = open(&[0, 100, 200, 300, 400, 500, 600, 700], Some(1));
        let clock = Clock::start();
        let send = move |arrival| answer(clock, arrival, ms(500));
        let records = run(&schedule, clock, Pacer::Timer, &Stop::new(), send).await;
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

    /// A request that is answered after `delay`.
    async fn answer(clock: Clock, arrival: Arrival, delay: Duration) -> RequestRecord {
        let sent = clock.now();
        clock.wait_until(sent + delay).await;
        RequestRecord {
            index: arrival.index,
            scheduled: arrival.scheduled,
            released: arrival.released,
            sent,
            connect: None,
            ended: clock.now(),
            stream: Stream::default(),
            outcome: Outcome::Completed,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_does_not_delay_later_arrivals() {
        let schedule = open(&[10, 20, 30], None);
        let clock = Clock::start();
        let send = move |arrival| answer(clock, arrival, ms(60));
        let records = run(&schedule, clock, Pacer::Timer, &Stop::new(), send).await;
        assert_eq!(records.len(), 3, "a request still running at the end is kept");
        for record in records {
            // The runtime's timer rounds up to its next millisecond.
            assert!(record.lateness() <= ms(1), "{:?}", record.lateness());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_that_are_due_at_once_leave_at_once() {
        let schedule = open(&[0; 100], None);
        let clock = Clock::start();
        let send = move |arrival| answer(clock, arrival, ms(5));
        let records = run(&schedule, clock, Pacer::Timer, &Stop::new(), send).await;
        assert!(records.iter().all(|record| record.sent == Duration::ZERO));
        assert!(records.iter().map(|record| record.index).eq(0..100));
    }

    #[tokio::test(start_paused = true)]
    async fn users_send_their_next_request_when_their_last_has_ended() {
        let schedule = Schedule::Closed { users: 2, requests: 5 };
        let clock = Clock::start();
        let send = move |arrival| answer(clock, arrival, ms(10));
        let records = run(&schedule, clock, Pacer::Timer, &Stop::new(), send).await;
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
        let clock = Clock::start();
        for schedule in
            [open(&[0, 10, 20, 30, 40], None), Schedule::Closed { users: 1, requests: 5 }]
        {
            let stop = Stop::new();
            let stopper = stop.clone();
            let begun = clock.now();
            tokio::spawn(async move {
                clock.wait_until(begun + ms(25)).await;
                stopper.request();
            });
            let at_zero = Clock::start();
            let send = move |arrival| answer(at_zero, arrival, ms(10));
            let records = run(&schedule, at_zero, Pacer::Timer, &stop, send).await;
            assert_eq!(records.len(), 3, "{schedule:?}");
        }
    }
}
