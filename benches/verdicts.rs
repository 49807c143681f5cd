//! How often the verdicts are wrong, on a simulated server: `cargo bench --bench verdicts`. Exits with 1 if a
//! bar is missed.
//!
//! The server has 16 slots and a queue in front of them, in virtual time. Requests arrive by a Poisson process
//! at 0.7 of what it can take; prompts and answers have lognormal lengths. Everything that takes time is
//! longer or shorter by a factor that differs by 3 % between trials and by 5 % between sessions. A trial has
//! 500 requests after 200 that are not counted. Every draw is seeded, so that the table is always the same;
//! `cargo bench --bench verdicts -- 1` draws anew, to see that no setting fits one table alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::OnceLock;

use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution as _, Exp1, StandardNormal};
use rayon::prelude::*;
use servebench::statistics::baseline::{self, History, Kind, LARGE_EFFECT, Session};
use servebench::statistics::change_point::{self, change_points};
use servebench::statistics::interval::{self, Scale};
use servebench::statistics::paired::{self, Pairs};
use servebench::statistics::percentile_limit::{self, Counted, Evidence, Finding, Quantile};
use servebench::statistics::{Better, Confidence, Interval, Outcome, Relevance, sequential};

/// Which draws are made; where it is not set, those of the table that is quoted.
static DRAWS: OnceLock<u64> = OnceLock::new();

const CONFIDENCE: Confidence = Confidence::DEFAULT;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// The server and its workload.
const SLOTS: usize = 16;
const UTILISATION: f64 = 0.7;
const PREFILL_S: LogNormal = LogNormal { median: 0.1, sigma: 0.6 };
const TOKENS: LogNormal = LogNormal { median: 128.0, sigma: 0.7 };
const GAP_S: f64 = 0.02;
/// What two answers to the same prompt differ by, and two gaps of an answer.
const REQUEST_NOISE: f64 = 0.05;
const GAP_NOISE: f64 = 0.2;
const TRIAL_NOISE: f64 = 0.03;
const SESSION_NOISE: f64 = 0.05;
const WARM_UP: usize = 200;
const REQUESTS: usize = 500;
const TRIALS: usize = 5;

struct LogNormal {
    median: f64,
    sigma: f64,
}

impl LogNormal {
    fn mean(&self) -> f64 {
        self.median * (self.sigma * self.sigma / 2.0).exp()
    }

    fn draw(&self, rng: &mut ChaCha12Rng) -> f64 {
        self.median * factor(self.sigma, rng)
    }
}

/// A factor about 1 that scatters by a share.
fn factor(share: f64, rng: &mut ChaCha12Rng) -> f64 {
    let normal: f64 = StandardNormal.sample(rng);
    (share * normal).exp()
}

fn rng(parts: &[u64]) -> ChaCha12Rng {
    // Each list of parts has its own seed.
    let parts = DRAWS.get().into_iter().chain(parts);
    let seed = parts.fold(0x9e37_79b9_7f4a_7c15_u64, |seed, part| {
        (seed ^ part).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
    });
    ChaCha12Rng::seed_from_u64(seed)
}

/// What is the same for all who run the trial: when requests come and how long they are.
struct Workload(Vec<Request>);

struct Request {
    at: f64,
    prefill: f64,
    tokens: f64,
}

impl Workload {
    fn new(requests: usize, rng: &mut ChaCha12Rng) -> Self {
        Self::at(UTILISATION, requests, rng)
    }

    /// At so much of what the server can take.
    fn at(utilisation: f64, requests: usize, rng: &mut ChaCha12Rng) -> Self {
        let service = PREFILL_S.mean() + TOKENS.mean() * GAP_S;
        let rate = utilisation * SLOTS as f64 / service;
        let mut at = 0.0;
        let mut request = || {
            let wait: f64 = Exp1.sample(rng);
            at += wait / rate;
            Request { at, prefill: PREFILL_S.draw(rng), tokens: TOKENS.draw(rng).ceil() }
        };
        Self((0..WARM_UP + requests).map(|_| request()).collect())
    }

    /// Runs it on a server whose every step takes `pace` times as long as it should.
    fn run(&self, pace: f64, rng: &mut ChaCha12Rng) -> Vec<Answer> {
        // Whole nanoseconds have an order.
        let mut free: BinaryHeap<Reverse<u64>> = (0..SLOTS).map(|_| Reverse(0)).collect();
        let answer = |request: &Request| {
            let arrived = (request.at * 1e9) as u64;
            let slot = free.pop().map_or(0, |Reverse(ns)| ns);
            let started = arrived.max(slot);
            let prefill = request.prefill * pace * factor(REQUEST_NOISE, rng);
            let gap = GAP_S * pace * factor(REQUEST_NOISE, rng);
            let service = prefill + request.tokens * gap;
            free.push(Reverse(started + (service * 1e9) as u64));
            Answer {
                ttft: (started - arrived) as f64 / 1e9 + prefill,
                gap,
                gaps: request.tokens as usize - 1,
            }
        };
        let answers: Vec<Answer> = self.0.iter().map(answer).collect();
        answers.into_iter().skip(WARM_UP).collect()
    }
}

struct Answer {
    ttft: f64,
    /// The mean of its gaps, and how many there are.
    gap: f64,
    gaps: usize,
}

fn ttfts(answers: &[Answer]) -> Vec<f64> {
    answers.iter().map(|answer| answer.ttft).collect()
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// p50, p90 and p99 of the TTFT of one trial.
fn percentiles(answers: &[Answer]) -> [f64; 3] {
    let sorted = sorted(ttfts(answers));
    QUANTILES.map(|share| quantile(&sorted, share))
}

/// The same for each trial of a session, by seed of the session.
fn session(
    trials: Range<usize>,
    requests: usize,
    workload_seed: u64,
    server: &[u64],
    pace: f64,
) -> Vec<[f64; 3]> {
    trials
        .map(|trial| {
            let workload = Workload::new(requests, &mut rng(&[1, workload_seed, trial as u64]));
            let mut noise = rng(&[&[2, workload_seed, trial as u64], server].concat());
            let pace = pace * factor(TRIAL_NOISE, &mut noise);
            percentiles(&workload.run(pace, &mut noise))
        })
        .collect()
}

fn metric(trials: &[[f64; 3]], metric: usize) -> Vec<f64> {
    trials.iter().map(|trial| trial[metric]).collect()
}

/// A line of the table.
struct Row {
    what: String,
    figure: String,
    /// The bar, and whether it is met; `None` for what is only worth knowing.
    bar: Option<(String, bool)>,
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of as f64 * 100.0
}

impl Row {
    fn known(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self { what: what.into(), figure: figure.into(), bar: None }
    }

    fn at_most(what: impl Into<String>, percent: f64, most: f64) -> Self {
        Self {
            what: what.into(),
            figure: format!("{percent:.1} %"),
            bar: Some((format!("at most {most} %"), percent <= most)),
        }
    }

    fn at_least(what: impl Into<String>, percent: f64, least: f64) -> Self {
        Self {
            what: what.into(),
            figure: format!("{percent:.1} %"),
            bar: Some((format!("at least {least} %"), least <= percent)),
        }
    }

    /// For what is expected to fail where ours passes.
    fn outside(what: impl Into<String>, percent: f64, low: f64, high: f64) -> Self {
        Self {
            what: what.into(),
            figure: format!("{percent:.1} %"),
            bar: Some((format!("not {low}–{high} %"), !(low..=high).contains(&percent))),
        }
    }

    fn within(what: impl Into<String>, percent: f64, low: f64, high: f64) -> Self {
        Self {
            what: what.into(),
            figure: format!("{percent:.1} %"),
            bar: Some((format!("{low}–{high} %"), low <= percent && percent <= high)),
        }
    }
}

fn relevance(min_effect: f64) -> Relevance {
    Relevance { better: Better::Lower, min_effect, floor: 0.002 }
}

fn names() -> [String; 3] {
    QUANTILES.map(|share| format!("p{}", share * 100.0))
}

/// Design of one paired comparison.
#[derive(Clone, Copy)]
struct Design {
    trials: usize,
    requests: usize,
    /// How much slower B is.
    slower: f64,
    min_effect: f64,
    /// How many comparisons the run has in all; the others are of equal servers.
    family: usize,
}

/// What became of the three percentiles, and whether a second round was run.
fn compare(design: Design, repeat: u64) -> ([Outcome; 3], bool) {
    let pace = factor(SESSION_NOISE, &mut rng(&[3, repeat]));
    let round = |number: usize| {
        let trials = number * design.trials..(number + 1) * design.trials;
        let of = |server: u64, slower: f64| {
            let server = [repeat, server];
            session(trials.clone(), design.requests, repeat, &server, pace * (1.0 + slower))
        };
        let (a, b) = (of(0, 0.0), of(1, design.slower));
        [0, 1, 2].map(|index| {
            Pairs::new(&metric(&a, index), &metric(&b, index)).expect("five pairs of times")
        })
    };
    let mut comparisons = round(0)
        .map(|first| paired::Comparison {
            first,
            second: None,
            relevance: relevance(design.min_effect),
        })
        .to_vec();
    // What is equal beyond doubt.
    let same = Pairs::new(&[1.0, 1.0, 1.0], &[1.0, 1.0, 1.0]).expect("three pairs");
    let relevance = relevance(design.min_effect);
    comparisons.resize(design.family, paired::Comparison { first: same, second: None, relevance });
    let is_suspect = !paired::suspects(&comparisons, CONFIDENCE).is_empty();
    if is_suspect {
        for (comparison, second) in comparisons.iter_mut().zip(round(1)) {
            comparison.second = Some(second);
        }
    }
    let judged = paired::judge(&comparisons, CONFIDENCE);
    ([0, 1, 2].map(|index| judged[index].outcome), is_suspect)
}

/// How many of the repeats found each percentile worse; any of them; and had a second round.
fn regressions(design: Design, repeats: usize) -> ([usize; 3], usize, usize) {
    let judged: Vec<([Outcome; 3], bool)> =
        (0..repeats as u64).into_par_iter().map(|repeat| compare(design, repeat)).collect();
    let is_worse = |outcome: &Outcome| *outcome == Outcome::Regressed;
    let each = [0, 1, 2]
        .map(|index| judged.iter().filter(|(outcomes, _)| is_worse(&outcomes[index])).count());
    let any = judged.iter().filter(|(outcomes, _)| outcomes.iter().any(is_worse)).count();
    (each, any, judged.iter().filter(|(_, again)| *again).count())
}

const USUAL: Design =
    Design { trials: TRIALS, requests: REQUESTS, slower: 0.0, min_effect: 0.05, family: 3 };

fn paired_rows() -> Vec<Row> {
    const REPEATS: usize = 300;
    let mut rows = Vec::new();
    let (each, any, again) = regressions(USUAL, REPEATS);
    for (name, count) in names().iter().zip(each) {
        rows.push(Row::at_most(
            format!("paired A/A, {name}: false regressions"),
            share(count, REPEATS),
            4.0,
        ));
    }
    rows.push(Row::at_most("paired A/A, any of them", share(any, REPEATS), 4.0));
    rows.push(Row::known("paired A/A: a second round", format!("{:.1} %", share(again, REPEATS))));
    let slower = Design { slower: 0.1, ..USUAL };
    let (each, any, _) = regressions(slower, REPEATS);
    rows.push(Row::at_least("paired, +10 %: found", share(any, REPEATS), 90.0));
    let list = |each: [usize; 3]| {
        let part = |(name, count): (String, usize)| format!("{name} {:.0}", share(count, REPEATS));
        names().into_iter().zip(each).map(part).collect::<Vec<_>>().join(", ") + " %"
    };
    rows.push(Row::known("paired, +10 %: found by", list(each)));
    let (each, any, _) = regressions(Design { family: 30, ..slower }, REPEATS);
    rows.push(Row::known(
        "paired, +10 % in one of ten cases: found",
        format!("{:.1} % ({})", share(any, REPEATS), list(each)),
    ));
    for (trials, requests) in [(5, 500), (8, 500), (10, 500), (15, 500), (20, 500), (5, 2000)] {
        let found = |min_effect| {
            let design = Design { trials, requests, slower: 0.05, min_effect, family: 3 };
            share(regressions(design, REPEATS).1, REPEATS)
        };
        rows.push(Row::known(
            format!("paired, +5 %, {trials} × {requests}: found (min_effect 5 %, 2 %)"),
            format!("{:.1} %, {:.1} %", found(0.05), found(0.02)),
        ));
    }
    rows
}

fn stored(sessions: usize, slower: f64, repeat: u64) -> [bool; 3] {
    let of = |number: usize, slower: f64| {
        let server = [repeat, 10 + number as u64];
        let drift = factor(SESSION_NOISE, &mut rng(&[&[4], &server[..]].concat()));
        session(0..TRIALS, REQUESTS, repeat, &server, drift * (1.0 + slower))
    };
    let history: Vec<_> = (0..sessions).map(|number| of(number, 0.0)).collect();
    let current = of(sessions, slower);
    let value = |trials: &[[f64; 3]], index| {
        Session::of_trials(&metric(trials, index)).expect("times are positive")
    };
    let comparisons = [0, 1, 2].map(|index| baseline::Comparison {
        history: History::new(history.iter().map(|trials| value(trials, index)).collect())
            .expect("a session"),
        current: value(&current, index),
        kind: if index == 0 { Kind::Center } else { Kind::Tail },
        relevance: relevance(0.05),
        large_effect: LARGE_EFFECT,
    });
    let judged = baseline::judge(&comparisons, CONFIDENCE);
    [0, 1, 2].map(|index| judged[index].finding.is_regression())
}

fn stored_rows() -> Vec<Row> {
    const REPEATS: usize = 300;
    let mut rows = Vec::new();
    for sessions in [1, 5, 20] {
        let count = |slower| {
            let judged: Vec<[bool; 3]> = (0..REPEATS as u64)
                .into_par_iter()
                .map(|repeat| stored(sessions, slower, repeat))
                .collect();
            let each = [0, 1, 2].map(|index| judged.iter().filter(|found| found[index]).count());
            let any = judged.iter().filter(|found| found.contains(&true)).count();
            (each.map(|count| share(count, REPEATS)), share(any, REPEATS))
        };
        let (each, any) = count(0.0);
        for (name, percent) in names().iter().zip(each) {
            let what = format!("stored A/A, {sessions} sessions, {name}: false regressions");
            rows.push(Row::at_most(what, percent, 7.0));
        }
        let what = format!("stored A/A, {sessions} sessions, any of them");
        rows.push(Row::at_most(what, any, 7.0));
        let found = [0.1, 0.2, 0.3].map(|slower| format!("{:.0}", count(slower).1));
        rows.push(Row::known(
            format!("stored, {sessions} sessions, +10, +20, +30 %: found"),
            format!("{} %", found.join(", ")),
        ));
    }
    rows
}

/// Gaps by their logarithms, to 0.1 %.
#[derive(Clone)]
struct Gaps {
    counts: Vec<u64>,
}

const GAP_BIN: f64 = 0.001;
const GAP_BINS: usize = 6000;
/// The logarithm of the least.
const GAP_LOW: f64 = -7.0;

impl Gaps {
    fn none() -> Self {
        Self { counts: vec![0; GAP_BINS] }
    }

    fn add(&mut self, answers: &[Answer], noise: &[f64], rng: &mut ChaCha12Rng) {
        for answer in answers {
            let mean = answer.gap.ln() - GAP_LOW;
            for _ in 0..answer.gaps {
                let noise = noise[rng.next_u32() as usize % noise.len()];
                self.counts[((mean + noise) / GAP_BIN) as usize] += 1;
            }
        }
    }

    fn merged<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut merged = Self::none();
        for gaps in all {
            merged.counts.iter_mut().zip(&gaps.counts).for_each(|(sum, count)| *sum += count);
        }
        merged
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.count() as f64;
        let mut below = 0.0;
        for (bin, count) in self.counts.iter().enumerate() {
            let count = *count as f64;
            if rank <= below + count && 0.0 < count {
                return (GAP_LOW + (bin as f64 + (rank - below) / count) * GAP_BIN).exp();
            }
            below += count;
        }
        f64::INFINITY
    }

    /// What a bootstrap of single gaps comes to: the ranks of the quantile in the resamples are binomial.
    fn naive_interval(&self, share: f64) -> Interval {
        let error = 1.96 * (share * (1.0 - share) / self.count() as f64).sqrt();
        Interval {
            low: self.quantile(share - error),
            high: self.quantile((share + error).min(1.0)),
        }
    }
}

struct Observed {
    in_time: Vec<f64>,
    /// The same in order.
    ttfts: Vec<f64>,
    gaps: Gaps,
}

fn observe(seed: &[u64], requests: usize, trial_noise: f64, noise: &[f64]) -> Observed {
    let mut rng = rng(seed);
    let workload = Workload::new(requests, &mut rng);
    let pace = factor(trial_noise, &mut rng);
    let answers = workload.run(pace, &mut rng);
    let mut gaps = Gaps::none();
    gaps.add(&answers, noise, &mut rng);
    Observed { in_time: ttfts(&answers), ttfts: sorted(ttfts(&answers)), gaps }
}

fn coverage_rows() -> Vec<Row> {
    const REPEATS: usize = 500;
    const LONG: usize = 4000;
    let mut draws = rng(&[5]);
    let noise: Vec<f64> = (0..1 << 14).map(|_| factor(GAP_NOISE, &mut draws).ln()).collect();
    // The truth: what endless trials come to.
    let long: Vec<Observed> = (0..LONG as u64)
        .into_par_iter()
        .map(|trial| observe(&[6, trial], REQUESTS, TRIAL_NOISE, &noise))
        .collect();
    let all = sorted(long.iter().flat_map(|trial| trial.ttfts.iter().copied()).collect());
    let true_requests = QUANTILES.map(|share| quantile(&all, share));
    let true_ttft = QUANTILES.map(|share| {
        let each = long.iter().map(|trial| quantile(&trial.ttfts, share)).collect();
        quantile(&sorted(each), 0.5)
    });
    let true_mean = QUANTILES.map(|share| {
        let logs = long.iter().map(|trial| quantile(&trial.ttfts, share).ln());
        (logs.sum::<f64>() / LONG as f64).exp()
    });
    let all_gaps = Gaps::merged(long.iter().map(|trial| &trial.gaps));
    let true_gap = QUANTILES.map(|share| all_gaps.quantile(share));
    drop(long);

    let covered: Vec<[Covered; 3]> = (0..REPEATS as u64)
        .into_par_iter()
        .map(|repeat| {
            let trials: Vec<Observed> = (0..TRIALS as u64)
                .map(|trial| observe(&[7, repeat, trial], REQUESTS, TRIAL_NOISE, &noise))
                .collect();
            let pooled = Gaps::merged(trials.iter().map(|trial| &trial.gaps));
            [0, 1, 2].map(|index| {
                let share = QUANTILES[index];
                let holds = |interval: Option<Interval>, truth: f64| {
                    interval.is_some_and(|interval| interval.contains(truth))
                };
                let ttft = |trials: &[Observed]| -> Vec<f64> {
                    trials.iter().map(|trial| quantile(&trial.ttfts, share)).collect()
                };
                let interval = |trials: &[Observed]| {
                    interval::of_percentile(&ttft(trials), CONFIDENCE).and_then(|it| it.1)
                };
                let by_t = interval::of_trials(&ttft(&trials), Scale::Log, CONFIDENCE);
                let kept = |left_out: usize| {
                    let kept = trials.iter().enumerate();
                    kept.filter(move |(at, _)| *at != left_out).map(|(_, trial)| trial)
                };
                let without = |of: &dyn Fn(usize) -> f64| (0..TRIALS).map(of).collect::<Vec<_>>();
                let pool = |whole: f64, without: &[f64]| {
                    interval::of_pool(whole, without, Scale::Log, CONFIDENCE)
                };
                let gaps = pool(
                    pooled.quantile(share),
                    &without(&|left_out| {
                        Gaps::merged(kept(left_out).map(|trial| &trial.gaps)).quantile(share)
                    }),
                );
                let all = |trials: &mut dyn Iterator<Item = &Observed>| {
                    let all = trials.flat_map(|trial| trial.ttfts.iter().copied()).collect();
                    quantile(&sorted(all), share)
                };
                let requests =
                    pool(all(&mut trials.iter()), &without(&|left_out| all(&mut kept(left_out))));
                Covered {
                    ttft: holds(interval(&trials), true_ttft[index]),
                    of_three: holds(interval(&trials[..3]), true_ttft[index]),
                    ttft_by_t: holds(by_t, true_mean[index]),
                    requests: holds(requests, true_requests[index]),
                    gaps: holds(gaps, true_gap[index]),
                    naive: pooled.naive_interval(share).contains(true_gap[index]),
                }
            })
        })
        .collect();
    let mut rows = Vec::new();
    let mut add = |what: &str, bar: Bar, of: fn(&Covered) -> bool| {
        for (index, name) in names().iter().enumerate() {
            let count = covered.iter().filter(|repeat| of(&repeat[index])).count();
            let (what, percent) = (format!("covered: {what}, {name}"), share(count, REPEATS));
            rows.push(match bar {
                Bar::Within => Row::within(what, percent, 92.0, 98.0),
                Bar::Outside => Row::outside(what, percent, 92.0, 98.0),
                Bar::None => Row::known(what, format!("{percent:.1} %")),
            });
        }
    };
    add("TTFT over 5 trials", Bar::Within, |covered| covered.ttft);
    add("chunk gaps over 5 trials", Bar::Within, |covered| covered.gaps);
    add("chunk gaps, single gaps resampled", Bar::Outside, |covered| covered.naive);
    add("TTFT over 3 trials", Bar::None, |covered| covered.of_three);
    add("TTFT over 5 trials, geometric mean by t", Bar::None, |covered| covered.ttft_by_t);
    add("TTFT of all requests together", Bar::None, |covered| covered.requests);
    rows
}

/// What a coverage is held against.
#[derive(Clone, Copy)]
enum Bar {
    Within,
    Outside,
    None,
}

/// Which intervals held the truth.
struct Covered {
    ttft: bool,
    of_three: bool,
    ttft_by_t: bool,
    requests: bool,
    gaps: bool,
    naive: bool,
}

/// One trial in blocks: the mean TTFT of the trial's own server.
fn block_rows() -> Vec<Row> {
    const REPEATS: usize = 500;
    const LONG: usize = 2000;
    let trial = |seed: &[u64]| observe(seed, 2000, 0.0, &[0.0]);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let means: Vec<f64> =
        (0..LONG as u64).into_par_iter().map(|long| mean(&trial(&[8, long]).in_time)).collect();
    let truth = mean(&means);
    let covered: Vec<[Option<bool>; 2]> = (0..REPEATS as u64)
        .into_par_iter()
        .map(|repeat| {
            let values = trial(&[9, repeat]).in_time;
            let sum = |values: &[f64]| values.iter().sum::<f64>();
            let by_block = interval::blocks(&values).and_then(|blocks| {
                let without = |block: Range<usize>| {
                    let rest = values.len() - block.len();
                    (sum(&values) - sum(&values[block])) / rest as f64
                };
                let without: Vec<f64> = blocks.into_iter().map(without).collect();
                interval::of_pool(mean(&values), &without, Scale::Log, CONFIDENCE)
            });
            let by_request = interval::of_trials(&values, Scale::Linear, CONFIDENCE);
            [by_block, by_request].map(|interval| Some(interval?.contains(truth)))
        })
        .collect();
    [("blocks in time", 0), ("single requests", 1)]
        .map(|(what, method)| {
            let answered: Vec<bool> = covered.iter().filter_map(|each| each[method]).collect();
            let held = answered.iter().filter(|held| **held).count();
            Row::known(
                format!("covered: mean TTFT of one trial of 2000 by {what}"),
                format!("{:.1} % of {}", share(held, answered.len()), answered.len()),
            )
        })
        .into()
}

fn over(requests: u64, share: f64, rng: &mut ChaCha12Rng) -> Counted {
    let over = (0..requests).filter(|_| rng.random::<f64>() < share).count() as u64;
    Counted { over, requests }
}

fn limit_rows() -> Vec<Row> {
    const SERVERS: usize = 1000;
    let p99 = Quantile::new(0.99).expect("a share");
    let mut draws = rng(&[10]);
    let runs: Vec<Counted> = (0..SERVERS).map(|_| over(100, 0.02, &mut draws)).collect();
    let passes = |runs: &[Counted]| {
        let met = |run: &&Counted| percentile_limit::judge(**run, p99, CONFIDENCE) == Finding::Met;
        share(runs.iter().filter(met).count(), SERVERS)
    };
    let naive = share(runs.iter().filter(|run| run.over == 0).count(), SERVERS);
    let on_the_limit: Vec<Counted> = (0..SERVERS).map(|_| over(1000, 0.01, &mut draws)).collect();
    let few = Counted { over: 0, requests: 71 };
    let Finding::Undecided { more_needed } = percentile_limit::judge(few, p99, CONFIDENCE) else {
        return vec![Row::at_most("p99 of 71, none over: decided", 100.0, 0.0)];
    };
    let needed = few.requests + more_needed.unwrap_or_default();
    vec![
        Row {
            what: "p99 of 71, none over: undecided, needs".to_owned(),
            figure: needed.to_string(),
            bar: Some(("299".to_owned(), needed == 299)),
        },
        Row::known("p99 of 100, 2 % over: passed by the naive check", format!("{naive:.1} %")),
        Row::at_most("p99 of 100, 2 % over: passed by ours", passes(&runs), 0.0),
        Row::at_most("p99 of 1000 on the limit: passed by ours", passes(&on_the_limit), 5.0),
    ]
}

/// A limit on the p99 that the server holds exactly, judged on trials of a server with a queue.
fn queue_limit_rows() -> Vec<Row> {
    const REPEATS: usize = 500;
    const LONG: usize = 4000;
    const MOST_TRIALS: usize = 40;
    let p99 = Quantile::new(0.99).expect("a share");
    let trial = |seed: &[u64]| observe(seed, REQUESTS, TRIAL_NOISE, &[0.0]).ttfts;
    let all = (0..LONG as u64).into_par_iter().flat_map_iter(|long| trial(&[11, long])).collect();
    let limit = quantile(&sorted(all), 0.99);
    let runs: Vec<Vec<Counted>> = (0..REPEATS as u64)
        .into_par_iter()
        .map(|repeat| {
            let counted = |index: u64| {
                let ttfts = trial(&[12, repeat, index]);
                let over = ttfts.iter().filter(|ttft| limit < **ttft).count() as u64;
                Counted { over, requests: REQUESTS as u64 }
            };
            (0..MOST_TRIALS as u64).map(counted).collect()
        })
        .collect();
    let clustered = |trials: &[Counted]| Evidence::of_clusters(trials);
    let independent = |trials: &[Counted]| Evidence::from(clustered(trials).counted());
    let once = |evidence: Evidence| percentile_limit::judge(evidence, p99, CONFIDENCE);
    // A trial a batch, at least five.
    let until_decided = |trials: &[Counted], of: &dyn Fn(&[Counted]) -> Evidence| {
        (TRIALS..=MOST_TRIALS)
            .map(|count| of(&trials[..count]))
            .find(|evidence| sequential::is_settled(*evidence, p99, CONFIDENCE))
            .map_or(Finding::Undecided { more_needed: None }, |evidence| {
                sequential::judge(evidence, p99, CONFIDENCE)
            })
    };
    let mut rows = Vec::new();
    let mut add = |what: &str, judge: &dyn Fn(&[Counted]) -> Finding| {
        let judged: Vec<Finding> = runs.iter().map(|trials| judge(trials)).collect();
        let [met, missed] = [Finding::Met, Finding::Missed].map(|wrong| {
            share(judged.iter().filter(|finding| **finding == wrong).count(), REPEATS)
        });
        rows.push(Row::known(
            format!("queue, p99 on the limit, {what}: met, missed"),
            format!("{met:.1} %, {missed:.1} %"),
        ));
    };
    add("5 trials as independent requests", &|trials| once(independent(&trials[..TRIALS])));
    add("5 trials", &|trials| once(clustered(&trials[..TRIALS])));
    add("until decided, independent", &|trials| until_decided(trials, &independent));
    add("until decided", &|trials| until_decided(trials, &clustered));
    rows
}

/// A limit on the p99 that the server holds exactly, and one that it misses by 30 % or holds by 30 %, at several loads, as
/// the harness judges the requests of a case.
fn certainty_rows() -> Vec<Row> {
    const REPEATS: usize = 1000;
    const LONG: usize = 8000;
    let p99 = Quantile::new(0.99).expect("a share");
    let mut rows = Vec::new();
    for utilisation in [0.5, 0.7, 0.85] {
        let trial = |seed: &[u64]| {
            let mut rng = rng(seed);
            let workload = Workload::at(utilisation, REQUESTS, &mut rng);
            ttfts(&workload.run(factor(TRIAL_NOISE, &mut rng), &mut rng))
        };
        let load = (100.0 * utilisation) as u64;
        let all = (0..LONG as u64).into_par_iter().flat_map_iter(|long| trial(&[15, load, long]));
        let truth = quantile(&sorted(all.collect()), 0.99);
        for trials in [1, 5, 10] {
            let runs: Vec<Vec<Vec<f64>>> = (0..REPEATS as u64)
                .into_par_iter()
                .map(|run| (0..trials).map(|index| trial(&[16, load, run, index])).collect())
                .collect();
            let judged = |limit: f64, wanted: Finding, old: bool| {
                let count = runs.par_iter().filter(|trials| {
                    let evidence = Evidence::of_values(trials, |ttft| limit < ttft);
                    let evidence = match (old, evidence) {
                        (false, evidence) => evidence,
                        (true, _) => Some(Evidence::of_clusters(
                            &trials
                                .iter()
                                .map(|ttfts| over_limit(ttfts, limit))
                                .collect::<Vec<_>>(),
                        )),
                    };
                    evidence
                        .is_some_and(|it| percentile_limit::judge(it, p99, CONFIDENCE) == wanted)
                });
                share(count.count(), REPEATS)
            };
            let what = format!("p99 at {utilisation}, {trials} x {REQUESTS}, on the limit");
            rows.push(Row::at_most(
                format!("{what}: met"),
                judged(truth, Finding::Met, false),
                8.0,
            ));
            let missed = judged(truth, Finding::Missed, false);
            rows.push(Row::at_most(format!("{what}: missed"), missed, 8.0));
            rows.push(Row::known(
                format!("{what}, trials alone as clusters: met, missed"),
                format!(
                    "{:.1} %, {:.1} %",
                    judged(truth, Finding::Met, true),
                    judged(truth, Finding::Missed, true)
                ),
            ));
            rows.push(Row::known(
                format!(
                    "p99 at {utilisation}, {trials} x {REQUESTS}: 30 % below met, 30 % over missed"
                ),
                format!(
                    "{:.1} %, {:.1} %",
                    judged(truth * 1.3, Finding::Met, false),
                    judged(truth / 1.3, Finding::Missed, false)
                ),
            ));
        }
    }
    rows
}

fn over_limit(ttfts: &[f64], limit: f64) -> Counted {
    let over = ttfts.iter().filter(|ttft| limit < **ttft).count() as u64;
    Counted { over, requests: ttfts.len() as u64 }
}

fn history_rows() -> Vec<Row> {
    const HISTORIES: usize = 500;
    let found = |length: i32, from: i32, slide: f64| {
        let found = |seed: u64| {
            let mut draws = rng(&[14, length as u64, from as u64, seed]);
            let level = |at: i32| (1.0 + slide).powi((at - from).max(0));
            let history: Vec<f64> =
                (0..length).map(|at| level(at) * factor(TRIAL_NOISE, &mut draws)).collect();
            !change_points(&history, change_point::CONFIDENCE).is_empty()
        };
        let count = (0..HISTORIES as u64).into_par_iter().filter(|seed| found(*seed)).count();
        share(count, HISTORIES)
    };
    let mut rows = Vec::new();
    for length in [20, 60, 200] {
        let what = format!("history of {length} without a change: false alarms");
        rows.push(Row::at_most(what, found(length, length, 0.0), 5.0));
    }
    let what = "history of 60, the last 20 commits each 0.5 % slower: seen";
    rows.push(Row::at_least(what, found(60, 40, 0.005), 90.0));
    rows
}

/// A way of looking again and again.
#[derive(Clone, Copy)]
enum Peeking {
    /// The bet, after every batch.
    Bet,
    /// α/(k(k+1)), when the run has doubled.
    Spending,
    /// As if each look were the only one, after every batch.
    Naive,
}

/// Where a server with this share over the limit is settled, and how.
fn until_decided(peeking: Peeking, share: f64, seed: &[u64]) -> (Finding, u64) {
    const BATCH: u64 = 100;
    const BUDGET: u64 = 20_000;
    let p99 = Quantile::new(0.99).expect("a share");
    let mut draws = rng(seed);
    let mut so_far = Counted { over: 0, requests: 0 };
    let (mut look, mut next) = (0, 4 * BATCH);
    while so_far.requests < BUDGET {
        let batch = over(BATCH, share, &mut draws);
        so_far.over += batch.over;
        so_far.requests += batch.requests;
        let finding = match peeking {
            Peeking::Bet => {
                if !sequential::is_settled(so_far, p99, CONFIDENCE) {
                    continue;
                }
                sequential::judge(so_far, p99, CONFIDENCE)
            }
            Peeking::Spending => {
                if so_far.requests < next {
                    continue;
                }
                look += 1;
                next *= 2;
                percentile_limit::judge(
                    so_far,
                    p99,
                    sequential::confidence_at_look(CONFIDENCE, look),
                )
            }
            Peeking::Naive => percentile_limit::judge(so_far, p99, CONFIDENCE),
        };
        if !matches!(finding, Finding::Undecided { .. }) {
            return (finding, so_far.requests);
        }
    }
    (Finding::Undecided { more_needed: None }, so_far.requests)
}

fn sequential_rows() -> Vec<Row> {
    const RUNS: usize = 1000;
    let runs = |peeking: Peeking, share: f64| -> Vec<(Finding, u64)> {
        (0..RUNS as u64)
            .into_par_iter()
            .map(|run| until_decided(peeking, share, &[13, share.to_bits(), run]))
            .collect()
    };
    let rate = |runs: &[(Finding, u64)], wanted: Finding| {
        share(runs.iter().filter(|(finding, _)| *finding == wanted).count(), RUNS)
    };
    let mut rows = Vec::new();
    let on_the_limit = runs(Peeking::Bet, 0.01);
    for (what, finding) in [("met", Finding::Met), ("missed", Finding::Missed)] {
        rows.push(Row::at_most(
            format!("until decided, p99 on the limit, 200 looks: {what}"),
            rate(&on_the_limit, finding),
            5.0,
        ));
    }
    for (what, peeking) in
        [("α spent on 6", Peeking::Spending), ("not corrected, 200", Peeking::Naive)]
    {
        let runs = runs(peeking, 0.01);
        rows.push(Row::known(
            format!("the same, {what} looks: met, missed"),
            format!("{:.1} %, {:.1} %", rate(&runs, Finding::Met), rate(&runs, Finding::Missed)),
        ));
    }
    for share_over in [0.0, 0.001, 0.003, 0.005, 0.02, 0.03, 0.05] {
        let right = if share_over < 0.01 { Finding::Met } else { Finding::Missed };
        let of = |peeking| {
            let runs = runs(peeking, share_over);
            let mean = runs.iter().map(|(_, requests)| *requests as f64).sum::<f64>() / RUNS as f64;
            (rate(&runs, right), mean)
        };
        let ((bet_right, bet), (spent_right, spent)) = (of(Peeking::Bet), of(Peeking::Spending));
        let what = format!("until decided, {} % over", share_over * 100.0);
        if share_over <= 0.001 || 0.05 <= share_over {
            rows.push(Row::at_least(format!("{what}: right before 20,000"), bet_right, 99.0));
        }
        rows.push(Row::known(
            format!("{what}: requests, right (α spent)"),
            format!("{bet:.0}, {bet_right:.0} % ({spent:.0}, {spent_right:.0} %)"),
        ));
    }
    rows
}

#[expect(clippy::print_stdout, reason = "the table is what it is run for")]
fn main() -> ExitCode {
    // Cargo adds flags of its own.
    if let Some(draws) = std::env::args().find_map(|argument| argument.parse().ok()) {
        DRAWS.get_or_init(|| draws);
    }
    let parts: [fn() -> Vec<Row>; 9] = [
        paired_rows,
        stored_rows,
        coverage_rows,
        block_rows,
        limit_rows,
        queue_limit_rows,
        certainty_rows,
        sequential_rows,
        history_rows,
    ];
    let mut missed = 0;
    for row in parts.into_iter().flat_map(|part| part()) {
        let (bar, verdict) = match &row.bar {
            Some((bar, true)) => (bar.as_str(), "met"),
            Some((bar, false)) => (bar.as_str(), "MISSED"),
            None => ("", ""),
        };
        missed += usize::from(verdict == "MISSED");
        let line = format!("{:<62} {:>30} {bar:>14} {verdict}", row.what, row.figure);
        println!("{}", line.trim_end());
    }
    if 0 < missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
