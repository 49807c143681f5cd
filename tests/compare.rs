//! Two engines measured in turn, of which one may be slower.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use servebench::plan::Plan;
use servebench::report::Report;
use servebench::verdict::Verdict;

/// A good engine and another whose steps take so long; 5 trials of 60 requests each.
fn compared(step_ms: f64) -> Report {
    let plan = format!(
        r#"
        ab = {{ a = "good", b = "other" }}
        [defaults]
        tokenizer = "none"
        requests = 60
        compare = ["ttft.p50", "tpot.p50", "e2e.p50", "output_throughput"]
        [[backend]]
        name = "good"
        kind = "sim"
        engine = {{ decode_base_ms = 6 }}
        [[backend]]
        name = "other"
        kind = "sim"
        engine = {{ decode_base_ms = {step_ms} }}
        [[workload]]
        name = "custom"
        dataset = "custom"
        path = "fixtures/prompts.jsonl"
        output_tokens = 20
        [[bench]]
        loads = ["8conc"]
        "#
    );
    let plan = Plan::parse(&plan).unwrap();
    assert_eq!(plan.cases.len(), 1, "the good one is no case of its own");
    servebench::measure(&plan.cases[0]).unwrap()
}

#[test]
fn a_slower_engine_regresses_and_an_equal_one_does_not() {
    let slower = compared(7.2);
    let comparison = slower.servebench.comparison.as_ref().unwrap();
    assert!(comparison.second_round, "a regression is confirmed before it fails: {comparison:?}");
    let tpot = comparison.metrics.iter().find(|metric| metric.metric == "tpot.p50").unwrap();
    assert_eq!(tpot.outcome, "regressed", "{comparison:?}");
    assert!((10.0..30.0).contains(&tpot.effect_percent), "{tpot:?}");
    assert_eq!(slower.servebench.verdict, Some(Verdict::Regressed));
    assert_eq!(slower.servebench.trials.len(), 10);
    assert_eq!(slower.steps[0].backend, "good", "its result is kept too");

    let equal = compared(6.0);
    let comparison = equal.servebench.comparison.as_ref().unwrap();
    assert!(comparison.regressions().next().is_none(), "{comparison:?}");
    assert_eq!(equal.servebench.verdict, Some(Verdict::Pass), "{comparison:?}");
}
