//! The model in real time: a thread of its own ends each step when it is due and hands the tokens to
//! their connections.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::chunk::FinishReason;
use super::config::SimConfig;
use super::counters::{Counters, Gauges};
use super::model::{Model, Sequence, TooLong};
use crate::clock::Clock;
use crate::lock::lock;
use crate::punctual::be_punctual;

/// A wait may be told to stop until this long before its end; from then on it is exact instead.
const EXACT: Duration = Duration::from_millis(2);

/// A step begins when the last was due to end, so that small delays do not add up; unless the thread
/// was held up for longer than this.
const RESYNC: Duration = Duration::from_millis(1);

/// A request for tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submission {
    pub(crate) arrived: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_tokens: u32,
    pub(crate) output_tokens: u32,
    pub(crate) reason: FinishReason,
}

/// One token of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    /// Whether the answer ends with it.
    pub(crate) last: bool,
}

/// The engine. Copies share it.
#[derive(Clone, Debug)]
pub(crate) struct Engine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    model: Model,
    outlets: HashMap<u64, Outlet>,
    counters: Counters,
    next_id: u64,
    stopped: bool,
}

/// Where the tokens of a sequence go.
#[derive(Debug)]
struct Outlet {
    tokens: UnboundedSender<Token>,
    submission: Submission,
    first_token: Option<Duration>,
    last_token: Option<Duration>,
}

impl Engine {
    /// An idle engine, to be run.
    pub(crate) fn new(config: &SimConfig, clock: Clock) -> Self {
        let state = State {
            model: Model::new(config),
            outlets: HashMap::new(),
            counters: Counters::new(),
            next_id: 0,
            stopped: false,
        };
        Self(Arc::new(Shared { clock, state: Mutex::new(state), wake: Condvar::new() }))
    }

    /// Queues a request. Gives its number and the tokens as they come.
    pub(crate) fn submit(
        &self,
        submission: Submission,
    ) -> Result<(u64, UnboundedReceiver<Token>), TooLong> {
        let mut state = lock(&self.0.state);
        let id = state.next_id;
        state.model.submit(Sequence {
            id,
            prompt_tokens: submission.prompt_tokens,
            max_tokens: submission.max_tokens,
            output_tokens: submission.output_tokens,
        })?;
        state.next_id += 1;
        let (sender, receiver) = mpsc::unbounded_channel();
        let outlet = Outlet { tokens: sender, submission, first_token: None, last_token: None };
        state.outlets.insert(id, outlet);
        self.0.wake.notify_one();
        Ok((id, receiver))
    }

    /// Takes a request out that nobody waits for any more.
    pub(crate) fn cancel(&self, id: u64) {
        let mut state = lock(&self.0.state);
        state.model.cancel(id);
        if state.outlets.remove(&id).is_some() {
            state.counters.aborted += 1;
        }
    }

    /// The statistics as a page for a scraper.
    pub(crate) fn metrics(&self, model: &str) -> String {
        let state = lock(&self.0.state);
        let gauges = Gauges {
            running: state.model.running(),
            waiting: state.model.waiting(),
            kv_usage: state.model.kv_usage(),
        };
        state.counters.page(model, gauges)
    }

    /// Has `run` return soon.
    pub(crate) fn stop(&self) {
        lock(&self.0.state).stopped = true;
        self.0.wake.notify_one();
    }

    /// Runs step after step until it is stopped; for a thread of its own.
    pub(crate) fn run(&self) {
        be_punctual();
        let clock = self.0.clock;
        let mut state = lock(&self.0.state);
        let mut last_end = None;
        while !state.stopped {
            let Some(step) = state.model.begin_step() else {
                last_end = None;
                state = self.0.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = clock.now();
            state.admit(now);
            let begin = last_end.filter(|end| now.saturating_sub(*end) < RESYNC).unwrap_or(now);
            let end = begin + step;
            last_end = Some(end);
            state = self.nap(state, end);
            if state.stopped {
                break;
            }
            drop(state);
            clock.block_until(end);
            state = lock(&self.0.state);
            state.end_step(clock.now());
        }
    }

    /// Waits until shortly before `end`, or until the engine is stopped.
    fn nap<'a>(&self, mut state: MutexGuard<'a, State>, end: Duration) -> MutexGuard<'a, State> {
        while let Some(nap) = end.checked_sub(self.0.clock.now() + EXACT)
            && !state.stopped
        {
            let woken = self.0.wake.wait_timeout(state, nap);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }
}

impl State {
    /// The step that was just begun has taken some from the queue.
    fn admit(&mut self, now: Duration) {
        for id in self.model.admitted() {
            if let Some(outlet) = self.outlets.get(&id) {
                self.counters.queue.observe(now.saturating_sub(outlet.submission.arrived));
            }
        }
    }

    fn end_step(&mut self, now: Duration) {
        for emission in self.model.end_step() {
            let Some(outlet) = self.outlets.get_mut(&emission.id) else { continue };
            let Submission { arrived, prompt_tokens, output_tokens, reason, .. } =
                outlet.submission;
            let first_token = *outlet.first_token.get_or_insert(now);
            match outlet.last_token.replace(now) {
                None => {
                    self.counters.prompt_tokens += u64::from(prompt_tokens);
                    self.counters.ttft.observe(now.saturating_sub(arrived));
                }
                Some(last) => self.counters.inter_token.observe(now.saturating_sub(last)),
            }
            self.counters.generation_tokens += 1;
            // The reader may have gone; it will be cancelled soon.
            let _ = outlet.tokens.send(Token { last: emission.last });
            if emission.last {
                self.counters.e2e.observe(now.saturating_sub(arrived));
                let after_first = now.saturating_sub(first_token);
                if let Some(tpot) = after_first.checked_div(output_tokens - 1) {
                    self.counters.tpot.observe(tpot);
                }
                self.counters.finish(reason);
                self.outlets.remove(&emission.id);
            }
        }
    }
}
