//! Looks at a server, one after the other, as columns over time. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::histogram::Histogram;
use super::names::{Quantity, Timing};
use super::reading::Reading;
use crate::series::Series;

/// What was seen of a server so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Whose names it uses.
    pub engine: Option<&'static str>,
    /// The columns.
    pub series: Series,
    /// What its own histograms have counted since the first look.
    pub histograms: BTreeMap<Timing, Histogram>,
    /// Why columns hold no value although the server tells one.
    pub refused: BTreeMap<String, String>,
    /// The last look.
    last: Option<Reading>,
    /// What was counted since the first look.
    grown: BTreeMap<&'static str, f64>,
    /// From which the next rates are taken.
    base: Option<(Duration, Counts)>,
    /// Rates are of no shorter time than this.
    shortest: Duration,
}

/// What is counted on from look to look, and the columns of it since the first look.
const COUNTED: [(&str, Count); 8] = [
    ("preemptions", |reading| reading.sum(Quantity::Preemptions)),
    ("prompt_tokens", |reading| reading.sum(Quantity::PromptTokens)),
    ("generation_tokens", |reading| reading.sum(Quantity::GenerationTokens)),
    ("prefix_cache_queries", Reading::prefix_queries),
    ("prefix_cache_hits", |reading| reading.sum(Quantity::PrefixHits)),
    ("spec_drafts", |reading| reading.sum(Quantity::Drafts)),
    ("spec_draft_tokens", |reading| reading.sum(Quantity::DraftTokens)),
    ("spec_accepted_tokens", |reading| reading.sum(Quantity::AcceptedTokens)),
];

type Count = fn(&Reading) -> Option<f64>;

/// What only grows, but where the server begins anew.
#[derive(Clone, Copy, Debug)]
struct Counts {
    prompt: Option<f64>,
    generation: Option<f64>,
    prefix_queries: Option<f64>,
    prefix_hits: Option<f64>,
}

impl Counts {
    fn of(reading: &Reading) -> Self {
        Self {
            prompt: reading.sum(Quantity::PromptTokens),
            generation: reading.sum(Quantity::GenerationTokens),
            prefix_queries: reading.prefix_queries(),
            prefix_hits: reading.sum(Quantity::PrefixHits),
        }
    }
}

/// By how much a count has grown; `None` where it has begun anew, and what was counted before that is
/// lost. Many servers name a count only once there is something to count.
fn growth(before: Option<f64>, now: Option<f64>) -> Option<f64> {
    let (before, now) = (before.unwrap_or(0.0), now?);
    (before <= now).then_some(now - before)
}

impl Seen {
    /// Nothing yet. Rates are of no shorter time than `shortest`.
    pub fn new(shortest: Duration) -> Self {
        Self { shortest, ..Self::default() }
    }

    /// Adds a look.
    pub fn add(&mut self, at: Duration, reading: Reading) {
        self.count_on(&reading);
        let rates = self.rates(at, Counts::of(&reading));
        if reading.is_empty() {
            // Some servers name nothing before their first request.
            self.last = Some(reading);
            return;
        }
        self.engine = reading.engine;
        let many = 0.0..f64::INFINITY;
        let mut row = vec![
            (
                "requests_running",
                self.within("requests_running", reading.sum(Quantity::Running), &many),
            ),
            (
                "requests_waiting",
                self.within("requests_waiting", reading.sum(Quantity::Waiting), &many),
            ),
            ("kv_cache_usage", self.share("kv_cache_usage", reading.cache_share())),
            (
                "spec_acceptance",
                self.share("spec_acceptance", reading.mean(Quantity::SpecAcceptance)),
            ),
            ("spec_length", self.within("spec_length", reading.mean(Quantity::SpecLength), &many)),
        ];
        let grown = COUNTED.iter().map(|(name, count)| {
            (*name, count(&reading).map(|_| self.grown.get(name).copied().unwrap_or(0.0)))
        });
        row.extend(grown);
        row.extend(rates);
        // A column that the server does not have is none.
        let known = |(name, value): &(&str, Option<f64>)| {
            value.is_some() || self.series.columns.contains_key(*name)
        };
        row.retain(known);
        self.series.push(at, row);
        self.last = Some(reading);
    }

    /// A share, refused where it is none.
    fn share(&mut self, column: &str, value: Option<f64>) -> Option<f64> {
        self.within(column, value, &(0.0..1.0 + 1e-6))
    }

    /// A value, refused where it cannot be one.
    fn within(&mut self, column: &str, value: Option<f64>, range: &Range<f64>) -> Option<f64> {
        let value = value?;
        if range.contains(&value) {
            return Some(value);
        }
        self.refused.entry(column.to_owned()).or_insert_with(|| {
            format!("the server says that its {column} is {value}, which it cannot be")
        });
        None
    }

    /// Adds what was counted since the last look.
    fn count_on(&mut self, reading: &Reading) {
        let Some(last) = &self.last else { return };
        for (name, count) in COUNTED {
            let (before, now) = (count(last), count(reading));
            // A count that has begun again has at least what it shows now.
            let grown = growth(before, now).or(now).unwrap_or(0.0);
            *self.grown.entry(name).or_default() += grown.max(0.0);
        }
        for (timing, histogram) in reading.histograms() {
            let new = match last.histogram(timing) {
                Some(before) => histogram.since(before),
                None => histogram.clone(),
            };
            self.histograms.entry(timing).or_default().merge(&new);
        }
    }

    fn rates(&mut self, at: Duration, now: Counts) -> Vec<(&'static str, Option<f64>)> {
        let Some((since, before)) = self.base else {
            self.base = Some((at, now));
            return Vec::new();
        };
        let span = at.saturating_sub(since);
        if span < self.shortest || span.is_zero() {
            return Vec::new();
        }
        self.base = Some((at, now));
        let a_second = |grown: f64| grown / span.as_secs_f64();
        let queries = growth(before.prefix_queries, now.prefix_queries);
        let hits = growth(before.prefix_hits, now.prefix_hits);
        let ratio = queries.zip(hits).filter(|(queries, _)| 0.0 < *queries);
        vec![
            ("prefix_cache_hit_ratio", ratio.map(|(queries, hits)| hits / queries)),
            ("prompt_tokens_per_s", growth(before.prompt, now.prompt).map(a_second)),
            ("generation_tokens_per_s", growth(before.generation, now.generation).map(a_second)),
        ]
    }
}
