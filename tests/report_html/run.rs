//! A run in miniature: what a page may have to show, measured of the embedded engine.

use std::collections::BTreeMap;

use servebench::compare::{self, Trial};
use servebench::plan::{Case, Plan};
use servebench::render::html;
use servebench::report::{Ending, ReadFigures, Report, SourceReport};
use servebench::series::Series;

/// An engine that is quick, one that is soon full, and one that breaks off.
const PLAN: &str = r#"
    seed = 7
    [defaults]
    requests = 120
    tokenizer = "fixtures/tokenizer.json"
    goodput = { ttft = "100ms", tpot = "20ms" }
    slo = ["ttft.p99 < 250ms", "tpot.mean < 20ms", "error_ratio == 0"]

    [[backend]]
    name = "quick"
    kind = "sim"
    engine = { max_batch = 64, decode_base_ms = 2.0, decode_per_sequence_ms = 0.02, prefill_tokens_per_s = 1e5 }

    [[backend]]
    name = "small"
    kind = "sim"
    engine = { max_batch = 8, decode_base_ms = 3.0, decode_per_sequence_ms = 0.2, prefill_tokens_per_s = 2e4 }

    [[workload]]
    name = "sharegpt"
    path = "fixtures/sharegpt.json"
    output_tokens = 32

    [[bench]]
    backends = ["quick"]
    loads = ["40qps", "16conc"]

    [[bench]]
    backends = ["small"]
    loads = ["20qps", "160qps", "inf"]

    # Who waits for too long in the queue is sent away.
    [[override]]
    cases = ["small/*@inf"]
    requests = 1000
    timeout = "400ms"
    slo = ["output_throughput > 500", "error_ratio < 5%"]
"#;

/// What was measured, and what it is compared with.
pub struct Run {
    pub endings: Vec<Ending>,
    before: Report,
    history: BTreeMap<String, Vec<html::Session>>,
}

/// The case that became slower.
const SLOWER: &str = "quick/sim/sharegpt@16conc";

impl Run {
    /// Measures it.
    pub fn measured() -> Self {
        let plan = Plan::parse(PLAN).unwrap();
        let mut run = Self {
            endings: Vec::new(),
            before: slower(&servebench::measure(case(&plan, SLOWER)).unwrap(), 0.7),
            history: BTreeMap::new(),
        };
        for case in &plan.cases {
            let report = servebench::measure(case).unwrap();
            let report = if case.name == SLOWER { run.compared(case, report) } else { report };
            let report = if case.name.ends_with("@160qps") { watched(report) } else { report };
            run.endings.push(Ending::measured(report));
        }
        let reason = "VLLM_URL is not set".to_owned();
        run.endings.push(Ending::Ignored { case: "vllm/m/sharegpt@4qps".to_owned(), reason });
        run
    }

    /// Compares a case with sessions before, of which the last became slower.
    fn compared(&mut self, case: &Case, mut report: Report) -> Report {
        let trials = report.servebench.trials.clone();
        let session = |n: u32| -> Vec<Trial> {
            let noise = 1.0 + 0.01 * f64::from(n * 7 % 5);
            let before = scaled(&self.before.servebench.trials, noise);
            if n < 20 { before } else { scaled(&trials, noise) }
        };
        let sessions: Vec<(String, Vec<Trial>)> =
            (0..24).map(|n| (format!("2026-03-{:02} 04:00:00", n + 1), session(n))).collect();
        let mut dated: Vec<(&str, &[Trial])> =
            sessions.iter().map(|(date, trials)| (date.as_str(), trials.as_slice())).collect();
        dated.push(("now", &trials));
        report.servebench.history_changes = compare::changes(&case.gate, &dated);
        let known = sessions[..20].iter().map(|(_, trials)| trials.as_slice());
        let known: Vec<&[Trial]> = known.collect();
        let comparison = compare::with_sessions(&case.gate, "main".to_owned(), &known, &trials);
        let history = dated.iter().map(|(date, trials)| html::Session::new(date, trials));
        self.history.insert(case.name.clone(), history.collect());
        report.compared_with(comparison)
    }

    /// What the page is given.
    pub fn cases(&self) -> Vec<html::Case<'_>> {
        let cases = self.endings.iter().map(|ending| html::Case {
            ending,
            before: (ending.case() == SLOWER).then_some(&self.before),
            history: self.history.get(ending.case()).cloned().unwrap_or_default(),
        });
        cases.collect()
    }
}

fn case<'a>(plan: &'a Plan, name: &str) -> &'a Case {
    plan.cases.iter().find(|case| case.name == name).unwrap()
}

/// Trials that took so many times as long.
fn scaled(trials: &[Trial], by: f64) -> Vec<Trial> {
    let mut trials = trials.to_vec();
    for (name, value) in trials.iter_mut().flat_map(|trial| &mut trial.metrics) {
        match name.split_once('.') {
            Some(_) => *value *= by,
            None if name.ends_with("throughput") => *value /= by,
            None => {}
        }
    }
    trials
}

/// A result that took so many times as long.
fn slower(report: &Report, by: f64) -> Report {
    let mut report = report.clone();
    report.servebench.trials = scaled(&report.servebench.trials, by);
    let latencies = report.servebench.latencies.values_mut();
    latencies.flat_map(|latency| &mut latency.curve_ms).for_each(|ms| *ms *= by);
    report
}

/// A result with what a GPU could have said.
fn watched(mut report: Report) -> Report {
    let Series { at_s, columns } = &report.servebench.timeline;
    let busy = columns["in_flight"].iter().map(|value| value.map(|n| (n * 12.0).min(97.0)));
    let busy: Vec<Option<f64>> = busy.collect();
    let read: Vec<f64> = busy.iter().flatten().copied().collect();
    let figures = ReadFigures {
        count: read.len(),
        mean: read.iter().sum::<f64>() / read.len() as f64,
        min: read.iter().copied().fold(f64::INFINITY, f64::min),
        max: read.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        last: *read.last().unwrap(),
    };
    let name = || "utilization_percent".to_owned();
    let gpu = SourceReport {
        source: "gpu0".to_owned(),
        kind: "gpu".to_owned(),
        what: "NVIDIA H100 80GB HBM3".to_owned(),
        counts: true,
        gpu: None,
        figures: BTreeMap::from([(name(), figures)]),
        missing: BTreeMap::from([("energy_j".to_owned(), "the driver has none".to_owned())]),
        series: Series { at_s: at_s.clone(), columns: BTreeMap::from([(name(), busy)]) },
    };
    report.servebench.telemetry.sources.insert(0, gpu);
    report.servebench.telemetry.absent.remove("gpu");
    report
}

/// What somebody may write into a name or an error.
pub const HOSTILE: &str = "<script>window.hacked=1</script>\"'&lt;<img src=x onerror=\"window.hacked=1\"> \
                           {{ 7*7 }} {a|b} ${x} \u{1b}[31m\u{0}\u{7}\u{202e}txt\u{2066}\u{200f} שלום مرحبا\r\n\
                           </script><!--<i>\u{2028}\u{fffe} javascript:alert(1)@4qps";

/// Cases whose every text is hostile.
pub fn hostile() -> Vec<Ending> {
    let plan = PLAN.replace("requests = 1000", "requests = 120");
    let plan = Plan::parse(&plan).unwrap();
    let mut report = servebench::measure(case(&plan, "small/sim/sharegpt@inf")).unwrap();
    let text = || HOSTILE.to_owned();
    report.model_id = text();
    let own = &mut report.servebench;
    own.case = text();
    own.warnings = vec![text()];
    own.client.doubts = vec![text()];
    own.plan.base_url = Some(text());
    own.plan.workload = text();
    own.metadata = BTreeMap::from([(text(), text())]);
    own.environment.cpu_model = Some(text());
    own.steady_state = None;
    own.steady_state_reason = Some(text());
    own.telemetry.absent.insert(text(), text());
    own.waterfall.failure[0] = Some(text());
    own.slos.iter_mut().for_each(|slo| slo.reason = Some(text()));
    own.failures.values_mut().for_each(|failure| failure.example = text());
    own.latencies.values_mut().take(1).for_each(|latency| latency.reason = Some(text()));
    let mut second = report.clone();
    second.servebench.client.requested_rate_per_s = Some(4.0);
    [
        Ending::measured(report),
        Ending::measured(second),
        Ending::Broken { case: text(), message: text() },
        Ending::Ignored { case: text(), reason: text() },
    ]
    .into()
}
