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
    /// Some step could not be trusted.
    pub unsure: bool,
}

impl Report {
    /// The result of a search: that of the step at the highest rate that held, and what was found.
    /// `steps` are its steps with their rates; there is at least one.
    pub fn of_search(case: &Case, answer: Answer, steps: Vec<(Option<f64>, Self)>) -> Self {
        let Answer { kind, goodput, knee, interrupted, unsure } = answer;
        let at = |rate: Option<f64>| {
            let same = |(per_s, _): &(Option<f64>, Self)| per_s.is_some() && *per_s == rate;
            steps.iter().rposition(same)
        };
        let at_answer = at(goodput.low_per_s);
        let at_knee = at(knee.and_then(|knee| knee.low_per_s));
        let best = at_answer.or(at_knee).unwrap_or(steps.len() - 1);
        let mut report = steps[best].1.clone();
        // That none held is known only if each could be trusted.
        let value = goodput.low_per_s.or((!unsure && !interrupted).then_some(0.0));
        let judge = |slo: &Slo| Judgement {
            slo: slo.clone(),
            value,
            judged: None,
            by_failures: false,
            finding: match value {
                None => Finding::Unknown("no step could be trusted".to_owned()),
                Some(value) if slo.is_met_by(value) => Finding::Met,
                Some(_) => Finding::Missed,
            },
        };
        let judgements: Vec<Judgement> =
            case.slos.iter().filter(|slo| slo.is_on_max_goodput()).map(judge).collect();
        let of_steps = steps.iter().map(|(per_s, step)| StepReport::new(*per_s, step));
        let servebench = &mut report.servebench;
        servebench.search = Some(SearchReport {
            kind: kind.name().to_owned(),
            max_goodput_per_s: value,
            failed_from_per_s: goodput.high_per_s,
            knee_per_s: knee.map(|knee| [knee.low_per_s, knee.high_per_s]),
            steps: of_steps.collect(),
        });
        servebench.case = case.name.clone();
        servebench.step_of = None;
        servebench.plan.load = case.load.to_string();
        servebench.plan.seed = case.seed;
        servebench.scalars.insert(Scalar::MaxGoodput.name().to_owned(), value);
        if kind == load::Search::Sweep && at_answer.is_none() {
            // Nothing is asked of the step that it shows.
            servebench.slos.clear();
        }
        servebench.slos.extend(judgements.iter().map(SloReport::new));
        servebench.partial = interrupted;
        servebench.verdict = if interrupted {
            None
        } else if kind == load::Search::MaxGoodput && at_answer.is_none() {
            // No rate held: the objectives of the lowest one say why.
            Some(if unsure { Verdict::Invalid } else { Verdict::SloMissed })
        } else {
            Some(verdict::verdict(&judgements, false, false))
        };
        report.steps = steps.into_iter().map(|(_, step)| step).collect();
        report
    }

    /// How a step ended, in a line.
    pub fn in_a_line(&self) -> String {
        let step = StepReport::new(None, self);
        let ms = |ms: Option<f64>| ms.map_or_else(|| "n/a".to_owned(), |ms| format!("{ms:.1} ms"));
        let verdict = step.verdict.map_or("interrupted", Verdict::name);
        let reasons = step.reasons.join("; ");
        format!(
            "{}: {verdict}, TTFT p50 {}, p99 {}, TPOT {}{}{reasons}",
            step.load,
            ms(step.ttft_ms_p50),
            ms(step.ttft_ms_p99),
            ms(step.tpot_ms_mean),
            if reasons.is_empty() { "" } else { "; " }
        )
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

impl StepReport {
    fn new(rate_per_s: Option<f64>, step: &Report) -> Self {
        let servebench = &step.servebench;
        let missed = servebench.slos.iter().filter(|slo| slo.finding != "met");
        let missed = missed.map(|slo| match &slo.reason {
            Some(reason) => format!("{}: {reason}", slo.slo),
            None => format!("{} ({})", slo.slo, slo.shown),
        });
        Self {
            load: servebench.plan.load.clone(),
            rate_per_s,
            verdict: servebench.verdict,
            reasons: missed.chain(servebench.client.doubts.iter().cloned()).collect(),
            completed: step.completed,
            failed: step.failed,
            request_throughput: step.request_throughput,
            output_throughput: step.output_throughput,
            server_kept_up_ratio: servebench.client.server_kept_up_ratio,
            ttft_ms_p50: step.median_ttft_ms,
            ttft_ms_p99: step.p99_ttft_ms,
            tpot_ms_mean: step.mean_tpot_ms,
            e2e_ms_p50: step.median_e2el_ms,
        }
    }
}
