//! How long prompts and answers are: a number of tokens, or a distribution of them. Pure.

use std::fmt;

use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution as _, LogNormal, Normal};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// A length in tokens, drawn for each request. Bounds are inclusive; what is drawn beyond them is drawn
/// again, so that no request piles up at a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// The same for all.
    Fixed(u32),
    /// Each length from `min` to `max` alike.
    Uniform {
        /// The shortest.
        min: u32,
        /// The longest.
        max: u32,
    },
    /// The normal distribution.
    Normal {
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        std_dev: f64,
        /// The shortest.
        min: u32,
        /// The longest.
        max: u32,
    },
    /// The log-normal distribution, which the answers of chats resemble.
    LogNormal {
        /// Its median.
        median: f64,
        /// The standard deviation of its logarithm.
        sigma: f64,
        /// The shortest.
        min: u32,
        /// The longest.
        max: u32,
    },
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number of tokens, or a table such as { distribution = \"uniform\", min = 10, \
                     max = 100 }",
                )
            }

            fn visit_i64<E: de::Error>(self, written: i64) -> Result<Length, E> {
                let tokens = u32::try_from(written).ok().filter(|&tokens| 0 < tokens);
                tokens.filter(|tokens| *tokens <= Length::LONGEST).map(Length::Fixed).ok_or_else(
                    || {
                        let most = Length::LONGEST;
                        E::custom(format!(
                            "a length must be from 1 to {most} tokens, not {written}"
                        ))
                    },
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Length, A::Error> {
                Drawn::deserialize(de::value::MapAccessDeserializer::new(map)).map(Length::from)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

/// A length as a table.
#[derive(Deserialize)]
#[serde(tag = "distribution", rename_all = "snake_case", deny_unknown_fields)]
enum Drawn {
    Uniform { min: u32, max: u32 },
    Normal { mean: f64, std_dev: f64, min: Option<u32>, max: Option<u32> },
    LogNormal { median: f64, sigma: f64, min: Option<u32>, max: Option<u32> },
}

impl From<Drawn> for Length {
    fn from(drawn: Drawn) -> Self {
        let least = |min: Option<u32>| min.unwrap_or(1);
        let most = |max: Option<u32>| max.unwrap_or(Length::LONGEST);
        match drawn {
            Drawn::Uniform { min, max } => Self::Uniform { min, max },
            Drawn::Normal { mean, std_dev, min, max } => {
                Self::Normal { mean, std_dev, min: least(min), max: most(max) }
            }
            Drawn::LogNormal { median, sigma, min, max } => {
                Self::LogNormal { median, sigma, min: least(min), max: most(max) }
            }
        }
    }
}

/// How often a length beyond its bounds is drawn again before the nearest bound is taken.
const DRAWS: usize = 1000;

impl Length {
    /// The longest that is drawn where no `max` is set: no model takes more.
    pub const LONGEST: u32 = 10_000_000;

    /// The lengths around `center` that vLLM's `range_ratio` means: from (1 − ratio) to (1 + ratio)
    /// of it.
    pub fn around(center: u32, range_ratio: f64) -> Self {
        if range_ratio == 0.0 {
            return Self::Fixed(center);
        }
        let bound = |factor: f64| (f64::from(center) * factor) as u32;
        Self::Uniform {
            min: bound(1.0 - range_ratio).max(1),
            max: (f64::from(center) * (1.0 + range_ratio)).ceil() as u32,
        }
    }

    /// Draws one; above 0.
    pub fn draw(self, rng: &mut ChaCha12Rng) -> u32 {
        let within = |min: u32, max: u32, mut draw: Box<dyn FnMut() -> f64 + '_>| {
            let drawn = (0..DRAWS).map(|_| draw().round());
            let mut last = f64::from(min);
            for length in drawn {
                if f64::from(min) <= length && length <= f64::from(max) {
                    return length as u32;
                }
                last = length;
            }
            last.clamp(f64::from(min), f64::from(max)) as u32
        };
        let length = match self {
            Self::Fixed(length) => length,
            Self::Uniform { min, max } => rng.random_range(min..=max),
            Self::Normal { mean, std_dev, min, max } => match Normal::new(mean, std_dev) {
                Ok(normal) => within(min, max, Box::new(|| normal.sample(rng))),
                Err(_) => mean as u32,
            },
            Self::LogNormal { median, sigma, min, max } => match LogNormal::new(median.ln(), sigma)
            {
                Ok(log_normal) => within(min, max, Box::new(|| log_normal.sample(rng))),
                Err(_) => median as u32,
            },
        };
        length.max(1)
    }

    /// What is wrong with it, if anything.
    pub fn fault(self) -> Option<String> {
        let most = match self {
            Self::Fixed(length) => length,
            Self::Uniform { max, .. } | Self::Normal { max, .. } | Self::LogNormal { max, .. } => {
                max
            }
        };
        if Self::LONGEST < most {
            let longest = Self::LONGEST;
            return Some(format!("{most} tokens are more than any model takes ({longest})"));
        }
        let (min, max) = match self {
            Self::Fixed(0) => {
                return Some(format!("a length must be above 0 and at most {}", Self::LONGEST));
            }
            Self::Fixed(_) => return None,
            Self::Uniform { min, max }
            | Self::Normal { min, max, .. }
            | Self::LogNormal { min, max, .. } => (min, max),
        };
        let spread = match self {
            Self::Normal { mean, std_dev, .. } => Some(("mean", mean, "std_dev", std_dev)),
            Self::LogNormal { median, sigma, .. } => Some(("median", median, "sigma", sigma)),
            Self::Fixed(_) | Self::Uniform { .. } => None,
        };
        if min == 0 || max < min {
            return Some(format!("`min` ({min}) must be above 0 and not above `max` ({max})"));
        }
        let (center_name, center, spread_name, spread) = spread?;
        let possible = |number: f64| 0.0 < number && number.is_finite();
        if !possible(center) || !possible(spread) {
            return Some(format!("`{center_name}` and `{spread_name}` must be above 0"));
        }
        (center < f64::from(min) || f64::from(max) < center)
            .then(|| format!("`{center_name}` ({center}) must lie within {min} and {max}"))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn drawn(length: Length, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        (0..20_000).map(|_| f64::from(length.draw(&mut rng))).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn the_distributions_have_their_centers_and_spreads() {
        let uniform = drawn(Length::Uniform { min: 10, max: 30 }, 1);
        assert!((mean(&uniform) - 20.0).abs() < 0.2);
        let normal = drawn(Length::Normal { mean: 200.0, std_dev: 20.0, min: 1, max: 1000 }, 2);
        let deviation =
            normal.iter().map(|length| (length - 200.0).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean(&normal) - 200.0).abs() < 1.0);
        assert!((deviation.sqrt() - 20.0).abs() < 0.6);
        let mut skewed =
            drawn(Length::LogNormal { median: 100.0, sigma: 0.5, min: 1, max: 9000 }, 3);
        skewed.sort_by(f64::total_cmp);
        assert!((skewed[10_000] - 100.0).abs() < 3.0, "{}", skewed[10_000]);
        // The mean of a log-normal distribution: median · exp(sigma² / 2).
        assert!((mean(&skewed) - 113.3).abs() < 3.0, "{}", mean(&skewed));
    }

    #[test]
    fn bounds_hold_and_nothing_piles_up_at_them() {
        let bounded = drawn(Length::Normal { mean: 100.0, std_dev: 50.0, min: 90, max: 110 }, 4);
        assert!(bounded.iter().all(|&length| (90.0..=110.0).contains(&length)));
        let at_bounds = bounded.iter().filter(|&&length| length == 90.0 || length == 110.0).count();
        assert!(at_bounds < 2500, "{at_bounds}");
    }

    #[test]
    fn a_range_is_around_its_center_as_in_vllm() {
        assert_eq!(Length::around(1024, 0.0), Length::Fixed(1024));
        assert_eq!(Length::around(1000, 0.2), Length::Uniform { min: 800, max: 1200 });
    }

    #[test]
    fn an_impossible_length_says_why() {
        for (length, part) in [
            (Length::Fixed(0), "above 0"),
            (Length::Fixed(u32::MAX), "more than any model takes"),
            (Length::Uniform { min: 1, max: 10_000_001 }, "10000001 tokens are more"),
            (Length::Uniform { min: 5, max: 4 }, "not above `max`"),
            (Length::Normal { mean: 5.0, std_dev: 0.0, min: 1, max: 9 }, "`std_dev` must be above"),
            (Length::LogNormal { median: 50.0, sigma: 1.0, min: 1, max: 9 }, "`median` (50)"),
        ] {
            let fault = length.fault().unwrap();
            assert!(fault.contains(part), "{fault}");
        }
        assert_eq!(Length::Normal { mean: 5.0, std_dev: 1.0, min: 1, max: 9 }.fault(), None);
    }
}
