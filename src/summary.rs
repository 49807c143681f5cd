//! Records in, statistics out. Pure: judges nothing, prints nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bunches::Bunches;
use crate::duration::as_ms;
use crate::metric::{Gauge, Latency, Quantity, Scalar, Statistic};
use crate::record::{Completed, Failure, FinishReason, Outcome, RequestRecord};
use crate::samples::{Pool, Samples};
use crate::slo::Goodput;
use crate::telemetry::Telemetry;
use crate::tokens::{RequestTokens, Unstreamed};

/// A record with its token counts.
pub type Counted = (RequestRecord, RequestTokens);

/// The most tokens a chunk may hold on average for a chunk to be taken for a token.
const MAX_TOKENS_PER_CHUNK: f64 = 1.05;
/// Fewer answers than this share that are as long as asked for are worth a word.
const MIN_REACHED: f64 = 0.99;
/// From this share on, prompt tokens from a cache are worth a word.
const MIN_CACHED: f64 = 0.01;
/// From this share of unclear answers on, there is no TPOT.
const MAX_UNCLEAR: f64 = 0.01;
/// Why the TPOT of an answer is not known.
const HIDDEN: &str = "the server counts far more tokens in some answers than were streamed, and does not say how many were \
                      hidden (`reasoning_tokens`), so nobody knows whether they meet the limit on `tpot`";
/// From this gap on, two counts of the same tokens disagree.
const MAX_COUNT_GAP: f64 = 0.01;

/// The statistics of one case.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Requests that completed.
    pub completed: u64,
    /// Requests that did not, by reason.
    pub failures: BTreeMap<Failure, Failures>,
    /// Requests that were sent once more on a fresh connection.
    pub resent: u64,
    /// From the first `sent` to the last `ended`; zero where nothing was sent.
    pub span: Duration,
    /// Token counts of completed requests.
    pub tokens: Tokens,
    /// Samples of each latency of completed requests, or why there are none.
    pub latencies: BTreeMap<Latency, Result<Samples, String>>,
    /// Each scalar that is known.
    pub scalars: BTreeMap<Scalar, f64>,
    /// What was read again and again while the case ran, or why it was not.
    pub gauges: BTreeMap<Gauge, Result<Samples, String>>,
    /// Why scalars that are read are not known.
    pub unread: BTreeMap<Scalar, String>,
    /// What a reader of the numbers should know.
    pub warnings: Vec<String>,
}

/// Requests that failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What one of them said.
    pub example: String,
}

/// Sums and extremes over completed requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tokens {
    /// Prompt tokens; `None` unless those of every request are known.
    pub input: Option<u64>,
    /// Generated tokens; `None` unless those of every request are known.
    pub output: Option<u64>,
    /// The longest prompt.
    pub max_input: Option<u32>,
    /// The longest answer.
    pub max_output: Option<u32>,
    /// The longest prompt and answer together.
    pub max_total: Option<u32>,
    /// Share of the answers that are as long as asked for.
    pub reached_ratio: Option<f64>,
    /// Prompt tokens that the server answered from a prefix cache; `None` where no answer says so.
    pub cached: Option<u64>,
    /// Of the prompts, what all of them begin with since it is their salt.
    pub salt: u64,
    /// Prompt tokens that were asked for; `None` unless those of every request are known.
    pub input_asked: Option<u64>,
    /// Prompt tokens by the server's word; `None` unless every request has one.
    pub input_by_server: Option<u64>,
    /// Prompt tokens as they were counted here; `None` unless every request has such a count.
    pub input_by_client: Option<u64>,
    /// Generated tokens by the server's word; `None` unless every request has one.
    pub output_by_server: Option<u64>,
    /// Generated tokens by the tokenizer; `None` unless every request has such a count.
    pub output_by_client: Option<u64>,
    /// Generated tokens per event with output.
    pub per_chunk: Option<f64>,
}

impl Summary {
    /// Summarizes the requests of a case.
    pub fn new(requests: &[Counted], goodput: Option<Goodput>) -> Self {
        let completed: Vec<(Completed<'_>, RequestTokens)> = requests
            .iter()
            .filter_map(|(record, tokens)| Some((record.completed()?, *tokens)))
            .collect();
        let tokens = Tokens::of(&completed);
        let span = span(requests);
        let bunches = Bunches::of(completed.iter().map(|(view, _)| view.record()));
        let latencies = latencies(requests, &completed, tokens, bunches);
        // A limit on what nobody knows is not met.
        let unclear = goodput.and_then(|goodput| {
            let limited =
                [(Latency::Ttft, goodput.ttft.is_some()), (Latency::Tpot, goodput.tpot.is_some())];
            limited.into_iter().filter(|(_, limited)| *limited).find_map(|(latency, _)| {
                let is_unknown = match latency {
                    Latency::Tpot => completed.iter().any(|(_, tokens)| is_unclear(*tokens)),
                    _ => false,
                } || is_blocked(&completed)
                    || latency == Latency::Tpot && most_choices(&completed).is_some();
                is_unknown.then(|| latencies[&latency].as_ref().err().cloned())
            })
        });
        let good = goodput.filter(|_| unclear.is_none()).map(|goodput| {
            completed
                .iter()
                .filter(|(completed, tokens)| is_good(*completed, *tokens, goodput))
                .count()
        });
        let mut unread = BTreeMap::new();
        if let Some(reason) = unclear {
            let reason = reason.unwrap_or_else(|| HIDDEN.to_owned());
            unread.insert(Scalar::Goodput, reason.clone());
            unread.insert(Scalar::GoodputRatio, reason);
        }
        let mut warnings = Vec::new();
        warnings.extend(unknown_ends(&completed));
        warnings.extend(repeated_texts(&completed));
        warnings.extend(open_ends(&completed));
        warnings.extend(longer_than_asked(&completed));
        warnings.extend(refused_counts(&completed));
        warnings.extend(tokens.prompt_disagreement());
        warnings.extend(tokens.disagreement());
        warnings.extend(bunches.map(|bunches| bunches.to_string()));
        warnings.extend(tokens.cache_hits());
        let resent = requests.iter().filter(|(record, _)| record.resent).count() as u64;
        warnings.extend(sent_again(resent));
        Self {
            completed: completed.len() as u64,
            failures: failures(requests),
            resent,
            span,
            tokens,
            latencies,
            scalars: scalars(requests.len(), completed.len(), tokens, good, span),
            gauges: BTreeMap::new(),
            unread,
            warnings,
        }
    }

    /// The same with what was read while the requests ran.
    #[must_use]
    pub fn with(mut self, telemetry: &Telemetry) -> Self {
        for scalar in Scalar::ALL.into_iter().filter(|scalar| scalar.is_read()) {
            match telemetry.scalar(scalar, self.tokens.output) {
                Ok(value) => drop(self.scalars.insert(scalar, value)),
                Err(reason) => drop(self.unread.insert(scalar, reason)),
            }
        }
        self.gauges = Gauge::ALL.map(|gauge| (gauge, telemetry.gauge(gauge))).into();
        // Where no answer tells, the server's own counts may.
        if self.tokens.cached.is_none() {
            let share = telemetry.prefix_hit_ratio();
            let repeated = share.and_then(|share| self.tokens.repetition(share));
            self.warnings.extend(repeated.map(cache_warning));
        }
        self
    }

    /// Requests that did not complete.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// The quantity as objectives see it: in a latency that the server answers for, each failed
    /// request counts as infinitely slow. `None` where it cannot be known; then [`Self::missing`]
    /// says why.
    pub fn quantity(&self, quantity: Quantity) -> Option<f64> {
        match quantity {
            Quantity::Scalar(scalar) => self.scalars.get(&scalar).copied(),
            Quantity::Gauge(gauge, statistic) => {
                self.gauges.get(&gauge)?.as_ref().ok()?.statistic(statistic)
            }
            Quantity::Latency(latency, statistic) => {
                let empty = Samples::exact(Vec::new());
                let samples = match self.latencies.get(&latency)? {
                    Ok(samples) => samples,
                    // With no request completed there is nothing to say but that all failed.
                    Err(_) if self.completed == 0 => &empty,
                    Err(_) => return None,
                };
                samples.statistic_with_infinite(statistic, self.infinite(latency, samples))
            }
        }
    }

    /// How many samples an objective on the latency has, the failed requests included.
    pub fn samples(&self, latency: Latency) -> u64 {
        match self.latencies.get(&latency) {
            Some(Ok(samples)) => samples.count() + self.infinite(latency, samples),
            _ => 0,
        }
    }

    /// Why the quantity is not known.
    pub fn missing(&self, quantity: Quantity) -> String {
        match quantity {
            Quantity::Latency(latency, _) => match self.latencies.get(&latency) {
                Some(Err(reason)) => reason.clone(),
                _ => "no request has it".to_owned(),
            },
            Quantity::Scalar(scalar @ (Scalar::Goodput | Scalar::GoodputRatio)) => {
                let unknown = self.unread.get(&scalar).cloned();
                unknown.unwrap_or_else(|| "the plan sets no goodput objectives".to_owned())
            }
            Quantity::Scalar(Scalar::MaxGoodput) => {
                "only the loads max-goodput and sweep look for it".to_owned()
            }
            Quantity::Scalar(
                Scalar::InputThroughput
                | Scalar::OutputThroughput
                | Scalar::TotalTokenThroughput
                | Scalar::OutputReachedRatio,
            ) if 0 < self.completed => {
                "the server counts no tokens, and there is no tokenizer to count them".to_owned()
            }
            Quantity::Gauge(gauge, _) => match self.gauges.get(&gauge) {
                Some(Err(reason)) => reason.clone(),
                _ => "nothing was read".to_owned(),
            },
            Quantity::Scalar(scalar) => match self.unread.get(&scalar) {
                Some(reason) => reason.clone(),
                None => "nothing was measured".to_owned(),
            },
        }
    }

    /// How many infinitely long samples the failed requests are: one each; in a pool of gaps, as
    /// many as a completed request has on average.
    fn infinite(&self, latency: Latency, samples: &Samples) -> u64 {
        infinite(latency, samples, self.completed, self.failed())
    }

    /// The statistic of several parts of a case together, as objectives see it; `None` where it is not known
    /// of a part that has completed requests.
    pub(crate) fn statistic_of(
        parts: &[&Self],
        latency: Latency,
        statistic: Statistic,
    ) -> Option<f64> {
        let known = parts.iter().filter(|part| 0 < part.completed);
        let samples = known.map(|part| part.latencies.get(&latency)?.as_ref().ok());
        let samples = Samples::merged(&samples.collect::<Option<Vec<_>>>()?)?;
        let completed = parts.iter().map(|part| part.completed).sum();
        let failed = parts.iter().map(|part| part.failed()).sum();
        let infinite = infinite(latency, &samples, completed, failed);
        samples.statistic_with_infinite(statistic, infinite)
    }
}

/// How many infinitely long samples the failed requests are.
fn infinite(latency: Latency, samples: &Samples, completed: u64, failed: u64) -> u64 {
    if !latency.is_of_the_server() {
        return 0;
    }
    match samples {
        Samples::Exact(_) => failed,
        Samples::Pool(_) => (failed * samples.count()).div_ceil(completed.max(1)),
    }
}

fn failures(requests: &[Counted]) -> BTreeMap<Failure, Failures> {
    let mut failures = BTreeMap::new();
    for (record, _) in requests {
        if let Outcome::Failed { failure, message } = &record.outcome {
            let entry = failures
                .entry(*failure)
                .or_insert_with(|| Failures { count: 0, example: message.clone() });
            entry.count += 1;
        }
    }
    failures
}

fn span(requests: &[Counted]) -> Duration {
    let first = requests.iter().map(|(record, _)| record.sent).min().unwrap_or_default();
    let last = requests.iter().map(|(record, _)| record.ended).max().unwrap_or_default();
    last.saturating_sub(first)
}

impl Tokens {
    fn of(completed: &[(Completed<'_>, RequestTokens)]) -> Self {
        if completed.is_empty() {
            // What no request brought is no token.
            return Self { input: Some(0), output: Some(0), ..Self::default() };
        }
        let counts = || completed.iter().map(|(_, counts)| counts);
        let sum = |count: fn(&RequestTokens) -> Option<u32>| {
            counts().try_fold(0, |sum, counts| Some(sum + u64::from(count(counts)?)))
        };
        let most = |count: fn(&RequestTokens) -> Option<u32>| counts().filter_map(count).max();
        let output = sum(|counts| counts.output.best());
        let chunks: usize =
            completed.iter().map(|(view, _)| view.record().stream.chunks.len()).sum();
        let reached = |counts: &&RequestTokens| {
            counts.output.best().is_some_and(|output| counts.asked <= output)
        };
        let cached = || counts().filter_map(|counts| counts.cached);
        Self {
            input: sum(|counts| counts.input.best()),
            output,
            max_input: most(|counts| counts.input.best()),
            max_output: most(|counts| counts.output.best()),
            max_total: most(|counts| {
                Some(counts.input.best()?.saturating_add(counts.output.best()?))
            }),
            reached_ratio: output
                .map(|_| counts().filter(reached).count() as f64 / completed.len() as f64),
            cached: (0 < cached().count()).then(|| cached().map(u64::from).sum()),
            salt: counts().map(|counts| u64::from(counts.salt)).sum(),
            input_asked: sum(|counts| counts.input_asked),
            input_by_server: sum(|counts| counts.input.server),
            input_by_client: sum(|counts| counts.input.client),
            output_by_server: sum(|counts| counts.output.server),
            output_by_client: sum(|counts| counts.output.client),
            per_chunk: output.filter(|_| 0 < chunks).map(|output| output as f64 / chunks as f64),
        }
    }

    /// What to say where answers that were to reach a length did not.
    pub fn shortfall(&self) -> Option<String> {
        let reached = self.reached_ratio?;
        (reached < MIN_REACHED).then(|| {
            format!(
                "{:.1} % of the answers ended before the length that was asked for: throughput is that \
                 of shorter answers",
                (1.0 - reached) * 100.0
            )
        })
    }

    /// What to say where the server did not work on every prompt token.
    fn cache_hits(&self) -> Option<String> {
        let input = (self.input? as f64).max(1.0);
        self.repetition(self.cached? as f64 / input).map(cache_warning)
    }

    /// How much of the prompts repeated others, of the share that the server had in its cache; `None` where that is
    /// nothing to speak of. The salt of a case is common to its prompts.
    fn repetition(&self, cached_share: f64) -> Option<f64> {
        let salt = self.salt as f64 / (self.input? as f64).max(1.0);
        Some(cached_share - salt).filter(|share| MIN_CACHED <= *share)
    }

    /// How far apart the counts of the prompts are, where both are known.
    fn prompt_gap(&self) -> Option<f64> {
        gap(self.input_by_server?, self.input_by_client?)
    }

    /// What to say where the prompts are not as long as was asked for, or the server counts them differently.
    fn prompt_disagreement(&self) -> Option<String> {
        let sent = self.input_by_client.or(self.input_asked);
        let apart = |gap: f64| format!("{:.1} % apart", gap * 100.0);
        if let (Some(server), Some(sent)) = (self.input_by_server, sent)
            && let Some(gap) = gap(server, sent)
        {
            return Some(format!(
                "the server counts {server} prompt tokens, and {sent} were meant to be sent ({}): the figures use \
                 the server's",
                apart(gap)
            ));
        }
        let (sent, asked) = (self.input_by_client?, self.input_asked?);
        // Prompts that are too short to spare as much are longer by the salt.
        let longer = sent.saturating_sub(asked).min(self.salt);
        let gap = gap(sent - longer, asked)?;
        Some(format!("{sent} prompt tokens were sent and {asked} were asked for ({})", apart(gap)))
    }

    /// What to say where the server and the tokenizer count differently.
    fn disagreement(&self) -> Option<String> {
        let (server, client) = (self.output_by_server?, self.output_by_client?);
        let gap = gap(server, client)?;
        // Where they agree on the prompts, it is the model's.
        let hint = match self.prompt_gap() {
            Some(_) => "; is it the model's tokenizer?",
            None => "",
        };
        Some(format!(
            "the server counts {server} output tokens and the tokenizer {client} ({:.1} % apart): the figures use \
             the server's{hint}",
            gap * 100.0
        ))
    }
}

fn cache_warning(share: f64) -> String {
    format!(
        "the server answered {:.1} % of the prompt tokens from a prefix cache: TTFT and throughput are those of \
         prompts that repeat each other",
        share * 100.0
    )
}

/// How far apart two counts are, as a share of the server's; `None` where they agree.
fn gap(server: u64, client: u64) -> Option<f64> {
    let gap = client.abs_diff(server) as f64 / server.max(1) as f64;
    (MAX_COUNT_GAP < gap).then_some(gap)
}

pub(crate) fn is_good(completed: Completed<'_>, tokens: RequestTokens, goodput: Goodput) -> bool {
    let tpot = tokens.streamed().and_then(|streamed| completed.tpot(streamed));
    let within = |value: Option<Duration>, limit: Option<Duration>| match (value, limit) {
        (Some(value), Some(limit)) => value <= limit,
        (None, _) | (_, None) => true,
    };
    within(Some(completed.ttft()), goodput.ttft)
        && within(tpot, goodput.tpot)
        && within(Some(completed.e2e()), goodput.e2e)
}

fn scalars(
    requests: usize,
    completed: usize,
    tokens: Tokens,
    good: Option<usize>,
    span: Duration,
) -> BTreeMap<Scalar, f64> {
    let mut scalars = BTreeMap::new();
    if 0 < requests {
        let ratio = |part: usize| part as f64 / requests as f64;
        scalars.insert(Scalar::ErrorRatio, ratio(requests - completed));
        if let Some(good) = good {
            scalars.insert(Scalar::GoodputRatio, ratio(good));
        }
    }
    if let Some(reached) = tokens.reached_ratio {
        scalars.insert(Scalar::OutputReachedRatio, reached);
    }
    if !span.is_zero() {
        let mut rate = |scalar, count: f64| scalars.insert(scalar, count / span.as_secs_f64());
        rate(Scalar::RequestThroughput, completed as f64);
        let total = tokens.input.zip(tokens.output).map(|(input, output)| input + output);
        for (scalar, tokens) in [
            (Scalar::InputThroughput, tokens.input),
            (Scalar::OutputThroughput, tokens.output),
            (Scalar::TotalTokenThroughput, total),
        ] {
            if let Some(tokens) = tokens {
                rate(scalar, tokens as f64);
            }
        }
        if let Some(good) = good {
            rate(Scalar::Goodput, good as f64);
        }
    }
    scalars
}

fn latencies(
    requests: &[Counted],
    completed: &[(Completed<'_>, RequestTokens)],
    tokens: Tokens,
    bunches: Option<Bunches>,
) -> BTreeMap<Latency, Result<Samples, String>> {
    Latency::ALL
        .into_iter()
        .map(|latency| (latency, latency_samples(latency, requests, completed, tokens, bunches)))
        .collect()
}

fn latency_samples(
    latency: Latency,
    requests: &[Counted],
    completed: &[(Completed<'_>, RequestTokens)],
    tokens: Tokens,
    bunches: Option<Bunches>,
) -> Result<Samples, String> {
    let needs_stream = matches!(
        latency,
        Latency::Ttft
            | Latency::Ttfa
            | Latency::ScheduledTtft
            | Latency::Tpot
            | Latency::Itl
            | Latency::ChunkGap
    );
    if needs_stream && is_blocked(completed) {
        return Err("the server answered in one block, not in a stream".to_owned());
    }
    let of_tokens = matches!(latency, Latency::Tpot | Latency::Itl | Latency::ChunkGap);
    if of_tokens && let Some(choices) = most_choices(completed) {
        return Err(format!(
            "each answer has {choices} choices (`n`), whose tokens come in between each other"
        ));
    }
    let of_completed = |read: &dyn Fn(Completed<'_>) -> Option<Duration>, none: &str| {
        let samples: Vec<f64> =
            completed.iter().filter_map(|(view, _)| read(*view)).map(as_ms).collect();
        exact(samples, if completed.is_empty() { "no request completed" } else { none })
    };
    let of_all = |read: &dyn Fn(&RequestRecord) -> Option<Duration>, none: &str| {
        exact(requests.iter().filter_map(|(record, _)| read(record)).map(as_ms).collect(), none)
    };
    match latency {
        Latency::Ttft => of_completed(&|view| Some(view.ttft()), ""),
        Latency::Ttfa => of_completed(&|view| view.ttfa(), "no request had answer text"),
        Latency::E2e => of_completed(&|view| Some(view.e2e()), ""),
        Latency::ScheduledTtft => of_completed(&|view| Some(view.scheduled_ttft()), ""),
        Latency::ScheduledE2e => of_completed(&|view| Some(view.scheduled_e2e()), ""),
        Latency::Lateness => of_all(&|record| Some(record.lateness()), "nothing was sent"),
        Latency::Connect => {
            of_all(&|record| record.connect, "every request used an open connection")
        }
        Latency::Tpot => {
            let unknown = completed.iter().filter(|(_, tokens)| is_unclear(*tokens)).count();
            if MAX_UNCLEAR * (completed.len() as f64) < unknown as f64 {
                return Err(format!(
                    "the server counts far more tokens in {unknown} answers than were streamed, and does not say how \
                     many were hidden (`reasoning_tokens`)"
                ));
            }
            let tpot = |(view, tokens): &(Completed<'_>, RequestTokens)| {
                view.tpot(tokens.streamed()?).map(as_ms)
            };
            exact(
                completed.iter().filter_map(tpot).collect(),
                "no answer had a token after its first chunk",
            )
        }
        Latency::ChunkGap => pool(completed, |view, pool| {
            view.record().chunk_gaps().for_each(|gap| pool.record(gap, 1));
        }),
        Latency::Itl => itl(completed, tokens, bunches),
    }
}

/// What to say where requests were sent once more.
fn sent_again(count: u64) -> Option<String> {
    (0 < count).then(|| {
        format!(
            "{count} requests were sent again on a fresh connection, with their clocks running: the server had closed \
             the one that they were sent on and answered nothing"
        )
    })
}

/// Whether nobody knows how many tokens of an answer were streamed.
fn is_unclear(tokens: RequestTokens) -> bool {
    tokens.unstreamed == Unstreamed::Unknown
}

/// What to say where the server's counts cannot be true.
fn refused_counts(completed: &[(Completed<'_>, RequestTokens)]) -> Option<String> {
    let count = completed.iter().filter(|(_, tokens)| tokens.refused_counts).count();
    (0 < count).then(|| {
        format!(
            "in {count} answers the server's `usage` holds numbers that cannot be true (negative, no whole number, zero \
             beside text, over 100 times what was asked for, a part larger than its whole): they are left out"
        )
    })
}

/// Whether an answer came in one block.
fn is_blocked(completed: &[(Completed<'_>, RequestTokens)]) -> bool {
    completed.iter().any(|(view, _)| view.record().stream.one_block)
}

/// How many choices an answer has at most; `None` where each has one.
fn most_choices(completed: &[(Completed<'_>, RequestTokens)]) -> Option<u32> {
    let choices = completed.iter().map(|(view, _)| view.record().stream.choices);
    choices.max().filter(|choices| 1 < *choices)
}

/// What to say where the server ended answers for reasons that are not known.
fn unknown_ends(completed: &[(Completed<'_>, RequestTokens)]) -> Option<String> {
    let words =
        completed.iter().filter_map(|(view, _)| match &view.record().stream.finish_reason {
            Some(FinishReason::Unknown(word)) => Some(word.as_str()),
            _ => None,
        });
    let count = words.clone().count();
    let words: BTreeSet<&str> = words.take(1000).collect();
    let words: Vec<String> = words.into_iter().take(3).map(|word| format!("`{word}`")).collect();
    (0 < count).then(|| {
        format!(
            "{count} answers ended with the unknown finish_reason {}: they count as completed",
            words.join(", ")
        )
    })
}

/// What to say where responses did not end after their answers.
fn open_ends(completed: &[(Completed<'_>, RequestTokens)]) -> Option<String> {
    let count = completed.iter().filter(|(view, _)| view.record().stream.open_end).count();
    (0 < count).then(|| {
        format!(
            "after {count} answers neither `[DONE]` nor the end of the response came, and each was waited for: users who \
             send their next request after an answer sent fewer than they could have"
        )
    })
}

/// What to say where texts came more than once.
fn repeated_texts(completed: &[(Completed<'_>, RequestTokens)]) -> Option<String> {
    let repeated = |view: &Completed<'_>| view.record().stream.accumulated;
    let count = completed.iter().filter(|(view, _)| repeated(view)).count();
    (0 < count).then(|| {
        format!(
            "in {count} answers events repeat the text that came before: it is counted once; where the server has \
             a switch for it, let it send each text once"
        )
    })
}

/// What to say where answers are longer than asked for. The tokenizer may split a text in more tokens than it was made
/// of, so its counts have some room.
fn longer_than_asked(completed: &[(Completed<'_>, RequestTokens)]) -> Option<String> {
    let too_long = completed.iter().filter_map(|(_, tokens)| {
        let output = tokens.output.best()?;
        let room = if tokens.output.server.is_some() { 0 } else { 2 + tokens.asked / 10 };
        (0 < tokens.asked && tokens.asked.saturating_add(room) < output)
            .then_some((output, tokens.asked))
    });
    let count = too_long.clone().count();
    let (output, asked) = too_long.max_by_key(|(output, asked)| output - asked)?;
    Some(format!(
        "{count} of {} answers are longer than asked for, up to {output} instead of {asked} tokens: the server does \
         not keep to the length",
        completed.len()
    ))
}

/// Gaps between tokens. Where the server counts the tokens of each chunk, a gap is shared by the tokens
/// of the chunk that ended it.
fn itl(
    completed: &[(Completed<'_>, RequestTokens)],
    tokens: Tokens,
    bunches: Option<Bunches>,
) -> Result<Samples, String> {
    if let Some(bunches) = bunches {
        return Err(bunches.to_string());
    }
    let chunks = || completed.iter().flat_map(|(view, _)| &view.record().stream.chunks);
    if chunks().all(|chunk| chunk.tokens.is_some()) {
        return pool(completed, |view, pool| {
            let chunks = &view.record().stream.chunks;
            for (gap, chunk) in chunks.gaps().zip(chunks.iter().skip(1)) {
                if let Some(tokens) = chunk.tokens.filter(|tokens| 0 < *tokens) {
                    pool.record(gap / tokens, u64::from(tokens));
                }
            }
        });
    }
    match tokens.per_chunk {
        Some(per_chunk) if MAX_TOKENS_PER_CHUNK < per_chunk => Err(format!(
            "a chunk holds {per_chunk:.2} tokens on average and the server does not count the \
             tokens of each chunk"
        )),
        _ => pool(completed, |view, pool| {
            view.record().chunk_gaps().for_each(|gap| pool.record(gap, 1));
        }),
    }
}

fn pool(
    completed: &[(Completed<'_>, RequestTokens)],
    add: impl Fn(Completed<'_>, &mut Pool),
) -> Result<Samples, String> {
    let mut pool = Pool::new();
    completed.iter().for_each(|(view, _)| add(*view, &mut pool));
    let samples = Samples::Pool(pool);
    if samples.count() == 0 {
        return Err("no answer had two chunks".to_owned());
    }
    Ok(samples)
}

fn exact(samples: Vec<f64>, none: &str) -> Result<Samples, String> {
    if samples.is_empty() {
        return Err(none.to_owned());
    }
    Ok(Samples::exact(samples))
}

/// Why a sample of `have` says too little about the statistic; `None` where it says enough.
pub fn too_few(statistic: Statistic, have: u64) -> Option<String> {
    let need = statistic.min_samples();
    (have < need).then(|| format!("{statistic} needs {need} samples and there are {have}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::tests::{completed, failed, ms};
    use crate::tokens::TokenCount;

    /// A record whose server and tokenizer count `output` tokens, and 10 of the prompt.
    pub(crate) fn counted(record: RequestRecord, output: u32) -> Counted {
        let count = |tokens| TokenCount { server: Some(tokens), client: Some(tokens) };
        let tokens = RequestTokens {
            input: count(10),
            output: count(output),
            asked: output,
            ..RequestTokens::default()
        };
        (record, tokens)
    }

    fn quantity(summary: &Summary, text: &str) -> Option<f64> {
        summary.quantity(text.parse().unwrap())
    }

    #[test]
    fn throughput_is_of_completed_requests_over_the_whole_span() {
        // Sent at 10 ms; the last one ends at 1,010 ms: one second.
        let mut late = failed(Failure::Timeout);
        late.ended = ms(1010);
        let requests = [
            counted(completed(&[60, 70, 80]), 3),
            counted(completed(&[60, 90]), 2),
            counted(late, 9),
        ];
        let summary = Summary::new(&requests, None);
        assert_eq!((summary.completed, summary.failed()), (2, 1));
        for (scalar, value) in [
            ("request_throughput", 2.0),
            ("input_throughput", 20.0),
            ("output_throughput", 5.0),
            ("total_token_throughput", 25.0),
            ("error_ratio", 1.0 / 3.0),
        ] {
            assert_eq!(quantity(&summary, scalar), Some(value), "{scalar}");
        }
        assert_eq!(quantity(&summary, "goodput"), None);
    }

    #[test]
    fn a_failed_request_is_infinitely_slow_to_an_objective() {
        let mut requests = vec![counted(completed(&[60, 70]), 2); 9];
        assert_eq!(quantity(&Summary::new(&requests, None), "ttft.max"), Some(50.0));
        requests.push(counted(failed(Failure::Http(503)), 0));
        let summary = Summary::new(&requests, None);
        assert_eq!(quantity(&summary, "ttft.p50"), Some(50.0));
        for text in ["ttft.max", "ttft.p95", "tpot.mean", "chunk_gap.p95", "scheduled_e2e.p95"] {
            assert_eq!(quantity(&summary, text), Some(f64::INFINITY), "{text}");
        }
        assert_eq!(quantity(&summary, "lateness.max"), Some(10.0), "that is our own delay");
        let shown = summary.latencies[&Latency::Ttft].as_ref().unwrap();
        assert_eq!(shown.count(), 9, "what is shown is of completed requests");
    }

    #[test]
    fn with_nothing_completed_every_latency_is_infinite_and_no_figure_is_zero() {
        let summary = Summary::new(&[counted(failed(Failure::Connect), 0)], None);
        for text in ["ttft.p50", "tpot.mean", "chunk_gap.p99", "e2e.p99"] {
            assert_eq!(quantity(&summary, text), Some(f64::INFINITY), "{text}");
        }
        assert!(summary.latencies[&Latency::Ttft].is_err());
        let nothing = Summary::new(&[], None);
        assert_eq!(quantity(&nothing, "error_ratio"), None);
        assert_eq!(quantity(&nothing, "ttft.p50"), None);
    }

    #[test]
    fn failures_are_counted_by_reason_with_an_example() {
        let requests = [Failure::Http(500), Failure::Truncated, Failure::Http(500)]
            .map(|failure| counted(failed(failure), 0));
        let summary = Summary::new(&requests, None);
        let reasons: Vec<(String, u64)> = summary
            .failures
            .iter()
            .map(|(failure, failures)| (failure.to_string(), failures.count))
            .collect();
        assert_eq!(reasons, [("http_500".to_owned(), 2), ("truncated".to_owned(), 1)]);
        assert_eq!(summary.failures[&Failure::Http(500)].example, "it said http_500");
    }

    #[test]
    fn goodput_counts_requests_that_meet_every_objective() {
        let goodput = Goodput { ttft: Some(ms(50)), tpot: Some(ms(10)), e2e: None };
        let requests = [
            counted(completed(&[60, 70]), 2),
            counted(completed(&[61, 70]), 2),
            counted(completed(&[60, 71]), 2),
            counted(completed(&[60]), 1),
            counted(failed(Failure::Truncated), 0),
        ];
        let summary = Summary::new(&requests, Some(goodput));
        assert_eq!(quantity(&summary, "goodput_ratio"), Some(0.4), "a single token has no tpot");
    }

    #[test]
    fn itl_is_known_only_where_a_chunk_is_a_token_or_is_counted() {
        let itl = |requests: &[Counted]| {
            let summary = Summary::new(requests, None);
            summary.latencies[&Latency::Itl].clone().map(|samples| {
                (samples.count(), samples.statistic(Statistic::Mean).unwrap().round())
            })
        };
        assert_eq!(itl(&[counted(completed(&[60, 70, 80]), 3)]), Ok((2, 10.0)));

        let eight_a_chunk = completed(&[60, 140, 220]);
        let error = itl(&[counted(eight_a_chunk.clone(), 24)]).unwrap_err();
        assert!(error.contains("8.00 tokens on average"), "{error}");

        let mut with_counts = eight_a_chunk;
        with_counts.stream.chunks.edit(|_, chunk| chunk.tokens = Some(8));
        assert_eq!(itl(&[counted(with_counts, 24)]), Ok((16, 10.0)));
    }

    #[test]
    fn what_is_odd_about_how_answers_end_is_told() {
        let warned = |odd: fn(&mut crate::record::Stream), tokens: u32, word: &str| {
            let mut record = completed(&[60, 70, 80]);
            odd(&mut record.stream);
            let (record, mut counts) = counted(record, tokens);
            counts.asked = 3;
            let summary = Summary::new(&[(record, counts)], None);
            assert_eq!(
                summary.warnings.iter().any(|warning| warning.contains(word)),
                word != "nothing",
                "{word}: {:?}",
                summary.warnings
            );
            summary.warnings.len()
        };
        let unknown = |stream: &mut crate::record::Stream| {
            stream.finish_reason = Some(FinishReason::Unknown("bored".to_owned()));
        };
        assert_eq!(warned(|_| {}, 3, "nothing"), 0);
        assert_eq!(warned(unknown, 3, "`bored`"), 1);
        assert_eq!(warned(|stream| stream.accumulated = true, 3, "repeat"), 1);
        assert_eq!(warned(|stream| stream.open_end = true, 3, "[DONE]"), 1);
        assert_eq!(warned(|_| {}, 4, "up to 4 instead of 3"), 1);
    }

    #[test]
    fn several_choices_have_a_first_and_a_last_token_and_no_gaps() {
        let mut record = completed(&[60, 70, 80]);
        record.stream.choices = 2;
        let summary = Summary::new(&[counted(record, 3)], None);
        for latency in [Latency::Tpot, Latency::Itl, Latency::ChunkGap] {
            let reason = summary.latencies[&latency].as_ref().unwrap_err();
            assert!(reason.contains("2 choices"), "{latency:?}: {reason}");
        }
        for latency in [Latency::Ttft, Latency::E2e] {
            assert!(summary.latencies[&latency].is_ok(), "{latency:?}");
        }
    }

    #[test]
    fn events_that_come_in_bunches_have_no_gaps_between_tokens() {
        let bunches: Vec<u64> = (0..40).map(|event| 60 + event / 5 * 50).collect();
        let summary = Summary::new(&[counted(completed(&bunches), 40)], None);
        let reason = summary.latencies[&Latency::Itl].clone().unwrap_err();
        assert!(reason.contains("about 5.0 at a time"), "{reason}");
        assert!(summary.latencies[&Latency::ChunkGap].is_ok());
        assert_eq!(summary.warnings, [reason]);
    }

    #[test]
    fn a_goodput_that_needs_an_unknown_tpot_is_unknown() {
        let (record, mut tokens) = counted(completed(&[60, 70]), 2);
        tokens.unstreamed = Unstreamed::Unknown;
        let goodput = |tpot| Goodput { ttft: Some(ms(50)), tpot, e2e: None };
        let summary = Summary::new(&[(record.clone(), tokens)], Some(goodput(Some(ms(10)))));
        assert_eq!(quantity(&summary, "goodput_ratio"), None);
        let reason = summary.missing("goodput_ratio".parse().unwrap());
        assert!(reason.contains("reasoning_tokens"), "{reason}");
        let summary = Summary::new(&[(record, tokens)], Some(goodput(None)));
        assert_eq!(quantity(&summary, "goodput_ratio"), Some(1.0));
    }

    #[test]
    fn prompts_that_are_not_as_long_as_asked_are_a_warning_and_the_salt_is_no_repetition() {
        let warnings = |asked: u32, sent: u32, cached: u32, salt: u32| {
            let (record, mut tokens) = counted(completed(&[60, 70]), 2);
            tokens.input = TokenCount { server: Some(100), client: Some(sent) };
            tokens.input_asked = Some(asked);
            (tokens.cached, tokens.salt) = (Some(cached), salt);
            Summary::new(&[(record, tokens)], None).warnings.join("; ")
        };
        assert_eq!(warnings(100, 100, 0, 0), "");
        assert!(warnings(90, 90, 0, 0).contains("100 prompt tokens, and 90 were meant"));
        assert!(warnings(90, 100, 0, 0).contains("100 prompt tokens were sent and 90 were asked"));
        assert!(warnings(100, 100, 8, 0).contains("8.0 % of the prompt tokens from a prefix"));
        assert_eq!(warnings(100, 100, 8, 8), "");
        assert_eq!(warnings(92, 100, 0, 8), "", "it is longer by the salt");
    }

    #[test]
    fn counts_that_disagree_are_a_warning() {
        let (record, mut tokens) = counted(completed(&[60, 70]), 100);
        assert_eq!(Summary::new(&[(record.clone(), tokens)], None).warnings, [""; 0]);
        tokens.output.client = Some(102);
        let summary = Summary::new(&[(record, tokens)], None);
        assert!(summary.warnings[0].contains("2.0 % apart"), "{:?}", summary.warnings);
        assert!(!summary.warnings[0].contains("model's tokenizer"), "the prompts' counts agree");
        assert_eq!(summary.tokens.output, Some(100), "the server's count is the one used");
    }
}
