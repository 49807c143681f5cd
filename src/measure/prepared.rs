//! What a case sends, read and drawn before anything runs.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::descriptors;
use crate::files::Files;
use crate::load::Load;
use crate::plain::quoted;
use crate::plan::{Case, Server, TokenizerChoice};
use crate::tokenizer::Tokenizer;
use crate::workload::{Sampling, Workload};

/// What a case sends, read and drawn before anything runs.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The case's tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// Its requests before they were salted: cases that send the same share them.
    pub drawn: Arc<Workload>,
    /// How many were asked for; `None` for all.
    pub asked: Option<usize>,
    /// Its requests.
    pub workload: Arc<Workload>,
    /// Requests of the same kind and of other words, for its warm-up; empty where it has none.
    pub warm_up: Arc<Workload>,
    /// Decided what was drawn.
    pub seed: u64,
    /// What they were salted with.
    pub salt: Option<String>,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
}

/// Whether two cases send the same where they ask for as much by the same seed, so that one may take what was
/// prepared for the other.
pub fn send_alike(one: &Case, other: &Case) -> bool {
    let work = |case: &Case| {
        let named = &case.workload;
        (named.dataset.clone(), named.system.clone(), case.backend.protocol.is_chat())
    };
    (&one.tokenizer, &one.model.source) == (&other.tokenizer, &other.model.source)
        && work(one) == work(other)
}

/// Reads the case's tokenizer and draws its requests, or takes both from `alike`, a case that was prepared
/// for the same work.
pub fn prepare(case: &Case, alike: Option<&Prepared>, files: &Files) -> anyhow::Result<Prepared> {
    let (tokenizer, notes) = match alike {
        Some(alike) => (alike.tokenizer.clone(), alike.notes.clone()),
        None => tokenizer(case, files)?,
    };
    let named = &case.workload;
    let salt = named.salt.of(&case.name, *RUN);
    let sampling = Sampling {
        files,
        tokenizer: tokenizer.as_ref(),
        chat: case.backend.protocol.is_chat(),
        requests: case.prompts(),
        seed: case.seed,
        salt: None,
    };
    let salted = Sampling { salt: salt.as_deref(), ..sampling };
    let sample = |sampling: &Sampling<'_>| {
        let workload = named.dataset.sample(sampling)?;
        match &named.system {
            None => Ok(workload),
            Some(system) => workload.with_system(system, sampling),
        }
    };
    let words_are_salted = named.dataset.is_made_up() && named.system.is_none();
    let (drawn, workload) = if words_are_salted {
        let made_up = Arc::new(sample(&salted)?);
        (Arc::clone(&made_up), made_up)
    } else {
        let is_enough = |alike: &&Prepared| match (case.prompts(), alike.asked) {
            (_, None) => true,
            (Some(wanted), Some(asked)) => wanted <= asked,
            (None, Some(_)) => false,
        };
        let is_same = |alike: &&Prepared| alike.seed == case.seed && is_enough(alike);
        let drawn = match alike.filter(is_same) {
            Some(alike) => Arc::clone(&alike.drawn),
            None => Arc::new(sample(&sampling)?),
        };
        let workload = drawn.as_sent(&salted)?;
        (drawn, Arc::new(workload))
    };
    let warm_up_prompts = match (&case.load, &drawn.arrivals) {
        (Load::Trace { .. }, Some(arrivals)) => Some(case.course.warm_up.of(arrivals)),
        _ => case.warm_up_prompts(),
    };
    let warm_up_salt = named.salt.of_warm_up(&case.name, *RUN);
    let for_warm_up = Sampling {
        salt: Some(&warm_up_salt),
        requests: warm_up_prompts.or(sampling.requests),
        ..sampling
    };
    let warm_up = match warm_up_prompts {
        Some(0) => drawn.first_as_sent(0, &for_warm_up)?,
        _ if words_are_salted => sample(&for_warm_up)?,
        prompts => drawn.first_as_sent(prompts.unwrap_or(usize::MAX), &for_warm_up)?,
    };
    let warm_up = Arc::new(warm_up);
    let notes = [notes, files.take_notes()].concat();
    let (asked, seed) = (case.prompts(), case.seed);
    Ok(Prepared { tokenizer, drawn, asked, workload, warm_up, seed, salt, notes })
}

/// What the data asks of its requests that the protocol has no place for.
pub(super) fn unsent(case: &Case, workload: &Workload) -> Option<String> {
    let protocol = case.backend.protocol;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in workload.requests.iter().flat_map(|request| request.fields.keys()) {
        if !protocol.takes_field(name) {
            *counts.entry(name).or_default() += 1;
        }
    }
    let shown = |(name, count): (&&str, &usize)| format!("`{}` of {count} requests", quoted(name));
    let listed: Vec<String> = counts.iter().take(MOST_NAMES).map(shown).collect();
    let others = counts.len().saturating_sub(MOST_NAMES);
    let others = if 0 < others { format!(" and {others} more") } else { String::new() };
    (!listed.is_empty()).then(|| {
        format!(
            "fields that the dataset sets are not sent, as the protocol `{}` has none such: {}{others}",
            protocol.name(),
            listed.join(", ")
        )
    })
}

/// The most names that a note holds.
const MOST_NAMES: usize = 12;

/// A number that no other run has.
static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// The tokenizer that the case asks for, and what to say where the model's own cannot be had.
fn tokenizer(case: &Case, files: &Files) -> anyhow::Result<(Option<Tokenizer>, Vec<String>)> {
    match &case.tokenizer {
        TokenizerChoice::None => Ok((None, Vec::new())),
        TokenizerChoice::Named(place) => Ok((Some(Tokenizer::find(place, files)?), Vec::new())),
        // It has no tokenizer of its own.
        TokenizerChoice::OfModel if matches!(case.backend.server, Server::Sim(_)) => {
            Ok((None, Vec::new()))
        }
        TokenizerChoice::OfModel => match Tokenizer::find(Path::new(&case.model.source), files) {
            Ok(tokenizer) => Ok((Some(tokenizer), Vec::new())),
            Err(error) => {
                let note = format!(
                    "there is no tokenizer, and tokens are as the server counts them: {error:#}"
                );
                Ok((None, vec![note]))
            }
        },
    }
}

/// Makes sure that this machine can send what was drawn.
pub fn check(case: &Case, prepared: &Prepared) -> anyhow::Result<()> {
    descriptors::ensure(case, prepared.workload.requests.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::workload::PromptRequest;

    /// What is sent of a workload under a load with `more` said of it.
    fn prepared(workload: &str, load: &str, more: &str) -> Prepared {
        let plan = format!(
            r#"
            defaults = {{ requests = 9, tokenizer = "fixtures/tokenizer.json" }}
            backend = [{{ name = "sim", kind = "sim" }}]
            workload = [{{ name = "w", salt = "s", {workload} }}]
            bench = [{{ loads = ["{load}"], arrivals = "constant", {more} }}]
            "#
        );
        let case = Plan::parse(&plan).unwrap().cases.remove(0);
        prepare(&case, None, &Files::only_here()).unwrap()
    }

    const SHAREGPT: &str = "path = \"fixtures/sharegpt.json\"";
    const RANDOM: &str = "dataset = \"random\", input_tokens = 50, prefix_tokens = 20";
    const TALKS: &str = "dataset = \"multi_turn\", input_tokens = 50";
    const TRACE: &str = "dataset = \"trace\", path = \"fixtures/traces/azure.csv\"";

    #[test]
    fn a_warm_up_has_requests_of_the_same_shape_and_none_that_is_measured() {
        for workload in [SHAREGPT, RANDOM, TALKS] {
            let plain = prepared(workload, "4conc", "drain = \"1s\"");
            assert!(plain.warm_up.requests.is_empty());
            let Prepared { workload: counting, warm_up, .. } =
                prepared(workload, "4conc", "warm_up = 6");
            assert_eq!(counting, plain.workload, "what counts is what counts without a warm-up");
            assert_eq!((counting.requests.len(), warm_up.requests.len()), (9, 6));
            let beginning = |request: &PromptRequest| -> String {
                request.prompt.text().chars().take(12).collect()
            };
            for (one, two) in warm_up.requests.iter().zip(&counting.requests) {
                assert_ne!(beginning(one), beginning(two), "{workload}");
                assert_eq!(one.output_tokens, two.output_tokens);
                assert_eq!(one.turns(), two.turns());
            }
        }
    }

    #[test]
    fn a_warm_up_has_as_many_prompts_as_it_sends_where_that_is_known() {
        for (load, more, prompts) in [
            ("10qps", "warm_up = \"2s\"", 20),
            ("10qps", "warm_up = 5", 5),
            ("4conc", "warm_up = 1", 4),
            ("4conc", "warm_up = \"2s\"", 9),
            ("inf", "warm_up = \"2s\"", 0),
        ] {
            let prepared = prepared(RANDOM, load, more);
            assert_eq!(prepared.warm_up.requests.len(), prompts, "{load}, {more}");
            assert_eq!(prepared.workload.requests.len(), 9, "{load}, {more}");
        }
        let trace = prepared(TRACE, "trace", "warm_up = 7");
        assert_eq!(trace.warm_up.requests.len(), 7);
        let lengths = |requests: &[PromptRequest]| -> Vec<Option<u32>> {
            requests.iter().map(|request| request.prompt_tokens).collect()
        };
        let of_trace = lengths(&trace.workload.requests[..7]);
        assert_eq!(lengths(&trace.warm_up.requests), of_trace, "each at its time");
    }

    #[test]
    fn fields_that_the_protocol_has_no_place_for_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        let row = r#"{"prompt": "Hi", "max_tokens": 3, "temperature": 0.5, "tools": []}"#;
        std::fs::write(&path, format!("{row}\n{row}\n")).unwrap();
        for (protocol, expected) in [
            ("chat", None),
            ("completions", Some("`tools` of 2 requests")),
            ("tgi", Some("`temperature` of 2 requests, `tools` of 2 requests")),
        ] {
            let plan = format!(
                r#"
                defaults = {{ requests = 2, tokenizer = "none" }}
                backend = [{{ name = "sim", kind = "sim", protocol = "{protocol}" }}]
                workload = [{{ name = "w", dataset = "custom", path = {path:?} }}]
                bench = [{{ loads = ["1conc"] }}]
                "#
            );
            let case = Plan::parse(&plan).unwrap().cases.remove(0);
            let prepared = prepare(&case, None, &Files::only_here()).unwrap();
            let told = unsent(&case, &prepared.workload);
            assert_eq!(told.is_some(), expected.is_some(), "{protocol}: {told:?}");
            assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()), "{protocol}");
        }
    }
}
