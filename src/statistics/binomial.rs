//! Tails of the binomial distribution, exact also for ten million draws.
//!
//! The incomplete beta function of the usual libraries stops after a fixed number of terms, which is too
//! few there. So the tail itself is summed, from its largest term outwards: after a few times the square
//! root of `n` terms the rest is nothing.

use statrs::function::gamma::ln_gamma;

/// Below this share of the sum, a term and all after it change nothing.
const NEGLIGIBLE: f64 = 1e-18;

/// P(Bin(n, p) ≤ x).
pub(super) fn at_most(x: u64, n: u64, p: f64) -> f64 {
    ln_at_most(x, n, p).exp()
}

/// ln P(Bin(n, p) ≤ x).
pub(super) fn ln_at_most(x: u64, n: u64, p: f64) -> f64 {
    if n <= x {
        return 0.0;
    }
    if is_left_of_mode(x, n, p) {
        ln_lower_tail(x, n, p)
    } else {
        // At least x + 1 of one kind are at most n − x − 1 of the other.
        (-ln_lower_tail(n - x - 1, n, 1.0 - p).exp()).ln_1p()
    }
}

/// P(Bin(n, p) ≥ x).
pub(super) fn at_least(x: u64, n: u64, p: f64) -> f64 {
    ln_at_least(x, n, p).exp()
}

/// ln P(Bin(n, p) ≥ x).
pub(super) fn ln_at_least(x: u64, n: u64, p: f64) -> f64 {
    if x == 0 {
        return 0.0;
    }
    if n < x {
        return f64::NEG_INFINITY;
    }
    if is_left_of_mode(x - 1, n, p) {
        (-ln_lower_tail(x - 1, n, p).exp()).ln_1p()
    } else {
        // At least x of one kind are at most n − x of the other.
        ln_lower_tail(n - x, n, 1.0 - p)
    }
}

/// ln P(Bin(n, p) ≤ x), cheap where `x` is at most the mode.
fn ln_lower_tail(x: u64, n: u64, p: f64) -> f64 {
    let (n, odds) = (n as f64, p / (1.0 - p));
    let (mut term, mut sum) = (1.0, 1.0);
    // P(k − 1) = P(k) · k / (n − k + 1) / odds.
    for k in (1..=x).rev() {
        let k = k as f64;
        term *= k / (n - k + 1.0) / odds;
        sum += term;
        if term < sum * NEGLIGIBLE {
            break;
        }
    }
    let x = x as f64;
    ln_choose(n, x) + x * p.ln() + (n - x) * (-p).ln_1p() + sum.ln()
}

fn is_left_of_mode(x: u64, n: u64, p: f64) -> bool {
    (x as f64) < (n as f64 + 1.0) * p
}

fn ln_choose(n: f64, k: f64) -> f64 {
    ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_sums_of_terms() {
        // (1/2)^4 · (1, 4, 6, 4, 1)
        for (x, expected) in [(0, 1.0), (1, 5.0), (2, 11.0), (3, 15.0), (4, 16.0), (9, 16.0)] {
            assert!((at_most(x, 4, 0.5) - expected / 16.0).abs() < 1e-12, "{x}");
            assert!((at_least(x + 1, 4, 0.5) - (1.0 - expected / 16.0)).abs() < 1e-12, "{x}");
        }
        assert!((at_most(0, 299, 0.01) - 0.99_f64.powi(299)).abs() < 1e-12);
        assert!((at_least(1, 299, 0.01) - (1.0 - 0.99_f64.powi(299))).abs() < 1e-12);
    }

    #[test]
    fn both_tails_add_up_to_one() {
        for n in [1, 7, 100, 5000] {
            for p in [0.001, 0.01, 0.1, 0.5, 0.9] {
                for x in [0, 1, n / 100, n / 10, n / 2, n - 1] {
                    let sum = at_most(x, n, p) + at_least(x + 1, n, p);
                    assert!((sum - 1.0).abs() < 1e-9, "{x} of {n} at {p}: {sum}");
                }
            }
        }
    }

    #[test]
    fn ten_million_draws_are_no_problem() {
        // The normal approximation with the Cornish-Fisher term for the skew.
        let (n, p) = (10_000_000_u64, 0.01);
        let sd = (n as f64 * p * (1.0 - p)).sqrt();
        for (z, tail) in [(-3.0_f64, 0.001_349_9), (-2.0, 0.022_750), (0.0, 0.5), (2.0, 0.977_25)] {
            let x = (n as f64 * p + z * sd) as u64;
            let value = at_most(x, n, p);
            assert!((value / tail - 1.0).abs() < 0.02, "{z}: {value} {tail}");
        }
        assert!(ln_at_least(n / 50, n, p) < -10_000.0, "what underflows has a logarithm still");
    }
}
