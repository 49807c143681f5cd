//! Objectives as they are written (`ttft.p99 < 500ms`), and whether a number meets one. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::duration::parse_duration;
use crate::metric::{Quantity, Scalar};

/// A limit on one quantity of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// What is limited.
    pub quantity: Quantity,
    /// How the value must stand to the limit.
    pub comparison: Comparison,
    /// In milliseconds for a latency, else in the quantity's own unit.
    pub limit: f64,
}

/// How a value must stand to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

impl Comparison {
    const ALL: [Self; 6] =
        [Self::AtMost, Self::AtLeast, Self::Equal, Self::Unequal, Self::Below, Self::Above];

    fn symbol(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Equal => "==",
            Self::Unequal => "!=",
        }
    }

    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
            Self::Above => limit < value,
            Self::AtLeast => limit <= value,
            Self::Equal => value == limit,
            Self::Unequal => value != limit,
        }
    }
}

impl Slo {
    /// `error_ratio == 0`: what every case must meet unless an objective of its own speaks of errors.
    pub fn no_errors() -> Self {
        Self {
            quantity: Quantity::Scalar(Scalar::ErrorRatio),
            comparison: Comparison::Equal,
            limit: 0.0,
        }
    }

    /// Whether it is on the rate that the loads `max-goodput` and `sweep` look for.
    pub fn is_on_max_goodput(&self) -> bool {
        self.quantity == Quantity::Scalar(Scalar::MaxGoodput)
    }

    /// Whether `value` meets the limit.
    pub fn is_met_by(&self, value: f64) -> bool {
        self.comparison.holds(value, self.limit)
    }

    /// How far `value` is on the good side of the limit, as a share of it; negative on the bad
    /// side. `None` where the limit is 0 or the comparison knows no side.
    pub fn margin_ratio(&self, value: f64) -> Option<f64> {
        let distance = match self.comparison {
            Comparison::Below | Comparison::AtMost => self.limit - value,
            Comparison::Above | Comparison::AtLeast => value - self.limit,
            Comparison::Equal | Comparison::Unequal => return None,
        };
        (self.limit != 0.0).then(|| distance / self.limit)
    }

    /// A value of the quantity with its unit.
    pub fn show(&self, value: f64) -> String {
        match self.quantity {
            Quantity::Latency(..) if value.is_infinite() => "infinite".to_owned(),
            Quantity::Latency(..) => format!("{}ms", trim(value, 2)),
            Quantity::Scalar(scalar) => with_unit(value, scalar.unit()),
            Quantity::Gauge(gauge, _) => with_unit(value, gauge.unit()),
        }
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    let digits = if unit.is_empty() || value < 0.1 { 4 } else { 2 };
    format!("{} {unit}", trim(value, digits)).trim_end().to_owned()
}

/// At most so many digits behind the point, and none that say nothing.
fn trim(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (quantity, comparison) = (self.quantity, self.comparison.symbol());
        match quantity {
            Quantity::Latency(..) => {
                write!(f, "{quantity} {comparison} {}ms", trim(self.limit, 6))
            }
            Quantity::Scalar(_) | Quantity::Gauge(..) => {
                write!(f, "{quantity} {comparison} {}", trim(self.limit, 6))
            }
        }
    }
}

/// The text is no objective.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no objective: {why}")]
pub struct SloError {
    text: String,
    why: String,
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |why: String| SloError { text: text.to_owned(), why };
        // Two-letter symbols come first in `ALL`, so that `<=` is not read as `<`.
        let (left, comparison, right) = Comparison::ALL
            .into_iter()
            .find_map(|comparison| {
                let (left, right) = text.split_once(comparison.symbol())?;
                Some((left, comparison, right))
            })
            .ok_or_else(|| error("write METRIC < LIMIT, for example `ttft.p99 < 500ms`".into()))?;
        let quantity: Quantity = left.trim().parse().map_err(|e| error(format!("{e}")))?;
        let limit = parse_limit(quantity, right.trim()).map_err(error)?;
        Ok(Self { quantity, comparison, limit })
    }
}

/// Written by hand because `serde(try_from)` would lose the place of an error in a list.
impl<'de> Deserialize<'de> for Slo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Slo;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an objective such as \"ttft.p99 < 500ms\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Slo, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Written)
    }
}

fn parse_limit(quantity: Quantity, text: &str) -> Result<f64, String> {
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && 0.0 <= value => Ok(value),
        _ => Err(format!("the limit `{text}` is not a number of at least 0")),
    };
    let ratio = || {
        let ratio = match text.strip_suffix('%') {
            Some(percent) => number(percent)? / 100.0,
            None => number(text)?,
        };
        if 1.0 < ratio {
            return Err(format!("a ratio is between 0 and 1 (or 0% and 100%), not `{text}`"));
        }
        Ok(ratio)
    };
    match quantity {
        Quantity::Latency(..) => {
            let limit = parse_duration(text).map_err(|_| {
                format!("the limit `{text}` is no time: write 500ms, 1.5s or 200us")
            })?;
            Ok(limit.as_secs_f64() * 1e3)
        }
        Quantity::Scalar(scalar) if scalar.is_ratio() => ratio(),
        Quantity::Gauge(gauge, _) if gauge.is_ratio() => ratio(),
        Quantity::Scalar(scalar) => number(text.strip_suffix(scalar.unit()).unwrap_or(text)),
        Quantity::Gauge(gauge, _) => number(text.strip_suffix(gauge.unit()).unwrap_or(text)),
    }
}

/// What one request must meet to count towards goodput. At least one is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodput {
    /// Longest time to first token.
    pub ttft: Option<Duration>,
    /// Longest time per output token; a one-token answer, which has none, meets it.
    pub tpot: Option<Duration>,
    /// Longest time to the last token.
    pub e2e: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objectives_of_the_documentation_are_read() {
        for (text, shown, limit) in [
            ("ttft.p99 < 500ms", "ttft.p99 < 500ms", 500.0),
            ("tpot.mean<50ms", "tpot.mean < 50ms", 50.0),
            ("output_throughput > 1000", "output_throughput > 1000", 1000.0),
            ("output_throughput >= 1000 tok/s", "output_throughput >= 1000", 1000.0),
            ("goodput_ratio > 0.95", "goodput_ratio > 0.95", 0.95),
            ("goodput_ratio >= 95%", "goodput_ratio >= 0.95", 0.95),
            ("error_ratio == 0", "error_ratio == 0", 0.0),
            ("gpu_utilization > 80%", "gpu_utilization.mean > 80", 80.0),
            ("gpu_memory_peak_mib < 38000", "gpu_memory_peak_mib < 38000", 38000.0),
            ("kv_cache_usage.max < 95%", "kv_cache_usage.max < 0.95", 0.95),
            ("energy_per_output_token < 0.5", "energy_per_output_token < 0.5", 0.5),
            ("e2e.max <= 1.5s", "e2e.max <= 1500ms", 1500.0),
            ("chunk_gap.p99.9 < 200us", "chunk_gap.p99.9 < 0.2ms", 0.2),
        ] {
            let slo: Slo = text.parse().unwrap();
            assert_eq!(slo.to_string(), shown);
            assert!((slo.limit - limit).abs() < 1e-9, "{text}: {}", slo.limit);
            assert_eq!(shown.parse::<Slo>().unwrap(), slo, "what is shown can be written");
        }
    }

    #[test]
    fn a_wrong_objective_says_what_is_wrong() {
        for (text, part) in [
            ("ttft.p99", "write METRIC < LIMIT"),
            ("ttft < 500ms", "needs a statistic"),
            ("ttft.p99 < 500", "write 500ms, 1.5s or 200us"),
            ("ttft.p99 < fast", "`fast` is no time"),
            ("ttft.p99 => 500ms", "is no objective"),
            ("output_throughput > many", "not a number"),
            ("output_throughput > -1", "not a number of at least 0"),
            ("error_ratio < 5", "a ratio is between 0 and 1"),
        ] {
            let error = text.parse::<Slo>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn the_margin_is_positive_on_the_good_side() {
        let below: Slo = "ttft.p99 < 200ms".parse().unwrap();
        assert_eq!(below.margin_ratio(150.0), Some(0.25));
        assert_eq!(below.margin_ratio(300.0), Some(-0.5));
        assert_eq!(below.margin_ratio(f64::INFINITY), Some(f64::NEG_INFINITY));
        let above: Slo = "output_throughput > 100".parse().unwrap();
        assert_eq!(above.margin_ratio(150.0), Some(0.5));
        assert_eq!(Slo::no_errors().margin_ratio(0.0), None);
    }

    #[test]
    fn a_limit_is_inside_or_outside_as_the_symbol_says() {
        let value = 500.0;
        for (text, met) in [
            ("ttft.p99 < 500ms", false),
            ("ttft.p99 <= 500ms", true),
            ("ttft.p99 > 500ms", false),
            ("ttft.p99 >= 500ms", true),
            ("ttft.p99 == 500ms", true),
            ("ttft.p99 != 500ms", false),
        ] {
            assert_eq!(text.parse::<Slo>().unwrap().is_met_by(value), met, "{text}");
        }
    }
}
