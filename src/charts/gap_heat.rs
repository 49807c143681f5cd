//! How long the gaps between events were at a time.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Bins;
use crate::summary::Counted;

const TIMES: usize = 60;
const GAPS: usize = 32;
/// Shorter gaps than this are those of one read, ms.
const SHORTEST_MS: f64 = 0.01;

/// The chunk gaps of a run by when they ended and how long they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GapHeat {
    /// Bounds of the columns, s from the start of the case.
    pub time_edges_s: Vec<f64>,
    /// Bounds of the rows, ms; of equal height on a logarithmic axis. What is shorter is in the first row.
    pub gap_edges_ms: Vec<f64>,
    /// Gaps by column and row.
    pub counts: Vec<Vec<u64>>,
}

impl GapHeat {
    /// That of the requests of a case; `None` where there are no gaps.
    pub fn new(requests: &[Counted]) -> Option<Self> {
        let s = |time: Duration| time.as_secs_f64();
        let gaps = || {
            requests.iter().filter_map(|(record, _)| record.completed()).flat_map(|completed| {
                let chunks = &completed.record().stream.chunks;
                let later = chunks.iter().skip(1).zip(chunks.gaps());
                later.map(|(chunk, gap)| (s(chunk.at), s(gap) * 1e3))
            })
        };
        let none = [f64::INFINITY, f64::NEG_INFINITY];
        let (mut times, mut lengths) = (none, none);
        for (at, ms) in gaps() {
            times = [times[0].min(at), times[1].max(at)];
            lengths = [lengths[0].min(ms), lengths[1].max(ms)];
        }
        if times == none {
            return None;
        }
        let times = Bins::over(times[0], times[1], TIMES);
        let [shortest, longest] = lengths.map(|ms| ms.max(SHORTEST_MS).ln());
        let rows = Bins::over(shortest, longest, GAPS);
        let mut counts = vec![vec![0; rows.count]; times.count];
        for (at, ms) in gaps() {
            counts[times.of(at)][rows.of(ms.max(SHORTEST_MS).ln())] += 1;
        }
        Some(Self {
            time_edges_s: times.edges().collect(),
            gap_edges_ms: rows.edges().map(f64::exp).collect(),
            counts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::summary::tests::counted;

    #[test]
    fn every_gap_is_somewhere_and_a_long_one_is_above_the_others() {
        let heat = GapHeat::new(&[counted(completed(&[20, 30, 40, 140]), 4)]).unwrap();
        let count = |column: &Vec<u64>| column.iter().sum::<u64>();
        assert_eq!(heat.counts.iter().map(count).sum::<u64>(), 3);
        assert_eq!(heat.counts.last().unwrap().last(), Some(&1), "100 ms, at the end");
        assert_eq!(heat.counts[0][0], 1, "10 ms, at the beginning");
        assert_eq!((heat.time_edges_s.len(), heat.gap_edges_ms.len()), (TIMES + 1, GAPS + 1));
    }

    #[test]
    fn without_a_gap_there_is_none() {
        assert_eq!(GapHeat::new(&[counted(completed(&[20]), 1)]), None);
        assert_eq!(GapHeat::new(&[]), None);
    }
}
