//! Conversations through real sockets against the embedded engine: what a later turn holds, when it is
//! sent, what the report says of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use servebench::plan::Plan;
use servebench::report::Report;
use servebench::sim::{Dialect, Lexicon, Preset, SimConfig, SimServer, TruthRecord};
use servebench::tokenizer::Tokenizer;

const FIRST: &str = "What is the capital of the kingdom of Portugal?";
const SECOND: &str = "And how many people live there?";

fn tokenizer() -> Tokenizer {
    Tokenizer::load(Path::new("fixtures/tokenizer.json")).unwrap()
}

/// The report of a conversation of two turns with a server of this kind, as JSON too, and the truth about
/// its requests.
fn measured(kind: &str, dialect: Dialect, think: &str) -> (Report, Value, Vec<TruthRecord>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talks.json");
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let talk = [turn("human", FIRST), turn("gpt", "a"), turn("human", SECOND), turn("gpt", "b")];
    std::fs::write(&path, json!([{"conversations": talk}]).to_string()).unwrap();
    let config = SimConfig {
        decode_base: Duration::from_millis(2),
        lexicon: Lexicon::Tokenizer(tokenizer().shared()),
        dialect,
        ..SimConfig::preset(Preset::Large)
    };
    let server = SimServer::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let plan = format!(
        r#"
        defaults = {{ requests = 1, tokenizer = "fixtures/tokenizer.json" }}
        [[backend]]
        name = "b"
        kind = "{kind}"
        base_url = "{}"
        models = ["m"]
        probe = false
        ignore_eos = true
        [[workload]]
        name = "talks"
        dataset = "multi_turn"
        path = "{}"
        output_tokens = 12
        think_time = "{think}"
        salt = false
        [[bench]]
        loads = ["1conc"]
        "#,
        server.base_url(),
        path.display()
    );
    let report = servebench::measure(&Plan::parse(&plan).unwrap().cases[0]).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    (report, json, server.truth())
}

#[test]
fn a_turn_holds_the_answer_that_the_server_gave_to_the_one_before() {
    for kind in ["vllm", "vllm-chat", "openai-responses", "trt-llm", "tgi"] {
        let (_, report, truth) = measured(kind, Dialect::default(), "0s");
        assert_eq!((report["completed"].as_u64(), report["failed"].as_u64()), (Some(2), Some(0)));
        let answer = report["generated_texts"][0].as_str().unwrap();
        assert!(20 < answer.len(), "{answer}");
        let (sent, seen) = match kind {
            // The engine takes the messages of a conversation a line each.
            "vllm-chat" | "openai-responses" => {
                (format!("{FIRST}\n\n{answer}\n\n{SECOND}"), format!("{FIRST}\n{answer}\n{SECOND}"))
            }
            _ => {
                let sent = format!("{FIRST}{answer}\n\n{SECOND}");
                (sent.clone(), sent)
            }
        };
        let count = |text: &str| tokenizer().count_prompt(text).unwrap();
        let arrived: Vec<u32> = truth.iter().map(|record| record.prompt_tokens).collect();
        assert_eq!(arrived, [count(FIRST), count(&seen)], "{kind}");
        // Those that do not count prompts leave that to the client.
        let expected = match kind {
            "trt-llm" | "tgi" => [count(FIRST), count(&sent)],
            _ => [count(FIRST), count(&seen)],
        };
        assert_eq!(report["input_lens"], json!(expected), "{kind}");
    }
}

#[test]
fn reasoning_is_no_part_of_what_was_said() {
    let dialect = Dialect { reasoning_tokens: 8, ..Dialect::default() };
    let (_, report, truth) = measured("vllm-chat", dialect, "0s");
    let whole = report["generated_texts"][0].as_str().unwrap();
    let with_all = format!("{FIRST}\n{whole}\n{SECOND}");
    let with_all = tokenizer().count_prompt(&with_all).unwrap();
    assert!(truth[1].prompt_tokens + 6 < with_all, "{} {with_all}", truth[1].prompt_tokens);
}

#[test]
fn a_turn_is_sent_when_the_user_has_thought() {
    let (report, ..) = measured("vllm-chat", Dialect::default(), "200ms");
    let details = report.details.unwrap();
    let gaps: f64 = details.itls[0].iter().sum();
    let answered = details.start_times[0] + details.ttfts[0].unwrap() + gaps;
    let thought = details.start_times[1] - answered;
    assert!((0.2..0.3).contains(&thought), "{thought} s");
}

#[test]
fn the_report_says_what_came_of_each_turn() {
    let (report, json, _) = measured("vllm-chat", Dialect::default(), "0s");
    let turns = &json["servebench"]["turns"];
    assert_eq!(json["servebench"]["turns_not_sent"], 0);
    assert_eq!((turns[0]["turn"].as_u64(), turns[1]["turn"].as_u64()), (Some(1), Some(2)));
    for turn in [0, 1] {
        assert_eq!((&turns[turn]["requests"], &turns[turn]["completed"]), (&json!(1), &json!(1)));
        assert_eq!(turns[turn]["mean_input_tokens"].as_f64(), json["input_lens"][turn].as_f64());
        assert!(turns[turn]["ttft_ms"]["mean"].is_f64());
        assert!(turns[turn]["ttft_ms"]["p99"].is_null(), "one sample has no tail");
        assert!(turns[turn]["cached_share"].is_null(), "the engine does not say");
    }
    assert_eq!(json["servebench"]["plan"]["requests"], 1, "conversations");
    assert_eq!(json["servebench"]["plan"]["requests_counted"], 2);
    let table = servebench::render::table::render(&report);
    assert!(table.contains("\nturn 1   1 requests, TTFT "), "{table}");
}

#[test]
fn turns_that_a_failure_kept_from_being_sent_are_counted_and_are_no_failures() {
    let dialect = Dialect { error_after: Some(3), ..Dialect::default() };
    let (report, ..) = measured("vllm-chat", dialect, "0s");
    assert_eq!((report.completed, report.failed), (0, 1));
    assert_eq!(report.servebench.turns_not_sent, Some(1));
    let warned = |warning: &String| warning.contains("1 turns were not sent: 1 because one before");
    assert!(report.servebench.warnings.iter().any(warned), "{:?}", report.servebench.warnings);
}
