//! Lets the loop sleep a little before it looks for what has arrived, where that costs nothing: the kernel
//! has stamped what came meanwhile, and one wake-up then serves many events. With a hundred streams
//! most of what a client costs is waking up.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Moment;

/// How long a nap is at most.
const NAP: Duration = Duration::from_millis(1);
/// What arrives of one stream within a nap shares a stamp. A nap is so small a part of the time between
/// two reads of a stream, on average, that this is rare.
const PART_OF_GAP: f64 = 10.0;
/// How many reads a nap must save to be worth its own wake-up.
const WORTH: f64 = 3.0;
/// Over how long the rate of reads is averaged.
const MEMORY: Duration = Duration::from_millis(20);
/// A nap shorter than this saves nothing.
const SHORTEST: Duration = Duration::from_micros(100);
/// A user of a closed loop sends its next request when the last one's end is read. A nap may delay that
/// by no more than this part of what a request takes.
const PART_OF_REQUEST: u32 = 400;

/// What is going on while the loop has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Streams that are being read.
    pub in_flight: u64,
    /// Whether anyone waits for a stream to end, and if so, how long one takes.
    pub users: Users,
}

/// Who waits for the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Nobody: requests leave by a schedule.
    Absent,
    /// The users of a closed loop; requests take them so long on average, `None` where none has ended.
    Waiting(Option<Duration>),
}

thread_local! {
    /// The reads of this thread since it began.
    static READS: Cell<Reads> = const { Cell::new(Reads { stamped: 0, others: 0 }) };
}

/// How many reads a thread has made.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// Those of which the kernel has said when their bytes had arrived.
    pub stamped: u64,
    /// Those of which it has not.
    pub others: u64,
}

/// Counts a read on this thread; whether the kernel has said when it had arrived.
pub fn count(stamped: bool) {
    let mut reads = READS.get();
    match stamped {
        true => reads.stamped += 1,
        false => reads.others += 1,
    }
    READS.set(reads);
}

/// The reads of this thread since it began.
pub fn reads() -> Reads {
    READS.get()
}

/// Decides on naps by how often this thread reads.
#[derive(Debug)]
pub struct Naps {
    since: Moment,
    /// The reads until then.
    before: Reads,
    /// Reads per second, of late.
    rate: f64,
}

impl Naps {
    /// For this thread, from now on.
    pub fn new() -> Self {
        Self { since: Moment::now(), before: READS.get(), rate: 0.0 }
    }

    /// To be called whenever there is nothing left to do: naps where it is worth it.
    pub fn consider(&mut self, situation: Situation) {
        let now = READS.get();
        let reads = Reads {
            stamped: now.stamped - self.before.stamped,
            others: now.others - self.before.others,
        };
        self.before = now;
        let elapsed = self.since.age();
        self.since = Moment::now();
        if let Some(nap) = self.nap(reads, elapsed, situation) {
            std::thread::sleep(nap);
        }
    }

    fn nap(&mut self, reads: Reads, elapsed: Duration, situation: Situation) -> Option<Duration> {
        // Without stamps a nap would show as the server's delay.
        if 0 < reads.others {
            self.rate = 0.0;
            return None;
        }
        let weight = (elapsed.as_secs_f64() / MEMORY.as_secs_f64()).min(1.0);
        let rate = reads.stamped as f64 / elapsed.as_secs_f64().max(1e-6);
        self.rate += weight * (rate - self.rate);
        let gap_s = situation.in_flight as f64 / self.rate.max(1.0);
        let mut nap = NAP.min(Duration::from_secs_f64(gap_s / PART_OF_GAP));
        if let Users::Waiting(request) = situation.users {
            nap = nap.min(request? / PART_OF_REQUEST);
        }
        (SHORTEST <= nap && WORTH <= self.rate * nap.as_secs_f64()).then_some(nap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::ms;

    /// The nap after a tenth of a second in which so many reads came each millisecond.
    fn nap(per_ms: Reads, in_flight: u64, users: Users) -> Option<Duration> {
        let mut naps = Naps::new();
        let situation = Situation { in_flight, users };
        (0..100).map(|_| naps.nap(per_ms, ms(1), situation)).last().flatten()
    }

    fn stamped(stamped: u64) -> Reads {
        Reads { stamped, others: 0 }
    }

    #[test]
    fn a_nap_is_taken_where_it_gathers_enough() {
        assert_eq!(nap(stamped(10), 100, Users::Absent), Some(NAP));
        assert_eq!(nap(stamped(2), 20, Users::Absent), None, "too few reads");
        assert_eq!(nap(stamped(0), 100, Users::Absent), None, "no reads");
    }

    #[test]
    fn no_nap_is_taken_where_a_stream_would_bring_two_tokens_within_it() {
        let nap = |per_ms, in_flight| nap(stamped(per_ms), in_flight, Users::Absent);
        assert_eq!(nap(10, 10), None, "a read of each stream every millisecond");
        assert!(nap(100, 256).is_some_and(|nap| nap < Duration::from_micros(300)));
    }

    #[test]
    fn no_nap_is_taken_where_the_kernel_stamps_nothing() {
        assert_eq!(nap(Reads { stamped: 10, others: 1 }, 100, Users::Absent), None);
    }

    #[test]
    fn users_who_wait_for_short_requests_are_not_kept_waiting() {
        for (request, expected) in [
            (None, None),
            (Some(ms(20)), None),
            (Some(ms(80)), Some(Duration::from_micros(200))),
            (Some(ms(1300)), Some(NAP)),
        ] {
            let nap = nap(stamped(100), 1000, Users::Waiting(request));
            assert_eq!(nap, expected, "{request:?}");
        }
    }
}
