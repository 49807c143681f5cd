//! The plan file as the user wrote it. Knows the words, not what follows from them: no defaults that
//! depend on each other, no network, no environment.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::num::{NonZeroI64, NonZeroU32, NonZeroUsize};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::course::{RampShape, WarmUp};
use crate::duration::{HumanDuration, Limit};
use crate::load::{ArrivalProcess, Burstiness};
use crate::share::Share;
use crate::slo::Slo;
use crate::workload::{Columns, DatasetKind, Length, PromptForm, Salt, ThinkTime, TimeUnit};

mod backend;
mod error;
mod report;
mod telemetry;

pub use backend::{Backend, Engine, Launch, Model, StopSignal, StreamOptions};
pub use error::ConfigError;
pub use report::Report;
pub use telemetry::{Gpu, GpuDevices, GpuName, Metrics, Switched, Throttled};

/// A whole plan file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Decides every draw of the plan; 0 unless set.
    pub seed: Option<u64>,
    /// Folder of the results; `results` unless set.
    pub results: Option<PathBuf>,
    /// What is written beside them.
    #[serde(default)]
    pub report: Report,
    /// Two backends that are measured in turn and compared.
    pub ab: Option<Spanned<Ab>>,
    /// Settings of every case.
    #[serde(default)]
    pub defaults: Settings,
    /// The servers.
    #[serde(default)]
    pub backend: Vec<Backend>,
    /// What is sent.
    #[serde(default)]
    pub workload: Vec<Workload>,
    /// Loads that change.
    #[serde(default)]
    pub load: Vec<Load>,
    /// Which backends, models, workloads and loads are multiplied into cases.
    #[serde(default)]
    pub bench: Vec<Bench>,
    /// Settings of the cases that a glob selects; later ones win.
    #[serde(default)]
    pub r#override: Vec<Override>,
}

impl Config {
    /// What every table of settings says: the defaults, the groups and the overrides.
    pub fn settings(&self) -> impl Iterator<Item = Settings> {
        let groups = self.bench.iter().map(Bench::settings);
        let overrides = self.r#override.iter().map(Override::settings);
        std::iter::once(self.defaults.clone()).chain(groups).chain(overrides)
    }
}

/// Two backends that are measured in turn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ab {
    /// What is compared with: the build that is good.
    pub a: Spanned<String>,
    /// What is compared.
    pub b: Spanned<String>,
    /// Whether both run at once, or each is started for its trials.
    pub alternate: Option<Spanned<Alternate>>,
}

/// How two servers that are measured in turn share the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Alternate {
    /// Both run throughout, and one of them idles.
    #[default]
    Both,
    /// Each trial starts its server and stops it: only one runs at a time.
    Restart,
}

/// A source of prompts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Third part of the case names.
    pub name: Spanned<String>,
    /// Where the prompts come from.
    #[serde(default)]
    pub dataset: DatasetKind,
    /// The dataset's file, seen from the working folder of `cargo bench`: the package's root; or a file on
    /// the Hub, such as `hf://datasets/org/name/file.json`.
    pub path: Option<Spanned<PathBuf>>,
    /// Length of the answers, tokens; from the data unless set.
    pub output_tokens: Option<Spanned<Length>>,
    /// Length of the prompts, tokens.
    pub input_tokens: Option<Spanned<Length>>,
    /// Lengths are drawn from (1 − ratio) to (1 + ratio) of what is set.
    pub range_ratio: Option<Spanned<f64>>,
    /// How much prompts have in common, tokens.
    pub prefix_tokens: Option<Spanned<u32>>,
    /// How much of a prompt of `prefix_repetition` is its own, tokens.
    pub suffix_tokens: Option<Spanned<u32>>,
    /// How many beginnings `prefix_repetition` has.
    pub prefixes: Option<Spanned<u32>>,
    /// Whether prompts that are made up are sent as `text` or `tokens`.
    pub send: Option<Spanned<PromptForm>>,
    /// Where in a file of one's own prompts and lengths are.
    pub columns: Option<Spanned<Columns>>,
    /// How many times faster than it was a trace is replayed.
    pub speed: Option<Spanned<f64>>,
    /// Where in a trace to begin.
    pub from: Option<Spanned<HumanDuration>>,
    /// Where in a trace to end.
    pub to: Option<Spanned<HumanDuration>>,
    /// Longer prompts of a trace are cut to it.
    pub max_input_tokens: Option<Spanned<u32>>,
    /// Longer answers of a trace are.
    pub max_output_tokens: Option<Spanned<u32>>,
    /// What the times of a trace count.
    pub time_unit: Option<Spanned<TimeUnit>>,
    /// Tokens that a block of a trace (`hash_ids`) stands for.
    #[serde(default, deserialize_with = "count")]
    pub block_tokens: Option<NonZeroU32>,
    /// How many turns a conversation has.
    pub turns: Option<Spanned<Length>>,
    /// Turns of a conversation past it are left out.
    #[serde(default, deserialize_with = "count")]
    pub max_turns: Option<NonZeroU32>,
    /// Length of what a user says after the first turn, tokens.
    pub follow_up_tokens: Option<Spanned<Length>>,
    /// How long users think between an answer and what they say to it.
    pub think_time: Option<Spanned<ThinkTime>>,
    /// What the system says before every prompt.
    pub system: Option<String>,
    /// Whether prompts begin with something that no other case and run has, so that no prefix cache
    /// carries over; a text is that very beginning.
    pub salt: Option<Salt>,
}

impl Workload {
    /// Where the value of a key is; the name where the key is left out.
    pub fn place_of(&self, key: &str) -> Range<usize> {
        let places = [
            ("path", span(&self.path)),
            ("output_tokens", span(&self.output_tokens)),
            ("input_tokens", span(&self.input_tokens)),
            ("range_ratio", span(&self.range_ratio)),
            ("prefix_tokens", span(&self.prefix_tokens)),
            ("suffix_tokens", span(&self.suffix_tokens)),
            ("prefixes", span(&self.prefixes)),
            ("send", span(&self.send)),
            ("columns", span(&self.columns)),
            ("speed", span(&self.speed)),
            ("from", span(&self.from)),
            ("to", span(&self.to)),
            ("max_input_tokens", span(&self.max_input_tokens)),
            ("max_output_tokens", span(&self.max_output_tokens)),
            ("time_unit", span(&self.time_unit)),
            ("turns", span(&self.turns)),
            ("follow_up_tokens", span(&self.follow_up_tokens)),
            ("think_time", span(&self.think_time)),
        ];
        let place = places.into_iter().find(|(name, _)| *name == key).and_then(|(_, span)| span);
        place.unwrap_or(self.name.span())
    }
}

fn span<T>(written: &Option<Spanned<T>>) -> Option<Range<usize>> {
    written.as_ref().map(Spanned::span)
}

/// A load that changes, by its stages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Fourth part of the case names.
    pub name: Spanned<String>,
    /// In order.
    pub stages: Spanned<Vec<Spanned<Stage>>>,
}

/// A stretch of time with one rate, or on the way to another. One of `rate` and `to` is set.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Requests per second throughout.
    pub rate: Option<f64>,
    /// Requests per second at its end; they change evenly from those at the end of the stage before, or
    /// from none.
    pub to: Option<f64>,
    /// How long it is.
    pub r#for: HumanDuration,
}

/// A matcher of case names: `*` is any text.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct CaseGlob(globset::GlobMatcher);

impl CaseGlob {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.glob().glob()
    }

    /// Whether the glob matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl TryFrom<String> for CaseGlob {
    type Error = globset::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(globset::Glob::new(&text)?.compile_matcher()))
    }
}

/// Per-request objectives; at least one.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goodput {
    /// Longest time to first token.
    pub ttft: Option<HumanDuration>,
    /// Longest time per output token.
    pub tpot: Option<HumanDuration>,
    /// Longest time to the last token.
    pub e2e: Option<HumanDuration>,
}

/// Defines a table of its own keys and all the keys of [`Settings`]. Not `serde(flatten)`: that would
/// take line and key out of the error messages.
macro_rules! with_settings {
    ($(#[$meta:meta])* $name:ident { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$own_meta])* pub $own: $own_type,)*
            /// Requests of the case that count.
            #[serde(default, deserialize_with = "count")]
            pub requests: Option<NonZeroUsize>,
            /// How long requests that count are sent. With `requests`, whichever comes first.
            pub duration: Option<Spanned<HumanDuration>>,
            /// How long the load takes to reach its height.
            pub ramp_up: Option<HumanDuration>,
            /// On which way it reaches it.
            pub ramp_shape: Option<RampShape>,
            /// How long requests are sent before those that count, or how many.
            pub warm_up: Option<WarmUp>,
            /// How long requests may still take when no more are sent.
            pub drain: Option<HumanDuration>,
            /// How the arrivals of an open loop are spaced.
            pub arrivals: Option<ArrivalProcess>,
            /// Shape of the gaps' gamma distribution: 1 is Poisson, less comes in bursts.
            pub burstiness: Option<Spanned<Burstiness>>,
            /// How often the case is repeated, each time with a seed of its own.
            #[serde(default, deserialize_with = "count")]
            pub trials: Option<NonZeroUsize>,
            /// How long trials are added until every objective is decided.
            pub until_decided: Option<Limit>,
            /// Whether an objective that is undecided is none that is met.
            pub strict: Option<bool>,
            /// The metrics that are compared with another server or a baseline.
            pub compare: Option<Spanned<Vec<Spanned<String>>>>,
            /// The smallest relative change that matters.
            pub min_effect: Option<Share>,
            /// Of single metrics, where it is another.
            pub min_effects: Option<BTreeMap<Spanned<String>, Share>>,
            /// The most steps of `max-goodput`, and the rates of `sweep`.
            #[serde(default, deserialize_with = "count")]
            pub search_steps: Option<NonZeroUsize>,
            /// How near each other the rates are to come between which `max-goodput` lies.
            pub search_precision: Option<Share>,
            /// Objectives of the case.
            pub slo: Option<Spanned<Vec<Slo>>>,
            /// Objectives of each request.
            pub goodput: Option<Spanned<Goodput>>,
            /// How long a request may take.
            pub timeout: Option<Limit>,
            /// How long a request may go without a byte.
            pub stall_timeout: Option<Limit>,
            /// Tokenizer for models that name none.
            pub tokenizer: Option<Spanned<PathBuf>>,
            /// Whether the result holds an entry per request.
            pub details: Option<bool>,
            /// Whether and how GPUs are read while the case runs.
            pub gpu: Option<Switched<Gpu>>,
        }

        impl $name {
            /// The keys that every table of settings has.
            pub fn settings(&self) -> Settings {
                Settings {
                    requests: self.requests,
                    duration: self.duration.clone(),
                    ramp_up: self.ramp_up,
                    ramp_shape: self.ramp_shape,
                    warm_up: self.warm_up,
                    drain: self.drain,
                    arrivals: self.arrivals,
                    burstiness: self.burstiness.clone(),
                    trials: self.trials,
                    until_decided: self.until_decided,
                    strict: self.strict,
                    compare: self.compare.clone(),
                    min_effect: self.min_effect,
                    min_effects: self.min_effects.clone(),
                    search_steps: self.search_steps,
                    search_precision: self.search_precision,
                    slo: self.slo.clone(),
                    goodput: self.goodput.clone(),
                    timeout: self.timeout,
                    stall_timeout: self.stall_timeout,
                    tokenizer: self.tokenizer.clone(),
                    details: self.details,
                    gpu: self.gpu.clone(),
                }
            }
        }
    };
}

with_settings! {
    /// `[defaults]`: settings of every case.
    #[derive(Default)]
    Settings {}
}

with_settings! {
    /// `[[bench]]`: a group of cases. Axes left out select everything.
    Bench {
        /// Names of backends.
        backends: Option<Spanned<Vec<Spanned<String>>>>,
        /// IDs or aliases of models.
        models: Option<Spanned<Vec<Spanned<String>>>>,
        /// Names of workloads.
        workloads: Option<Spanned<Vec<Spanned<String>>>>,
        /// Loads: `inf`, `4qps`, `4qps-32conc`, `32conc`, or names of `[[load]]` tables.
        loads: Spanned<Vec<Spanned<String>>>,
    }
}

with_settings! {
    /// `[[override]]`: settings of the cases that a glob selects.
    Override {
        /// Globs on case names.
        cases: Spanned<Vec<CaseGlob>>,
    }
}

impl Settings {
    /// These settings, with those of `over` in their place where it has them.
    pub fn overridden_by(self, over: Self) -> Self {
        // Each of the two says how long a case is: one of them alone takes the place of both.
        let (requests, duration) = match (over.requests, over.duration) {
            (None, None) => (self.requests, self.duration),
            length => length,
        };
        Self {
            requests,
            duration,
            ramp_up: over.ramp_up.or(self.ramp_up),
            ramp_shape: over.ramp_shape.or(self.ramp_shape),
            warm_up: over.warm_up.or(self.warm_up),
            drain: over.drain.or(self.drain),
            arrivals: over.arrivals.or(self.arrivals),
            burstiness: over.burstiness.or(self.burstiness),
            trials: over.trials.or(self.trials),
            until_decided: over.until_decided.or(self.until_decided),
            strict: over.strict.or(self.strict),
            compare: over.compare.or(self.compare),
            min_effect: over.min_effect.or(self.min_effect),
            min_effects: over.min_effects.or(self.min_effects),
            search_steps: over.search_steps.or(self.search_steps),
            search_precision: over.search_precision.or(self.search_precision),
            slo: over.slo.or(self.slo),
            goodput: over.goodput.or(self.goodput),
            timeout: over.timeout.or(self.timeout),
            stall_timeout: over.stall_timeout.or(self.stall_timeout),
            tokenizer: over.tokenizer.or(self.tokenizer),
            details: over.details.or(self.details),
            gpu: over.gpu.or(self.gpu),
        }
    }
}

/// A plan file that was read: the text is kept, so that later errors can name lines.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Where it was read.
    pub path: PathBuf,
    /// What it held.
    pub text: String,
    /// What that means.
    pub config: Config,
}

impl ConfigFile {
    /// Reads and parses a plan file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(path, text)
    }

    /// Parses the text of a plan file; `path` is for the messages.
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        match toml::from_str(&text) {
            Ok(config) => Ok(Self { path: path.to_owned(), text, config }),
            Err(error) => Err(ConfigError::syntax(path, &text, &error)),
        }
    }

    /// The line, counted from 1, that holds the byte at `offset`.
    pub fn line_of(&self, offset: usize) -> usize {
        error::line_of(&self.text, offset)
    }

    /// An error at a part of the file.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        ConfigError::at(&self.path, &self.text, span, message)
    }
}

/// A whole number above 0; serde's own words for it would be those of Rust.
fn count<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: TryFrom<NonZeroI64>,
{
    struct Count<T>(PhantomData<T>);

    impl<T: TryFrom<NonZeroI64>> serde::de::Visitor<'_> for Count<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number above 0")
        }

        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
            let count = NonZeroI64::new(value).and_then(|count| T::try_from(count).ok());
            let unexpected = serde::de::Unexpected::Signed(value);
            count.ok_or_else(|| E::invalid_value(unexpected, &self))
        }
    }

    deserializer.deserialize_i64(Count(PhantomData)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        ConfigFile::parse(Path::new("plan.toml"), text.to_owned()).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_file_line_key_and_what_is_allowed() {
        for (text, parts) in [
            (
                "seed = 1\nsede = 2",
                &["plan.toml:2:1", "unknown field `sede`", "did you mean `seed`?"][..],
            ),
            ("[[backend]]\nname = \"a\"\nkind = \"vlm\"", &["plan.toml:3", "`vlm`", "`vllm`"]),
            (
                "[defaults]\nrequests = \"ten\"",
                &["plan.toml:2:12", "requests = ", "a whole number"],
            ),
            ("[defaults]\nrequests = 0", &["plan.toml:2:12", "requests = 0", "number above 0"]),
            ("[defaults]\nrequests = -1", &["plan.toml:2:12", "`-1`", "number above 0"]),
            ("[defaults]\nrequests = 1.5", &["plan.toml:2:12", "`1.5`", "number above 0"]),
            ("[defaults]\ntimeout = \"10\"", &["plan.toml:2", "`10` is no duration", "10m"]),
            ("[defaults]\nslo = [\"tfft.p99 < 1s\"]", &["plan.toml:2", "`tfft`", "ttft.p99"]),
            (
                "[defaults]\nslo = [\n  \"e2e.p99 < 1s\",\n  \"tfft.p50 < 1s\",\n]",
                &["plan.toml:4:3", "`tfft`", "did you mean `ttft.p50`?"],
            ),
            (
                "[defaults]\nslo = [\"ttft.men < 1s\"]",
                &["plan.toml:2:8", "`men`", "did you mean `mean`?"],
            ),
            (
                "[defaults]\ngoodput = { tfft = \"1s\" }",
                &["plan.toml:2:13", "unknown field `tfft`", "did you mean `ttft`?"],
            ),
            ("[defaults]\ntimeout = \"0s\"", &["plan.toml:2:11", "timeout = ", "above zero"]),
            ("[defaults]\nstall_timeout = \"0ms\"", &["plan.toml:2:17", "`0ms`", "be left out"]),
            ("[defaults]\nuntil_decided = \"0s\"", &["plan.toml:2:17", "above zero"]),
            (
                "[[backend]]\nname = \"a\"\nkind = \"vllm\"\nconnect_timeout = \"0s\"",
                &["plan.toml:4:19", "above zero"],
            ),
            ("[defaults]\nburstiness = -1", &["plan.toml:2:14", "from 0.001 to 1000000, not -1"]),
            ("[defaults]\nburstiness = inf", &["plan.toml:2:14", "not inf"]),
            ("[defaults]\nburstiness = 1e-310", &["plan.toml:2:14", "not 1e-310"]),
            (
                "[[workload]]\nname = \"w\"\noutput_tokens = 0",
                &["plan.toml:3:17", "from 1 to 10000000 tokens, not 0"],
            ),
            (
                "[[workload]]\nname = \"w\"\noutput_tokens = 5000000000",
                &["plan.toml:3:17", "from 1 to 10000000 tokens, not 5000000000"],
            ),
            ("[[override]]\ncases = [\"a[\"]", &["plan.toml:2", "a["]),
            (
                "[[backend]]\nname = \"a\"\nkind = \"vllm\"\nmodels = [{ name = \"x\" }]",
                &["plan.toml:4", "unknown field `name`", "`id`"],
            ),
            ("seed = ", &["plan.toml:1"]),
        ] {
            let error = error(text);
            for part in parts {
                assert!(error.contains(part), "{text}\nmisses {part}:\n{error}");
            }
        }
    }

    #[test]
    fn a_model_is_an_id_or_a_table() {
        let text = r#"[[backend]]
name = "a"
kind = "vllm"
models = ["org/model", { id = "org/other", alias = "o", tokenizer = "t" }]"#;
        let file = ConfigFile::parse(Path::new("plan.toml"), text.to_owned()).unwrap();
        let models = file.config.backend[0].models.as_ref().unwrap();
        assert_eq!(models[0].get_ref().id, "org/model");
        assert_eq!(models[1].get_ref().alias.as_deref(), Some("o"));
    }
}
