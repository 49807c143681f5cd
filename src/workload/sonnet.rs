//! `sonnet` as MAX's and vLLM's scripts make it: lines of a poem, the first ones common to all prompts.

use std::fs;

use anyhow::{Context as _, bail};

use super::python_random::PythonRandom;
use super::{Length, PromptRequest, Sampling, Source, Workload};
use crate::prompt::{Message, Prompt, Role};

/// What every prompt begins with, in the words of those scripts.
const TASK: &str = "Pick as many lines as you can from these poem lines:\n";
const POEM: &str = include_str!("../../fixtures/sonnet.txt");
/// How many prompts in a row may be longer than asked for before there is no hope.
const TRIES: usize = 1000;

/// Tokens of a prompt, of what is common to all, and of the answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) input: u32,
    pub(super) prefix: u32,
    pub(super) output: Length,
}

pub(super) fn sample(
    source: Option<&Source>,
    lengths: Lengths,
    sampling: &Sampling<'_>,
) -> anyhow::Result<Workload> {
    let read;
    let poem = match source {
        None => POEM,
        Some(source) => {
            let path = source.locate(sampling)?;
            read = fs::read_to_string(path).with_context(|| format!("read the poem `{source}`"))?;
            &read
        }
    };
    let lines: Vec<&str> =
        poem.split_inclusive('\n').filter(|line| !line.trim().is_empty()).collect();
    let tokenizer = sampling
        .tokenizer("the dataset sonnet takes as many lines as make a prompt of its length")?;
    // As those scripts do: where the model has a chat template, the prompt is sent as it has it, and its
    // length is that.
    let as_sent = |text: String| -> anyhow::Result<Prompt> {
        let user = Message::new(Role::User, text.clone());
        let rendered = if sampling.chat { None } else { tokenizer.render(&[user], None)? };
        Ok(Prompt::Text(rendered.unwrap_or(text)))
    };
    let count = |prompt: &Prompt| tokenizer.count(prompt, sampling.chat);
    let mut sum = 0.0;
    for line in &lines {
        sum += f64::from(tokenizer.count_prompt(line)?);
    }
    let task = count(&as_sent(TASK.to_owned())?)?;
    let mean = sum / lines.len() as f64;
    let lines_of = |tokens: u32| ((f64::from(tokens) - f64::from(task)) / mean).round().max(0.0);
    let (wanted, common) = (lines_of(lengths.input) as usize, lines_of(lengths.prefix) as usize);
    if wanted == 0 || wanted < common || lines.len() < common || lines.is_empty() {
        bail!(
            "the dataset sonnet cannot make prompts of {} tokens with {} common to all: the task takes \
             {task} tokens, a line about {mean:.0}, and the poem has {} lines",
            lengths.input,
            lengths.prefix,
            lines.len()
        );
    }
    let mut random = PythonRandom::new(sampling.seed);
    let mut rng = Sampling { salt: None, ..*sampling }.rng("sonnet output", 0);
    let mut requests = Vec::new();
    let mut tries = 0;
    while !sampling.is_enough(requests.len()) {
        let drawn = random.choices(&lines, wanted - common);
        let text = TASK.to_owned() + &lines[..common].concat() + &drawn.concat();
        let prompt = as_sent(text)?;
        let prompt_tokens = count(&prompt)?;
        // As those scripts do: a prompt that comes out too long is drawn again.
        if lengths.input < prompt_tokens {
            tries += 1;
            if tries == TRIES {
                bail!("no {TRIES} draws from the poem make a prompt of {} tokens", lengths.input);
            }
            continue;
        }
        tries = 0;
        let output_tokens = lengths.output.draw(&mut rng);
        requests.push(PromptRequest::single(prompt, Some(prompt_tokens), output_tokens));
        if sampling.requests.is_none() {
            break;
        }
    }
    Ok(Workload::of_texts(requests))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::Files;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn prompts_are_about_as_long_as_asked_and_begin_alike() {
        let tokenizer = Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap();
        let sampling = Sampling {
            files: &Files::only_here(),
            tokenizer: Some(&tokenizer),
            chat: false,
            requests: Some(20),
            seed: 1,
            salt: None,
        };
        let lengths = Lengths { input: 550, prefix: 200, output: Length::Fixed(150) };
        let workload = sample(None, lengths, &sampling).unwrap();
        assert_eq!(workload, sample(None, lengths, &sampling).unwrap());
        let encoded: Vec<Vec<u32>> = workload
            .requests
            .iter()
            .map(|request| match &request.prompt {
                Prompt::Text(text) => tokenizer.encode(text).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        for (tokens, request) in encoded.iter().zip(&workload.requests) {
            assert!((480..=550).contains(&tokens.len()), "{}", tokens.len());
            assert_eq!(request.prompt_tokens, Some(tokens.len() as u32));
            assert_eq!(request.output_tokens, 150);
            let shared = tokens.iter().zip(&encoded[0]).take_while(|(a, b)| a == b).count();
            assert!((170..).contains(&shared), "{shared}");
        }
        assert_ne!(encoded[0], encoded[1]);
    }
}
