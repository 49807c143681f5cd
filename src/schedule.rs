//! A load and a seed in, the offset of every arrival out. Pure: made before the run, the same each time.

use std::num::NonZeroUsize;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution as _, Gamma};

use crate::load::{ArrivalProcess, Load, Rate};

/// When requests are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Each at its offset from the start of the case.
    Open {
        /// In order.
        offsets: Vec<Duration>,
        /// The most requests in flight; arrivals past it wait.
        cap: Option<usize>,
    },
    /// `requests` in all, by so many users: each sends its next when its last has ended.
    Closed {
        /// Users.
        users: usize,
        /// Requests in all.
        requests: usize,
    },
}

impl Schedule {
    /// The schedule of `requests` arrivals under `load`.
    pub fn new(load: Load, arrivals: ArrivalProcess, requests: usize, seed: u64) -> Self {
        match load {
            Load::Infinite => Self::Open { offsets: vec![Duration::ZERO; requests], cap: None },
            Load::Open { rate, cap } => Self::Open {
                offsets: open(rate, arrivals, requests, seed),
                cap: cap.map(NonZeroUsize::get),
            },
            Load::Closed(users) => Self::Closed { users: users.get(), requests },
        }
    }

    /// When requests are due, in order; none where users decide it.
    pub fn offsets(&self) -> &[Duration] {
        match self {
            Self::Open { offsets, .. } => offsets,
            Self::Closed { .. } => &[],
        }
    }

    /// Requests in all.
    pub fn requests(&self) -> usize {
        match self {
            Self::Open { offsets, .. } => offsets.len(),
            Self::Closed { requests, .. } => *requests,
        }
    }
}

/// Offsets in order. The first arrival of a constant rate is at zero; of a Poisson process, one gap
/// after it. Offsets are sums of `f64` seconds, so no rounding adds up over a long run.
fn open(rate: Rate, arrivals: ArrivalProcess, requests: usize, seed: u64) -> Vec<Duration> {
    let mean_gap_s = 1.0 / rate.as_per_s();
    match arrivals {
        ArrivalProcess::Constant => {
            (0..requests).map(|n| Duration::from_secs_f64(n as f64 * mean_gap_s)).collect()
        }
        // The inverse of the exponential distribution; the draw is below 1.
        ArrivalProcess::Poisson => {
            random(requests, seed, |rng| -mean_gap_s * (1.0 - rng.random::<f64>()).ln())
        }
        ArrivalProcess::Gamma(burstiness) => {
            let shape = burstiness.shape();
            let gaps = Gamma::new(shape, mean_gap_s / shape)
                .expect("shape and scale are above zero and finite");
            random(requests, seed, |rng| gaps.sample(rng))
        }
    }
}

/// Offsets that are `gap_s`, drawn by `seed`, apart.
fn random(requests: usize, seed: u64, gap_s: impl Fn(&mut ChaCha12Rng) -> f64) -> Vec<Duration> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut at_s = 0.0;
    let mut next = || {
        at_s += gap_s(&mut rng);
        Duration::from_secs_f64(at_s)
    };
    (0..requests).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(load: &str, arrivals: ArrivalProcess, requests: usize, seed: u64) -> Vec<Duration> {
        match Schedule::new(load.parse().unwrap(), arrivals, requests, seed) {
            Schedule::Open { offsets, .. } => offsets,
            closed => panic!("{closed:?}"),
        }
    }

    #[test]
    fn a_constant_rate_has_equal_gaps_that_do_not_drift() {
        let offsets = offsets("3qps", ArrivalProcess::Constant, 30_001, 0);
        assert_eq!(offsets[30_000], Duration::from_secs(10_000));
        assert_eq!(offsets[1], Duration::from_secs_f64(1.0 / 3.0));
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_their_process() {
        let n = 100_000;
        let gamma = |shape: f64| ArrivalProcess::Gamma(shape.try_into().unwrap());
        for (process, expected_cv) in
            [(ArrivalProcess::Poisson, 1.0), (gamma(0.25), 2.0), (gamma(4.0), 0.5)]
        {
            let offsets = offsets("200qps", process, n, 7);
            let gaps: Vec<f64> =
                offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance =
                gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            let cv = variance.sqrt() / mean;
            // Four standard errors of the mean; the coefficient of variation's is of that order.
            let error = 4.0 * expected_cv / (n as f64).sqrt();
            assert!((mean * 200.0 - 1.0).abs() < error, "{process:?}: mean gap {mean}");
            assert!((cv - expected_cv).abs() < 2.0 * error, "{process:?}: variation {cv}");
        }
    }

    #[test]
    fn the_seed_decides_the_schedule() {
        let of_seed = |seed| offsets("4qps", ArrivalProcess::Poisson, 50, seed);
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
        assert!(of_seed(1).is_sorted());
    }

    #[test]
    fn infinite_means_all_at_once() {
        assert_eq!(offsets("inf", ArrivalProcess::Poisson, 3, 0), [Duration::ZERO; 3]);
    }

    #[test]
    fn a_closed_loop_has_users_instead_of_offsets() {
        let schedule = Schedule::new("2conc".parse().unwrap(), ArrivalProcess::Poisson, 5, 0);
        assert_eq!(schedule, Schedule::Closed { users: 2, requests: 5 });
        assert_eq!(schedule.requests(), 5);
    }
}
