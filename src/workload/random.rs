//! Random words: `random`, where each prompt is its own but for a common beginning, and
//! `prefix_repetition`, where prompts begin with one of a few texts.

use anyhow::bail;
use rand::seq::SliceRandom as _;
use rayon::prelude::*;

use super::writer::Writer;
use super::{Length, PromptForm, PromptRequest, Sampling, Workload};

/// The purposes that random numbers are drawn for.
const LENGTHS: &str = "lengths";
const PREFIX: &str = "prefix";
const PROMPT: &str = "prompt";

pub(super) fn sample(
    input: Length,
    output: Length,
    prefix_tokens: u32,
    form: PromptForm,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    let writer = Writer::new(form, sampling)?;
    let requests = sampling.requests.unwrap_or(1);
    let lengths = lengths(requests, prefix_tokens, input, output, sampling);
    let prefix = writer.opening(prefix_tokens as usize, &mut sampling.rng(PREFIX, 0));
    let requests = write(&writer, &lengths, |_| &prefix, sampling)?;
    Ok(Workload::made_up(requests, &("random", input, output, prefix_tokens, form)))
}

/// What the prompts of `prefix_repetition` are made of, tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repetition {
    pub(super) prefix: u32,
    pub(super) suffix: u32,
    pub(super) prefixes: u32,
}

pub(super) fn sample_repetition(
    repetition: Repetition,
    output: Length,
    form: PromptForm,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    let Repetition { prefix, suffix, prefixes } = repetition;
    let writer = Writer::new(form, sampling)?;
    let texts: Vec<Vec<usize>> = (0..prefixes)
        .map(|which| writer.opening(prefix as usize, &mut sampling.rng(PREFIX, which.into())))
        .collect();
    let requests = sampling.requests.unwrap_or(1);
    // Each text as often as any other, in a random order.
    let mut order: Vec<usize> = (0..requests).map(|index| index % texts.len()).collect();
    let unsalted = Sampling { salt: None, ..*sampling };
    order.shuffle(&mut unsalted.rng("order", 0));
    let lengths = lengths(requests, prefix, Length::Fixed(suffix), output, sampling);
    let requests = write(&writer, &lengths, |index| &texts[order[index]], sampling)?;
    Ok(Workload::made_up(requests, &("prefix_repetition", repetition, output, form, order)))
}

/// Length of each prompt and its answer. The salt does not change them.
fn lengths(
    requests: usize,
    prefix_tokens: u32,
    input: Length,
    output: Length,
    sampling: &Sampling<'_>,
) -> Vec<(u32, u32)> {
    let unsalted = Sampling { salt: None, ..*sampling };
    let mut rng = unsalted.rng(LENGTHS, 0);
    (0..requests).map(|_| (prefix_tokens + input.draw(&mut rng), output.draw(&mut rng))).collect()
}

/// Prompts of these lengths that begin as `prefix` says.
pub(super) fn write<'a>(
    writer: &Writer<'_>,
    lengths: &[(u32, u32)],
    prefix: impl Fn(usize) -> &'a Vec<usize> + Sync,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Vec<PromptRequest>> {
    if let Some((shortest, _)) = lengths.iter().min()
        && *shortest < writer.least()
    {
        bail!(
            "a prompt of {shortest} tokens cannot be: what the server puts around a prompt takes {} \
             and one is left for a word at least",
            writer.least() - 1
        );
    }
    let write = |(index, &(tokens, output_tokens)): (usize, &(u32, u32))| {
        let mut rng = sampling.rng(PROMPT, index as u64);
        let mut words = prefix(index).clone();
        let kept = words.len();
        let wanted = writer.words_of(tokens);
        words.truncate(wanted);
        writer.fill(&mut words, wanted, &mut rng);
        let (prompt, prompt_tokens) = writer.prompt(words, kept, &mut rng)?;
        let request = PromptRequest::single(prompt, Some(prompt_tokens), output_tokens);
        Ok(PromptRequest { asked_tokens: Some(tokens), ..request })
    };
    lengths.par_iter().enumerate().map(write).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::LazyLock;

    use super::*;
    use crate::files::Files;
    use crate::prompt::Prompt;
    use crate::tokenizer::Tokenizer;
    use crate::workload::Dataset;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap()
    }

    fn sampling<'a>(tokenizer: &'a Tokenizer, salt: Option<&'a str>) -> Sampling<'a> {
        static FILES: LazyLock<Files> = LazyLock::new(Files::only_here);
        let tokenizer = Some(tokenizer);
        Sampling { files: &FILES, tokenizer, chat: false, requests: Some(50), seed: 0, salt }
    }

    fn of_1024(form: PromptForm) -> Dataset {
        let (input, output) = (Length::Fixed(1024), Length::Fixed(128));
        Dataset::Random { input, output, prefix_tokens: 0, form }
    }

    fn text(request: &PromptRequest) -> &str {
        match &request.prompt {
            Prompt::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_prompt_has_exactly_its_length_when_it_is_tokenized_again() {
        let tokenizer = tokenizer();
        let workload = of_1024(PromptForm::Text).sample(&sampling(&tokenizer, None)).unwrap();
        for request in &workload.requests {
            assert_eq!(tokenizer.count_prompt(text(request)).unwrap(), 1024);
            assert_eq!((request.prompt_tokens, request.output_tokens), (Some(1024), 128));
        }
        let different: BTreeSet<&str> = workload.requests.iter().map(text).collect();
        assert_eq!(different.len(), 50);
    }

    #[test]
    fn prompts_can_be_sent_as_tokens() {
        let tokenizer = tokenizer();
        let workload = of_1024(PromptForm::Tokens).sample(&sampling(&tokenizer, None)).unwrap();
        let Prompt::Tokens(tokens) = &workload.requests[0].prompt else { panic!() };
        assert_eq!(tokens.len(), 1024);
    }

    #[test]
    fn the_seed_and_no_salt_give_the_same_prompts_byte_for_byte() {
        let tokenizer = tokenizer();
        let of = |salt| of_1024(PromptForm::Text).sample(&sampling(&tokenizer, salt)).unwrap();
        assert_eq!(of(None), of(None));
        let (salted, other) = (of(Some("a")), of(Some("b")));
        assert_eq!(salted.hash, other.hash, "it is the same work");
        for (one, two) in salted.requests.iter().zip(&other.requests) {
            assert_eq!(one.prompt_tokens, two.prompt_tokens);
            let shared = text(one).bytes().zip(text(two).bytes()).take_while(|(a, b)| a == b);
            assert!(shared.count() < 40, "no prefix cache can carry over");
        }
    }

    #[test]
    fn a_common_beginning_is_common_to_the_token() {
        let tokenizer = tokenizer();
        let input = Length::Uniform { min: 10, max: 90 };
        let dataset = Dataset::Random {
            input,
            output: Length::Fixed(8),
            prefix_tokens: 100,
            form: PromptForm::Text,
        };
        let workload = dataset.sample(&sampling(&tokenizer, Some("salt"))).unwrap();
        let encoded: Vec<Vec<u32>> = workload
            .requests
            .iter()
            .map(|request| tokenizer.encode(text(request)).unwrap())
            .collect();
        for tokens in &encoded {
            assert!((110..=190).contains(&tokens.len()));
            assert_eq!(tokens[..100], encoded[0][..100]);
        }
    }

    #[test]
    fn each_of_a_few_beginnings_comes_as_often_as_any_other() {
        let tokenizer = tokenizer();
        let dataset = Dataset::PrefixRepetition {
            prefix_tokens: 64,
            suffix_tokens: 16,
            prefixes: 5,
            output: Length::Fixed(8),
            form: PromptForm::Text,
        };
        let workload = dataset.sample(&sampling(&tokenizer, None)).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for request in &workload.requests {
            let tokens = tokenizer.encode(text(request)).unwrap();
            assert_eq!(tokens.len(), 80);
            *counts.entry(tokens[..64].to_vec()).or_insert(0) += 1;
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [10; 5]);
    }

    #[test]
    fn without_a_tokenizer_it_is_said_what_it_takes() {
        let tokenizer = tokenizer();
        let sampling = Sampling { tokenizer: None, ..sampling(&tokenizer, None) };
        let error = of_1024(PromptForm::Text).sample(&sampling).unwrap_err().to_string();
        assert!(error.contains("set `tokenizer`"), "{error}");
    }
}
