//! What is measured against what is true: the embedded engine records when each token really left.
//! The bounds are loose, since the machine is shared; the sign is not: nothing is seen before it left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use servebench::plan::Plan;
use servebench::sim::{Preset, SimConfig, SimServer, TruthRecord};

/// How far a mean may be from the truth. Tens of microseconds on an idle machine.
const BOUND_MS: f64 = 10.0;

fn server() -> SimServer {
    let config = SimConfig {
        max_batch: 100,
        decode_base: Duration::from_millis(10),
        decode_per_sequence: Duration::ZERO,
        prefill_tokens_per_s: 1e6,
        ..SimConfig::preset(Preset::Large)
    };
    SimServer::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

fn plan(server: &SimServer, kind: &str, load: &str) -> Plan {
    Plan::parse(&format!(
        r#"
        defaults = {{ requests = 100, tokenizer = "fixtures/tokenizer.json" }}
        backend = [{{ name = "sim", kind = "{kind}", base_url = "{}", models = ["m"] }}]
        workload = [{{ name = "sharegpt", path = "fixtures/sharegpt.json", output_tokens = 40 }}]
        bench = [{{ loads = ["{load}"] }}]
        "#,
        server.base_url()
    ))
    .unwrap()
}

fn mean_ms(times: impl Iterator<Item = Option<Duration>>) -> f64 {
    let times: Vec<f64> = times.map(|time| time.unwrap().as_secs_f64() * 1e3).collect();
    times.iter().sum::<f64>() / times.len() as f64
}

#[test]
fn latencies_agree_with_what_the_server_knows() {
    for (kind, load) in [("vllm", "20conc"), ("vllm-chat", "50qps")] {
        let server = server();
        let report = servebench::measure(&plan(&server, kind, load).cases[0]).unwrap();
        assert_eq!((report.completed, report.failed), (100, 0));
        // The first request was the test prompt.
        let truth = &server.truth()[1..];
        let tokens: usize = truth.iter().map(|record| record.tokens.len()).sum();
        assert_eq!((truth.len(), report.total_output_tokens), (100, Some(tokens as u64)));
        for (name, measured, truth) in [
            ("TTFT", report.mean_ttft_ms, mean_ms(truth.iter().map(TruthRecord::ttft))),
            ("TPOT", report.mean_tpot_ms, mean_ms(truth.iter().map(TruthRecord::tpot))),
            ("E2E", report.mean_e2el_ms, mean_ms(truth.iter().map(TruthRecord::e2e))),
        ] {
            let measured = measured.unwrap();
            let error = measured - truth;
            assert!(error.abs() < BOUND_MS, "{kind}: {name} {measured} ms, in truth {truth} ms");
            if name == "TTFT" {
                assert!(0.0 < error, "{kind}: {measured} ms, before it left at {truth} ms");
            }
        }
    }
}
