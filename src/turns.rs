//! What came of each turn of the conversations: records in, statistics a turn out. Pure.

use crate::duration::as_ms;
use crate::record::{Completed, Outcome};
use crate::samples::Samples;
use crate::summary::Counted;
use crate::tokens::RequestTokens;
use crate::workload::Workload;

/// The turns of the conversations of one case.
#[derive(Clone, Debug)]
pub struct Turns {
    /// In order.
    pub turns: Vec<Turn>,
    /// Turns that were not sent because one before them failed.
    pub after_a_failure: u64,
    /// Turns that were not sent because there was no more time.
    pub out_of_time: u64,
}

/// All requests that were the same turn of their conversations.
#[derive(Clone, Debug)]
pub struct Turn {
    /// 1 for the first.
    pub turn: u32,
    /// How many were sent.
    pub requests: u64,
    /// How many of them completed.
    pub completed: u64,
    /// Times to first token of these, ms; none where answers came in one block.
    pub ttft: Samples,
    /// Times per output token, ms.
    pub tpot: Samples,
    /// End-to-end latencies, ms.
    pub e2e: Samples,
    /// Mean length of their prompts; `None` unless those of each are known.
    pub mean_input_tokens: Option<f64>,
    /// Share of their prompt tokens that the server answered from a prefix cache; `None` where no answer
    /// says so.
    pub cached_share: Option<f64>,
}

impl Turns {
    /// The turns of `requests`, which are in order, the turns of a conversation of `workload` one after
    /// the other.
    pub fn new(requests: &[Counted], workload: &Workload) -> Self {
        let last = requests.iter().map(|(record, _)| record.turn).max();
        let turns = last.map_or(0, |last| last + 1);
        let (mut after_a_failure, mut out_of_time) = (0, 0);
        for conversation in requests.chunk_by(|(one, _), (next, _)| one.index == next.index) {
            let Some((last, _)) = conversation.last() else { continue };
            let missing = workload.request(last.index).turns() - conversation.len();
            match last.outcome {
                Outcome::Completed => out_of_time += missing as u64,
                Outcome::Failed { .. } => after_a_failure += missing as u64,
            }
        }
        let turns = (0..turns).map(|turn| Turn::new(turn, requests)).collect();
        Self { turns, after_a_failure, out_of_time }
    }

    /// Turns that were not sent.
    pub fn not_sent(&self) -> u64 {
        self.after_a_failure + self.out_of_time
    }

    /// What to say of those.
    pub fn warning(&self) -> Option<String> {
        let reasons = [
            (self.after_a_failure, "one before them failed"),
            (self.out_of_time, "there was no more time"),
        ];
        let reasons: Vec<String> = reasons
            .into_iter()
            .filter(|(turns, _)| 0 < *turns)
            .map(|(turns, reason)| format!("{turns} because {reason}"))
            .collect();
        let all = self.not_sent();
        (0 < all).then(|| format!("{all} turns were not sent: {}", reasons.join(", ")))
    }
}

impl Turn {
    fn new(turn: u32, requests: &[Counted]) -> Self {
        let mut all = 0;
        let mut completed: Vec<(Completed<'_>, &RequestTokens)> = Vec::new();
        for (record, tokens) in requests.iter().filter(|(record, _)| record.turn == turn) {
            all += 1;
            completed.extend(record.completed().map(|view| (view, tokens)));
        }
        let streamed = || completed.iter().filter(|(view, _)| !view.record().stream.one_block);
        let tpot = streamed().filter_map(|(view, tokens)| view.tpot(tokens.streamed()?));
        let sum = |count: fn(&RequestTokens) -> Option<u32>| {
            let mut counts = completed.iter().map(|(_, tokens)| count(tokens).map(u64::from));
            counts.try_fold(0, |sum, count| Some(sum + count?))
        };
        let input = sum(|tokens| tokens.input.best()).filter(|_| !completed.is_empty());
        let says = completed.iter().any(|(_, tokens)| tokens.cached.is_some());
        let cached = sum(|tokens| Some(tokens.cached.unwrap_or_default())).filter(|_| says);
        Self {
            turn: turn + 1,
            requests: all,
            completed: completed.len() as u64,
            ttft: Samples::exact(streamed().map(|(view, _)| as_ms(view.ttft())).collect()),
            tpot: Samples::exact(tpot.map(as_ms).collect()),
            e2e: Samples::exact(completed.iter().map(|(view, _)| as_ms(view.e2e())).collect()),
            mean_input_tokens: input.map(|input| input as f64 / completed.len() as f64),
            cached_share: cached
                .zip(input.filter(|input| 0 < *input))
                .map(|(cached, input)| cached as f64 / input as f64),
        }
    }
}
