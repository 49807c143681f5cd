//! Looks at a server, one after the other, as columns over time. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::growth::{Growth, Mark};
use super::latencies::Latencies;
use super::names::Quantity;
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
    pub histograms: Latencies,
    /// Why columns hold no value although the server tells one.
    pub refused: BTreeMap<String, String>,
    /// What was counted since the first look.
    pub growth: Growth,
    /// From which the next rates are taken.
    base: Option<(Duration, Mark)>,
    /// Rates are of no shorter time than this.
    shortest: Duration,
}

/// The columns of what was counted since the first look; that of the queries of the prefix cache comes to them.
const COUNTED: [(&str, Quantity); 7] = [
    ("preemptions", Quantity::Preemptions),
    ("prompt_tokens", Quantity::PromptTokens),
    ("generation_tokens", Quantity::GenerationTokens),
    ("prefix_cache_hits", Quantity::PrefixHits),
    ("spec_drafts", Quantity::Drafts),
    ("spec_draft_tokens", Quantity::DraftTokens),
    ("spec_accepted_tokens", Quantity::AcceptedTokens),
];

/// The values of columns at a look.
type Row = Vec<(Cow<'static, str>, Option<f64>)>;

/// The column of the draft tokens that were accepted at a place of their draft.
pub fn accepted_at(place: u8) -> String {
    format!("spec_accepted_tokens_at_{place}")
}

/// Prompt tokens that were looked up in the prefix cache, of how much was counted of each quantity.
fn prefix_queries(counted: impl Fn(Quantity) -> Option<f64>) -> Option<f64> {
    let both = || Some(counted(Quantity::PrefixHits)? + counted(Quantity::PrefixMisses)?);
    counted(Quantity::PrefixQueries).or_else(both)
}

impl Seen {
    /// Nothing yet. Rates are of no shorter time than `shortest`.
    pub fn new(shortest: Duration) -> Self {
        Self { shortest, ..Self::default() }
    }

    /// Adds a look.
    pub fn add(&mut self, at: Duration, reading: &Reading) {
        self.histograms.push(at, self.growth.add(reading));
        let rates = self.rates(at, reading);
        if reading.is_empty() {
            // Some servers name nothing before their first request.
            return;
        }
        self.engine = reading.engine;
        let counts = self.counts(reading);
        let columns: Vec<_> = counts.iter().map(|(name, _)| name.clone()).collect();
        let mut row = self.gauges(reading);
        row.extend(counts);
        row.extend(rates);
        // A column that the server does not have is none.
        let known = |(name, value): &(Cow<'_, str>, Option<f64>)| {
            value.is_some() || self.series.columns.contains_key(name.as_ref())
        };
        row.retain(known);
        self.series.push(at, row.iter().map(|(name, value)| (name.as_ref(), *value)));
        columns.iter().for_each(|column| self.begin_at_zero(column));
    }

    /// A count that the server names only now was 0 at the looks before.
    fn begin_at_zero(&mut self, column: &str) {
        let Some(values) = self.series.columns.get_mut(column) else { return };
        let named = values.iter().position(Option::is_some).unwrap_or_default();
        values[..named].fill(Some(0.0));
    }

    fn gauges(&mut self, reading: &Reading) -> Row {
        let many = 0.0..f64::INFINITY;
        // A step has a token at least: of 0 there was none with a draft.
        let length = reading.mean(Quantity::SpecLength).filter(|length| *length != 0.0);
        let row = [
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
            ("spec_length", self.within("spec_length", length, &many)),
        ];
        row.map(|(name, value)| (Cow::Borrowed(name), value)).into()
    }

    fn counts(&self, reading: &Reading) -> Row {
        let counted = |quantity| reading.sum(quantity).is_some().then(|| self.growth.of(quantity));
        let mut row: Row =
            COUNTED.map(|(name, quantity)| (Cow::Borrowed(name), counted(quantity))).into();
        row.push(("prefix_cache_queries".into(), prefix_queries(counted)));
        let places = reading.places_in_draft();
        row.extend(
            places.map(|place| {
                (Cow::Owned(accepted_at(place)), counted(Quantity::AcceptedAt(place)))
            }),
        );
        row
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

    fn rates(&mut self, at: Duration, reading: &Reading) -> Row {
        let Some((since, before)) = &self.base else {
            self.base = Some((at, self.growth.mark()));
            return Vec::new();
        };
        let span = at.saturating_sub(*since);
        if span < self.shortest || span.is_zero() {
            return Vec::new();
        }
        let grown = |quantity| {
            // Nothing is known of what is no longer on the page.
            reading.sum(quantity)?;
            self.growth.since(before, quantity)
        };
        let a_second = |grown: f64| grown / span.as_secs_f64();
        let ratio = prefix_queries(grown)
            .zip(grown(Quantity::PrefixHits))
            .filter(|(queries, _)| 0.0 < *queries);
        let rates = [
            ("prefix_cache_hit_ratio", ratio.map(|(queries, hits)| hits / queries)),
            ("prompt_tokens_per_s", grown(Quantity::PromptTokens).map(a_second)),
            ("generation_tokens_per_s", grown(Quantity::GenerationTokens).map(a_second)),
        ];
        self.base = Some((at, self.growth.mark()));
        rates.map(|(name, value)| (Cow::Borrowed(name), value)).into()
    }
}
