//! The steps of one case, in order: start or find the server, try it, send the schedule, count tokens,
//! judge. Owns no step's detail and prints nothing.

use std::sync::Arc;

use jiff::ZonedDateTime;

use crate::clock::Clock;
use crate::environment::Environment;
use crate::files::Files;
use crate::flags::SelfCheckMode;
use crate::live::Live;
use crate::load::Load;
use crate::metric::Watched;
use crate::plan::{Alternate, Case};
use crate::report::{Measured, Report};
use crate::self_check::SelfCheck;
use crate::servers::Servers;
use crate::steady::SteadyState;
use crate::stop::Stop;
use crate::summary::Summary;
use crate::turns::Turns;
use crate::validity::{Asserted, Validity};
use crate::verdict;

use trials::{TrialRun, Trials, goal, of_trial};

mod pair;
mod prepared;
mod search;
mod sending;
mod trials;
mod watch;

pub use prepared::{Prepared, check, prepare, send_alike};

/// Measures one case of a plan and reports on it; saves and prints nothing.
///
/// # Errors
///
/// If the tokenizer or the dataset cannot be read, the embedded engine not be started, or the server
/// refuses the request that is sent before the clock starts. Requests that fail later are data: see
/// [`Report::failed`].
pub fn measure(case: &Case) -> anyhow::Result<Report> {
    let prepared = prepare(case, None, &Files::new(|_| {}))?;
    check(case, &prepared)?;
    let (options, stop) = (Options::default(), Stop::new());
    serve(case, &options.servers, &stop)?;
    run(case, &prepared, &options, &Arc::default(), &stop)
}

/// How a case is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Send one short request before the clock starts.
    pub test_prompt: bool,
    /// Whether the client is checked against the embedded engine.
    pub self_check: SelfCheckMode,
    /// What the user adds to the result.
    pub metadata: Vec<(String, String)>,
    /// How many cases of the run are compared: the more there are, the more it takes to find a change.
    pub compared_cases: usize,
    /// The servers that were started for the run.
    pub servers: Arc<Servers>,
    /// Is told how a case of many steps gets on, a line at a time.
    pub say: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        let self_check = SelfCheckMode::Auto;
        Self {
            test_prompt: true,
            self_check,
            metadata: Vec::new(),
            compared_cases: 1,
            servers: Arc::new(Servers::new(std::env::temp_dir().join("servebench-logs"), |_| {})),
            say: |_| {},
        }
    }
}

/// Starts the servers that the plan says how to start, unless each trial starts its own.
pub fn serve(case: &Case, servers: &Servers, stop: &Stop) -> anyhow::Result<()> {
    match &case.against {
        Some(against) if against.alternate == Alternate::Restart => Ok(()),
        _ => servers.serve(&case.backends().collect::<Vec<_>>(), stop),
    }
}

/// Runs the case and reports on it. An error means that there is nothing to report: the server could
/// not be started, or refused the request before the run. A stop ends the run early; the report is
/// then partial.
pub fn run(
    case: &Case,
    prepared: &Prepared,
    options: &Options,
    live: &Arc<Live>,
    stop: &Stop,
) -> anyhow::Result<Report> {
    let controls = Controls { options, live, stop, is_step: false };
    let report = match (&case.load, &case.against) {
        (Load::Search(kind), _) => search::run(case, *kind, prepared, controls),
        (_, Some(against)) => pair::run(case, against, prepared, controls),
        (_, None) => run_trials(case, prepared, controls),
    };
    // What was measured of a server that is no more is a failure, whatever the figures are.
    match (report, options.servers.take_ended()) {
        (report, ended) if ended.is_empty() => report,
        (Ok(report), ended) => Ok(report.with_servers_ended(ended)),
        (Err(error), ended) => Err(error.context(ended.join("\n"))),
    }
}

/// What a run is steered and watched by.
#[derive(Clone, Copy)]
struct Controls<'a> {
    options: &'a Options,
    live: &'a Arc<Live>,
    stop: &'a Stop,
    /// What runs is a step of a search.
    is_step: bool,
}

/// Runs a case that has one load, as often as it asks for.
fn run_trials(case: &Case, prepared: &Prepared, controls: Controls<'_>) -> anyhow::Result<Report> {
    let Controls { options, stop, .. } = controls;
    let clock = Clock::start();
    let mut trials = Trials::default();
    trials.add(case, prepared, goal(case, prepared, 0, controls), controls)?;
    let goes_on = |trials: &Trials| match case.until_decided {
        _ if stop.is_requested() => false,
        _ if trials.runs.len() < case.trials => true,
        Some(budget) => clock.now() < budget && !trials.are_decisive(case),
        None => false,
    };
    while goes_on(&trials) {
        let number = trials.runs.len();
        let (of_case, prepared) = of_trial(case, prepared, number)?;
        trials.add(&of_case, &prepared, goal(case, &prepared, number, controls), controls)?;
        let of = match case.until_decided {
            Some(_) => String::new(),
            None => format!(" of {}", case.trials),
        };
        (options.say)(&format!("{}: trial {}{of}", case.name, number + 1));
    }
    let self_check = trials.self_check(controls);
    Ok(report(case, prepared, trials, self_check, controls))
}

/// What the trials, of which there is one at least, ran on.
fn environment_of(trials: &Trials) -> Environment {
    let telemetry = &trials.telemetry;
    let gpus: Vec<String> = telemetry.of(Watched::Gpu).map(|gpu| gpu.what.clone()).collect();
    Environment {
        gpus: Some(gpus).filter(|gpus| !gpus.is_empty()),
        gpu_driver: telemetry.gpu_driver.clone(),
        cuda: telemetry.cuda.clone(),
        server_version: trials.runs[0].version.clone(),
        ..Environment::here().clone()
    }
}

/// `trials` holds one at least.
fn report(
    case: &Case,
    prepared: &Prepared,
    trials: Trials,
    self_check: anyhow::Result<SelfCheck>,
    Controls { options, stop, .. }: Controls<'_>,
) -> Report {
    let interrupted = stop.is_requested();
    let asserted = Asserted::of(case);
    let validity = |run: &TrialRun| {
        let (load, check) = (&case.load, self_check.as_ref().ok());
        Validity::new(load, trials.of(run), &run.summary, &run.strain, check, &asserted)
    };
    let mut validity = Validity::worst_of(trials.runs.iter().map(validity).collect());
    let first = &trials.runs[0];
    let steady_state = SteadyState::new(trials.of(first), &case.load);
    let has_turns = prepared.workload.has_turns();
    let turns = has_turns.then(|| Turns::new(trials.of(first), &first.workload));
    let (sent, began) = (trials.runs.iter().map(|run| run.sent).sum(), first.began);
    let summary = trials.summary(case);
    let judgements = trials.judge(case, &summary);
    let throttled: Vec<String> = trials.counted_telemetry.throttled().collect();
    let throttled_is_invalid = case.gpu.as_ref().is_some_and(|gpu| gpu.throttled_is_invalid);
    if throttled_is_invalid {
        validity.doubts.extend(throttled.iter().cloned());
    }
    let doubted = !validity.doubts.is_empty();
    let verdict = (!interrupted).then(|| verdict::verdict(&judgements, doubted, case.strict));
    let notes = first.notes.clone();
    let trial_summaries: Vec<&Summary> = trials.runs.iter().map(|run| &run.summary).collect();
    let mut warnings = notes;
    warnings.extend(trials.telemetry.warnings.iter().cloned());
    if !throttled_is_invalid {
        warnings.extend(throttled);
    }
    warnings.extend(prepared.notes.iter().chain(&prepared.workload.notes).cloned());
    warnings.extend(prepared::unsent(case, &prepared.workload));
    if case.backend.ignore_eos || case.backend.min_tokens {
        warnings.extend(summary.tokens.shortfall());
    }
    warnings.extend(steady_state.as_ref().ok().and_then(SteadyState::warning));
    let drawn = prepared.workload.requests.len();
    let asked = case.course.requests.unwrap_or_default();
    let what = if has_turns { "conversations" } else { "requests" };
    if case.course.is_open_ended() && drawn < began {
        warnings.push(format!(
            "{began} {what} were sent and the dataset gave {drawn}: prompts came again, and a prefix \
             cache may have answered them"
        ));
    } else if !case.course.is_open_ended() && drawn < asked {
        warnings.push(format!(
            "the dataset holds {drawn} {what} of a fitting length, fewer than the {asked} asked for"
        ));
    }
    warnings.extend(turns.as_ref().and_then(Turns::warning));
    let measured = Measured {
        case,
        base_url: Some(first.address.shown()),
        requests: &trials.requests,
        trials: &trials.compared,
        trial_summaries: &trial_summaries,
        sent,
        summary: &summary,
        steady_state,
        turns,
        judgements: &judgements,
        verdict,
        validity,
        telemetry: &trials.telemetry,
        counted_telemetry: &trials.counted_telemetry,
        self_check: self_check.map_err(|error| format!("{error:#}")),
        warnings,
        workload: &prepared.workload,
        salt: prepared.salt.as_deref(),
        environment: environment_of(&trials),
        metadata: &options.metadata,
    };
    Report::new(measured, &ZonedDateTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn the_result_says_how_many_requests_warmed_up() {
        let plan = r#"
            defaults = { requests = 6, tokenizer = "fixtures/tokenizer.json" }
            backend = [{ name = "sim", kind = "sim", preset = "large" }]
            workload = [{ name = "w", path = "fixtures/sharegpt.json", output_tokens = 4 }]
            bench = [{ loads = ["3conc", "200qps"], warm_up = 4 }]
        "#;
        for case in Plan::parse(plan).unwrap().cases {
            let report = measure(&case).unwrap();
            let plan = &report.servebench.plan;
            assert_eq!((report.completed, plan.requests_counted), (6, 6));
            // More than asked for where a server is faster than users begin.
            assert!((4..=6).contains(&plan.warm_up_requests), "{}", plan.warm_up_requests);
            assert_eq!(plan.requests_sent, 6 + plan.warm_up_requests);
            assert_eq!(plan.warm_up_s, None);
            let again = |warning: &String| warning.contains("came again");
            assert!(!report.servebench.warnings.iter().any(again));
        }
    }
}
