//! Every protocol and every dialect of it is measured the same: against the embedded engine, which knows
//! what it sent.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use servebench::plan::Plan;
use servebench::report::Report;
use servebench::sim::{Dialect, Preset, SimConfig, SimServer, TruthRecord, UsageStyle};

const REQUESTS: usize = 8;
const TOKENS: usize = 24;
/// Loose, since the machine is shared.
const BOUND_MS: f64 = 10.0;
const BUSY_BOUND_MS: f64 = 150.0;

fn server(dialect: Dialect) -> SimServer {
    let config = SimConfig {
        decode_base: Duration::from_millis(2),
        decode_per_sequence: Duration::ZERO,
        prefill_tokens_per_s: 1e6,
        dialect,
        ..SimConfig::preset(Preset::Large)
    };
    SimServer::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

/// The report of some requests, the truth about them, and what is plain from the kind alone.
fn measure(kind: &str, dialect: Dialect) -> (Report, Vec<TruthRecord>) {
    let server = server(dialect);
    let plan = Plan::parse(&format!(
        r#"
        defaults = {{ requests = {REQUESTS}, tokenizer = "fixtures/tokenizer.json" }}
        backend = [{{ name = "b", kind = "{kind}", base_url = "{}", models = ["m"], ignore_eos = true }}]
        workload = [{{ name = "w", path = "fixtures/sharegpt.json", output_tokens = {TOKENS} }}]
        bench = [{{ loads = ["4conc"] }}]
        "#,
        server.base_url()
    ));
    let report = servebench::measure(&plan.unwrap().cases[0]).unwrap();
    // What came first was to try the server.
    let truth = server.truth();
    (report, truth[truth.len() - REQUESTS..].to_vec())
}

fn mean_ms(times: impl Iterator<Item = Option<Duration>>) -> f64 {
    let times: Vec<f64> = times.map(|time| time.unwrap().as_secs_f64() * 1e3).collect();
    times.iter().sum::<f64>() / times.len() as f64
}

/// A latency's mean, ms, or why there is none.
fn mean(report: &Report, latency: &str) -> Result<f64, String> {
    let latency = &report.servebench.latencies[latency];
    match &latency.reason {
        Some(reason) => Err(reason.clone()),
        None => Ok(latency.statistics["mean"].estimate_ms.unwrap()),
    }
}

const KINDS: [(&str, bool); 5] = [
    // Whether the server counts the tokens.
    ("vllm", true),
    ("vllm-chat", true),
    ("openai-responses", true),
    ("trt-llm", false),
    ("tgi", true),
];

fn dialects() -> Vec<(&'static str, Dialect)> {
    let plain = Dialect::default();
    vec![
        ("plain", plain),
        ("CRLF", Dialect { crlf: true, ..plain }),
        ("no space", Dialect { no_space: true, ..plain }),
        ("event lines", Dialect { event_lines: true, ..plain }),
        ("keep-alive", Dialect { keep_alive: true, ..plain }),
        ("no [DONE]", Dialect { no_done: true, ..plain }),
        ("counts in every event", Dialect { usage: UsageStyle::EveryChunk, ..plain }),
        ("no counts", Dialect { usage: UsageStyle::Never, ..plain }),
    ]
}

#[test]
fn every_protocol_is_read_alike_in_every_dialect() {
    for (kind, _) in KINDS {
        for (name, dialect) in dialects() {
            let (report, truth) = measure(kind, dialect);
            let what = format!("{kind}, {name}: {:?}", report.servebench.failures.keys());
            assert_eq!((report.completed, report.failed), (REQUESTS as u64, 0), "{what}");
            assert_eq!(report.total_output_tokens, Some((REQUESTS * TOKENS) as u64), "{what}");
            let gaps = report.servebench.latencies["chunk_gap"].count;
            assert_eq!(gaps, (REQUESTS * (TOKENS - 1)) as u64, "{what}");
            for (latency, truth_ms) in [
                ("ttft", mean_ms(truth.iter().map(TruthRecord::ttft))),
                ("ttfa", mean_ms(truth.iter().map(TruthRecord::ttft))),
                ("tpot", mean_ms(truth.iter().map(TruthRecord::tpot))),
            ] {
                let error = mean(&report, latency).unwrap() - truth_ms;
                assert!(error.abs() < BOUND_MS, "{what}: {latency} is off by {error} ms");
                assert!(
                    latency == "tpot" || 0.0 < error,
                    "{what}: {latency} is early by {error} ms"
                );
            }
            // A token an event.
            assert!(mean(&report, "itl").is_ok(), "{what}");
        }
    }
}

#[test]
fn the_counts_are_the_servers_where_it_has_them() {
    for (kind, counts) in KINDS {
        let (report, _) = measure(kind, Dialect::default());
        let tokens = &report.servebench.tokens;
        let all = (REQUESTS * TOKENS) as u64;
        assert_eq!(tokens.output_by_server, counts.then_some(all), "{kind}");
        assert_eq!(tokens.output_by_client, Some(all), "{kind}");
    }
}

#[test]
fn several_tokens_an_event_make_no_gap_between_tokens_unless_they_are_counted() {
    let tokens_per_chunk = NonZeroU32::new(8).unwrap();
    for kind in ["vllm", "vllm-chat", "openai-responses", "trt-llm"] {
        for usage in [UsageStyle::AsAsked, UsageStyle::EveryChunk] {
            let dialect = Dialect { tokens_per_chunk, usage, ..Dialect::default() };
            let (report, truth) = measure(kind, dialect);
            let what = format!("{kind}, {usage:?}");
            assert_eq!(report.total_output_tokens, Some((REQUESTS * TOKENS) as u64), "{what}");
            // Three events of a request have two gaps.
            assert_eq!(
                report.servebench.latencies["chunk_gap"].count,
                2 * REQUESTS as u64,
                "{what}"
            );
            let counted = usage == UsageStyle::EveryChunk && kind.starts_with("vllm");
            let itl = mean(&report, "itl");
            assert_eq!(itl.is_ok(), counted, "{what}: {itl:?}");
            // The time after the first event over the tokens after it, or after the first token where
            // nobody says how many the event held.
            let span_ms = mean_ms(truth.iter().map(|record| {
                Some(*record.tokens.last().unwrap() - *record.tokens.first().unwrap())
            }));
            let after_first = if counted { TOKENS - 8 } else { TOKENS - 1 };
            let error = mean(&report, "tpot").unwrap() - span_ms / after_first as f64;
            assert!(error.abs() < 1.0, "{what}: TPOT is off by {error} ms");
        }
    }
}

#[test]
fn reasoning_and_tool_calls_are_output_and_only_answer_text_is_an_answer() {
    for kind in ["vllm-chat", "openai-responses"] {
        let reasoning = Dialect { reasoning_tokens: 10, ..Dialect::default() };
        let (report, truth) = measure(kind, reasoning);
        assert_eq!(report.total_output_tokens, Some((REQUESTS * TOKENS) as u64), "{kind}");
        let (ttft, ttfa) = (mean(&report, "ttft").unwrap(), mean(&report, "ttfa").unwrap());
        let true_ttft = mean_ms(truth.iter().map(TruthRecord::ttft));
        let true_ttfa =
            mean_ms(truth.iter().map(|record| Some(record.tokens[10] - record.arrived)));
        assert!((ttft - true_ttft).abs() < BOUND_MS, "{kind}: {ttft}, in truth {true_ttft}");
        assert!((ttfa - true_ttfa).abs() < BOUND_MS, "{kind}: {ttfa}, in truth {true_ttfa}");
        assert!(ttft + 10.0 < ttfa, "{kind}: ten steps of 2 ms are between them");

        let (report, truth) = measure(kind, Dialect { tool_call: true, ..Dialect::default() });
        assert_eq!((report.completed, report.failed), (REQUESTS as u64, 0), "{kind}");
        let true_ttft = mean_ms(truth.iter().map(TruthRecord::ttft));
        let ttft = mean(&report, "ttft").unwrap();
        assert!((ttft - true_ttft).abs() < BOUND_MS, "{kind}: {ttft}, in truth {true_ttft}");
        assert!(mean(&report, "ttfa").is_err(), "{kind}: a tool call is no answer text");
    }
}

#[test]
fn a_stream_that_ends_badly_is_a_failure_by_its_reason() {
    let plain = Dialect::default();
    for kind in ["vllm", "vllm-chat", "openai-responses", "trt-llm", "tgi"] {
        let server = server(Dialect { error_after: Some(3), ..plain });
        let report = failed(kind, &server);
        assert_eq!(report.servebench.failures["server_error"].count, REQUESTS as u64, "{kind}");
        let example = &report.servebench.failures["server_error"].example;
        assert!(example.contains("ran out of blocks"), "{kind}: {example}");
    }
    // Neither end mark: nobody can tell a complete answer from one that was cut.
    let server = server(Dialect { no_done: true, no_finish_reason: true, ..plain });
    let report = failed("vllm", &server);
    assert_eq!(report.servebench.failures["truncated"].count, REQUESTS as u64);
}

/// A run without the request that would try the server and end it all.
fn failed(kind: &str, server: &SimServer) -> Report {
    let address = server.base_url();
    let plan = format!(
        r#"
        defaults = {{ requests = {REQUESTS}, tokenizer = "fixtures/tokenizer.json" }}
        backend = [{{ name = "b", kind = "{kind}", base_url = "{address}", models = ["m"], probe = false }}]
        workload = [{{ name = "w", path = "fixtures/sharegpt.json", output_tokens = {TOKENS} }}]
        bench = [{{ loads = ["4conc"] }}]
        "#
    );
    let report = servebench::measure(&Plan::parse(&plan).unwrap().cases[0]).unwrap();
    assert_eq!((report.completed, report.failed), (0, REQUESTS as u64), "{kind}");
    assert_eq!(report.total_output_tokens, Some(0));
    report
}

#[test]
fn a_server_is_measured_by_http_2_as_it_is_without() {
    let server = server(Dialect::default());
    let plan = Plan::parse(&format!(
        r#"
        defaults = {{ requests = 200, tokenizer = "fixtures/tokenizer.json" }}
        backend = [{{ name = "b", kind = "vllm", base_url = "{}", models = ["m"], http2 = true }}]
        workload = [{{ name = "w", path = "fixtures/sharegpt.json", output_tokens = {TOKENS} }}]
        bench = [{{ loads = ["200conc"] }}]
        "#,
        server.base_url()
    ));
    let report = servebench::measure(&plan.unwrap().cases[0]).unwrap();
    assert_eq!((report.completed, report.failed), (200, 0), "{:?}", report.servebench.failures);
    assert_eq!(report.total_output_tokens, Some(200 * TOKENS as u64));
    let truth = &server.truth()[1..];
    let error = mean(&report, "ttft").unwrap() - mean_ms(truth.iter().map(TruthRecord::ttft));
    // So many at once keep both sides of a debug build busy, on processors that other tests share.
    assert!(error.abs() < BUSY_BOUND_MS, "TTFT is off by {error} ms");
    // More requests at once than one connection carries, and fewer than would need a connection each.
    // What waits for one that is being opened has waited for a connection too.
    let waited = report.servebench.latencies["connect"].count;
    assert!((1..=136).contains(&waited), "{waited} requests had to wait for a connection");
}
