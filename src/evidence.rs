//! An objective and the requests of a case in, how sure it is that the objective is met out. Pure.
//!
//! Requests of one run share a queue, so they are not independent: what is, are trials, or, within one
//! trial, stretches of time that are long enough. See [`statistics`](crate::statistics).

use std::ops::Range;

use crate::duration::as_ms;
use crate::metric::{Latency, Quantity, Scalar, Statistic};
use crate::record::{Completed, RequestRecord};
use crate::slo::{Comparison, Goodput, Slo};
use crate::statistics::interval::{self, Scale};
use crate::statistics::percentile_limit::{self, Evidence, Quantile};
use crate::statistics::sequential;
use crate::statistics::{Confidence, Interval, indicator};
use crate::summary::{Counted, Summary, is_good};

/// The requests of a case and how they are cut into parts that are independent of each other.
pub struct Requests<'a> {
    requests: &'a [Counted],
    trials: Vec<Range<usize>>,
    goodput: Option<Goodput>,
}

/// How often the requests are judged while they become more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// When all are there.
    One,
    /// After each trial, until all is decided; which look this is, counted from 1.
    Many(u32),
}

/// How sure it is that an objective is met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Certainty {
    /// At the confidence asked for, what the value says.
    Sure,
    /// It could be either.
    Undecided {
        /// How many further requests would settle it if all stayed as it is; `None` where nobody can say.
        more_needed: Option<u64>,
        /// The least requests with which it could be settled at all, where there are fewer.
        at_least: Option<u64>,
    },
}

/// A finding with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// How sure.
    pub certainty: Certainty,
    /// As how many independent requests those that were counted are worth; `None` where nothing was counted.
    pub effective: Option<f64>,
    /// Between which values the truth lies; `None` where it was judged by counting, or where too little was
    /// measured.
    pub interval: Option<Interval>,
}

impl Judged {
    const SURE: Self = Self { certainty: Certainty::Sure, effective: None, interval: None };

    fn undecided(more_needed: Option<u64>) -> Self {
        let certainty = Certainty::Undecided { more_needed, at_least: None };
        Self { certainty, effective: None, interval: None }
    }
}

impl<'a> Requests<'a> {
    /// The requests of trials, one trial after the other, each in the order in which they were sent.
    pub fn new(
        requests: &'a [Counted],
        trials: Vec<Range<usize>>,
        goodput: Option<Goodput>,
    ) -> Self {
        Self { requests, trials, goodput }
    }

    /// How sure it is that `slo`, whose quantity came to `value`, is met or missed.
    pub fn judge(&self, slo: &Slo, value: f64, confidence: Confidence, looks: Looks) -> Judged {
        if matches!(slo.comparison, Comparison::Equal | Comparison::Unequal) {
            return Judged::SURE;
        }
        match (slo.quantity, slo.comparison) {
            (
                Quantity::Latency(latency, Statistic::Percentile(percent)),
                Comparison::Below | Comparison::AtMost,
            ) if is_per_request(latency) => {
                let of = |counted: &Counted| Self::value(latency, counted);
                let is_over = |ms: f64| !slo.is_met_by(ms);
                self.count(percent / 100.0, of, is_over, slo.is_met_by(value), confidence, looks)
            }
            (Quantity::Scalar(Scalar::GoodputRatio), Comparison::Above | Comparison::AtLeast) => {
                let Some(goodput) = self.goodput else { return Judged::undecided(None) };
                let bad = |(record, tokens): &Counted| {
                    let good = record.completed().map(|view| is_good(view, *tokens, goodput));
                    Some(indicator(good != Some(true)))
                };
                self.count(slo.limit, bad, is_so, slo.is_met_by(value), confidence, looks)
            }
            (Quantity::Scalar(Scalar::ErrorRatio), Comparison::Below | Comparison::AtMost) => {
                let failed = |(record, _): &Counted| Some(indicator(record.completed().is_none()));
                self.count(1.0 - slo.limit, failed, is_so, slo.is_met_by(value), confidence, looks)
            }
            // The highest rate of a search has an interval of its own.
            (Quantity::Scalar(Scalar::MaxGoodput), _) => Judged::SURE,
            // What was read is what was, and no sample of requests.
            (Quantity::Gauge(..), _) => Judged::SURE,
            (Quantity::Scalar(scalar), _) if scalar.is_read() => Judged::SURE,
            (quantity, _) => {
                let confidence = match looks {
                    Looks::One => confidence,
                    Looks::Many(look) => sequential::confidence_at_look(confidence, look),
                };
                self.resample(slo, quantity, value, confidence)
            }
        }
    }

    /// A latency of a request as a limit sees it, milliseconds; `None` where it has no such latency. A failed one is
    /// over every limit.
    fn value(latency: Latency, (record, tokens): &Counted) -> Option<f64> {
        match record.completed() {
            Some(view) => Some(as_ms(latency_of(latency, view, tokens.streamed())?)),
            None => latency.is_of_the_server().then_some(f64::INFINITY),
        }
    }

    /// Judges by counting the requests of which `is_over` says so by their values: at most 1 − `share` of them may be.
    fn count(
        &self,
        share: f64,
        value: impl Fn(&Counted) -> Option<f64>,
        is_over: impl Fn(f64) -> bool,
        met: bool,
        confidence: Confidence,
        looks: Looks,
    ) -> Judged {
        let Some(quantile) = Quantile::new(share) else { return Judged::SURE };
        let values: Vec<Vec<f64>> = self
            .trials
            .iter()
            .map(|trial| self.requests[trial.clone()].iter().filter_map(&value).collect())
            .collect();
        let Some(evidence) = Evidence::of_values(&values, is_over) else {
            return Judged::undecided(None);
        };
        let requests = evidence.counted().requests;
        let finding = match looks {
            Looks::One => percentile_limit::judge(evidence, quantile, confidence),
            Looks::Many(_) => sequential::judge(evidence, quantile, confidence),
        };
        let certainty = match finding {
            percentile_limit::Finding::Met if met => Certainty::Sure,
            percentile_limit::Finding::Missed if !met => Certainty::Sure,
            // The point estimate lies on the other side of the limit: the two disagree at its very edge.
            percentile_limit::Finding::Met | percentile_limit::Finding::Missed => {
                Certainty::Undecided { more_needed: None, at_least: None }
            }
            percentile_limit::Finding::Undecided { more_needed } => {
                let floor = quantile.floor(confidence);
                Certainty::Undecided { more_needed, at_least: (requests < floor).then_some(floor) }
            }
        };
        Judged { certainty, effective: Some(evidence.effective()), interval: None }
    }

    /// Judges by the interval over trials, or over blocks of the one there is.
    fn resample(
        &self,
        slo: &Slo,
        quantity: Quantity,
        value: f64,
        confidence: Confidence,
    ) -> Judged {
        if value.is_infinite() {
            // A request failed, and that is a fact.
            return Judged::SURE;
        }
        let parts = match self.trials.as_slice() {
            [one] => self.blocks(one.clone(), quantity),
            trials => Some(trials.to_vec()),
        };
        let Some(interval) =
            parts.and_then(|parts| self.interval(quantity, value, &parts, confidence))
        else {
            return Judged::undecided(None);
        };
        let both_alike = slo.is_met_by(interval.low) == slo.is_met_by(interval.high);
        if both_alike && slo.is_met_by(interval.low) == slo.is_met_by(value) {
            let interval = Some(interval);
            return Judged { certainty: Certainty::Sure, effective: None, interval };
        }
        // An interval shrinks with the root of what is measured.
        let half = (interval.high - interval.low) / 2.0;
        let distance = (value - slo.limit).abs();
        let times = (half / distance).powi(2) - 1.0;
        let more = (times * self.requests.len() as f64).ceil();
        let more_needed = (more.is_finite() && more < 1e9).then_some(more.max(1.0) as u64);
        let certainty = Certainty::Undecided { more_needed, at_least: None };
        Judged { certainty, effective: None, interval: Some(interval) }
    }

    /// Stretches of a trial that are independent of each other, by the latency itself where each request
    /// has one, else by how long the requests took.
    fn blocks(&self, trial: Range<usize>, quantity: Quantity) -> Option<Vec<Range<usize>>> {
        let begin = trial.start;
        let of = |(record, tokens): &Counted| {
            let own = match (quantity, record.completed()) {
                (Quantity::Latency(latency, _), Some(view)) if is_per_request(latency) => {
                    latency_of(latency, view, tokens.streamed())
                }
                _ => None,
            };
            as_ms(own.unwrap_or_else(|| record.ended.saturating_sub(record.sent)))
        };
        let latencies: Vec<f64> = self.requests[trial].iter().map(of).collect();
        let blocks = interval::blocks(&latencies)?.into_iter();
        Some(blocks.map(|block| begin + block.start..begin + block.end).collect())
    }

    fn interval(
        &self,
        quantity: Quantity,
        value: f64,
        parts: &[Range<usize>],
        confidence: Confidence,
    ) -> Option<Interval> {
        let one_trial = self.trials.len() == 1;
        match quantity {
            Quantity::Scalar(_) => {
                let each: Option<Vec<f64>> = parts
                    .iter()
                    .enumerate()
                    .map(|(place, part)| match one_trial {
                        true => self.rate(quantity, part, parts.get(place + 1)),
                        false => self.summary(part.clone()).quantity(quantity),
                    })
                    .collect();
                interval::of_trials(&each?, Scale::Log, confidence)
            }
            Quantity::Gauge(..) => None,
            // Of pools, and of means: each part left out once.
            Quantity::Latency(latency, statistic) => {
                let of_parts: Vec<Summary> =
                    parts.iter().map(|part| self.summary(part.clone())).collect();
                let of_parts: Vec<&Summary> = of_parts.iter().collect();
                let without = (0..parts.len()).map(|place| {
                    let others = [&of_parts[..place], &of_parts[place + 1..]].concat();
                    Summary::statistic_of(&others, latency, statistic)
                });
                let without: Option<Vec<f64>> = without.collect();
                interval::of_pool(value, &without?, Scale::Linear, confidence)
            }
        }
    }

    fn summary(&self, part: Range<usize>) -> Summary {
        Summary::new(&self.requests[part], self.goodput)
    }

    /// A rate over a stretch of a trial, which lasts until the next one begins.
    fn rate(
        &self,
        quantity: Quantity,
        part: &Range<usize>,
        next: Option<&Range<usize>>,
    ) -> Option<f64> {
        let requests = &self.requests[part.clone()];
        let summary = Summary::new(requests, self.goodput);
        let begin = requests.first()?.0.sent;
        let end = match next {
            Some(next) => self.requests[next.start].0.sent,
            None => requests.iter().map(|(record, _)| record.ended).max()?,
        };
        let span = end.saturating_sub(begin).as_secs_f64();
        let of_its_own = summary.quantity(quantity)?;
        (0.0 < span).then(|| of_its_own * summary.span.as_secs_f64() / span)
    }
}

/// An [`indicator`], read back.
fn is_so(value: f64) -> bool {
    0.0 < value
}

/// Whether a latency has one sample per request.
fn is_per_request(latency: Latency) -> bool {
    !matches!(latency, Latency::Itl | Latency::ChunkGap | Latency::Lateness | Latency::Connect)
}

/// The latency of a request; `None` where it has none, and for a pool of gaps.
pub(crate) fn latency_of(
    latency: Latency,
    view: Completed<'_>,
    streamed_tokens: Option<u32>,
) -> Option<std::time::Duration> {
    match latency {
        Latency::Ttft => Some(view.ttft()),
        Latency::Ttfa => view.ttfa(),
        Latency::E2e => Some(view.e2e()),
        Latency::Tpot => view.tpot(streamed_tokens?),
        Latency::ScheduledTtft => Some(view.scheduled_ttft()),
        Latency::ScheduledE2e => Some(view.scheduled_e2e()),
        Latency::Lateness => Some(RequestRecord::lateness(view.record())),
        Latency::Connect => view.record().connect,
        Latency::Itl | Latency::ChunkGap => None,
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha12Rng;

    use super::*;
    use crate::record::Failure;
    use crate::record::tests::{completed, failed};
    use crate::summary::tests::counted;

    /// Requests with a TTFT of 50 ms, the first `slow` of each hundred with one of 90 ms.
    fn requests(count: usize, slow: usize) -> Vec<Counted> {
        let ttft = |index: usize| if index % 100 < slow { 100 } else { 60 };
        (0..count).map(|index| counted(completed(&[ttft(index), ttft(index) + 20]), 2)).collect()
    }

    fn judge(slo: &str, requests: &[Counted], trials: usize) -> Judged {
        let size = requests.len() / trials;
        let trials = (0..trials).map(|trial| trial * size..(trial + 1) * size).collect();
        let slo: Slo = slo.parse().unwrap();
        let goodput = Some(Goodput {
            ttft: Some(std::time::Duration::from_millis(60)),
            tpot: None,
            e2e: None,
        });
        let value = Summary::new(requests, goodput).quantity(slo.quantity).unwrap();
        Requests::new(requests, trials, goodput).judge(&slo, value, Confidence::DEFAULT, Looks::One)
    }

    fn undecided(more_needed: Option<u64>, at_least: Option<u64>) -> Certainty {
        Certainty::Undecided { more_needed, at_least }
    }

    #[test]
    fn a_limit_on_p99_is_settled_by_299_requests_that_are_all_within_it() {
        let of = |count: usize| judge("ttft.p99 < 60ms", &requests(count, 0), 1).certainty;
        assert_eq!(of(299), Certainty::Sure);
        assert_eq!(of(298), undecided(Some(1), Some(299)));
        assert_eq!(of(100), undecided(Some(199), Some(299)));
    }

    #[test]
    fn a_share_over_the_limit_that_is_far_from_the_one_allowed_is_sure() {
        assert_eq!(judge("ttft.p90 < 60ms", &requests(1000, 2), 1).certainty, Certainty::Sure);
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let spread = |_| requests(1, usize::from(rng.random_bool(0.3))).swap_remove(0);
        let spread: Vec<Counted> = (0..1000).map(spread).collect();
        assert_eq!(judge("ttft.p90 < 60ms", &spread, 1).certainty, Certainty::Sure);
        let near = judge("ttft.p90 < 60ms", &requests(200, 9), 1).certainty;
        assert!(matches!(near, Certainty::Undecided { .. }), "{near:?}");
    }

    #[test]
    fn what_comes_in_long_spells_is_undecided_whatever_its_share() {
        // Thirty in each hundred, one after the other.
        let spells = judge("ttft.p90 < 60ms", &requests(1000, 30), 1).certainty;
        assert_eq!(spells, undecided(None, None));
        // One spell, after which nothing was slow.
        let one: Vec<Counted> = [requests(200, 0), requests(30, 30), requests(270, 0)].concat();
        assert_ne!(judge("ttft.p90 < 60ms", &one, 1).certainty, Certainty::Sure);
    }

    #[test]
    fn a_failed_request_is_over_every_limit() {
        let mut requests = requests(400, 0);
        for request in requests.iter_mut().step_by(10) {
            *request = counted(failed(Failure::Timeout), 0);
        }
        assert_eq!(judge("ttft.p99 < 10s", &requests, 1).certainty, Certainty::Sure);
    }

    #[test]
    fn a_mean_has_an_interval_over_trials_or_blocks() {
        for trials in [1, 5] {
            let requests = requests(1000, 10);
            let clear = judge("ttft.mean < 80ms", &requests, trials);
            assert_eq!(clear.certainty, Certainty::Sure, "{trials}: {clear:?}");
            // 90 % at 50 ms and 10 % at 90 ms.
            assert!(clear.interval.unwrap().contains(54.0), "{trials}: {clear:?}");
        }
        let few = judge("ttft.mean < 80ms", &requests(20, 0), 1);
        assert_eq!(few.certainty, undecided(None, None), "nothing is known of the noise");
    }

    #[test]
    fn a_share_of_good_requests_is_judged_by_counting() {
        let sure = |slo: &str, slow: usize| {
            judge(slo, &requests(1000, slow), 1).certainty == Certainty::Sure
        };
        assert!(sure("goodput_ratio > 90%", 2));
        assert!(!sure("goodput_ratio > 90%", 9));
        assert!(sure("error_ratio < 5%", 0));
        assert!(sure("error_ratio == 0", 0), "a fact needs no confidence");
    }

    #[test]
    fn a_rate_is_resampled_and_a_pool_of_gaps_is_too() {
        let mut requests = requests(1000, 10);
        for (index, (record, _)) in requests.iter_mut().enumerate() {
            let by = std::time::Duration::from_millis(10 * index as u64);
            *record = record.clone().later(by);
        }
        let rate = judge("request_throughput > 50", &requests, 1);
        assert_eq!(rate.certainty, Certainty::Sure, "{rate:?}");
        let interval = rate.interval.unwrap();
        assert!((90.0..110.0).contains(&interval.low), "{interval:?}");
        let gaps = judge("chunk_gap.p99 < 30ms", &requests, 5);
        assert_eq!(gaps.certainty, Certainty::Sure, "{gaps:?}");
    }
}
