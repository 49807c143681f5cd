//! Events that come several at a time: then the gaps between them say nothing of single tokens. Pure.

use std::fmt;
use std::time::Duration;

use crate::record::RequestRecord;

/// Events come in bunches if more than this share of the gaps are next to nothing. Servers that hold back tokens until a
/// character or a word is whole make fewer of those.
const MOST_AT_ONCE: f64 = 0.25;
/// A gap is as good as none if it is shorter than this, and than this part of the pace, which is the 95th percentile of
/// the gaps: a few long stalls do not set it.
const SHORT: Duration = Duration::from_micros(500);
const PART_OF_PACE: u32 = 20;
/// Bunches so large that the 95th percentile is a gap within them show by the pauses between them, which recur in each
/// answer. A pause is a gap of at least so many times the median, and of at least this time.
const PAUSE: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const PAUSES_PER_ANSWER: usize = 2;
/// The most gaps that are looked at.
const MOST_GAPS: usize = 1_000_000;

/// How events are bunched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bunches {
    /// Events per bunch, on average.
    size: f64,
    /// Share of the gaps that are as good as none.
    share: f64,
}

impl Bunches {
    /// Whether the events of these answers come in bunches.
    pub fn of<'a>(answers: impl Iterator<Item = &'a RequestRecord> + Clone) -> Option<Self> {
        let all: usize = answers.clone().map(|answer| answer.stream.chunks.len()).sum();
        let streamed = answers.filter(|answer| 1 < answer.stream.chunks.len());
        let answers = streamed.step_by(all / MOST_GAPS + 1);
        let count = answers.clone().count();
        let mut gaps: Vec<Duration> = answers.flat_map(RequestRecord::chunk_gaps).collect();
        if gaps.is_empty() {
            return None;
        }
        let pace = percentile(&mut gaps, 0.95);
        let median = percentile(&mut gaps, 0.5);
        let number = |is: &dyn Fn(Duration) -> bool| gaps.iter().filter(|gap| is(**gap)).count();
        // What came in one read has one time, however fast the server is.
        let in_one_read = number(&|gap| gap.is_zero());
        let short = SHORT.min(pace / PART_OF_PACE);
        let pause = SHORTEST_PAUSE.max(median * PAUSE);
        let pauses = number(&|gap| pause <= gap);
        let at_once = if median <= SHORT && PAUSES_PER_ANSWER * count <= pauses {
            gaps.len() - pauses
        } else {
            in_one_read.max(number(&|gap| gap < short))
        };
        let share = at_once as f64 / gaps.len() as f64;
        // Each answer has an event, and a bunch, more than it has gaps.
        let events = gaps.len() + count;
        let size = events as f64 / (events - at_once) as f64;
        (MOST_AT_ONCE < share).then_some(Self { size, share })
    }
}

/// The gap at this share of all.
fn percentile(gaps: &mut [Duration], share: f64) -> Duration {
    let place = ((gaps.len() - 1) as f64 * share).floor() as usize;
    *gaps.select_nth_unstable(place).1
}

impl fmt::Display for Bunches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "events come about {:.1} at a time ({:.0} % of them at once with the one before): the server sends several \
             tokens a step, or something before the client holds them back, so the gaps between events (`chunk_gap`, and \
             TPOT where all come at once) are those of bunches and say nothing of single tokens",
            self.size,
            self.share * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;

    /// An answer with an event at each of these microseconds.
    fn answer(at_us: impl Iterator<Item = u64>) -> RequestRecord {
        let at: Vec<u64> = at_us.collect();
        let mut answer = completed(&vec![0; at.len()]);
        let at = |number: usize| Duration::from_micros(60_000 + at[number]);
        answer.stream.chunks.edit(|number, chunk| chunk.at = at(number));
        answer
    }

    fn size(answers: &[RequestRecord]) -> Option<f64> {
        Bunches::of(answers.iter()).map(|bunches| (bunches.size * 10.0).round() / 10.0)
    }

    #[test]
    fn bunches_of_any_size_are_seen_in_one_read_or_in_several() {
        for (answers, expected) in [
            (vec![answer((0..40).map(|n| n / 5 * 50_000))], 5.0),
            (vec![answer((0..40).map(|n| n / 5 * 50_000 + n % 5 * 20))], 5.0),
            (vec![answer((0..40).map(|n| n / 2 * 20_000 + n % 2 * 20))], 2.0),
            (vec![answer((0..200).map(|n| n / 50 * 500_000 + n % 50 * 20))], 50.0),
            (vec![answer((0..20).map(|_| 0)), answer((0..20).map(|_| 0))], 20.0),
        ] {
            assert_eq!(size(&answers), Some(expected));
        }
    }

    #[test]
    fn a_steady_stream_is_not_bunched_whatever_holds_it_up_now_and_then() {
        let stall = |n: u64| if n < 50 { 0 } else { 14_000_000 };
        let prefills = |n: u64| n * 9_000 + n / 8 * 200_000;
        for answers in [
            vec![answer((0..40).map(|n| n * 10_000))],
            vec![answer((0..100).map(|n| n * 5_000 + stall(n)))],
            vec![answer((0..100).map(prefills))],
            vec![answer((0..100).map(|n| n * 200))],
            vec![answer((0..40).map(|n| (n - u64::from(n % 8 == 7)) * 10_000))],
            vec![answer(0..1)],
            Vec::new(),
        ] {
            assert_eq!(size(&answers), None);
        }
    }
}
