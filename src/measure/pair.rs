//! Two cases in turn, A B B A …, trial by trial on the same schedule, prompts and seeds, and what became of
//! the second against the first.

use std::sync::Arc;

use anyhow::bail;

use super::{Options, Prepared, TrialRun, prepare, report, self_check_of, trial};
use crate::compare::{self, Round, Trial};
use crate::files::Files;
use crate::live::Live;
use crate::plan::{Against, Case, Server};
use crate::report::Report;
use crate::stop::Stop;
use crate::summary::Summary;

/// The trials of one case.
#[derive(Default)]
struct Side {
    runs: Vec<TrialRun>,
    trials: Vec<Trial>,
    prepared: Option<Prepared>,
}

/// Runs `case` in turn with the one that it is compared with, and reports on it. The other's result is the
/// one step of the report.
pub(super) fn run(
    case: &Case,
    against: &Against,
    prepared: &Prepared,
    options: &Options,
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<Report> {
    let other = &against.case;
    let (mut a, mut b) = (Side::default(), Side::default());
    for number in 0..case.trials {
        pair(case, other, number, prepared, options, (&mut a, &mut b), live, stop)?;
    }
    let first = Round { a: &a.trials, b: &b.trials };
    let suspect = !stop.is_requested() && compare::is_suspect(&case.gate, first);
    if suspect {
        (options.say)(&format!(
            "{}: something looks worse than {}; a second round is to confirm it",
            case.name, other.name
        ));
        for number in case.trials..2 * case.trials {
            pair(case, other, number, prepared, options, (&mut a, &mut b), live, stop)?;
        }
    }
    let interrupted = stop.is_requested();
    if a.runs.is_empty() || b.runs.is_empty() {
        bail!("the run was interrupted before both cases had a trial");
    }
    let pairs = a.trials.len().min(b.trials.len());
    let round = |from: usize, to: usize| Round {
        a: &a.trials[from.min(pairs)..to.min(pairs)],
        b: &b.trials[from.min(pairs)..to.min(pairs)],
    };
    let second = (case.trials < pairs).then(|| round(case.trials, pairs));
    let others = options.compared_cases.saturating_sub(1) * case.gate.metrics.len();
    let kind = if against.is_itself { "aa" } else { "ab" };
    let first = round(0, case.trials);
    let comparison = compare::in_turn(&case.gate, kind, other.name.clone(), first, second, others);
    let check = self_check_of(&b.runs, options, interrupted, stop);
    let of_a = Case { trials: a.runs.len(), ..Case::clone(other) };
    let made = a.prepared.as_ref().unwrap_or(prepared);
    let unchecked = Err(anyhow::anyhow!("it was checked with the case that it is compared with"));
    let of_other = report(&of_a, made, options, a.runs, unchecked, interrupted);
    let made = b.prepared.as_ref().unwrap_or(prepared);
    let of_case = report(case, made, options, b.runs, check, interrupted);
    Ok(of_case.compared(comparison, of_other))
}

/// Makes a pair of trials, the one of A first in every other.
#[expect(clippy::too_many_arguments, reason = "both sides of a pair, and what a trial takes")]
fn pair(
    case: &Case,
    other: &Case,
    number: usize,
    prepared: &Prepared,
    options: &Options,
    (a, b): (&mut Side, &mut Side),
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut of_a = || a.add(other, case, number, prepared, options, live, stop);
    let mut of_b = || b.add(case, other, number, prepared, options, live, stop);
    if number.is_multiple_of(2) {
        of_a()?;
        of_b()?;
    } else {
        of_b()?;
        of_a()?;
    }
    if !stop.is_requested() {
        (options.say)(&format!("{}: pair {} of trials", case.name, number + 1));
    }
    Ok(())
}

impl Side {
    /// Makes one trial of `case`, whose partner is `other`.
    #[expect(clippy::too_many_arguments, reason = "a trial takes as much")]
    fn add(
        &mut self,
        case: &Case,
        other: &Case,
        number: usize,
        prepared: &Prepared,
        options: &Options,
        live: &Arc<Live>,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        if stop.is_requested() {
            return Ok(());
        }
        let case = Case { seed: case.seed.wrapping_add(number as u64), ..case.clone() };
        // Two servers get the same prompts; one server must not know them from the trial before.
        let name = match same_server(&case, other) {
            true => format!("{}#{number}#{}", case.name, self.prepared.is_some()),
            false => format!("pair#{number}"),
        };
        let salted = Case { name, ..case.clone() };
        let alike = (salted.tokenizer == other.tokenizer).then_some(prepared);
        let made = prepare(&salted, alike, &Files::only_here())?;
        let run = trial(&case, &made, options, live, stop)?;
        let summary = Summary::new(&run.requests, case.goodput);
        self.trials.push(Trial::new(case.seed, run.requests.len(), &summary));
        self.runs.push(run);
        self.prepared.get_or_insert(made);
        Ok(())
    }
}

/// Whether both cases go to one server, whose caches they share. An embedded engine is started anew for each
/// trial.
fn same_server(case: &Case, other: &Case) -> bool {
    match (&case.backend.server, &other.backend.server) {
        (Server::Remote(one), Server::Remote(two)) => {
            one.endpoint_url().origin() == two.endpoint_url().origin()
        }
        _ => false,
    }
}
