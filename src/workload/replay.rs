//! `trace`: requests that a service has seen, with prompts as long as they were and beginnings shared as
//! they were, at their times.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use rayon::prelude::*;

use super::trace::{Reading, Row, Trace};
use super::writer::Writer;
use super::{PromptForm, PromptRequest, Sampling, Source, Workload};

/// What of a trace is sent, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replay {
    /// What its file does not say.
    pub reading: Reading,
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

/// How many times faster or slower a trace may be replayed.
const SPEEDS: RangeInclusive<f64> = 1e-6..=1e6;

impl Replay {
    /// The speed, or why it is none.
    pub fn check_speed(speed: f64) -> Result<f64, String> {
        let (least, most) = (SPEEDS.start(), SPEEDS.end());
        let fault = || format!("must be from {least} to {most}, not {speed:?}");
        SPEEDS.contains(&speed).then_some(speed).ok_or_else(fault)
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            reading: Reading::default(),
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
    let whole = Trace::read(&source.locate(sampling)?, replay.reading)?;
    let (failed, block_tokens) = (whole.failed, whole.block_tokens.get());
    let (recognised, doubt) = (whole.recognised(), whole.doubt());
    let windowed = whole.windowed(replay.from, replay.to);
    let trace = windowed.and_then(|trace| trace.sped_up(replay.speed));
    let mut rows = trace.with_context(|| format!("trace `{source}`"))?.rows;
    rows.truncate(sampling.requests.unwrap_or(usize::MAX));
    let writer = Writer::new(form, sampling)?;
    let blocks = Blocks::of(&rows, block_tokens as usize, &writer, sampling);
    let write = |(index, row): (usize, &Row)| {
        let asked =
            replay.max_input_tokens.map_or(row.input_tokens, |max| row.input_tokens.min(max));
        let mut rng = sampling.rng("prompt", index as u64);
        let wanted = writer.words_of(asked);
        let mut words = Vec::with_capacity(wanted);
        blocks.add(row, wanted, &mut words);
        let kept = words.len();
        writer.fill(&mut words, wanted, &mut rng);
        let (prompt, prompt_tokens) = writer.prompt(words, kept, &mut rng)?;
        let output = row.output_tokens.max(1);
        let output_tokens = replay.max_output_tokens.map_or(output, |max| output.min(max));
        let request = PromptRequest::single(prompt, Some(prompt_tokens), output_tokens);
        let request = PromptRequest { asked_tokens: Some(asked), ..request };
        Ok((request, prompt_tokens != asked))
    };
    let written = rows.par_iter().enumerate().map(write);
    let written: Vec<(PromptRequest, bool)> = written.collect::<anyhow::Result<_>>()?;
    let longer = written.iter().filter(|(_, longer)| *longer).count();
    let requests = written.into_iter().map(|(request, _)| request).collect();
    let arrivals: Vec<Duration> = rows.iter().map(|row| row.at).collect();
    let shared: Vec<_> = rows.iter().map(|row| &row.blocks).collect();
    let mut workload = Workload::made_up(requests, &("trace", &arrivals, shared, form));
    workload.arrivals = Some(arrivals);
    workload.recognised.push(format!("`{source}`: {recognised}"));
    workload.notes.extend(doubt);
    if 0 < failed {
        workload.notes.push(format!(
            "{failed} requests of the trace are left out: the service that was recorded did not answer \
             them"
        ));
    }
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
    fn of(rows: &[Row], block_tokens: usize, writer: &Writer<'_>, sampling: &Sampling<'_>) -> Self {
        let mut ids: Vec<u64> =
            rows.iter().flat_map(|row| row.blocks.iter().flatten().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        let write = |id: u64| (id, writer.opening(block_tokens, &mut sampling.rng("block", id)));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::Files;
    use crate::prompt::Prompt;
    use crate::tokenizer::Tokenizer;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap()
    }

    fn sample_file(file: &str, replay: &Replay, salt: Option<&str>) -> Workload {
        let tokenizer = tokenizer();
        let tokenizer = Some(&tokenizer);
        let files = &Files::only_here();
        let sampling = Sampling { files, tokenizer, chat: false, requests: None, seed: 0, salt };
        let source = Source::new(format!("fixtures/traces/{file}"));
        sample(&source, replay, PromptForm::Text, &sampling).unwrap()
    }

    fn encoded(workload: &Workload) -> Vec<Vec<u32>> {
        let tokenizer = tokenizer();
        let tokens = |request: &PromptRequest| match &request.prompt {
            Prompt::Text(text) => tokenizer.encode(text).unwrap(),
            other => panic!("{other:?}"),
        };
        workload.requests.iter().map(tokens).collect()
    }

    #[test]
    fn prompts_are_as_long_as_they_were_and_come_when_they_came() {
        let workload = sample_file("azure.csv", &Replay::default(), None);
        let arrivals = workload.arrivals.clone().unwrap();
        assert_eq!((workload.requests.len(), arrivals.len()), (60, 60));
        assert_eq!(arrivals[0], Duration::ZERO);
        let trace =
            Trace::read(Path::new("fixtures/traces/azure.csv"), Reading::default()).unwrap();
        let tokens = encoded(&workload);
        for (index, row) in trace.rows.iter().enumerate() {
            assert_eq!(tokens[index].len(), row.input_tokens as usize);
            assert_eq!(workload.requests[index].output_tokens, row.output_tokens);
            assert_eq!(arrivals[index], row.at);
        }
        let fast = sample_file("azure.csv", &Replay { speed: 10.0, ..Replay::default() }, None);
        let off = fast.arrivals.unwrap()[59].abs_diff(arrivals[59].div_f64(10.0));
        assert!(off <= Duration::from_nanos(1), "{off:?}");
    }

    #[test]
    fn equal_blocks_are_equal_to_the_token_and_nothing_else_is() {
        let workload = sample_file("mooncake.jsonl", &Replay::default(), Some("any"));
        let trace =
            Trace::read(Path::new("fixtures/traces/mooncake.jsonl"), Reading::default()).unwrap();
        let encoded = encoded(&workload);
        let blocks: Vec<&[u64]> =
            trace.rows.iter().map(|row| row.blocks.as_deref().unwrap()).collect();
        let mut compared = 0;
        for (one, two) in (0..encoded.len()).flat_map(|one| (0..one).map(move |two| (one, two))) {
            let shared_blocks =
                blocks[one].iter().zip(blocks[two]).take_while(|(a, b)| a == b).count();
            let shared = encoded[one].iter().zip(&encoded[two]).take_while(|(a, b)| a == b).count();
            let shortest = encoded[one].len().min(encoded[two].len());
            let expected = (shared_blocks * 512).min(shortest);
            // The words behind what they share may be the same by chance.
            assert!(
                (expected..=expected + 2).contains(&shared),
                "{one} {two}: {shared} {expected}"
            );
            compared += usize::from(0 < shared_blocks);
        }
        assert!(100 < compared, "{compared}");
    }

    #[test]
    fn a_window_and_a_bound_on_lengths_cut_the_trace() {
        let whole = sample_file("azure.csv", &Replay::default(), None).arrivals.unwrap();
        let (from, to) = (whole[10], Some(whole[20]));
        let replay = Replay { from, to, max_input_tokens: Some(100), ..Replay::default() };
        let cut = sample_file("azure.csv", &replay, None);
        assert_eq!(cut.arrivals.unwrap().len(), 10);
        assert!(cut.requests.iter().all(|request| request.prompt_tokens.unwrap() <= 100));
    }
}
