//! What went on at a time.

use std::time::Duration;

use super::Bins;
use crate::metric::Statistic;
use crate::record::Outcome;
use crate::samples::Samples;
use crate::series::Series;
use crate::summary::Counted;

/// The most rows.
const MAX_ROWS: usize = 300;
/// The least time that a row stands for, s: a step of an engine is no news.
const MIN_ROW_S: f64 = 0.05;

/// Rates and numbers over the time of a run, each row the mean over its part of it: `in_flight`,
/// `output_tokens_per_s` of completed requests, `sent_per_s`, `completed_per_s`, `failed_per_s`, and
/// `ttft_ms_p50` of the requests sent then.
pub fn timeline(requests: &[Counted]) -> Series {
    let s = |at: Duration| at.as_secs_f64();
    let first = requests.iter().map(|(record, _)| s(record.sent)).reduce(f64::min);
    let last = requests.iter().map(|(record, _)| s(record.ended)).reduce(f64::max);
    let (Some(first), Some(last)) = (first, last) else { return Series::default() };
    let rows = (((last - first) / MIN_ROW_S).round() as usize).clamp(1, MAX_ROWS);
    let bins = Bins::over(first, last, rows);
    let mut in_flight = vec![0.0; bins.count];
    let mut tokens = vec![0.0; bins.count];
    let (mut sent, mut completed, mut failed) =
        (vec![0.0; bins.count], vec![0.0; bins.count], vec![0.0; bins.count]);
    let mut ttfts = vec![Vec::new(); bins.count];
    for (record, counts) in requests {
        let (from, to) = (s(record.sent), s(record.ended));
        sent[bins.of(from)] += 1.0;
        let ended = match record.outcome {
            Outcome::Completed => &mut completed,
            Outcome::Failed { .. } => &mut failed,
        };
        ended[bins.of(to)] += 1.0;
        let (first, last) = (bins.of(from), bins.of(to));
        for (bin, time) in in_flight.iter_mut().enumerate().take(last + 1).skip(first) {
            *time += (to.min(bins.edge(bin + 1)) - from.max(bins.edge(bin))).max(0.0);
        }
        if let Some(completed) = record.completed() {
            ttfts[bins.of(from)].push(s(completed.ttft()) * 1e3);
            for (at, share) in counts.arrivals(record) {
                tokens[bins.of(s(at))] += share;
            }
        }
    }
    let mut series = Series::default();
    for (bin, ttfts) in ttfts.into_iter().enumerate() {
        let per_s = |of: &[f64]| Some(of[bin] / bins.width);
        let middle = bins.edge(bin) + bins.width / 2.0;
        let row = [
            ("in_flight", per_s(&in_flight)),
            ("output_tokens_per_s", per_s(&tokens)),
            ("sent_per_s", per_s(&sent)),
            ("completed_per_s", per_s(&completed)),
            ("failed_per_s", per_s(&failed)),
            ("ttft_ms_p50", Samples::exact(ttfts).statistic(Statistic::Percentile(50.0))),
        ];
        series.push(Duration::from_secs_f64(middle.max(0.0)), row);
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed, ms};
    use crate::summary::tests::counted;

    #[test]
    fn rows_hold_what_was_sent_what_ended_and_what_arrived_then() {
        // From 10 ms to 2010 ms: 40 rows of 50 ms.
        let mut long = completed(&[60, 1010, 2005]);
        long.ended = ms(2010);
        let mut other = failed(Failure::Timeout);
        other.ended = ms(60);
        let series = timeline(&[counted(long, 6), counted(other, 0)]);
        assert_eq!(series.at_s.len(), 40);
        let sum = |name: &str| series.values(name).sum::<f64>() * 0.05;
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-9;
        assert!(near(sum("sent_per_s"), 2.0) && near(sum("completed_per_s"), 1.0));
        assert!(near(sum("failed_per_s"), 1.0) && near(sum("output_tokens_per_s"), 6.0));
        assert!(near(sum("in_flight"), 2.0 + 0.05), "time in flight: {}", sum("in_flight"));
        assert!(near(series.columns["in_flight"][0].unwrap(), 2.0));
        assert_eq!(series.columns["ttft_ms_p50"][..2], [Some(50.0), None]);
    }

    #[test]
    fn a_long_run_has_no_more_rows() {
        let mut long = completed(&[60, 70]);
        long.ended = ms(1_000_000);
        assert_eq!(timeline(&[counted(long, 2)]).at_s.len(), MAX_ROWS);
        assert!(timeline(&[]).is_empty());
    }
}
