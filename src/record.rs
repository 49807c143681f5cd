//! What was observed for one request, and what follows from one record alone. Pure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use crate::chunks::{Chunk, Chunks};

/// One request as the client saw it. Every offset counts from the start of the case.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// Which request of the workload it was; of a workload of conversations, which of them.
    pub index: usize,
    /// Whether it is of the warm-up, which has requests of its own.
    pub warm_up: bool,
    /// Which turn of the conversation; 0 for the first.
    pub turn: u32,
    /// When the schedule asked for it.
    pub scheduled: Duration,
    /// When it might leave: when it was scheduled, or later where a cap on the requests in flight held
    /// it back.
    pub released: Duration,
    /// When it started to leave.
    pub sent: Duration,
    /// How long its connection took to open; `None` where an open one was used.
    pub connect: Option<Duration>,
    /// It was sent once more, on a fresh connection: the first died before a byte of a response, or the server said that
    /// it had not looked at the request.
    pub resent: bool,
    /// When the response ended, or when it was given up.
    pub ended: Duration,
    /// What arrived, also where it failed in the end.
    pub stream: Stream,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a response brought, in the order in which it came.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The events with generated output.
    pub chunks: Chunks,
    /// The read that completed the first event with answer text.
    pub first_answer: Option<Duration>,
    /// The answer.
    pub text: String,
    /// Reasoning, where the server sent it apart from the answer.
    pub reasoning: String,
    /// The server's own count of tokens; its last word, where it said it more than once.
    pub usage: Option<Usage>,
    /// Why the server stopped.
    pub finish_reason: Option<FinishReason>,
    /// How many choices (`n`) the answer has; 0 and 1 are one. `text` is that of the first.
    pub choices: u32,
    /// Each event repeated the text of those before it. `text` holds it once.
    pub accumulated: bool,
    /// Output came that is no text here: a tool call, audio.
    pub other_output: bool,
    /// After the answer, the response was waited for to end, and did not.
    pub open_end: bool,
    /// The answer came in one piece instead of a stream: only its end is known.
    pub one_block: bool,
}

/// Why a server stopped an answer, in its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The answer is whole, or as long as was asked for.
    EndsWell(Cow<'static, str>),
    /// The server gave up.
    Failed(String),
    /// A word that is not known; the answer counts as complete.
    Unknown(String),
}

impl FinishReason {
    /// The server's word.
    pub fn word(&self) -> &str {
        match self {
            Self::EndsWell(word) => word,
            Self::Failed(word) | Self::Unknown(word) => word,
        }
    }
}

/// Token counts as the server reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt as the model saw it.
    pub prompt_tokens: Option<u32>,
    /// Tokens generated.
    pub completion_tokens: Option<u32>,
    /// Prompt tokens answered from a prefix cache.
    pub cached_tokens: Option<u32>,
    /// Generated tokens that are reasoning, also where it was not streamed.
    pub reasoning_tokens: Option<u32>,
    /// The server sent a number that is no count: negative, a fraction, text. It is left out.
    pub unusable: bool,
}

/// How a request ended. A failed one has no latency, so it has nowhere to put one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// HTTP 2xx, at least one output token, an end marker, no error object.
    Completed,
    /// Anything else.
    Failed {
        /// What went wrong, for counting.
        failure: Failure,
        /// What the server or the network said, for reading; holds no secret.
        message: String,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// No connection could be opened.
    Connect,
    /// The connection could not be made secure.
    Tls,
    /// The whole request took longer than allowed.
    Timeout,
    /// The server answered with this status.
    Http(u16),
    /// An error object inside a response that began well.
    ServerError,
    /// An event that is not what the protocol says.
    BadJson,
    /// The response ended without its end marker.
    Truncated,
    /// The response ended well and held no output.
    Empty,
    /// The response breaks the rules of HTTP, or is encoded in a way that was not asked for.
    BadHttp,
    /// Nothing arrived for longer than allowed.
    Stalled,
    /// The answer is far longer than was asked for, and was cut.
    TooLong,
    /// The run was interrupted.
    Cancelled,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Http(status) => return write!(f, "http_{status}"),
            Self::ServerError => "server_error",
            Self::BadJson => "bad_json",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::BadHttp => "bad_http",
            Self::Stalled => "stalled",
            Self::TooLong => "too_long",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A completed request: the only kind that has latencies.
#[derive(Clone, Copy, Debug)]
pub struct Completed<'a> {
    record: &'a RequestRecord,
    first: Chunk,
    last_at: Duration,
}

impl RequestRecord {
    /// The view that has latencies; `None` for a failed request.
    pub fn completed(&self) -> Option<Completed<'_>> {
        if self.outcome != Outcome::Completed {
            return None;
        }
        let (first, last_at) = (self.stream.chunks.first()?, self.stream.chunks.last_at()?);
        Some(Completed { record: self, first, last_at })
    }

    /// The same record, with all that happened later by so much.
    #[must_use]
    pub fn later(mut self, by: Duration) -> Self {
        for time in [&mut self.scheduled, &mut self.released, &mut self.sent, &mut self.ended] {
            *time += by;
        }
        self.stream.chunks.delay(by);
        self.stream.first_answer.iter_mut().for_each(|at| *at += by);
        self
    }

    /// The client's own delay: `sent` − `scheduled`, less what a cap held it back.
    pub fn lateness(&self) -> Duration {
        self.sent.saturating_sub(self.released)
    }

    /// The gaps between output-bearing events.
    pub fn chunk_gaps(&self) -> impl Iterator<Item = Duration> {
        self.stream.chunks.gaps()
    }
}

impl<'a> Completed<'a> {
    /// The record this is a view of.
    pub fn record(self) -> &'a RequestRecord {
        self.record
    }

    /// Time to first token.
    pub fn ttft(self) -> Duration {
        self.first.at.saturating_sub(self.record.sent)
    }

    /// Time to the first answer text; `None` where only reasoning or tool calls came.
    pub fn ttfa(self) -> Option<Duration> {
        Some(self.record.stream.first_answer?.saturating_sub(self.record.sent))
    }

    /// Time to the last event with output.
    pub fn e2e(self) -> Duration {
        self.last_at.saturating_sub(self.record.sent)
    }

    /// Time to first token from the time at which the schedule asked for the request.
    pub fn scheduled_ttft(self) -> Duration {
        self.first.at.saturating_sub(self.record.scheduled)
    }

    /// Time to the last event with output from the time at which the schedule asked for it.
    pub fn scheduled_e2e(self) -> Duration {
        self.last_at.saturating_sub(self.record.scheduled)
    }

    /// Time per output token after the first chunk, for an answer in which `streamed_tokens` came by its chunks; `None`
    /// where no token came after it. Zero where all chunks came in one read.
    pub fn tpot(self, streamed_tokens: u32) -> Option<Duration> {
        // A single chunk holds all of them, whatever their number.
        let chunks = &self.record.stream.chunks;
        let after_first = streamed_tokens.checked_sub(self.first.tokens.unwrap_or(1))?;
        let span = self.last_at.saturating_sub(self.first.at);
        (0 < after_first && 1 < chunks.len()).then(|| span / after_first)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A completed request scheduled at 0 and sent at 10 ms, with a chunk at each of `chunks`.
    pub(crate) fn completed(chunks: &[u64]) -> RequestRecord {
        RequestRecord {
            index: 0,
            warm_up: false,
            turn: 0,
            scheduled: ms(0),
            released: ms(0),
            sent: ms(10),
            connect: None,
            resent: false,
            ended: ms(chunks.last().copied().unwrap_or(10) + 5),
            stream: Stream {
                chunks: chunks.iter().map(|&at| Chunk { at: ms(at), tokens: None }).collect(),
                first_answer: chunks.first().map(|&at| ms(at)),
                ..Stream::default()
            },
            outcome: Outcome::Completed,
        }
    }

    pub(crate) fn failed(failure: Failure) -> RequestRecord {
        let outcome = Outcome::Failed { failure, message: format!("it said {failure}") };
        RequestRecord { outcome, ..completed(&[60, 70]) }
    }

    #[test]
    fn latencies_count_from_sent_and_their_scheduled_twins_from_the_schedule() {
        let record = completed(&[60, 70, 100]);
        let view = record.completed().unwrap();
        assert_eq!((view.ttft(), view.e2e()), (ms(50), ms(90)));
        assert_eq!((view.scheduled_ttft(), view.scheduled_e2e()), (ms(60), ms(100)));
        assert_eq!(record.lateness(), ms(10));
        assert_eq!(record.chunk_gaps().collect::<Vec<_>>(), [ms(10), ms(30)]);
    }

    #[test]
    fn tpot_leaves_out_the_tokens_of_the_first_chunk() {
        let mut record = completed(&[60, 70, 100]);
        assert_eq!(record.completed().unwrap().tpot(5), Some(ms(10)), "one token where unknown");
        record.stream.chunks.edit(|number, chunk| chunk.tokens = (number == 0).then_some(3));
        assert_eq!(record.completed().unwrap().tpot(5), Some(ms(20)));
    }

    #[test]
    fn tpot_is_missing_where_no_token_follows_the_first_chunk() {
        let mut record = completed(&[60]);
        assert_eq!(record.completed().unwrap().tpot(1), None);
        assert_eq!(record.completed().unwrap().tpot(8), None, "one chunk holds them all");
        record.stream.chunks.edit(|_, chunk| chunk.tokens = Some(8));
        assert_eq!(record.completed().unwrap().tpot(8), None);
        assert_eq!(record.completed().unwrap().tpot(0), None, "a count below the chunk's own");
    }

    #[test]
    fn tpot_is_zero_where_all_chunks_came_in_one_read() {
        assert_eq!(completed(&[60, 60, 60]).completed().unwrap().tpot(3), Some(Duration::ZERO));
    }

    #[test]
    fn a_failed_request_has_no_latency() {
        assert!(failed(Failure::Truncated).completed().is_none());
    }
}
