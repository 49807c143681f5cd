//! What is sent: prompts and output lengths, drawn by seed from a dataset. One file a dataset.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use rayon::prelude::*;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::prompt::{Content, Prompt};

mod custom;
mod dialogue;
mod json_items;
mod length;
mod multi_turn;
mod python_random;
mod random;
mod replay;
mod row;
mod salt;
mod sampling;
mod sharegpt;
mod sonnet;
mod table;
mod think;
mod trace;
mod writer;

pub use custom::Columns;
pub use length::Length;
pub use multi_turn::Conversations;
pub use replay::Replay;
pub use salt::Salt;
pub use sampling::Sampling;
pub use think::ThinkTime;
pub use trace::{Reading, TimeUnit};

/// The requests of a case, in the order in which they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Never empty.
    pub requests: Vec<PromptRequest>,
    /// When each is due, where the data says so.
    pub arrivals: Option<Vec<Duration>>,
    /// The same for the same work, whatever it was salted with: 16 hexadecimal digits.
    pub hash: String,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
    /// How its file was read, where that is not plain.
    pub recognised: Vec<String>,
}

/// One prompt and how long its answer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptRequest {
    /// What is sent.
    pub prompt: Prompt,
    /// Its length by the case's tokenizer, as the server is to see it; `None` without a tokenizer.
    pub prompt_tokens: Option<u32>,
    /// The length that was asked for: that of the data, or the one drawn; `None` where nothing says it.
    pub asked_tokens: Option<u32>,
    /// How much of it is the salt, which other requests begin with too, tokens.
    pub salt_tokens: u32,
    /// The longest answer asked for.
    pub output_tokens: u32,
    /// What the user says later; empty where one answer ends it.
    pub follow_ups: Vec<FollowUp>,
    /// What the data says of the request itself, in OpenAI's form: `temperature`, `tools`, and the like.
    pub fields: Map<String, Value>,
}

/// A turn of a conversation that waits for the answer to the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// What the user says.
    pub text: String,
    /// The longest answer asked for.
    pub output_tokens: u32,
    /// How long the user thinks between the answer and this.
    pub think: Duration,
}

impl PromptRequest {
    /// A prompt that nothing follows.
    pub fn single(prompt: Prompt, prompt_tokens: Option<u32>, output_tokens: u32) -> Self {
        Self {
            prompt,
            prompt_tokens,
            asked_tokens: prompt_tokens,
            salt_tokens: 0,
            output_tokens,
            follow_ups: Vec::new(),
            fields: Map::new(),
        }
    }

    /// How many requests it is, one a turn.
    pub fn turns(&self) -> usize {
        1 + self.follow_ups.len()
    }

    /// The longest answer asked for in a turn, 0 being the first.
    pub fn output_tokens_of(&self, turn: u32) -> u32 {
        let follow_up = (turn as usize).checked_sub(1).and_then(|past| self.follow_ups.get(past));
        follow_up.map_or(self.output_tokens, |follow_up| follow_up.output_tokens)
    }

    /// The turn that follows these answers, as a request by itself: all that was said is its prompt.
    /// `None` where nothing follows them.
    pub fn after<'a>(
        &self,
        answers: impl ExactSizeIterator<Item = &'a str>,
        chat: bool,
    ) -> Option<Self> {
        let last = self.follow_ups.get(answers.len().checked_sub(1)?)?;
        let mut prompt = self.prompt.clone();
        for (answer, follow_up) in answers.zip(&self.follow_ups) {
            prompt.go_on(answer, &follow_up.text, chat);
        }
        let fields = self.fields.clone();
        Some(Self { fields, ..Self::single(prompt, None, last.output_tokens) })
    }
}

/// Where prompts come from. The name in configs and flags is in snake case.
#[derive(Clone, Debug, PartialEq)]
pub enum Dataset {
    /// Two-turn conversations in the ShareGPT shape.
    ShareGpt {
        /// The JSON file.
        source: Source,
        /// Length of every answer; `None` takes each answer's length in the file.
        output: Option<Length>,
    },
    /// Lines of a poem: many that all prompts begin with, then others.
    Sonnet {
        /// A text file, a line a line; `None` for the built-in poem.
        source: Option<Source>,
        /// Length of every prompt, about.
        input_tokens: u32,
        /// How much of it is common to all, about.
        prefix_tokens: u32,
        /// Length of every answer.
        output: Length,
    },
    /// Random words, in prompts of an exact length.
    Random {
        /// Length of a prompt behind the common beginning.
        input: Length,
        /// Length of an answer.
        output: Length,
        /// Words that all prompts begin with, like a system prompt.
        prefix_tokens: u32,
        /// What is sent.
        form: PromptForm,
    },
    /// Prompts that begin with one of a few texts, as those of a few applications do.
    PrefixRepetition {
        /// How long those texts are.
        prefix_tokens: u32,
        /// How much of a prompt is its own.
        suffix_tokens: u32,
        /// How many texts there are.
        prefixes: u32,
        /// Length of an answer.
        output: Length,
        /// What is sent.
        form: PromptForm,
    },
    /// The user's own: a prompt or a conversation a line.
    Custom {
        /// JSON lines, a JSON array, CSV or Parquet.
        source: Source,
        /// Where in it prompts and lengths are.
        columns: Columns,
        /// Length of every answer; `None` takes each one's own.
        output: Option<Length>,
    },
    /// Requests that a service has seen: when they came, how long they were, what they shared.
    Trace {
        /// A trace file.
        source: Source,
        /// What of it is sent, and how fast.
        replay: Replay,
        /// What is sent.
        form: PromptForm,
    },
    /// Conversations of several turns, each of which waits for the answer to the one before.
    MultiTurn {
        /// Where they come from.
        conversations: Conversations,
        /// Length of every answer; `None` takes each answer's length in the file.
        output: Option<Length>,
        /// How long users think before each turn but the first.
        think: ThinkTime,
        /// Turns past it are left out.
        max_turns: Option<u32>,
    },
}

/// How prompts that are made up are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// As text.
    #[default]
    Text,
    /// As token IDs, where the server takes them.
    Tokens,
}

/// Where a dataset's file is: on this machine or on the Hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source(String);

impl Source {
    /// The file at a path of this machine, or at a URL such as `hf://datasets/org/name/file.json`.
    pub fn new(place: impl Into<String>) -> Self {
        Self(place.into())
    }

    /// The file, downloaded if need be.
    fn locate(&self, sampling: &Sampling<'_>) -> anyhow::Result<PathBuf> {
        sampling.files.find(&self.0)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The datasets by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DatasetKind {
    /// Two-turn conversations in the ShareGPT shape.
    #[default]
    Sharegpt,
    /// Lines of a poem behind a common beginning.
    Sonnet,
    /// Random words, prompts of an exact length.
    Random,
    /// Prompts that begin with one of a few texts.
    PrefixRepetition,
    /// A file of the user's own.
    Custom,
    /// Requests that a service has seen, at their times.
    Trace,
    /// Conversations whose next turn waits for the last answer.
    MultiTurn,
}

impl DatasetKind {
    /// The name in configs, flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sharegpt => "sharegpt",
            Self::Sonnet => "sonnet",
            Self::Random => "random",
            Self::PrefixRepetition => "prefix_repetition",
            Self::Custom => "custom",
            Self::Trace => "trace",
            Self::MultiTurn => "multi_turn",
        }
    }
}

impl Dataset {
    /// The name in configs, flags and results.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Which of the datasets it is.
    pub fn kind(&self) -> DatasetKind {
        match self {
            Self::ShareGpt { .. } => DatasetKind::Sharegpt,
            Self::Sonnet { .. } => DatasetKind::Sonnet,
            Self::Random { .. } => DatasetKind::Random,
            Self::PrefixRepetition { .. } => DatasetKind::PrefixRepetition,
            Self::Custom { .. } => DatasetKind::Custom,
            Self::Trace { .. } => DatasetKind::Trace,
            Self::MultiTurn { .. } => DatasetKind::MultiTurn,
        }
    }

    /// Whether its prompts are made up: then a salt decides their words, and their lengths stay.
    pub fn is_made_up(&self) -> bool {
        match self {
            Self::Random { .. } | Self::PrefixRepetition { .. } | Self::Trace { .. } => true,
            Self::MultiTurn { conversations, .. } => conversations.are_made_up(),
            Self::ShareGpt { .. } | Self::Sonnet { .. } | Self::Custom { .. } => false,
        }
    }

    /// Whether its prompts can only be sent as token IDs.
    pub fn sends_tokens(&self) -> bool {
        match self {
            Self::Random { form, .. }
            | Self::PrefixRepetition { form, .. }
            | Self::Trace { form, .. } => *form == PromptForm::Tokens,
            Self::ShareGpt { .. }
            | Self::Sonnet { .. }
            | Self::Custom { .. }
            | Self::MultiTurn { .. } => false,
        }
    }

    /// Draws the requests; fewer than wanted where the dataset holds no more.
    pub fn sample(&self, sampling: &Sampling<'_>) -> anyhow::Result<Workload> {
        match self {
            Self::ShareGpt { source, output } => sharegpt::sample(source, *output, sampling),
            Self::Sonnet { source, input_tokens, prefix_tokens, output } => {
                let lengths = sonnet::Lengths {
                    input: *input_tokens,
                    prefix: *prefix_tokens,
                    output: *output,
                };
                sonnet::sample(source.as_ref(), lengths, sampling)
            }
            Self::Random { input, output, prefix_tokens, form } => {
                random::sample(*input, *output, *prefix_tokens, *form, sampling)
            }
            Self::PrefixRepetition { prefix_tokens, suffix_tokens, prefixes, output, form } => {
                let lengths = random::Repetition {
                    prefix: *prefix_tokens,
                    suffix: *suffix_tokens,
                    prefixes: *prefixes,
                };
                random::sample_repetition(lengths, *output, *form, sampling)
            }
            Self::Custom { source, columns, output } => {
                custom::sample(source, columns, *output, sampling)
            }
            Self::Trace { source, replay, form } => replay::sample(source, replay, *form, sampling),
            Self::MultiTurn { conversations, output, think, max_turns } => {
                let manner =
                    multi_turn::Manner { output: *output, think: *think, max_turns: *max_turns };
                multi_turn::sample(conversations, manner, sampling)
            }
        }
    }
}

impl Workload {
    /// Requests whose texts are the data's own.
    fn of_texts(requests: Vec<PromptRequest>) -> Self {
        let mut hasher = Sha256::new();
        for request in &requests {
            hash_prompt(&request.prompt, &mut hasher);
            if !request.fields.is_empty() {
                hash_json(&request.fields, &mut hasher);
            }
            hasher.update(request.output_tokens.to_le_bytes());
            for follow_up in &request.follow_ups {
                hash_part(follow_up.text.as_bytes(), &mut hasher);
                hash_manner(follow_up, &mut hasher);
            }
        }
        Self {
            requests,
            arrivals: None,
            hash: hash(hasher),
            notes: Vec::new(),
            recognised: Vec::new(),
        }
    }

    /// Requests whose texts are made up as `recipe` says: what matters of them is how long they are.
    fn made_up(requests: Vec<PromptRequest>, recipe: &impl fmt::Debug) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(format!("{recipe:?}"));
        for request in &requests {
            hasher.update(request.prompt_tokens.unwrap_or_default().to_le_bytes());
            hasher.update(request.output_tokens.to_le_bytes());
            request.follow_ups.iter().for_each(|follow_up| hash_manner(follow_up, &mut hasher));
        }
        Self {
            requests,
            arrivals: None,
            hash: hash(hasher),
            notes: Vec::new(),
            recognised: Vec::new(),
        }
    }

    /// The request or conversation of this number. They come again where more are sent than there are.
    pub fn request(&self, index: usize) -> &PromptRequest {
        &self.requests[index % self.requests.len()]
    }

    /// Whether any of them is a conversation of several turns.
    pub fn has_turns(&self) -> bool {
        self.requests.iter().any(|request| !request.follow_ups.is_empty())
    }

    /// How many requests they are, one a turn.
    pub fn turns(&self) -> usize {
        self.requests.iter().map(PromptRequest::turns).sum()
    }

    /// The same requests with `system` before each.
    pub fn with_system(mut self, system: &str, sampling: &Sampling<'_>) -> anyhow::Result<Self> {
        let mut hasher = Sha256::new();
        hasher.update(&self.hash);
        hasher.update(system);
        self.hash = hash(hasher);
        self.requests.par_iter_mut().try_for_each(|request| {
            request.prompt.put_before(system, sampling.chat);
            request.prompt_tokens = sampling.count_request(request)?;
            request.asked_tokens = request.prompt_tokens;
            anyhow::Ok(())
        })?;
        Ok(self)
    }

    /// The first `requests` of them as they are sent.
    pub fn first_as_sent(&self, requests: usize, sampling: &Sampling<'_>) -> anyhow::Result<Self> {
        let requests = self.requests.iter().take(requests).cloned().collect();
        let hash = self.hash.clone();
        let first =
            Self { requests, arrivals: None, hash, notes: Vec::new(), recognised: Vec::new() };
        first.as_sent(sampling)
    }

    /// The same requests as they are sent: each begins with the salt of `sampling`, if it has one, which takes the
    /// place of as many tokens, and where prompts are sent as text, a conversation is put as the model's chat
    /// template has it.
    pub fn as_sent(&self, sampling: &Sampling<'_>) -> anyhow::Result<Self> {
        let mut sent = self.clone();
        let beginning = sampling.salt.map(|salt| {
            let beginning = format!("[{salt}] ");
            let length = sampling.length(&beginning) as u32;
            (beginning, length)
        });
        sent.requests.par_iter_mut().try_for_each(|request| {
            if let Some((beginning, length)) = &beginning {
                request.prompt.begin_with(beginning, |text| sampling.length(text));
                request.salt_tokens = *length;
            }
            if let (Prompt::Messages(messages), false) = (&request.prompt, sampling.chat) {
                let tools = request.fields.get("tools");
                request.prompt = Prompt::Text(sampling.render(messages, tools)?);
            } else if sampling.salt.is_none() {
                return Ok(());
            }
            request.prompt_tokens = sampling.count_request(request)?;
            anyhow::Ok(())
        })?;
        Ok(sent)
    }
}

/// A part of what is hashed: its length keeps it apart from the next one.
fn hash_part(part: &[u8], hasher: &mut Sha256) {
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// What matters of a turn beside its text.
fn hash_manner(follow_up: &FollowUp, hasher: &mut Sha256) {
    hasher.update(follow_up.output_tokens.to_le_bytes());
    hasher.update(follow_up.think.as_nanos().to_le_bytes());
}

fn hash_prompt(prompt: &Prompt, hasher: &mut Sha256) {
    let mut part = |bytes: &[u8]| hash_part(bytes, hasher);
    match prompt {
        Prompt::Text(text) => part(text.as_bytes()),
        Prompt::Tokens(tokens) => tokens.iter().for_each(|token| part(&token.to_le_bytes())),
        Prompt::Messages(messages) => {
            for message in messages {
                part(format!("{:?}", message.role).as_bytes());
                match &message.content {
                    Some(Content::Text(text)) => part(text.as_bytes()),
                    Some(Content::Parts(parts)) => parts.iter().for_each(|it| part(&json(it))),
                    None => part(b""),
                }
                if !message.fields.is_empty() {
                    part(&json(&message.fields));
                }
            }
        }
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn hash_json(value: &impl serde::Serialize, hasher: &mut Sha256) {
    hash_part(&json(value), hasher);
}

fn hash(hasher: Sha256) -> String {
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Takes candidates, a stretch at a time and each stretch in parallel, until enough of them are fit.
fn take_fit<T: Sync>(
    candidates: &[T],
    sampling: &Sampling<'_>,
    fit: impl Fn(&T) -> anyhow::Result<Option<PromptRequest>> + Sync,
) -> anyhow::Result<Vec<PromptRequest>> {
    const STRETCH: usize = 512;
    let mut taken = Vec::new();
    for stretch in candidates.chunks(STRETCH) {
        let fitting: Vec<Option<PromptRequest>> =
            stretch.par_iter().map(&fit).collect::<anyhow::Result<_>>()?;
        taken.extend(fitting.into_iter().flatten());
        if sampling.is_enough(taken.len()) {
            break;
        }
    }
    taken.truncate(sampling.requests.unwrap_or(usize::MAX));
    Ok(taken)
}

/// Bytes of a file.
type Span = Range<u64>;
