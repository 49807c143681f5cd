//! Tells when each arrival of an open loop is due, to microseconds: waits on a thread of its own, since
//! the runtime's timer ticks in whole milliseconds and a wait that spins there would delay the stamps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::clock::Clock;

/// How long before an arrival the thread stops to be easily woken; then it waits exactly.
const EXACT: Duration = Duration::from_micros(500);

/// Waits for the arrivals of one schedule, in order.
#[derive(Debug)]
pub enum Pacer {
    /// By the runtime's timer: to a millisecond, and obeys its paused time.
    Timer,
    /// By a thread.
    Thread(PacingThread),
}

/// The thread, and the arrivals that it has found due. It ends when this is dropped.
#[derive(Debug)]
pub struct PacingThread {
    due: UnboundedReceiver<Duration>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// A pacer for the arrivals at `offsets`. Falls back to the timer where no thread can be had.
    pub fn start(offsets: Vec<Duration>, clock: Clock) -> Self {
        let (sender, due) = mpsc::unbounded_channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let wait = move || {
            for offset in offsets {
                while let Some(nap) = offset.checked_sub(clock.now() + EXACT) {
                    std::thread::park_timeout(nap);
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                }
                clock.block_until(offset);
                if sender.send(offset).is_err() {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("servebench-pacer".to_owned()).spawn(wait) {
            Ok(thread) => Self::Thread(PacingThread { due, stopped, thread: Some(thread) }),
            Err(_) => Self::Timer,
        }
    }

    /// Returns when the next arrival, which is at `offset`, is due. Can be dropped and called again.
    pub async fn next(&mut self, offset: Duration, clock: Clock) {
        match self {
            Self::Timer => clock.wait_until(offset).await,
            Self::Thread(thread) => {
                // The thread sends every offset before it goes.
                let due = thread.due.recv().await;
                debug_assert_eq!(due, Some(offset), "arrivals are waited for in order");
            }
        }
    }
}

impl Drop for PacingThread {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has shown itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;

    #[tokio::test]
    async fn no_arrival_is_early_and_most_are_less_than_a_millisecond_late() {
        let offsets: Vec<Duration> = (0..100).map(|n| Duration::from_micros(n * 1_370)).collect();
        let clock = Clock::start();
        let mut pacer = Pacer::start(offsets.clone(), clock);
        let mut lateness = Vec::new();
        for offset in offsets {
            pacer.next(offset, clock).await;
            lateness.push(clock.now().checked_sub(offset).expect("not early"));
        }
        lateness.sort();
        assert!(lateness[50] < ms(1), "the median is {:?}", lateness[50]);
    }

    #[tokio::test]
    async fn a_pacer_that_is_dropped_does_not_wait_for_its_arrivals() {
        let clock = Clock::start();
        drop(Pacer::start(vec![Duration::from_secs(3600)], clock));
        assert!(clock.now() < Duration::from_secs(60));
    }
}
