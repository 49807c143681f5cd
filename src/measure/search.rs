//! A case whose load is to be found: steps at rates that follow from each other, each a small case with a
//! result of its own; the answer is the case's.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::bail;

use super::{Controls, Prepared, check, prepare, run_trials};
use crate::course::Course;
use crate::files::Files;
use crate::load::{self, Load, Rate};
use crate::metric::Quantity;
use crate::plan::Case;
use crate::report::{Answer, Report, Step};
use crate::search::{Bracket, Found, Search, farther, sweep};
use crate::slo::Slo;
use crate::verdict::Verdict;

/// How many requests the first burst has at most: enough to fill the batches of a server.
const BURST: usize = 256;
/// How many requests one user sends to show what idle is.
const IDLE: usize = 20;
/// A server that keeps up with less than this share of the requests is beyond the knee.
const KEEPS_UP: f64 = 0.95;
/// How many steps a sweep adds at most where its last one was not beyond saturation.
const FARTHER: usize = 4;

/// Runs a case that is a search.
pub(super) fn run(
    case: &Case,
    kind: load::Search,
    prepared: &Prepared,
    controls: Controls<'_>,
) -> anyhow::Result<Report> {
    let stop = controls.stop;
    let controls = Controls { is_step: true, ..controls };
    let mut steps = Steps { case, prepared, controls, made: Vec::new() };
    let most = Course::of_requests(case.course.requests.unwrap_or(BURST).min(BURST));
    steps.make(Load::Infinite, most, &no_errors())?;
    steps.tell_last();
    let Some(saturation_per_s) = steps.last_throughput().filter(|rate| 0.0 < *rate) else {
        if stop.is_requested() {
            return Ok(steps.answer(kind, Bracket::default(), None));
        }
        bail!("{}", steps.last().map(Report::why_nothing).unwrap_or_default());
    };
    match kind {
        load::Search::MaxGoodput => {
            let left = case.search.steps.saturating_sub(1);
            let mut search = Search::new(saturation_per_s, case.search.precision, left);
            while let Some(per_s) = search.next().filter(|_| !stop.is_requested()) {
                let found = steps.at(per_s)?;
                if !stop.is_requested() {
                    search.note(per_s, found);
                }
            }
            Ok(steps.answer(kind, search.bracket(), None))
        }
        load::Search::Sweep => {
            let idle = Course { requests: Some(IDLE), ..case.course };
            steps.make(Load::Closed(NonZeroUsize::MIN), idle, &no_errors())?;
            steps.tell_last();
            let idle_per_s = steps.last_throughput().unwrap_or(saturation_per_s);
            let (mut goodput, mut knee) = (Bracket::default(), Bracket::default());
            let planned = sweep(idle_per_s, saturation_per_s, case.search.steps);
            let most = planned.len() + FARTHER;
            let mut rates = VecDeque::from(planned);
            for _ in 0..most {
                let Some(per_s) = rates.pop_front().filter(|_| !stop.is_requested()) else { break };
                let found = steps.at(per_s)?;
                if steps.last_is_sure() {
                    goodput.note_in_order(per_s, found == Found::Holds);
                }
                if let Some(kept_up) = steps.last_kept_up() {
                    knee.note_the_highest(per_s, kept_up);
                }
                // A burst is short, and a server may take more than it shows.
                if rates.is_empty() && steps.last_kept_up() == Some(true) {
                    rates.push_back(farther(per_s));
                }
            }
            Ok(steps.answer(kind, goodput, Some(knee)))
        }
    }
}

/// The steps of a search, as far as they were made.
struct Steps<'a> {
    case: &'a Case,
    prepared: &'a Prepared,
    controls: Controls<'a>,
    made: Vec<Step>,
}

impl Steps<'_> {
    /// Makes a step at a rate.
    fn at(&mut self, per_s: f64) -> anyhow::Result<Found> {
        let Some(rate) = Rate::per_s(per_s) else {
            bail!("there is no rate of {per_s} requests/s")
        };
        let slos: Vec<Slo> =
            self.case.slos.iter().filter(|slo| !slo.is_on_max_goodput()).cloned().collect();
        let mut course = self.case.course;
        let mut longer = None;
        if let (None, Some(duration)) = (course.requests, course.duration) {
            // So long that the objectives can be judged.
            let most = slos.iter().max_by_key(|slo| samples_for(slo.quantity));
            let needed = most.map_or(0, |slo| samples_for(slo.quantity));
            let takes = Duration::try_from_secs_f64(needed as f64 / per_s)?;
            if let (true, Some(slo)) = (duration < takes, most) {
                course.duration = Some(takes);
                longer = Some(format!(
                    "{:.0} s instead of {:.0} s, for the {needed} requests that `{slo}` needs",
                    takes.as_secs_f64().ceil(),
                    duration.as_secs_f64()
                ));
            }
        }
        self.make(Load::Open { rate, cap: None }, course, &slos)?;
        if let Some(step) = self.made.last_mut() {
            step.longer = longer;
        }
        self.tell_last();
        Ok(match self.last_verdict() {
            Some(Verdict::Pass) => Found::Holds,
            Some(Verdict::SloMissed | Verdict::Regressed | Verdict::Invalid) | None => Found::Fails,
        })
    }

    fn last(&self) -> Option<&Report> {
        self.made.last().map(|step| &step.report)
    }

    fn last_verdict(&self) -> Option<Verdict> {
        self.last()?.servebench.verdict
    }

    fn last_throughput(&self) -> Option<f64> {
        self.last()?.request_throughput
    }

    /// Whether the last step says whether the objectives hold.
    fn last_is_sure(&self) -> bool {
        matches!(self.last_verdict(), Some(Verdict::Pass | Verdict::SloMissed))
    }

    /// Whether the server kept up with the last step; `None` where that is not known: answers outlasted it, or
    /// the client did not send what it was to send.
    fn last_kept_up(&self) -> Option<bool> {
        let client = &self.last()?.servebench.client;
        let ratio = client.server_kept_up_ratio.filter(|_| client.doubts.is_empty())?;
        Some(KEEPS_UP <= ratio)
    }

    /// Says how the last step ended.
    fn tell_last(&self) {
        if let Some(step) = self.made.last() {
            let (name, number) = (&self.case.name, self.made.len());
            (self.controls.options.say)(&format!("{name}: step {number}: {}", step.in_a_line()));
        }
    }

    fn make(&mut self, load: Load, course: Course, slos: &[Slo]) -> anyhow::Result<()> {
        let (case, number) = (self.case, self.made.len());
        let per_s = match load {
            Load::Open { rate, .. } => Some(rate.as_per_s()),
            _ => None,
        };
        let axes = case.name.rsplit_once('@').map_or(case.name.as_str(), |(axes, _)| axes);
        let step = Case {
            name: format!("{axes}@{load}"),
            slos: slos.to_vec(),
            load,
            course,
            // Each step has arrivals of its own: what was chance in one is not in the next.
            seed: case.seed.wrapping_add(number as u64),
            ..case.clone()
        };
        // And prompts that no step before has left in a cache.
        let prepared = self.prepare(&step, number)?;
        check(&step, &prepared)?;
        let mut report = run_trials(&step, &prepared, self.controls)?;
        report.servebench.step_of = Some(case.name.clone());
        self.made.push(Step { per_s, report, longer: None });
        Ok(())
    }

    fn prepare(&self, step: &Case, number: usize) -> anyhow::Result<Prepared> {
        // The same work as the case's, by its seed.
        let name = format!("{}#{number}", step.name);
        let of_case = Case { name, seed: self.case.seed, ..step.clone() };
        prepare(&of_case, Some(self.prepared), &Files::only_here())
    }

    /// The case's result: that of the step at the highest rate that held, with what was found.
    fn answer(self, kind: load::Search, goodput: Bracket, knee: Option<Bracket>) -> Report {
        let interrupted = self.controls.stop.is_requested();
        let answer = Answer { kind, goodput, knee, interrupted };
        Report::of_search(self.case, answer, self.made)
    }
}

/// All that is asked of the burst and of the single user.
fn no_errors() -> Vec<Slo> {
    vec![Slo::no_errors()]
}

/// How many requests it takes to judge an objective on a quantity, with some to spare: arrivals are random.
fn samples_for(quantity: Quantity) -> u64 {
    match quantity {
        Quantity::Latency(_, statistic) => statistic.min_samples() * 5 / 4,
        Quantity::Scalar(_) | Quantity::Gauge(..) => 0,
    }
}
