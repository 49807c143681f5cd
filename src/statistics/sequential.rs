//! A limit on a percentile, judged again and again while a run goes on.
//!
//! Who looks after every batch and stops at the first finding that pleases is wrong far more often than
//! the confidence says. Here each limit is judged by a bet that may be looked at any time: what a gambler
//! who bets against "the limit is missed" has made of a stake of 1. If the limit is missed, the odds are
//! against the gambler at every step, whenever the game stops, so a fortune of 1/α comes with probability
//! α at most (Ville 1939). Then the limit is met; and the other way about.
//!
//! The bet is a mixture of likelihood ratios (Robbins, "Statistical methods related to the law of the
//! iterated logarithm", Annals of Mathematical Statistics 41 (1970); Howard, Ramdas, McAuliffe & Sekhon,
//! "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49 (2021)):
//!
//! - on "met": half the stake on a server that is never over the limit, half spread evenly over the shares
//!   between 0 and the one that is allowed;
//! - on "missed": spread over the shares above the one that is allowed, most on those up to a few times
//!   it.
//!
//! Against spending α over looks that double the run (α/(k(k+1)) at the k-th), it needs fewer requests for
//! servers that are clearly good or clearly bad, and it can be looked at after every batch;
//! `cargo bench --bench verdicts` prints both. What [`percentile_limit`](super::percentile_limit) says about
//! clusters holds here too; with them it is no longer an exact bet, but the bench shows that it misses no
//! limit wrongly more often than it may.

use statrs::function::beta::ln_beta;

use super::percentile_limit::{Counted, Evidence, Finding, Quantile, judge_by};
use super::{Confidence, binomial};

/// The part of the stake that is on a server that is never over the limit.
const STAKE_ON_CLEAN: f64 = 0.5;

/// Holds the requests so far against the limit. To be called after each batch, until it says met or
/// missed: what it says first stands.
pub fn judge(so_far: impl Into<Evidence>, quantile: Quantile, confidence: Confidence) -> Finding {
    judge_by(so_far.into(), quantile, |evidence| settled(evidence, quantile, confidence))
}

/// Whether the run may stop: [`judge`] says met or missed. Cheaper, as it does not ask how many more
/// requests it would take.
pub fn is_settled(so_far: impl Into<Evidence>, quantile: Quantile, confidence: Confidence) -> bool {
    settled(so_far.into(), quantile, confidence).is_some()
}

fn settled(evidence: Evidence, quantile: Quantile, confidence: Confidence) -> Option<Finding> {
    let needed = -confidence.alpha().ln();
    if needed <= ln_wealth_on_met(evidence.for_met(), quantile) {
        Some(Finding::Met)
    } else if needed <= ln_wealth_on_missed(evidence.for_missed(), quantile) {
        Some(Finding::Missed)
    } else {
        None
    }
}

/// The confidence at which an interval must be judged at the `look`-th look, counted from 1, so that all
/// looks together keep to `confidence`: α/(k(k+1)) at the k-th, which sums up to α. For means and rates,
/// which have no bet.
pub fn confidence_at_look(confidence: Confidence, look: u32) -> Confidence {
    let look = f64::from(look.max(1));
    Confidence(1.0 - confidence.alpha() / (look * (look + 1.0)))
}

/// What a stake of 1 has become that was bet on fewer requests over the limit than are allowed.
fn ln_wealth_on_met(counted: Counted, quantile: Quantile) -> f64 {
    let Counted { over, requests } = counted;
    let allowed = quantile.allowed_over();
    let even = ln_beta(over as f64 + 1.0, (requests - over) as f64 + 1.0)
        + binomial::ln_at_least(over + 1, requests + 1, allowed)
        - allowed.ln()
        - ln_likelihood(counted, allowed);
    let clean = if over == 0 { -ln_likelihood(counted, allowed) } else { f64::NEG_INFINITY };
    ln_sum(STAKE_ON_CLEAN.ln() + clean, (1.0 - STAKE_ON_CLEAN).ln() + even)
}

/// What a stake of 1 has become that was bet on more requests over the limit than are allowed: spread over
/// the shares `p` with the density ∝ (1 − p)^(b − 1), b = 1/allowed, so that half of it is on those less
/// than 1.7 times the allowed share.
fn ln_wealth_on_missed(counted: Counted, quantile: Quantile) -> f64 {
    let Counted { over, requests } = counted;
    let allowed = quantile.allowed_over();
    let b = (1.0 / allowed).round().max(1.0);
    ln_beta(over as f64 + 1.0, (requests - over) as f64 + b)
        + binomial::ln_at_most(over, requests + b as u64, allowed)
        + b.ln()
        - b * (-allowed).ln_1p()
        - ln_likelihood(counted, allowed)
}

/// Of the requests in their order, if a share `p` is over the limit.
fn ln_likelihood(counted: Counted, p: f64) -> f64 {
    let Counted { over, requests } = counted;
    over as f64 * p.ln() + (requests - over) as f64 * (-p).ln_1p()
}

/// ln(eᵃ + eᵇ).
fn ln_sum(a: f64, b: f64) -> f64 {
    let high = a.max(b);
    if high.is_infinite() { high } else { high + (-(a - b).abs()).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha12Rng;

    use super::*;

    const P99: Quantile = Quantile(0.99);

    fn judged(over: u64, requests: u64) -> Finding {
        judge(Counted { over, requests }, P99, Confidence::DEFAULT)
    }

    /// Where a server with this share over the limit is settled, looking after every batch of 50.
    fn run(share: f64, most: u64, rng: &mut ChaCha12Rng) -> (Option<Finding>, u64) {
        let mut counted = Counted { over: 0, requests: 0 };
        while counted.requests < most {
            counted.requests += 50;
            counted.over += (0..50).filter(|_| rng.random::<f64>() < share).count() as u64;
            if is_settled(counted, P99, Confidence::DEFAULT) {
                return (Some(judge(counted, P99, Confidence::DEFAULT)), counted.requests);
            }
        }
        (None, counted.requests)
    }

    #[test]
    fn the_stake_is_unchanged_before_the_first_request() {
        for wealth in [ln_wealth_on_met, ln_wealth_on_missed] {
            let none = Counted { over: 0, requests: 0 };
            for quantile in [0.5, 0.9, 0.99, 0.999] {
                let wealth = wealth(none, Quantile::new(quantile).unwrap());
                assert!(wealth.abs() < 1e-9, "{quantile}: {wealth}");
            }
        }
    }

    /// The sum over all courses of the game of their probability times the fortune at their end.
    #[test]
    fn the_bets_are_fair_on_the_limit_and_losing_beyond_it() {
        let mean = |wealth: fn(Counted, Quantile) -> f64, p: f64| {
            let requests = 40;
            let course = |over| {
                let counted = Counted { over, requests };
                let choices = -ln_beta(over as f64 + 1.0, (requests - over) as f64 + 1.0)
                    - (requests as f64 + 1.0).ln();
                let ln_probability = choices + ln_likelihood(counted, p);
                (ln_probability + wealth(counted, Quantile::new(0.9).unwrap())).exp()
            };
            (0..=requests).map(course).sum::<f64>()
        };
        for wealth in [ln_wealth_on_met, ln_wealth_on_missed] {
            assert!((mean(wealth, 0.1) - 1.0).abs() < 1e-6, "{}", mean(wealth, 0.1));
        }
        assert!(mean(ln_wealth_on_met, 0.15) < 1.0 && 1.0 < mean(ln_wealth_on_met, 0.05));
        assert!(mean(ln_wealth_on_missed, 0.05) < 1.0 && 1.0 < mean(ln_wealth_on_missed, 0.15));
    }

    #[test]
    fn a_clean_server_needs_a_few_more_requests_than_one_look_would_take() {
        assert!(matches!(judged(0, 340), Finding::Undecided { .. }));
        assert_eq!(judged(0, 370), Finding::Met);
        let Finding::Undecided { more_needed: Some(more) } = judged(0, 71) else { panic!() };
        assert_eq!(judged(0, 71 + more), Finding::Met);
        assert!((340..370).contains(&(71 + more)), "{more}");
    }

    #[test]
    fn a_clear_pass_and_a_clear_miss_stop_early() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (finding, requests) = run(0.0005, 100_000, &mut rng);
        assert_eq!(finding, Some(Finding::Met));
        assert!(requests <= 1000, "{requests}");
        let (finding, requests) = run(0.08, 100_000, &mut rng);
        assert_eq!(finding, Some(Finding::Missed));
        assert!(requests <= 200, "{requests}");
    }

    #[test]
    fn looking_after_every_batch_is_wrong_no_more_often_than_the_confidence_says() {
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let runs = 400;
        // Exactly on the limit, where both findings are easiest to get wrong.
        let findings: Vec<_> = (0..runs).map(|_| run(0.01, 10_000, &mut rng).0).collect();
        for wrong in [Finding::Met, Finding::Missed] {
            let share = findings.iter().filter(|finding| **finding == Some(wrong)).count();
            assert!(share <= runs / 20, "{wrong:?}: {share} of {runs}");
        }
    }

    #[test]
    fn the_looks_together_keep_to_the_confidence() {
        let spent: f64 = (1..=10_000)
            .map(|look| 1.0 - confidence_at_look(Confidence::DEFAULT, look).level())
            .sum();
        assert!((0.0499..=0.05).contains(&spent), "{spent}");
    }
}
