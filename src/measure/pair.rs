//! Two cases in turn, A B B A …, trial by trial on the same schedule, prompts and seeds, and what became of
//! the second against the first.

use anyhow::bail;

use super::{Controls, Prepared, Trials, goal, prepare, report, send_alike};
use crate::compare::{self, Round};
use crate::files::Files;
use crate::live::Goal;
use crate::plan::{Against, Alternate, Case, Server};
use crate::report::Report;

/// The trials of one of the two cases.
struct Side<'a> {
    case: &'a Case,
    /// Keeps its prompts from being those of the other case, where one server would know them.
    apart: Option<&'static str>,
    alternate: Alternate,
    trials: Trials,
    prepared: Option<Prepared>,
}

/// Runs `case` in turn with the one that it is compared with, and reports on it. The other's result is the
/// one step of the report.
pub(super) fn run(
    case: &Case,
    against: &Against,
    prepared: &Prepared,
    controls: Controls<'_>,
) -> anyhow::Result<Report> {
    let Controls { options, stop, .. } = controls;
    let other = &*against.case;
    let side = |case, partner, place| Side::new(case, partner, place, against.alternate);
    let mut sides = [side(other, case, "a"), side(case, other, "b")];
    for number in 0..case.trials {
        pair(&mut sides, number, prepared, controls)?;
    }
    let [a, b] = &sides;
    let first = Round { a: &a.trials.compared, b: &b.trials.compared };
    if !stop.is_requested() && compare::is_suspect(&case.gate, first) {
        (options.say)(&format!(
            "{}: something looks worse than {}; a second round is to confirm it",
            case.name, other.name
        ));
        for number in case.trials..2 * case.trials {
            pair(&mut sides, number, prepared, controls)?;
        }
    }
    let [a, b] = sides;
    let (Some(of_a), Some(of_b)) = (a.prepared, b.prepared) else {
        bail!("the run was interrupted before both cases had a trial");
    };
    let pairs = a.trials.compared.len().min(b.trials.compared.len());
    let round = |from: usize, to: usize| Round {
        a: &a.trials.compared[from.min(pairs)..to.min(pairs)],
        b: &b.trials.compared[from.min(pairs)..to.min(pairs)],
    };
    let second = (case.trials < pairs).then(|| round(case.trials, pairs));
    let others = options.compared_cases.saturating_sub(1) * case.gate.metrics.len();
    let kind = if against.is_itself { "aa" } else { "ab" };
    let first = round(0, case.trials);
    let comparison = compare::in_turn(&case.gate, kind, other.name.clone(), first, second, others);
    let check = b.trials.self_check(controls);
    let unchecked = Err(anyhow::anyhow!("it was checked with the case that it is compared with"));
    let of_other = report(other, &of_a, a.trials, unchecked, controls);
    let of_case = report(case, &of_b, b.trials, check, controls);
    Ok(of_case.compared(comparison, of_other))
}

/// Makes a pair of trials, that of A first in every other.
fn pair(
    [a, b]: &mut [Side<'_>; 2],
    number: usize,
    prepared: &Prepared,
    controls: Controls<'_>,
) -> anyhow::Result<()> {
    let case = b.case;
    let order = if number.is_multiple_of(2) { [a, b] } else { [b, a] };
    for side in order {
        if !controls.stop.is_requested() {
            side.add(number, case, prepared, controls)?;
        }
    }
    if !controls.stop.is_requested() {
        (controls.options.say)(&format!("{}: pair {} of trials", case.name, number + 1));
    }
    Ok(())
}

impl<'a> Side<'a> {
    /// `place` tells it from its partner.
    fn new(case: &'a Case, partner: &Case, place: &'static str, alternate: Alternate) -> Self {
        // A server that was just started knows no prompts.
        let shares = alternate == Alternate::Both && same_server(case, partner);
        let apart = shares.then_some(place);
        Self { case, apart, alternate, trials: Trials::default(), prepared: None }
    }

    /// What its trial is called where prompts are salted: two servers get the same prompts, and no server
    /// knows them from a trial before.
    fn salted_as(&self, number: usize) -> String {
        format!("pair#{number}{}", self.apart.unwrap_or_default())
    }

    /// Makes one trial. `prepared` was made for `prepared_for`.
    fn add(
        &mut self,
        number: usize,
        prepared_for: &Case,
        prepared: &Prepared,
        controls: Controls<'_>,
    ) -> anyhow::Result<()> {
        // An embedded engine is one of its own for each trial in any case.
        if self.alternate == Alternate::Restart && self.case.backend.launch.is_some() {
            controls.options.servers.restart(&self.case.backend, controls.stop)?;
        }
        let case = Case { seed: self.case.seed.wrapping_add(number as u64), ..self.case.clone() };
        let salted = Case { name: self.salted_as(number), ..case.clone() };
        let alike = send_alike(&case, prepared_for).then_some(prepared);
        let made = prepare(&salted, alike, &Files::only_here())?;
        let goal = goal(&case, &made, number, controls);
        let name = format!("pair {}, {}", number + 1, case.backend.name);
        let goal = Goal { name, more: 2 * goal.more, ..goal };
        self.trials.add(&case, &made, goal, controls)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn cases(b: &str) -> Vec<Case> {
        let plan = format!(
            r#"
            backend = [
                {{ name = "a", kind = "vllm", base_url = "http://one:1", models = ["m"] }},
                {{ name = "b", kind = "vllm", base_url = "{b}", models = ["m"] }},
            ]
            workload = [{{ name = "w", dataset = "random" }}]
            bench = [{{ loads = ["1conc"] }}]
            "#
        );
        Plan::parse(&plan).unwrap().cases
    }

    #[test]
    fn two_servers_get_the_same_prompts_and_one_server_never_the_same_twice() {
        for (b, same) in [("http://one:1", true), ("http://two:1", false)] {
            let cases = cases(b);
            let side = |case, partner, place| Side::new(case, partner, place, Alternate::Both);
            let sides = [side(&cases[0], &cases[1], "a"), side(&cases[1], &cases[0], "b")];
            let [one, two] = sides.map(|side| [side.salted_as(0), side.salted_as(1)]);
            assert_eq!(one != two, same, "{b}: {one:?} {two:?}");
            assert_ne!(one[0], one[1], "{b}");
        }
    }
}
