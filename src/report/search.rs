//! The results of the steps of a search in, the result of the search out.

use super::{Report, SearchReport, SloReport, StepReport};
use crate::load;
use crate::metric::Scalar;
use crate::plan::Case;
use crate::search::Bracket;
use crate::slo::Slo;
use crate::verdict::{self, Finding, Judgement, Verdict};

/// What a search found.
pub struct Answer {
    /// What was searched for.
    pub kind: load::Search,
    /// Between which rates the objectives cease to hold.
    pub goodput: Bracket,
    /// Between which the server ceases to keep up.
    pub knee: Option<Bracket>,
    /// The search was interrupted.
    pub interrupted: bool,
}

/// A step of a search.
pub struct Step {
    /// Its rate; `None` for the burst and the single user.
    pub per_s: Option<f64>,
    /// Its result.
    pub report: Report,
    /// Why it was made longer than the plan has it.
    pub longer: Option<String>,
}

impl Step {
    fn verdict(&self) -> Option<Verdict> {
        self.report.servebench.verdict
    }

    /// How it ended, in a line.
    pub fn in_a_line(&self) -> String {
        let step = StepReport::new(self, false);
        let ms = |ms: Option<f64>| ms.map_or_else(|| "n/a".to_owned(), |ms| format!("{ms:.1} ms"));
        let verdict = step.verdict.map_or("interrupted", Verdict::name);
        let mut line = format!(
            "{}: {verdict}, TTFT p50 {}, p99 {}, TPOT {}, took {:.1} s",
            step.load,
            ms(step.ttft_ms_p50),
            ms(step.ttft_ms_p99),
            ms(step.tpot_ms_mean),
            step.duration_s,
        );
        if let Some(longer) = &step.longer {
            line.push_str(&format!(" ({longer})"));
        }
        for reason in &step.reasons {
            line.push_str(&format!("; {reason}"));
        }
        line
    }
}

impl Report {
    /// The result of a search: that of the step at the highest rate that held, and what was found. There is at
    /// least one of `steps`.
    pub fn of_search(case: &Case, answer: Answer, steps: Vec<Step>) -> Self {
        let Answer { kind, goodput, knee, interrupted } = answer;
        let at = |rate: Option<f64>| {
            let same = |step: &Step| step.per_s.is_some() && step.per_s == rate;
            steps.iter().rposition(same)
        };
        let at_answer = at(goodput.low_per_s);
        let at_knee = at(knee.and_then(|knee| knee.low_per_s));
        let best = at_answer.or(at_knee).unwrap_or(steps.len() - 1);
        let judged = |step: &Step| kind == load::Search::Sweep && is_judged(step, knee);
        // What bounds the answer from above: the rate that failed, or the lowest of all where none held.
        let lowest = steps.iter().filter_map(|step| step.per_s).reduce(f64::min);
        let failed = at(goodput.high_per_s.or(lowest.filter(|_| at_answer.is_none())));
        let failed = failed.map(|place| &steps[place]);
        let is_bounded = failed.is_none_or(|step| step.verdict() == Some(Verdict::SloMissed));
        // That none held is known only if the lowest rate could be judged.
        let value = goodput.low_per_s.or((is_bounded && !interrupted).then_some(0.0));
        let judge = |slo: &Slo| Judgement {
            slo: slo.clone(),
            value,
            judged: None,
            by_failures: false,
            finding: match (value, failed) {
                (Some(value), _) if slo.is_met_by(value) => Finding::Met,
                (Some(_), _) if is_bounded => Finding::Missed,
                (_, Some(step)) => Finding::Unknown(format!(
                    "the step at {} could not be judged: {}",
                    step.report.servebench.plan.load,
                    StepReport::new(step, false).reasons.join("; ")
                )),
                (_, None) => Finding::Unknown("no step was made".to_owned()),
            },
        };
        let judgements: Vec<Judgement> =
            case.slos.iter().filter(|slo| slo.is_on_max_goodput()).map(judge).collect();
        let mut report = steps[best].report.clone();
        let servebench = &mut report.servebench;
        servebench.search = Some(SearchReport {
            kind: kind.name().to_owned(),
            max_goodput_per_s: value,
            failed_from_per_s: goodput.high_per_s,
            failed_verdict: failed.and_then(Step::verdict),
            knee_per_s: knee.map(|knee| [knee.low_per_s, knee.high_per_s]),
            steps: steps.iter().map(|step| StepReport::new(step, judged(step))).collect(),
        });
        servebench.case = case.name.clone();
        servebench.step_of = None;
        servebench.plan.load = case.load.to_string();
        servebench.plan.seed = case.seed;
        servebench.scalars.insert(Scalar::MaxGoodput.name().to_owned(), value);
        let of_answer = verdict::verdict(&judgements, false, false);
        let of_search = match kind {
            load::Search::Sweep => {
                let of_rates = || steps.iter().filter(|step| step.per_s.is_some());
                let of_judged: Vec<&Step> = of_rates().filter(|step| judged(step)).collect();
                servebench.slos = worst(&of_judged);
                // Beyond saturation objectives are missed, and the figures are to be true all the same.
                servebench.client.doubts = of_rates().flat_map(doubts).collect();
                let is = |verdict| move |step: &Step| step.verdict() == Some(verdict);
                if of_judged.iter().copied().any(is(Verdict::SloMissed)) {
                    Verdict::SloMissed
                } else if of_rates().any(is(Verdict::Invalid)) && of_answer != Verdict::SloMissed {
                    Verdict::Invalid
                } else {
                    of_answer
                }
            }
            // No rate held: the objectives of the lowest one say why.
            load::Search::MaxGoodput if at_answer.is_none() => {
                if is_bounded {
                    Verdict::SloMissed
                } else {
                    Verdict::Invalid
                }
            }
            // It may hold at more: that is enough for an objective which is met.
            load::Search::MaxGoodput if !is_bounded && judgements.is_empty() => {
                servebench.client.doubts.extend(failed.into_iter().flat_map(doubts));
                Verdict::Invalid
            }
            load::Search::MaxGoodput => of_answer,
        };
        servebench.slos.extend(judgements.iter().map(SloReport::new));
        servebench.partial = interrupted;
        servebench.verdict = (!interrupted).then_some(of_search);
        report.steps = steps.into_iter().map(|step| step.report).collect();
        report
    }

    /// Why nothing was measured.
    pub fn why_nothing(&self) -> String {
        let failures = self.servebench.failures.iter();
        let reasons: Vec<String> = failures
            .map(|(reason, failures)| format!("{} {reason}: {}", failures.count, failures.example))
            .collect();
        format!("no request of the first burst completed: {}", reasons.join("; "))
    }
}

/// Whether the objectives of a sweep are those of this step: of a rate with which the server kept up; of every
/// rate where it kept up with none.
fn is_judged(step: &Step, knee: Option<Bracket>) -> bool {
    let limit = knee.and_then(|knee| knee.low_per_s).unwrap_or(f64::INFINITY);
    step.per_s.is_some_and(|per_s| per_s <= limit)
}

/// Each objective by the step in which it did worst: the lowest rate that missed it or could not be judged, else
/// the highest.
fn worst(steps: &[&Step]) -> Vec<SloReport> {
    let Some(first) = steps.first() else { return Vec::new() };
    let objectives = 0..first.report.servebench.slos.len();
    let of_steps = objectives.map(|place| {
        let each = || {
            steps.iter().filter_map(move |step| {
                let load = step.report.servebench.plan.load.clone();
                let slo = step.report.servebench.slos.get(place)?.clone();
                Some(SloReport { step: Some(load), ..slo })
            })
        };
        let with = |finding: &str| each().find(|slo| slo.finding == finding);
        with("missed").or_else(|| with("unknown")).or_else(|| each().next_back())
    });
    of_steps.flatten().collect()
}

/// What could not be trusted in a step, which is named.
fn doubts(step: &Step) -> Vec<String> {
    let own = &step.report.servebench;
    own.client.doubts.iter().map(|doubt| format!("{}: {doubt}", own.plan.load)).collect()
}

impl StepReport {
    fn new(step: &Step, judged: bool) -> Self {
        let Step { per_s, report, longer } = step;
        let servebench = &report.servebench;
        let missed = servebench.slos.iter().filter(|slo| slo.finding != "met");
        let missed = missed.map(|slo| match &slo.reason {
            Some(reason) => format!("{}: {reason}", slo.slo),
            None => format!("{} ({})", slo.slo, slo.shown),
        });
        Self {
            load: servebench.plan.load.clone(),
            rate_per_s: *per_s,
            verdict: servebench.verdict,
            reasons: missed.chain(servebench.client.doubts.iter().cloned()).collect(),
            judged,
            duration_s: report.duration,
            longer: longer.clone(),
            completed: report.completed,
            failed: report.failed,
            request_throughput: report.request_throughput,
            output_throughput: report.output_throughput,
            server_kept_up_ratio: servebench.client.server_kept_up_ratio,
            ttft_ms_p50: report.median_ttft_ms,
            ttft_ms_p99: report.p99_ttft_ms,
            tpot_ms_mean: report.mean_tpot_ms,
            e2e_ms_p50: report.median_e2el_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::record::tests::completed;
    use crate::render::table;
    use crate::render::tests::report;
    use crate::summary::tests::counted;

    fn case(load: &str, slo: &str) -> Case {
        let plan = format!(
            r#"
            defaults = {{ slo = ["ttft.p50 < 60ms"{slo}], duration = "1s" }}
            backend = [{{ name = "sim", kind = "sim" }}]
            workload = [{{ name = "w", dataset = "random" }}]
            bench = [{{ loads = ["{load}"] }}]
            "#
        );
        Plan::parse(&plan).unwrap().cases.remove(0)
    }

    /// A step that ended so, with the objective of the case.
    fn step(per_s: Option<f64>, verdict: Verdict) -> Step {
        let ttft = if verdict == Verdict::SloMissed { 100 } else { 60 };
        let mut report = report("w", &vec![counted(completed(&[ttft, ttft + 1]), 2); 100]);
        let own = &mut report.servebench;
        own.slos.retain(|slo| slo.slo.starts_with("ttft.p50"));
        own.verdict = Some(verdict);
        own.plan.load = per_s.map_or_else(|| "inf".to_owned(), |per_s| format!("{per_s}qps"));
        if verdict == Verdict::Invalid {
            own.client.doubts = vec!["the client slept".to_owned()];
        }
        Step { per_s, report, longer: None }
    }

    fn result(
        load: &str,
        slo: &str,
        steps: &[(f64, Verdict)],
        [goodput, knee]: [Bracket; 2],
    ) -> Report {
        let mut made = vec![step(None, Verdict::Pass)];
        made.extend(steps.iter().map(|(per_s, verdict)| step(Some(*per_s), *verdict)));
        let case = case(load, slo);
        let load::Load::Search(kind) = case.load else { panic!("{load} is a search") };
        let knee = (kind == load::Search::Sweep).then_some(knee);
        let answer = Answer { kind, goodput, knee, interrupted: false };
        Report::of_search(&case, answer, made)
    }

    fn between(low_per_s: Option<f64>, high_per_s: Option<f64>) -> Bracket {
        Bracket { low_per_s, high_per_s }
    }

    use Verdict::{Invalid, Pass, SloMissed};

    #[test]
    fn a_sweep_is_judged_by_the_steps_with_which_the_server_kept_up() {
        let knee = between(Some(20.0), Some(30.0));
        for (steps, expected, judged_by) in [
            ([Pass, Pass, SloMissed], Pass, "20qps"),
            ([Pass, SloMissed, SloMissed], SloMissed, "20qps"),
            ([SloMissed, Pass, SloMissed], SloMissed, "10qps"),
            ([Pass, Invalid, Pass], Invalid, "20qps"),
            ([Invalid, Invalid, Invalid], Invalid, "20qps"),
            ([Pass, Pass, Invalid], Invalid, "20qps"),
            ([SloMissed, Pass, Invalid], SloMissed, "10qps"),
        ] {
            let rates = [10.0, 20.0, 30.0];
            let made: Vec<(f64, Verdict)> = rates.into_iter().zip(steps).collect();
            let report = result("sweep", "", &made, [between(Some(10.0), None), knee]);
            let own = &report.servebench;
            assert_eq!(own.verdict, Some(expected), "{steps:?}");
            assert_eq!(own.slos[0].step.as_deref(), Some(judged_by), "{steps:?}");
            let judged: Vec<bool> =
                own.search.as_ref().unwrap().steps.iter().map(|step| step.judged).collect();
            assert_eq!(judged, [false, true, true, false]);
            let doubted = steps.iter().filter(|verdict| **verdict == Invalid).count();
            assert_eq!(own.client.doubts.len(), doubted);
            let text = table::render(&report);
            assert!(text.contains("judged   by the 2 steps up to 20 req/s"), "{text}");
        }
    }

    #[test]
    fn a_sweep_that_did_not_reach_saturation_says_so() {
        let steps = [(10.0, Pass), (20.0, Pass)];
        let up = between(Some(20.0), None);
        let text = table::render(&result("sweep", "", &steps, [up, up]));
        let said = "knee     not reached: at 20 req/s the server still kept up";
        assert!(text.contains(said), "{text}");
        let unknown = result("sweep", "", &steps, [up, Bracket::default()]);
        assert!(table::render(&unknown).contains("knee     not known"));
    }

    #[test]
    fn a_search_says_how_the_step_ended_at_which_it_failed() {
        let none = Bracket::default();
        let found = between(Some(20.0), Some(30.0));
        for (slo, verdicts, goodput, expected, said) in [
            ("", [Pass, SloMissed], found, Pass, "they fail at 30 req/s (slo missed: ttft.p50"),
            (
                "",
                [Pass, Invalid],
                found,
                Invalid,
                "they fail at 30 req/s (invalid: the client slept",
            ),
            (", \"max_goodput > 15\"", [Pass, Invalid], found, Pass, "(invalid:"),
            (", \"max_goodput > 25\"", [Pass, Invalid], found, Invalid, "step at 30qps could not"),
            (", \"max_goodput > 25\"", [Pass, SloMissed], found, SloMissed, "missed: max_goodput"),
            ("", [SloMissed, Invalid], between(None, Some(20.0)), SloMissed, "(slo missed:"),
            ("", [Invalid, SloMissed], between(None, Some(20.0)), Invalid, "(invalid:"),
            ("", [Invalid, SloMissed], none, Invalid, "up to n/a req/s"),
        ] {
            let made = [(20.0, verdicts[0]), (30.0, verdicts[1])];
            let report = result("max-goodput", slo, &made, [goodput, none]);
            assert_eq!(report.servebench.verdict, Some(expected), "{slo} {verdicts:?} {goodput:?}");
            let text = table::render(&report);
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_step_says_how_long_it_took_and_why() {
        let longer = Some("25 s instead of 5 s, for the 125 requests".to_owned());
        let step = Step { longer, ..step(Some(5.0), SloMissed) };
        let line = step.in_a_line();
        assert!(line.starts_with("5qps: slo missed, TTFT p50 90.0 ms"), "{line}");
        assert!(line.contains("took 0.1 s (25 s instead of 5 s, for the 125 requests)"), "{line}");
    }
}
