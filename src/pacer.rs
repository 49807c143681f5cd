//! Does what is due at each offset of a schedule, to microseconds: on a thread of its own, since the
//! runtime's timer ticks in whole milliseconds, and a wait that spins there would delay all else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::clock::Clock;
use crate::punctual::be_punctual;

/// How long before an arrival the thread stops to be easily woken; then it waits exactly.
const EXACT: Duration = Duration::from_micros(500);

/// Who keeps the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pacing {
    /// The runtime's timer: to a millisecond, and it obeys paused time.
    #[cfg(test)]
    Timer,
    /// A thread.
    Thread,
}

/// Calls a function at each offset of one schedule, in order, and hands on what it returns.
pub struct Pacer<T>(Kind<T>);

enum Kind<T> {
    #[cfg(test)]
    Timer {
        offsets: Vec<Duration>,
        left: std::ops::Range<usize>,
        clock: Clock,
        depart: Depart<T>,
    },
    Thread(PacingThread<T>),
}

/// The thread, and what it has done. It ends when this is dropped.
struct PacingThread<T> {
    departed: UnboundedReceiver<T>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[cfg(test)]
type Depart<T> = Box<dyn FnMut(usize) -> T + Send>;

impl<T: Send + 'static> Pacer<T> {
    /// Begins to call `depart` with the place of each of `offsets` when `clock` has reached it.
    pub fn start(
        pacing: Pacing,
        offsets: Vec<Duration>,
        clock: Clock,
        depart: impl FnMut(usize) -> T + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Self(match pacing {
            #[cfg(test)]
            Pacing::Timer => {
                let depart = Box::new(depart);
                Kind::Timer { left: 0..offsets.len(), offsets, clock, depart }
            }
            Pacing::Thread => Kind::Thread(PacingThread::start(offsets, clock, depart)?),
        }))
    }

    /// What the next call returned; `None` after the last. Can be dropped and called again.
    pub async fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            #[cfg(test)]
            Kind::Timer { offsets, left, clock, depart } => {
                clock.wait_until(*offsets.get(left.start)?).await;
                left.next().map(depart)
            }
            Kind::Thread(thread) => thread.departed.recv().await,
        }
    }

    /// Makes no further call, and returns what calls have returned that nobody has asked for yet.
    pub fn stop(self) -> Vec<T> {
        match self.0 {
            #[cfg(test)]
            Kind::Timer { .. } => Vec::new(),
            Kind::Thread(mut thread) => {
                thread.end();
                std::iter::from_fn(|| thread.departed.try_recv().ok()).collect()
            }
        }
    }
}

impl<T: Send + 'static> PacingThread<T> {
    fn start(
        offsets: Vec<Duration>,
        clock: Clock,
        mut depart: impl FnMut(usize) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, departed) = mpsc::unbounded_channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let work = move || {
            be_punctual();
            for (index, offset) in offsets.into_iter().enumerate() {
                while let Some(nap) = offset.checked_sub(clock.now() + EXACT) {
                    std::thread::park_timeout(nap);
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                }
                clock.block_until(offset);
                if stop.load(Ordering::Acquire) || sender.send(depart(index)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("servebench-pacer".to_owned()).spawn(work)?;
        Ok(Self { departed, stopped, thread: Some(thread) })
    }
}

impl<T> PacingThread<T> {
    fn end(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has shown itself.
            let _ = thread.join();
        }
    }
}

impl<T> Drop for PacingThread<T> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;

    #[tokio::test]
    async fn no_departure_is_early_and_most_are_less_than_a_millisecond_late() {
        let offsets: Vec<Duration> = (0..100).map(|n| Duration::from_micros(n * 1_370)).collect();
        let clock = Clock::start();
        let depart = move |index| (index, clock.now());
        let mut pacer = Pacer::start(Pacing::Thread, offsets.clone(), clock, depart).unwrap();
        let mut lateness = Vec::new();
        for (place, offset) in offsets.into_iter().enumerate() {
            let (index, at) = pacer.next().await.unwrap();
            assert_eq!(index, place);
            lateness.push(at.checked_sub(offset).expect("not early"));
        }
        assert_eq!(pacer.next().await, None);
        lateness.sort();
        assert!(lateness[50] < ms(1), "the median is {:?}", lateness[50]);
    }

    #[tokio::test]
    async fn a_pacer_that_is_stopped_hands_over_what_it_did_and_does_no_more() {
        for pacing in [Pacing::Timer, Pacing::Thread] {
            let clock = Clock::start();
            let offsets = vec![ms(0), ms(0), Duration::from_secs(3600)];
            let mut pacer = Pacer::start(pacing, offsets, clock, |index| index).unwrap();
            assert_eq!(pacer.next().await, Some(0));
            while pacing == Pacing::Thread && clock.now() < ms(50) {
                std::thread::sleep(ms(1));
            }
            let done = pacer.stop();
            assert_eq!(done, if pacing == Pacing::Thread { vec![1] } else { Vec::new() });
            assert!(clock.now() < Duration::from_secs(60));
        }
    }
}
