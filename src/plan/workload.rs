//! What is asked of a dataset in, the dataset out: each has its own keys and their defaults, which are
//! those of MAX's and vLLM's scripts.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::flags::Flags;
use crate::workload::{
    Columns, Conversations, Dataset, DatasetKind, Length, PromptForm, Reading, Replay, Source,
    ThinkTime,
};

/// Where ShareGPT is when no file is named: the file that those scripts ask for.
const SHAREGPT: &str = "hf://datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/\
                        ShareGPT_V3_unfiltered_cleaned_split.json";

/// Lengths of `random` when nothing is said.
const RANDOM_INPUT_TOKENS: u32 = 1024;
const RANDOM_OUTPUT_TOKENS: u32 = 128;

/// The most beginnings of `prefix_repetition`: each is kept.
const MOST_PREFIXES: u32 = 100_000;

/// What may be asked of a dataset; `None` where nothing was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) path: Option<PathBuf>,
    pub(super) output: Option<Length>,
    pub(super) input: Option<Length>,
    pub(super) range_ratio: Option<f64>,
    pub(super) prefix_tokens: Option<u32>,
    pub(super) suffix_tokens: Option<u32>,
    pub(super) prefixes: Option<u32>,
    pub(super) form: Option<PromptForm>,
    pub(super) columns: Option<Columns>,
    pub(super) speed: Option<f64>,
    pub(super) from: Option<Duration>,
    pub(super) to: Option<Duration>,
    pub(super) max_input_tokens: Option<u32>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) reading: Reading,
    pub(super) turns: Option<Length>,
    pub(super) max_turns: Option<u32>,
    pub(super) follow_up: Option<Length>,
    pub(super) think: Option<ThinkTime>,
}

/// The dataset that the flags ask for, or else `own`. A number of chat sessions makes conversations of
/// those that have them, as in MAX's script.
pub(super) fn kind(flags: &Flags, own: DatasetKind) -> DatasetKind {
    match flags.dataset_name.unwrap_or(own) {
        DatasetKind::Sharegpt | DatasetKind::Random if flags.num_chat_sessions.is_some() => {
            DatasetKind::MultiTurn
        }
        kind => kind,
    }
}

/// What is wrong with a dataset's key.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) key: &'static str,
    pub(super) message: String,
}

fn fault(key: &'static str, message: impl Into<String>) -> Fault {
    Fault { key, message: message.into() }
}

impl Asked {
    /// With what the flags say of a dataset of this kind in the place of it.
    pub(super) fn or_flags(mut self, kind: DatasetKind, flags: &Flags) -> Self {
        let set = |length: Option<NonZeroU32>, own: &mut Option<Length>| {
            if let Some(tokens) = length {
                *own = Some(Length::Fixed(tokens.get()));
            }
        };
        let set_tokens = |tokens: Option<u32>, own: &mut Option<u32>| {
            if tokens.is_some() {
                *own = tokens;
            }
        };
        if flags.dataset_path.is_some() {
            self.path = flags.dataset_path.clone();
        }
        match kind {
            DatasetKind::Sharegpt => set(flags.sharegpt_output_len, &mut self.output),
            DatasetKind::Sonnet => {
                set(flags.sonnet_input_len, &mut self.input);
                set(flags.sonnet_output_len, &mut self.output);
                set_tokens(flags.sonnet_prefix_len, &mut self.prefix_tokens);
            }
            DatasetKind::Random => {
                set(flags.random_input_len, &mut self.input);
                set(flags.random_output_len, &mut self.output);
                set_tokens(flags.random_prefix_len, &mut self.prefix_tokens);
                self.range_ratio = flags.random_range_ratio.or(self.range_ratio);
            }
            DatasetKind::PrefixRepetition => {
                set_tokens(flags.prefix_repetition_prefix_len, &mut self.prefix_tokens);
                set_tokens(flags.prefix_repetition_suffix_len, &mut self.suffix_tokens);
                set_tokens(flags.prefix_repetition_num_prefixes, &mut self.prefixes);
                set(flags.prefix_repetition_output_len, &mut self.output);
            }
            DatasetKind::Custom => set(flags.custom_output_len, &mut self.output),
            DatasetKind::Trace => {
                self.speed = flags.trace_speed.or(self.speed);
                self.reading.unit = flags.trace_time_unit.or(self.reading.unit);
                self.reading.block_tokens = flags.trace_block_tokens.or(self.reading.block_tokens);
            }
            DatasetKind::MultiTurn => {
                if flags.dataset_name == Some(DatasetKind::Sharegpt) && self.path.is_none() {
                    self.path = Some(PathBuf::from(SHAREGPT));
                }
                let random = flags.dataset_name == Some(DatasetKind::Random);
                let default = |tokens: u32| NonZeroU32::new(tokens).filter(|_| random);
                // As there, every turn is as long as the first.
                let input = flags.random_input_len.or(default(RANDOM_INPUT_TOKENS));
                set(input, &mut self.input);
                set(input, &mut self.follow_up);
                set(flags.random_output_len.or(default(RANDOM_OUTPUT_TOKENS)), &mut self.output);
                set_tokens(flags.random_prefix_len, &mut self.prefix_tokens);
                set(flags.random_num_turns, &mut self.turns);
                self.think = flags.delay_between_chat_turns.map(ThinkTime::Fixed).or(self.think);
            }
        }
        self
    }

    /// The dataset of this kind.
    pub(super) fn dataset(self, kind: DatasetKind) -> Result<Dataset, Fault> {
        self.no_stranger(kind)?;
        let fixed = |tokens: Option<u32>| tokens.map(Length::Fixed);
        // Of these, no tokens at all are allowed.
        let or_none = |tokens: Option<u32>| fixed(tokens.filter(|tokens| 0 < *tokens));
        for (key, length) in [
            ("output_tokens", self.output),
            ("input_tokens", self.input),
            ("follow_up_tokens", self.follow_up),
            ("turns", self.turns),
            ("prefix_tokens", or_none(self.prefix_tokens)),
            ("suffix_tokens", or_none(self.suffix_tokens)),
            ("max_input_tokens", fixed(self.max_input_tokens)),
            ("max_output_tokens", fixed(self.max_output_tokens)),
            ("block_tokens", fixed(self.reading.block_tokens.map(NonZeroU32::get))),
        ] {
            if let Some(message) = length.and_then(Length::fault) {
                return Err(fault(key, message));
            }
        }
        if let Some(ratio) = self.range_ratio
            && !(0.0..1.0).contains(&ratio)
        {
            return Err(fault("range_ratio", "must be at least 0 and below 1"));
        }
        if let Some(message) = self.think.and_then(ThinkTime::fault) {
            return Err(fault("think_time", message));
        }
        let of_file = |path: Option<PathBuf>, kind: &str| {
            let path = path.ok_or_else(|| {
                fault("path", format!("the dataset {kind} is read from a file: name it"))
            })?;
            Ok(Source::new(path.display().to_string()))
        };
        let around = |length: Option<Length>, default: u32, ratio: Option<f64>| match length {
            None => Ok(Length::around(default, ratio.unwrap_or(0.0))),
            Some(Length::Fixed(length)) => Ok(Length::around(length, ratio.unwrap_or(0.0))),
            Some(length) if ratio.is_none() => Ok(length),
            Some(_) => {
                Err(fault("range_ratio", "a length that is a distribution has no range ratio"))
            }
        };
        let fixed = |length: Option<Length>, default: u32| match length {
            None => Ok(default),
            Some(Length::Fixed(length)) => Ok(length),
            Some(_) => Err(fault("input_tokens", "must be a number of tokens here")),
        };
        Ok(match kind {
            DatasetKind::Sharegpt => {
                let source = match self.path {
                    Some(path) => Source::new(path.display().to_string()),
                    None => Source::new(SHAREGPT),
                };
                Dataset::ShareGpt { source, output: self.output }
            }
            DatasetKind::Sonnet => {
                let input_tokens = fixed(self.input, 550)?;
                let prefix_tokens = self.prefix_tokens.unwrap_or(200);
                if input_tokens <= prefix_tokens {
                    return Err(fault("prefix_tokens", "must be below `input_tokens`"));
                }
                Dataset::Sonnet {
                    source: self.path.map(|path| Source::new(path.display().to_string())),
                    input_tokens,
                    prefix_tokens,
                    output: self.output.unwrap_or(Length::Fixed(150)),
                }
            }
            DatasetKind::Random => Dataset::Random {
                input: around(self.input, RANDOM_INPUT_TOKENS, self.range_ratio)?,
                output: around(self.output, RANDOM_OUTPUT_TOKENS, self.range_ratio)?,
                prefix_tokens: self.prefix_tokens.unwrap_or(0),
                form: self.form.unwrap_or_default(),
            },
            DatasetKind::PrefixRepetition => {
                let prefixes = self.prefixes.unwrap_or(10);
                if !(1..=MOST_PREFIXES).contains(&prefixes) {
                    return Err(fault("prefixes", format!("must be from 1 to {MOST_PREFIXES}")));
                }
                let suffix_tokens = self.suffix_tokens.unwrap_or(256);
                if suffix_tokens == 0 {
                    return Err(fault("suffix_tokens", "must be above 0"));
                }
                Dataset::PrefixRepetition {
                    prefix_tokens: self.prefix_tokens.unwrap_or(256),
                    suffix_tokens,
                    prefixes,
                    output: self.output.unwrap_or(Length::Fixed(128)),
                    form: self.form.unwrap_or_default(),
                }
            }
            DatasetKind::Custom => Dataset::Custom {
                source: of_file(self.path, "custom")?,
                columns: self.columns.unwrap_or_default(),
                output: self.output,
            },
            DatasetKind::Trace => {
                let speed = Replay::check_speed(self.speed.unwrap_or(1.0));
                let speed = speed.map_err(|message| fault("speed", message))?;
                let from = self.from.unwrap_or_default();
                if self.to.is_some_and(|to| to <= from) {
                    return Err(fault("to", "must be after `from`"));
                }
                let replay = Replay {
                    reading: self.reading,
                    speed,
                    from,
                    to: self.to,
                    max_input_tokens: self.max_input_tokens,
                    max_output_tokens: self.max_output_tokens,
                };
                let source = of_file(self.path, "trace")?;
                Dataset::Trace { source, replay, form: self.form.unwrap_or_default() }
            }
            DatasetKind::MultiTurn => self.conversations()?,
        })
    }

    /// Conversations: those of the file, or else made-up ones.
    fn conversations(self) -> Result<Dataset, Fault> {
        let (conversations, output) = match self.path {
            Some(path) => {
                let said = [
                    ("turns", self.turns.is_some()),
                    ("input_tokens", self.input.is_some()),
                    ("follow_up_tokens", self.follow_up.is_some()),
                    ("prefix_tokens", self.prefix_tokens.is_some()),
                ];
                if let Some((key, _)) = said.iter().find(|(_, said)| *said) {
                    return Err(fault(
                        key,
                        "means nothing to the conversations of a file (`path`)",
                    ));
                }
                let source = Source::new(path.display().to_string());
                (Conversations::Recorded(source), self.output)
            }
            None => {
                let conversations = Conversations::MadeUp {
                    turns: self.turns.unwrap_or(Length::Fixed(4)),
                    input: self.input.unwrap_or(Length::Fixed(512)),
                    follow_up: self.follow_up.unwrap_or(Length::Fixed(128)),
                    prefix_tokens: self.prefix_tokens.unwrap_or(0),
                };
                (conversations, Some(self.output.unwrap_or(Length::Fixed(128))))
            }
        };
        let (think, max_turns) = (self.think.unwrap_or_default(), self.max_turns);
        Ok(Dataset::MultiTurn { conversations, output, think, max_turns })
    }

    /// Fails on a key that means nothing to a dataset of this kind.
    fn no_stranger(&self, kind: DatasetKind) -> Result<(), Fault> {
        use DatasetKind as Kind;
        let made_up: &[Kind] = &[Kind::Random, Kind::PrefixRepetition, Kind::Trace];
        let of_file: &[Kind] =
            &[Kind::Sharegpt, Kind::Sonnet, Kind::Custom, Kind::Trace, Kind::MultiTurn];
        let lengths: &[Kind] = &[
            Kind::Sharegpt,
            Kind::Sonnet,
            Kind::Random,
            Kind::PrefixRepetition,
            Kind::Custom,
            Kind::MultiTurn,
        ];
        let with_input: &[Kind] = &[Kind::Sonnet, Kind::Random, Kind::MultiTurn];
        let with_prefix: &[Kind] =
            &[Kind::Sonnet, Kind::Random, Kind::PrefixRepetition, Kind::MultiTurn];
        let turns: &[Kind] = &[Kind::MultiTurn];
        let trace: &[Kind] = &[Kind::Trace];
        let said: [(&str, bool, &[Kind]); 20] = [
            ("path", self.path.is_some(), of_file),
            ("output_tokens", self.output.is_some(), lengths),
            ("input_tokens", self.input.is_some(), with_input),
            ("range_ratio", self.range_ratio.is_some(), &[Kind::Random]),
            ("prefix_tokens", self.prefix_tokens.is_some(), with_prefix),
            ("suffix_tokens", self.suffix_tokens.is_some(), &[Kind::PrefixRepetition]),
            ("prefixes", self.prefixes.is_some(), &[Kind::PrefixRepetition]),
            ("send", self.form.is_some(), made_up),
            ("columns", self.columns.is_some(), &[Kind::Custom]),
            ("speed", self.speed.is_some(), trace),
            ("from", self.from.is_some(), trace),
            ("to", self.to.is_some(), trace),
            ("max_input_tokens", self.max_input_tokens.is_some(), trace),
            ("max_output_tokens", self.max_output_tokens.is_some(), trace),
            ("time_unit", self.reading.unit.is_some(), trace),
            ("block_tokens", self.reading.block_tokens.is_some(), trace),
            ("turns", self.turns.is_some(), turns),
            ("max_turns", self.max_turns.is_some(), turns),
            ("follow_up_tokens", self.follow_up.is_some(), turns),
            ("think_time", self.think.is_some(), turns),
        ];
        match said.iter().find(|(_, said, kinds)| *said && !kinds.contains(&kind)) {
            None => Ok(()),
            Some((key, _, kinds)) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                Err(fault(
                    key,
                    format!(
                        "means nothing to the dataset {}; it is for {}",
                        kind.name(),
                        names.join(", ")
                    ),
                ))
            }
        }
    }
}
