//! Continuous batching as a pure model: sequences in, the duration and the tokens of each step out.
//! Knows no clock, no thread and no text.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::config::SimConfig;

/// No step takes longer, whatever the figures say.
const LONGEST_STEP: Duration = Duration::from_secs(24 * 60 * 60);

/// A request as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// Tells it from all others.
    pub(crate) id: u64,
    /// Length of its prompt; above 0.
    pub(crate) prompt_tokens: u32,
    /// The longest answer that room is kept for.
    pub(crate) max_tokens: u32,
    /// Where its answer ends; above 0, at most `max_tokens`.
    pub(crate) output_tokens: u32,
}

impl Sequence {
    /// Room that it takes in the KV cache from its admission to its end.
    pub(crate) fn kv_tokens(&self) -> u64 {
        u64::from(self.prompt_tokens) + u64::from(self.max_tokens)
    }
}

/// One token that a step yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Emission {
    /// Of which sequence.
    pub(crate) id: u64,
    /// Whether its answer ends with it.
    pub(crate) last: bool,
}

/// A sequence does not fit the KV cache, even on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

#[derive(Clone, Copy, Debug)]
struct Running {
    sequence: Sequence,
    /// Prompt tokens that no step has taken yet.
    prompt_left: u32,
    /// Prompt tokens that the present step takes.
    chunk: u32,
    generated: u32,
}

/// The sequences that wait and run. A step is begun, lasts as long as it says, and is ended.
#[derive(Debug)]
pub(crate) struct Model {
    max_batch: usize,
    max_batched_tokens: u32,
    prefill_tokens_per_s: f64,
    decode_base: Duration,
    decode_per_sequence: Duration,
    kv_cache_tokens: u64,
    jitter: f64,
    rng: ChaCha12Rng,
    waiting: VecDeque<Sequence>,
    /// In order of admission.
    running: Vec<Running>,
    /// Those of `running` that the present step has admitted come last, and are so many.
    admitted: usize,
    kv_used: u64,
}

impl Model {
    /// An idle model.
    pub(crate) fn new(config: &SimConfig) -> Self {
        Self {
            max_batch: config.max_batch,
            max_batched_tokens: config.max_batched_tokens,
            prefill_tokens_per_s: config.prefill_tokens_per_s,
            decode_base: config.decode_base,
            decode_per_sequence: config.decode_per_sequence,
            kv_cache_tokens: config.kv_cache_tokens,
            jitter: config.jitter,
            rng: ChaCha12Rng::seed_from_u64(config.seed),
            waiting: VecDeque::new(),
            running: Vec::new(),
            admitted: 0,
            kv_used: 0,
        }
    }

    /// Puts a sequence at the end of the queue.
    pub(crate) fn submit(&mut self, sequence: Sequence) -> Result<(), TooLong> {
        if sequence.kv_tokens() > self.kv_cache_tokens {
            return Err(TooLong);
        }
        self.waiting.push_back(sequence);
        Ok(())
    }

    /// Takes a sequence out, wherever it is; its place is free at once.
    pub(crate) fn cancel(&mut self, id: u64) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(place) = self.running.iter().position(|running| running.sequence.id == id) {
            let running = self.running.remove(place);
            self.kv_used -= running.sequence.kv_tokens();
        }
    }

    /// Admits what there is room for and says how long the step takes; `None` when there is nothing
    /// to do.
    pub(crate) fn begin_step(&mut self) -> Option<Duration> {
        let mut budget = self.max_batched_tokens;
        for running in &mut self.running {
            running.chunk = running.prompt_left.min(budget);
            budget -= running.chunk;
        }
        let before = self.running.len();
        // First come, first served: a sequence that does not fit holds up all behind it.
        while budget > 0 && self.running.len() < self.max_batch {
            let Some(&sequence) = self.waiting.front() else { break };
            if self.kv_used + sequence.kv_tokens() > self.kv_cache_tokens {
                break;
            }
            self.waiting.pop_front();
            self.kv_used += sequence.kv_tokens();
            let chunk = sequence.prompt_tokens.min(budget);
            budget -= chunk;
            self.running.push(Running {
                sequence,
                prompt_left: sequence.prompt_tokens,
                chunk,
                generated: 0,
            });
        }
        self.admitted = self.running.len() - before;
        if self.running.is_empty() {
            return None;
        }
        let prefill = f64::from(self.max_batched_tokens - budget) / self.prefill_tokens_per_s;
        let batch = self.running.iter().filter(|running| running.chunk == running.prompt_left);
        let decode = self.decode_base.as_secs_f64()
            + batch.count() as f64 * self.decode_per_sequence.as_secs_f64();
        let factor = 1.0 + self.jitter * self.rng.random_range(-1.0..=1.0);
        let duration = Duration::try_from_secs_f64((prefill + decode) * factor);
        Some(duration.unwrap_or(LONGEST_STEP).min(LONGEST_STEP))
    }

    /// The tokens of the step that was begun last, in order of admission. What has its whole answer
    /// makes room.
    pub(crate) fn end_step(&mut self) -> Vec<Emission> {
        let mut emissions = Vec::with_capacity(self.running.len());
        let kv_used = &mut self.kv_used;
        self.running.retain_mut(|running| {
            running.prompt_left -= running.chunk;
            running.chunk = 0;
            if running.prompt_left > 0 {
                return true;
            }
            running.generated += 1;
            let last = running.generated >= running.sequence.output_tokens;
            emissions.push(Emission { id: running.sequence.id, last });
            if last {
                *kv_used -= running.sequence.kv_tokens();
            }
            !last
        });
        emissions
    }

    /// Those that the step which was just begun has taken from the queue.
    pub(crate) fn admitted(&self) -> impl Iterator<Item = u64> {
        let first = self.running.len() - self.admitted;
        self.running[first..].iter().map(|running| running.sequence.id)
    }

    /// Sequences that run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Share of the KV cache that is taken.
    pub(crate) fn kv_usage(&self) -> f64 {
        if self.kv_cache_tokens == 0 {
            return 0.0;
        }
        self.kv_used as f64 / self.kv_cache_tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Preset;
    use super::*;

    /// 1 ms a prompt token, 10 ms a step, 1 ms a sequence.
    fn model(change: impl FnOnce(&mut SimConfig)) -> Model {
        let mut config = SimConfig {
            max_batch: 2,
            max_batched_tokens: 100,
            prefill_tokens_per_s: 1000.0,
            decode_base: Duration::from_millis(10),
            decode_per_sequence: Duration::from_millis(1),
            kv_cache_tokens: 1000,
            jitter: 0.0,
            ..SimConfig::preset(Preset::Small)
        };
        change(&mut config);
        Model::new(&config)
    }

    fn sequence(id: u64, prompt_tokens: u32, output_tokens: u32) -> Sequence {
        Sequence { id, prompt_tokens, max_tokens: output_tokens, output_tokens }
    }

    /// The duration of the next step in milliseconds, and whose tokens it yields.
    fn step(model: &mut Model) -> Option<(u128, Vec<u64>)> {
        let duration = model.begin_step()?;
        let ids = model.end_step().iter().map(|emission| emission.id).collect();
        Some(((duration.as_secs_f64() * 1e3).round() as u128, ids))
    }

    #[test]
    fn an_idle_model_takes_no_step() {
        assert_eq!(model(|_| ()).begin_step(), None);
    }

    #[test]
    fn the_first_token_comes_with_the_prefill_and_each_other_with_a_step() {
        let mut model = model(|_| ());
        model.submit(sequence(1, 50, 3)).unwrap();
        assert_eq!(step(&mut model), Some((61, vec![1])));
        assert_eq!(step(&mut model), Some((11, vec![1])));
        model.begin_step().unwrap();
        assert_eq!(model.end_step(), [Emission { id: 1, last: true }]);
        assert_eq!(step(&mut model), None);
        assert_eq!(model.kv_usage(), 0.0);
    }

    #[test]
    fn a_new_prompt_slows_the_step_of_those_that_run() {
        let mut model = model(|_| ());
        model.submit(sequence(1, 50, 9)).unwrap();
        step(&mut model);
        model.submit(sequence(2, 30, 9)).unwrap();
        assert_eq!(step(&mut model), Some((42, vec![1, 2])));
        assert_eq!(step(&mut model), Some((12, vec![1, 2])));
    }

    #[test]
    fn a_long_prompt_is_read_in_chunks() {
        let mut model = model(|_| ());
        model.submit(sequence(1, 250, 1)).unwrap();
        assert_eq!(step(&mut model), Some((110, vec![])));
        assert_eq!(step(&mut model), Some((110, vec![])));
        assert_eq!(step(&mut model), Some((61, vec![1])));
    }

    #[test]
    fn those_that_exceed_the_batch_wait_in_order() {
        let mut model = model(|_| ());
        for id in 1..=4 {
            model.submit(sequence(id, 10, 2)).unwrap();
        }
        assert_eq!(step(&mut model), Some((32, vec![1, 2])));
        assert_eq!((model.running(), model.waiting()), (2, 2));
        assert_eq!(step(&mut model), Some((12, vec![1, 2])));
        assert_eq!(step(&mut model), Some((32, vec![3, 4])));
    }

    #[test]
    fn a_step_says_whom_it_took_from_the_queue() {
        let mut model = model(|_| ());
        for id in 1..=3 {
            model.submit(sequence(id, 10, 2)).unwrap();
        }
        let mut admitted = || {
            model.begin_step().unwrap();
            let ids: Vec<u64> = model.admitted().collect();
            model.end_step();
            ids
        };
        assert_eq!([admitted(), admitted(), admitted()], [vec![1, 2], vec![], vec![3]]);
    }

    #[test]
    fn a_full_kv_cache_holds_up_the_queue_even_where_a_later_one_would_fit() {
        let mut model = model(|config| config.kv_cache_tokens = 100);
        model.submit(sequence(1, 50, 2)).unwrap();
        model.submit(sequence(2, 50, 2)).unwrap();
        model.submit(sequence(3, 5, 2)).unwrap();
        assert_eq!(step(&mut model), Some((61, vec![1])));
        assert_eq!(model.kv_usage(), 0.52);
        assert_eq!(step(&mut model), Some((11, vec![1])));
        assert_eq!(step(&mut model), Some((67, vec![2, 3])));
    }

    #[test]
    fn what_can_never_fit_is_refused() {
        let mut model = model(|config| config.kv_cache_tokens = 100);
        assert_eq!(model.submit(sequence(1, 98, 3)), Err(TooLong));
        assert_eq!(model.submit(sequence(1, 98, 2)), Ok(()));
    }

    #[test]
    fn cancelling_makes_room() {
        let mut model = model(|_| ());
        for id in 1..=4 {
            model.submit(sequence(id, 10, 9)).unwrap();
        }
        step(&mut model);
        model.begin_step();
        model.cancel(1);
        model.cancel(3);
        assert_eq!(model.end_step(), [Emission { id: 2, last: false }]);
        assert_eq!(step(&mut model), Some((22, vec![2, 4])));
        assert_eq!(model.waiting(), 0);
        model.cancel(2);
        model.cancel(4);
        assert_eq!(model.kv_usage(), 0.0);
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_follows_the_seed() {
        let durations = |seed| {
            let mut model = model(|config| (config.jitter, config.seed) = (0.1, seed));
            model.submit(sequence(1, 1, 100)).unwrap();
            step(&mut model);
            std::iter::from_fn(|| {
                let duration = model.begin_step();
                model.end_step();
                duration
            })
            .collect::<Vec<_>>()
        };
        let first = durations(1);
        assert_eq!(first.len(), 99);
        assert_eq!(first, durations(1));
        assert_ne!(first, durations(2));
        let (low, high) = (Duration::from_micros(9900), Duration::from_micros(12_100));
        assert!(first.iter().all(|duration| (low..=high).contains(duration)));
    }
}
