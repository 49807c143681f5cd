//! Single requests: when each was due, left, was answered first, and ended.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::{Outcome, RequestRecord};
use crate::summary::Counted;

/// The most requests.
const MAX_REQUESTS: usize = 1_000;

/// Requests in the order in which they were sent, a column each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waterfall {
    /// Of how many these are picked: failed ones first, the others evenly.
    pub of: usize,
    /// The schedule's time, s from the start of the case.
    pub scheduled_s: Vec<f64>,
    /// When each was sent.
    pub sent_s: Vec<f64>,
    /// When its first output came; `null` where none did.
    pub first_token_s: Vec<Option<f64>>,
    /// When it ended.
    pub ended_s: Vec<f64>,
    /// Why it failed; `null` where it did not.
    pub failure: Vec<Option<String>>,
}

impl Waterfall {
    /// That of the requests of a case.
    pub fn new(requests: &[Counted]) -> Self {
        let mut order: Vec<&RequestRecord> = requests.iter().map(|(record, _)| record).collect();
        order.sort_by_key(|record| record.sent);
        let (good, bad): (Vec<usize>, Vec<usize>) =
            (0..order.len()).partition(|&at| order[at].outcome == Outcome::Completed);
        // Not more than half of them where others are left to show.
        let room_for_bad = MAX_REQUESTS.saturating_sub(good.len()).max(MAX_REQUESTS / 2);
        let mut picked: BTreeSet<usize> = evenly(&bad, room_for_bad).collect();
        picked.extend(evenly(&good, MAX_REQUESTS - picked.len()));
        let picked = || picked.iter().map(|&at| order[at]);
        let s = |time: Duration| time.as_secs_f64();
        Self {
            of: order.len(),
            scheduled_s: picked().map(|record| s(record.scheduled)).collect(),
            sent_s: picked().map(|record| s(record.sent)).collect(),
            first_token_s: picked()
                .map(|record| record.stream.chunks.first().map(|chunk| s(chunk.at)))
                .collect(),
            ended_s: picked().map(|record| s(record.ended)).collect(),
            failure: picked()
                .map(|record| match &record.outcome {
                    Outcome::Completed => None,
                    Outcome::Failed { failure, .. } => Some(failure.to_string()),
                })
                .collect(),
        }
    }
}

/// At most `most` of them, the first among them, at equal distances.
fn evenly(all: &[usize], most: usize) -> impl Iterator<Item = usize> {
    let count = all.len().min(most);
    (0..count).map(move |n| all[n * all.len() / count])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed, ms};
    use crate::summary::tests::counted;

    fn waterfall(good: u64, bad: u64) -> Waterfall {
        let at = |mut record: RequestRecord, n: u64| {
            record.sent = ms(n);
            counted(record, 2)
        };
        let good = (0..good).map(|n| at(completed(&[60, 70]), n));
        let bad = (0..bad).map(|n| at(failed(Failure::Timeout), n));
        Waterfall::new(&good.chain(bad).collect::<Vec<_>>())
    }

    #[test]
    fn every_request_of_a_small_run_is_there() {
        let waterfall = waterfall(3, 2);
        assert_eq!((waterfall.of, waterfall.sent_s.len()), (5, 5));
        assert_eq!(waterfall.failure.iter().flatten().count(), 2);
        assert!(waterfall.sent_s.is_sorted());
        assert_eq!(waterfall.first_token_s[0], Some(0.06));
    }

    #[test]
    fn of_a_large_run_failed_ones_are_shown_and_the_others_evenly() {
        let waterfall = waterfall(10_000, 10);
        assert_eq!((waterfall.of, waterfall.sent_s.len()), (10_010, MAX_REQUESTS));
        assert_eq!(waterfall.failure.iter().flatten().count(), 10);
        let late = waterfall.sent_s.iter().filter(|&&sent| 5.0 <= sent).count();
        assert!((450..550).contains(&late), "{late}");
    }

    #[test]
    fn failures_do_not_crowd_out_the_rest() {
        let waterfall = waterfall(10_000, 10_000);
        assert_eq!(waterfall.failure.iter().flatten().count(), MAX_REQUESTS / 2);
        assert_eq!(waterfall.sent_s.len(), MAX_REQUESTS);
    }
}
