//! How long users think before they answer: a time, or a distribution of times. Pure.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution as _, Exp, LogNormal, Normal};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::duration::{HumanDuration, parse_duration};

/// The longest that is drawn where no `max` is set.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a time beyond its bounds is drawn again before the nearest bound is taken.
const DRAWS: usize = 1000;

/// A time that is drawn for each turn. What is drawn beyond the bounds is drawn again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ThinkTime {
    /// The same for all.
    Fixed(Duration),
    /// Each time from `min` to `max` alike.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The normal distribution.
    Normal {
        /// Its mean.
        mean: Duration,
        /// Its standard deviation.
        std_dev: Duration,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The log-normal distribution, which the pauses of people resemble.
    LogNormal {
        /// Its median.
        median: Duration,
        /// The standard deviation of its logarithm.
        sigma: f64,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The exponential distribution.
    Exponential {
        /// Its mean.
        mean: Duration,
        /// The longest.
        max: Duration,
    },
}

impl Default for ThinkTime {
    /// Nobody thinks.
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl<'de> Deserialize<'de> for ThinkTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = ThinkTime;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a time such as \"2s\", or a table such as { distribution = \"log_normal\", \
                     median = \"2s\", sigma = 0.8 }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ThinkTime, E> {
                parse_duration(text).map(ThinkTime::Fixed).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ThinkTime, A::Error> {
                Drawn::deserialize(de::value::MapAccessDeserializer::new(map)).map(ThinkTime::from)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

/// A think time as a table.
#[derive(Deserialize)]
#[serde(tag = "distribution", rename_all = "snake_case", deny_unknown_fields)]
enum Drawn {
    Uniform {
        min: HumanDuration,
        max: HumanDuration,
    },
    Normal {
        mean: HumanDuration,
        std_dev: HumanDuration,
        min: Option<HumanDuration>,
        max: Option<HumanDuration>,
    },
    LogNormal {
        median: HumanDuration,
        sigma: f64,
        min: Option<HumanDuration>,
        max: Option<HumanDuration>,
    },
    Exponential {
        mean: HumanDuration,
        max: Option<HumanDuration>,
    },
}

impl From<Drawn> for ThinkTime {
    fn from(drawn: Drawn) -> Self {
        let least = |min: Option<HumanDuration>| min.map_or(Duration::ZERO, |min| min.0);
        let most = |max: Option<HumanDuration>| max.map_or(LONGEST, |max| max.0);
        match drawn {
            Drawn::Uniform { min, max } => Self::Uniform { min: min.0, max: max.0 },
            Drawn::Normal { mean, std_dev, min, max } => {
                Self::Normal { mean: mean.0, std_dev: std_dev.0, min: least(min), max: most(max) }
            }
            Drawn::LogNormal { median, sigma, min, max } => {
                Self::LogNormal { median: median.0, sigma, min: least(min), max: most(max) }
            }
            Drawn::Exponential { mean, max } => Self::Exponential { mean: mean.0, max: most(max) },
        }
    }
}

impl ThinkTime {
    /// Draws one.
    pub fn draw(self, rng: &mut ChaCha12Rng) -> Duration {
        let s = |duration: Duration| duration.as_secs_f64();
        let (min, max, mut draw): (_, _, Box<dyn FnMut() -> f64 + '_>) = match self {
            Self::Fixed(time) => return time,
            Self::Uniform { min, max } => {
                return min + (max - min).mul_f64(rng.random());
            }
            Self::Normal { mean, std_dev, min, max } => match Normal::new(s(mean), s(std_dev)) {
                Ok(normal) => (min, max, Box::new(move || normal.sample(rng))),
                Err(_) => return mean,
            },
            Self::LogNormal { median, sigma, min, max } => {
                match LogNormal::new(s(median).ln(), sigma) {
                    Ok(log_normal) => (min, max, Box::new(move || log_normal.sample(rng))),
                    Err(_) => return median,
                }
            }
            Self::Exponential { mean, max } => match Exp::new(1.0 / s(mean)) {
                Ok(exponential) => (Duration::ZERO, max, Box::new(move || exponential.sample(rng))),
                Err(_) => return mean,
            },
        };
        let mut last = 0.0;
        for _ in 0..DRAWS {
            last = draw();
            if s(min) <= last && last <= s(max) {
                break;
            }
        }
        Duration::from_secs_f64(last.clamp(s(min), s(max)))
    }

    /// What is wrong with it, if anything.
    pub fn fault(self) -> Option<String> {
        let (center_name, center, min, max) = match self {
            Self::Fixed(_) => return None,
            Self::Uniform { min, max } => ("min", min, min, max),
            Self::Normal { mean, min, max, .. } => ("mean", mean, min, max),
            Self::LogNormal { median, min, max, .. } => ("median", median, min, max),
            Self::Exponential { mean, max } => ("mean", mean, Duration::ZERO, max),
        };
        if max < min {
            return Some(format!("`min` ({min:?}) must not be above `max` ({max:?})"));
        }
        let spread = match self {
            Self::Normal { std_dev, .. } => Some(("std_dev", std_dev.as_secs_f64())),
            Self::LogNormal { sigma, .. } => Some(("sigma", sigma)),
            Self::Fixed(_) | Self::Uniform { .. } | Self::Exponential { .. } => None,
        };
        if let Some((name, spread)) = spread
            && !(0.0 < spread && spread.is_finite())
        {
            return Some(format!("`{name}` must be above 0"));
        }
        let is_drawn = !matches!(self, Self::Uniform { .. });
        if is_drawn && center.is_zero() {
            return Some(format!("`{center_name}` must be above 0s"));
        }
        (center < min || max < center)
            .then(|| format!("`{center_name}` ({center:?}) must lie within {min:?} and {max:?}"))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::record::tests::ms;

    #[derive(Deserialize)]
    struct Line {
        think_time: ThinkTime,
    }

    fn read(text: &str) -> Result<ThinkTime, String> {
        toml::from_str(&format!("think_time = {text}"))
            .map(|line: Line| line.think_time)
            .map_err(|error| error.to_string())
    }

    fn drawn_s(text: &str) -> Vec<f64> {
        let time = read(text).unwrap();
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut drawn: Vec<f64> = (0..20_000).map(|_| time.draw(&mut rng).as_secs_f64()).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    #[test]
    fn a_time_is_written_by_itself_or_as_a_distribution() {
        assert_eq!(read("\"2s\""), Ok(ThinkTime::Fixed(ms(2000))));
        assert_eq!(
            read("{ distribution = \"uniform\", min = \"1s\", max = \"3s\" }"),
            Ok(ThinkTime::Uniform { min: ms(1000), max: ms(3000) })
        );
        for (text, part) in [
            ("2", "a time such as \"2s\""),
            ("\"2\"", "`2` is no duration"),
            ("{ distribution = \"normal\", mean = \"1s\", sd = \"1s\" }", "`std_dev`"),
            ("{ distribution = \"normal\", mean = 1, std_dev = \"1s\" }", "invalid type"),
            ("{ distribution = \"gamma\", mean = \"1s\" }", "`exponential`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_distributions_have_their_centers_and_keep_to_their_bounds() {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let uniform = drawn_s("{ distribution = \"uniform\", min = \"1s\", max = \"3s\" }");
        assert!((mean(&uniform) - 2.0).abs() < 0.02);
        let normal = drawn_s("{ distribution = \"normal\", mean = \"2s\", std_dev = \"200ms\" }");
        assert!((mean(&normal) - 2.0).abs() < 0.01);
        let exponential = drawn_s("{ distribution = \"exponential\", mean = \"2s\" }");
        assert!((mean(&exponential) - 2.0).abs() < 0.06);
        let skewed = drawn_s(
            "{ distribution = \"log_normal\", median = \"2s\", sigma = 0.5, max = \"60s\" }",
        );
        assert!((skewed[10_000] - 2.0).abs() < 0.05);
        let bounded = drawn_s("{ distribution = \"exponential\", mean = \"2s\", max = \"3s\" }");
        assert!(bounded[0] < 0.01 && bounded[19_999] <= 3.0 && 2.9 < bounded[19_999]);
    }

    #[test]
    fn an_impossible_time_says_why() {
        for (text, part) in [
            ("{ distribution = \"uniform\", min = \"3s\", max = \"1s\" }", "not be above `max`"),
            ("{ distribution = \"normal\", mean = \"1s\", std_dev = \"0s\" }", "`std_dev` must be"),
            ("{ distribution = \"log_normal\", median = \"0s\", sigma = 1.0 }", "`median` must be"),
            ("{ distribution = \"exponential\", mean = \"5s\", max = \"1s\" }", "`mean` (5s)"),
        ] {
            let fault = read(text).unwrap().fault().unwrap();
            assert!(fault.contains(part), "{fault}");
        }
        assert_eq!(ThinkTime::default().fault(), None);
    }
}
