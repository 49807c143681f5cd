//! Loads that are to be found, against the embedded engine, whose capacity is known.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::sync::{Mutex, PoisonError};

use servebench::plan::Plan;
use servebench::report::Report;
use servebench::verdict::Verdict;

/// An engine of 16 places, each of which is taken for 20 steps of 5 ms: it answers 160 requests a second,
/// and no more.
const CAPACITY_PER_S: f64 = 160.0;

/// Searches have the machine to themselves, or they would find what it can take, not what the engine can.
static ALONE: Mutex<()> = Mutex::new(());

fn measured(load: &str, more: &str) -> Report {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = Plan::parse(&format!(
        r#"
        defaults = {{ tokenizer = "fixtures/tokenizer.json", arrivals = "constant", {more} }}
        [[backend]]
        name = "sim"
        kind = "sim"
        engine = {{ max_batch = 16, decode_base_ms = 5, decode_per_sequence_ms = 0.001, jitter = 0,
            prefill_tokens_per_s = 1e7, kv_cache_tokens = 1000000 }}
        [[workload]]
        name = "random"
        dataset = "random"
        input_tokens = 16
        output_tokens = 20
        [[bench]]
        loads = ["{load}"]
        "#
    ));
    servebench::measure(&plan.unwrap().cases[0]).unwrap()
}

#[test]
fn the_highest_rate_at_which_the_objectives_hold_is_that_of_the_engines_capacity() {
    let slo = r#"slo = ["ttft.p90 < 60ms", "max_goodput > 60"], duration = "1500ms""#;
    let report = measured("max-goodput", slo);
    let search = report.servebench.search.as_ref().unwrap();
    let (found, failed) = (search.max_goodput_per_s.unwrap(), search.failed_from_per_s.unwrap());
    let off = |rate: f64| (rate / CAPACITY_PER_S - 1.0).abs();
    assert!(
        off(found) <= 0.05 || (found < CAPACITY_PER_S && CAPACITY_PER_S < failed),
        "{search:?}"
    );
    assert!(search.steps.len() <= 12, "{search:?}");
    assert_eq!(report.steps.len(), search.steps.len(), "each step has a result");
    assert_eq!(report.servebench.verdict, Some(Verdict::Pass));
    assert_eq!(report.request_rate.0, found, "the figures are those of the step at that rate");
    let judged: Vec<&str> = report.servebench.slos.iter().map(|slo| slo.slo.as_str()).collect();
    assert_eq!(judged, ["ttft.p90 < 60ms", "error_ratio == 0", "max_goodput > 60"]);
}

#[test]
fn a_sweep_shows_the_knee_at_the_engines_capacity() {
    let sweep = || measured("sweep", r#"duration = "1s", search_steps = 6"#);
    // A machine that is busy with something else says itself that it cannot measure.
    let is_valid = |report: &Report| report.servebench.verdict != Some(Verdict::Invalid);
    let report = (0..4).map(|_| sweep()).find(is_valid).unwrap_or_else(sweep);
    let search = report.servebench.search.as_ref().unwrap();
    let Some([Some(below), Some(above)]) = search.knee_per_s else { panic!("{search:?}") };
    assert!(below <= CAPACITY_PER_S * 1.02 && CAPACITY_PER_S < above, "{search:?}");
    assert_eq!(search.steps.len(), 8, "a burst, one user, and six rates");
    assert_eq!(report.servebench.verdict, Some(Verdict::Pass));
    let throughputs = search.steps[2..].iter().map(|step| step.request_throughput.unwrap());
    assert!(throughputs.fold(0.0, f64::max) <= CAPACITY_PER_S * 1.05, "{search:?}");
}

#[test]
fn a_server_that_never_meets_its_objectives_misses() {
    let slo = r#"slo = ["ttft.p50 < 1us", "max_goodput > 1"], requests = 2"#;
    let report = measured("max-goodput", slo);
    assert_eq!(report.servebench.verdict, Some(Verdict::SloMissed));
    assert_eq!(report.servebench.search.unwrap().max_goodput_per_s, Some(0.0));
}
