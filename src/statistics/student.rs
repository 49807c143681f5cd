//! Student's t distribution.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// The value below which a share `p` lies; `df` is positive.
pub(super) fn quantile(p: f64, df: f64) -> f64 {
    standard(df).map_or(f64::NAN, |student| student.inverse_cdf(p))
}

/// How often a value of at least `t` comes by chance.
pub(super) fn at_least(t: f64, df: f64) -> f64 {
    match standard(df) {
        // 0/0: no difference and no scatter.
        _ if t.is_nan() => 1.0,
        _ if t.is_infinite() => {
            if 0.0 < t {
                0.0
            } else {
                1.0
            }
        }
        Some(student) => student.sf(t),
        None => f64::NAN,
    }
}

fn standard(df: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, df).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_those_of_the_tables() {
        for (p, df, expected) in [
            (0.975, 1.0, 12.7062),
            (0.975, 2.0, 4.30265),
            (0.975, 4.0, 2.77645),
            (0.95, 4.0, 2.13185),
            (0.995, 9.0, 3.24984),
            (0.9995, 4.0, 8.61030),
            (0.975, 1000.0, 1.96234),
            (0.8, 4.0, 0.940965),
            (0.025, 4.0, -2.77645),
        ] {
            let value = quantile(p, df);
            assert!((value / expected - 1.0).abs() < 1e-5, "{p} {df}: {value} {expected}");
            assert!((at_least(value, df) - (1.0 - p)).abs() < 1e-7, "{p} {df}");
        }
    }

    #[test]
    fn a_difference_without_scatter_is_certain_and_no_difference_is_none() {
        assert_eq!(at_least(f64::INFINITY, 4.0), 0.0);
        assert_eq!(at_least(f64::NEG_INFINITY, 4.0), 1.0);
        assert_eq!(at_least(f64::NAN, 4.0), 1.0);
    }
}
