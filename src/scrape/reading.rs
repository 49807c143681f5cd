//! What one page of a server says, in the one vocabulary. Pure.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::names::{self, Engine, Meaning, Part, Quantity, Timing};
use super::text::Sample;

/// One look at a server.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Whose names the page holds.
    pub engine: Option<&'static str>,
    values: BTreeMap<Quantity, Ranked<BySeries<Tally>>>,
    histograms: BTreeMap<Timing, Ranked<BySeries<Histogram>>>,
}

/// What stands under the best name that was found.
#[derive(Clone, Debug)]
struct Ranked<T> {
    /// The name's place in the list.
    place: usize,
    what: T,
}

/// By the labels that tell the series of a name from each other.
type BySeries<T> = BTreeMap<String, T>;

/// A series, which stands on some pages more than once.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sum: f64,
    times: u32,
}

impl Reading {
    /// Reads what is known of the samples. A name may stand there many times, once for each engine, rank
    /// or model: counts and lengths of queues are then added, of shares the mean is taken.
    pub fn of(samples: &[Sample<'_>]) -> Self {
        let mut reading = Self::default();
        for sample in samples {
            let Some(engine) = Engine::of(sample) else { continue };
            for (place, known, part) in engine.meanings(sample) {
                if sample.value.is_finite() {
                    reading.engine.get_or_insert(engine.name);
                    reading.add(place, known.meaning, part, sample);
                }
            }
        }
        reading
    }

    fn add(&mut self, place: usize, meaning: Meaning, part: Part, sample: &Sample<'_>) {
        match meaning {
            Meaning::Value(quantity) => self.add_value(place, quantity, sample),
            Meaning::AcceptedAt(label) => {
                if let Some(at) = names::place_in_draft(sample, label) {
                    self.add_value(place, Quantity::AcceptedAt(at), sample);
                }
            }
            Meaning::Histogram(timing, unit_ms) => {
                self.add_part(place, timing, unit_ms, part, sample);
            }
        }
    }

    fn add_value(&mut self, place: usize, quantity: Quantity, sample: &Sample<'_>) {
        let Some(all) = best(&mut self.values, quantity, place) else { return };
        let tally = all.entry(sample.series()).or_default();
        tally.sum += sample.value;
        tally.times += 1;
    }

    fn add_part(
        &mut self,
        place: usize,
        timing: Timing,
        unit_ms: f64,
        part: Part,
        sample: &Sample<'_>,
    ) {
        let Some(all) = best(&mut self.histograms, timing, place) else { return };
        let histogram = all.entry(sample.series()).or_default();
        match part {
            Part::Bucket(bound) => histogram.add_bucket(bound * unit_ms, sample.value),
            Part::Sum => histogram.add_sum(sample.value * unit_ms),
            Part::Count => histogram.add_count(sample.value),
            Part::Whole => {}
        }
    }

    /// Whether the page says nothing that is known.
    pub fn is_empty(&self) -> bool {
        self.engine.is_none()
    }

    /// All of a quantity together.
    pub fn sum(&self, quantity: Quantity) -> Option<f64> {
        self.values.get(&quantity).map(|ranked| ranked.what.values().map(|tally| tally.sum).sum())
    }

    /// The mean of a quantity that is no count.
    pub fn mean(&self, quantity: Quantity) -> Option<f64> {
        let times = self.values.get(&quantity)?.what.values().map(|tally| tally.times);
        Some(self.sum(quantity)? / f64::from(times.sum::<u32>()))
    }

    /// The places in a draft of which the page counts what was accepted.
    pub fn places_in_draft(&self) -> impl Iterator<Item = u8> {
        self.values.keys().filter_map(|quantity| match quantity {
            Quantity::AcceptedAt(place) => Some(*place),
            _ => None,
        })
    }

    /// What only grows, and each series of it.
    pub fn counts(&self) -> impl Iterator<Item = (Quantity, impl Iterator<Item = (&str, f64)>)> {
        let counts = self.values.iter().filter(|(quantity, _)| quantity.is_count());
        counts.map(|(quantity, ranked)| {
            (*quantity, ranked.what.iter().map(|(series, tally)| (series.as_str(), tally.sum)))
        })
    }

    /// Share of the KV cache in use, from 0 to 1.
    pub fn cache_share(&self) -> Option<f64> {
        if let Some(share) = self.mean(Quantity::CacheShare) {
            return Some(share);
        }
        let size = self.sum(Quantity::CacheSize).filter(|size| 0.0 < *size)?;
        Some(self.sum(Quantity::CacheUsed)? / size)
    }

    /// The histograms that the page holds, and each series of them.
    pub fn histograms(
        &self,
    ) -> impl Iterator<Item = (Timing, impl Iterator<Item = (&str, Histogram)>)> {
        self.histograms.iter().map(|(timing, ranked)| {
            let series = ranked.what.iter();
            (*timing, series.map(|(series, histogram)| (series.as_str(), histogram.clone())))
        })
    }
}

/// Where a value under the name at `place` goes; `None` where a better name has been found.
fn best<K: Ord, T: Default>(
    all: &mut BTreeMap<K, Ranked<T>>,
    key: K,
    place: usize,
) -> Option<&mut T> {
    let ranked = all.entry(key).or_insert_with(|| Ranked { place, what: T::default() });
    if place < ranked.place {
        *ranked = Ranked { place, what: T::default() };
    }
    (place == ranked.place).then_some(&mut ranked.what)
}
