//! What really happened: when each request arrived and when each of its tokens left.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lock::lock;

use serde::{Serialize, Serializer};

/// The truth about one request. Times are offsets from the start of the server, and in seconds when
/// serialised.
#[derive(Clone, Debug, Serialize)]
pub struct TruthRecord {
    /// The `id` of the answer.
    pub id: String,
    /// The model that was asked for.
    pub model: String,
    /// When the request's head had been read.
    #[serde(serialize_with = "seconds")]
    pub arrived: Duration,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// The longest answer that was allowed.
    pub max_tokens: u32,
    /// When each output token left.
    #[serde(serialize_with = "each_in_seconds")]
    pub tokens: Vec<Duration>,
    /// When the first part of the answer's body left, with a token or without.
    #[serde(serialize_with = "seconds_if_any")]
    pub first_byte: Option<Duration>,
    /// When the answer was complete, or its client had gone.
    #[serde(serialize_with = "seconds_if_any")]
    pub ended: Option<Duration>,
    /// Whether the answer broke off.
    pub cancelled: bool,
}

impl TruthRecord {
    /// Time to the first token.
    pub fn ttft(&self) -> Option<Duration> {
        self.tokens.first().map(|first| first.saturating_sub(self.arrived))
    }

    /// Mean time per token after the first; `None` below two tokens.
    pub fn tpot(&self) -> Option<Duration> {
        let (first, last) = (self.tokens.first()?, self.tokens.last()?);
        let gaps = u32::try_from(self.tokens.len() - 1).ok()?;
        last.saturating_sub(*first).checked_div(gaps)
    }

    /// Time from the request to the end of a complete answer.
    pub fn e2e(&self) -> Option<Duration> {
        let ended = self.ended.filter(|_| !self.cancelled)?;
        Some(ended.saturating_sub(self.arrived))
    }
}

/// The record of a request in flight. Copies share it.
#[derive(Clone, Debug)]
pub(crate) struct OpenRecord(Arc<Mutex<TruthRecord>>);

impl OpenRecord {
    /// Part of the body leaves.
    pub(crate) fn part_left(&self, now: Duration, tokens: usize) {
        let mut record = lock(&self.0);
        record.first_byte.get_or_insert(now);
        let total = record.tokens.len() + tokens;
        record.tokens.resize(total, now);
    }

    /// The answer is over.
    pub(crate) fn end(&self, now: Duration, cancelled: bool) {
        let mut record = lock(&self.0);
        record.ended = Some(now);
        record.cancelled = cancelled;
    }
}

/// The records of all requests, in order of submission. Copies share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TruthLog(Arc<Mutex<Vec<OpenRecord>>>);

impl TruthLog {
    /// Adds a record.
    pub(crate) fn open(&self, record: TruthRecord) -> OpenRecord {
        let record = OpenRecord(Arc::new(Mutex::new(record)));
        lock(&self.0).push(record.clone());
        record
    }

    /// All records as they stand.
    pub(crate) fn records(&self) -> Vec<TruthRecord> {
        lock(&self.0).iter().map(|record| lock(&record.0).clone()).collect()
    }

    /// Forgets all records, those of requests in flight included.
    pub(crate) fn reset(&self) {
        lock(&self.0).clear();
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

fn seconds_if_any<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(to)
}

fn each_in_seconds<S: Serializer>(times: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(Duration::as_secs_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tokens_ms: &[u64]) -> TruthRecord {
        TruthRecord {
            id: "cmpl-0".to_owned(),
            model: "sim".to_owned(),
            arrived: Duration::from_millis(500),
            prompt_tokens: 3,
            max_tokens: 4,
            tokens: tokens_ms.iter().copied().map(Duration::from_millis).collect(),
            first_byte: None,
            ended: Some(Duration::from_millis(900)),
            cancelled: false,
        }
    }

    #[test]
    fn latencies_follow_from_the_stamps() {
        let record = record(&[600, 610, 640]);
        assert_eq!(record.ttft(), Some(Duration::from_millis(100)));
        assert_eq!(record.tpot(), Some(Duration::from_millis(20)));
        assert_eq!(record.e2e(), Some(Duration::from_millis(400)));
    }

    #[test]
    fn what_did_not_happen_has_no_latency() {
        assert_eq!((record(&[]).ttft(), record(&[]).tpot()), (None, None));
        assert_eq!(record(&[600]).tpot(), None);
        assert_eq!(TruthRecord { cancelled: true, ..record(&[600]) }.e2e(), None);
    }

    #[test]
    fn times_are_serialised_in_seconds() {
        let json = serde_json::to_value(record(&[600, 650])).unwrap();
        assert_eq!(json["arrived"], 0.5);
        assert_eq!(json["tokens"], serde_json::json!([0.6, 0.65]));
        assert_eq!(json["first_byte"], serde_json::Value::Null);
    }

    #[test]
    fn a_reset_forgets_requests_in_flight() {
        let log = TruthLog::default();
        let open = log.open(record(&[]));
        open.part_left(Duration::from_secs(1), 2);
        assert_eq!(log.records()[0].tokens, [Duration::from_secs(1); 2]);
        log.reset();
        open.end(Duration::from_secs(2), false);
        assert!(log.records().is_empty());
    }
}
