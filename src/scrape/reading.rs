//! What one page of a server says, in the one vocabulary. Pure.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::names::{Engine, Meaning, Part, Quantity, Timing};
use super::text::Sample;

/// One look at a server.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Whose names the page holds.
    pub engine: Option<&'static str>,
    values: BTreeMap<Quantity, Ranked<Tally>>,
    histograms: BTreeMap<Timing, Ranked<Histogram>>,
}

/// What stands under the best name that was found.
#[derive(Clone, Debug)]
struct Ranked<T> {
    /// The name's place in the list.
    place: usize,
    what: T,
}

/// The series of one name.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sum: f64,
    series: u32,
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
                    reading.add(place, known.meaning, part, sample.value);
                }
            }
        }
        reading
    }

    fn add(&mut self, place: usize, meaning: Meaning, part: Part, value: f64) {
        match (meaning, part) {
            (Meaning::Value(quantity), _) => {
                if let Some(tally) = best(&mut self.values, quantity, place) {
                    tally.sum += value;
                    tally.series += 1;
                }
            }
            (Meaning::Histogram(timing, unit_ms), part) => {
                let Some(histogram) = best(&mut self.histograms, timing, place) else { return };
                match part {
                    Part::Bucket(bound) => histogram.add_bucket(bound * unit_ms, value),
                    Part::Sum => histogram.add_sum(value * unit_ms),
                    Part::Count => histogram.add_count(value),
                    Part::Whole => {}
                }
            }
        }
    }

    /// Whether the page says nothing that is known.
    pub fn is_empty(&self) -> bool {
        self.engine.is_none()
    }

    /// All of a quantity together.
    pub fn sum(&self, quantity: Quantity) -> Option<f64> {
        self.values.get(&quantity).map(|ranked| ranked.what.sum)
    }

    /// The mean of a quantity that is no count.
    pub fn mean(&self, quantity: Quantity) -> Option<f64> {
        self.values.get(&quantity).map(|ranked| ranked.what.sum / f64::from(ranked.what.series))
    }

    /// Share of the KV cache in use, from 0 to 1.
    pub fn cache_share(&self) -> Option<f64> {
        if let Some(share) = self.mean(Quantity::CacheShare) {
            return Some(share);
        }
        let size = self.sum(Quantity::CacheSize).filter(|size| 0.0 < *size)?;
        Some(self.sum(Quantity::CacheUsed)? / size)
    }

    /// Prompt tokens that were looked up in the prefix cache.
    pub fn prefix_queries(&self) -> Option<f64> {
        let both = || Some(self.sum(Quantity::PrefixHits)? + self.sum(Quantity::PrefixMisses)?);
        self.sum(Quantity::PrefixQueries).or_else(both)
    }

    /// The histograms that the page holds.
    pub fn histograms(&self) -> impl Iterator<Item = (Timing, &Histogram)> {
        self.histograms.iter().map(|(timing, ranked)| (*timing, &ranked.what))
    }

    /// The histogram of a latency.
    pub fn histogram(&self, timing: Timing) -> Option<&Histogram> {
        self.histograms.get(&timing).map(|ranked| &ranked.what)
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
