//! `trace`: requests that a service has seen, with prompts as long as they were and beginnings shared as
//! they were, at their times.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;
use rayon::prelude::*;

use super::trace::{Row, Trace};
use super::writer::Writer;
use super::{PromptForm, PromptRequest, Sampling, Source, Workload};

/// Tokens of a block: requests whose block IDs begin alike share so many tokens for each.
const BLOCK_TOKENS: usize = 512;

/// What of a trace is sent, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replay {
    /// Times are divided by it.
    pub speed: f64,
    /// Requests before this time of the trace are left out.
    pub from: Duration,
    /// Requests from this time on are.
    pub to: Option<Duration>,
    /// Longer prompts are cut to it, tokens.
    pub max_input_tokens: Option<u32>,
    /// Longer answers are.
    pub max_output_tokens: Option<u32>,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            speed: 1.0,
            from: Duration::ZERO,
            to: None,
            max_input_tokens: None,
            max_output_tokens: None,
        }
    }
}

pub(super) fn sample(
    source: &Source,
    replay: &Replay,
    form: PromptForm,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    let name = source.to_string();
    let mut rows = Trace::read(&source.locate()?, &name)?.rows;
    let read = rows.len();
    rows.retain(|row| replay.from <= row.at && replay.to.is_none_or(|to| row.at < to));
    rows.truncate(sampling.requests.unwrap_or(usize::MAX));
    if rows.is_empty() {
        bail!(
            "trace `{name}`: none of its {read} requests is within the window from {:?}{}",
            replay.from,
            replay.to.map(|to| format!(" to {to:?}")).unwrap_or_default()
        );
    }
    let writer = Writer::new(form, sampling)?;
    let blocks = Blocks::of(&rows, &writer, sampling);
    let write = |(index, row): (usize, &Row)| {
        let asked =
            replay.max_input_tokens.map_or(row.input_tokens, |max| row.input_tokens.min(max));
        let mut rng = sampling.rng("prompt", index as u64);
        let wanted = writer.words_of(asked);
        let mut words = Vec::with_capacity(wanted);
        blocks.add(row, wanted, &mut words);
        let kept = words.len();
        while words.len() < wanted {
            words.push(if words.is_empty() {
                writer.opener(&mut rng)
            } else {
                writer.word(&mut rng)
            });
        }
        let (prompt, prompt_tokens) = writer.prompt(words, kept, &mut rng)?;
        let output = row.output_tokens.max(1);
        let output_tokens = replay.max_output_tokens.map_or(output, |max| output.min(max));
        let request = PromptRequest { prompt, prompt_tokens: Some(prompt_tokens), output_tokens };
        Ok((request, prompt_tokens != asked))
    };
    let written = rows.par_iter().enumerate().map(write);
    let written: Vec<(PromptRequest, bool)> = written.collect::<anyhow::Result<_>>()?;
    let longer = written.iter().filter(|(_, longer)| *longer).count();
    let requests = written.into_iter().map(|(request, _)| request).collect();
    let arrivals: Vec<Duration> =
        rows.iter().map(|row| (row.at - replay.from).div_f64(replay.speed)).collect();
    let shared: Vec<_> = rows.iter().map(|row| &row.blocks).collect();
    let mut workload = Workload::made_up(requests, &("trace", &arrivals, shared, form));
    workload.arrivals = Some(arrivals);
    if 0 < longer {
        workload.notes.push(format!(
            "{longer} prompts of the trace are shorter than a prompt can be: they have {} tokens, those \
             that the server puts around a prompt included",
            writer.least()
        ));
    }
    Ok(workload)
}

/// The words of each block.
struct Blocks(HashMap<u64, Vec<usize>>);

impl Blocks {
    fn of(rows: &[Row], writer: &Writer<'_>, sampling: &Sampling<'_>) -> Self {
        let mut ids: Vec<u64> =
            rows.iter().flat_map(|row| row.blocks.iter().flatten().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        let write = |id: u64| (id, writer.opening(BLOCK_TOKENS, &mut sampling.rng("block", id)));
        Self(ids.into_par_iter().map(write).collect())
    }

    /// Adds the words of a row's blocks, but no more than `wanted` in all.
    fn add(&self, row: &Row, wanted: usize, words: &mut Vec<usize>) {
        for id in row.blocks.iter().flatten() {
            let left = wanted - words.len();
            if let Some(block) = self.0.get(id) {
                words.extend(block.iter().take(left));
            }
        }
    }
}
