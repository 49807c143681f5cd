//! The simulated server, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use servebench::sim::{Lexicon, Preset, SimConfig, SimServer};
use servebench::tokenizer::Tokenizer;

/// Long enough for anything on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// 1 ms a token, no jitter.
fn fast() -> SimConfig {
    SimConfig {
        decode_base: Duration::from_millis(1),
        decode_per_sequence: Duration::ZERO,
        prefill_tokens_per_s: 1e6,
        jitter: 0.0,
        models: vec!["model-a".to_owned(), "model-b".to_owned()],
        ..SimConfig::preset(Preset::Small)
    }
}

fn start(config: SimConfig) -> SimServer {
    SimServer::start(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The events of a stream, without the final `[DONE]`.
    fn events(&self) -> Vec<Value> {
        assert!(self.head.contains("content-type: text/event-stream"), "{}", self.head);
        let events = self.body.strip_suffix("data: [DONE]\n\n").unwrap();
        let events = events.split_terminator("\n\n");
        events.map(|event| serde_json::from_str(&event["data: ".len()..]).unwrap()).collect()
    }
}

/// Sends a request on a connection of its own; gives it once the head of the response has come.
fn open(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> (BufReader<TcpStream>, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the server closed after `{head}`");
    }
    (reader, head)
}

fn call(server: SocketAddr, method: &str, path: &str, body: &str) -> Reply {
    let (mut reader, head) = open(server, method, path, body);
    let mut bytes = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        while let Some(chunk) = read_chunk(&mut reader) {
            bytes.extend(chunk);
        }
    } else {
        reader.read_to_end(&mut bytes).unwrap();
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: String::from_utf8(bytes).unwrap() }
}

/// The next chunk of a chunked body; `None` at its end.
fn read_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).unwrap() + 2];
    reader.read_exact(&mut chunk).unwrap();
    chunk.truncate(chunk.len() - 2);
    (!chunk.is_empty()).then_some(chunk)
}

fn get(server: &SimServer, path: &str) -> Reply {
    call(server.address(), "GET", path, "")
}

fn completions(server: &SimServer, body: Value) -> Reply {
    call(server.address(), "POST", "/v1/completions", &body.to_string())
}

fn chat(server: &SimServer, body: Value) -> Reply {
    call(server.address(), "POST", "/v1/chat/completions", &body.to_string())
}

/// A streamed request for exactly so many tokens.
fn stream_of(tokens: u32) -> Value {
    json!({
        "model": "model-a", "prompt": "Tell me.", "stream": true,
        "max_tokens": tokens, "ignore_eos": true,
    })
}

/// The value of a sample, by its name and part of its labels.
fn metric(server: &SimServer, name: &str, label: &str) -> f64 {
    let page = get(server, "/metrics").body;
    let prefix = format!("{name}{{");
    let line = page.lines().find(|line| line.starts_with(&prefix) && line.contains(label));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = SystemTime::now();
    while !is_so() {
        assert!(begun.elapsed().unwrap() < PATIENCE, "never came true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_completions_stream_has_an_event_for_each_token_and_then_reason_and_usage() {
    let server = start(fast());
    let mut body = stream_of(7);
    body["stream_options"] = json!({"include_usage": true});
    let reply = completions(&server, body);
    assert_eq!(reply.status, 200);
    let events = reply.events();
    let [tokens @ .., finish, usage] = &events[..] else { panic!("{events:?}") };
    assert_eq!(tokens.len(), 7);
    for token in tokens {
        assert!(token["choices"][0]["text"].as_str().unwrap().len() > 2, "{token}");
        assert_eq!(token["choices"][0]["finish_reason"], Value::Null);
        assert_eq!((&token["model"], &token["id"]), (&json!("model-a"), &events[0]["id"]));
    }
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert_eq!(usage["choices"], json!([]));
    let expected = json!({"prompt_tokens": 2, "completion_tokens": 7, "total_tokens": 9});
    assert_eq!(usage["usage"], expected);
}

#[test]
fn a_chat_stream_begins_with_the_role_and_has_no_usage_unless_asked() {
    let server = start(fast());
    let reply = chat(
        &server,
        json!({
            "model": "model-b", "stream": true, "max_completion_tokens": 5, "ignore_eos": true,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me."}]}],
        }),
    );
    let events = reply.events();
    let [role, tokens @ .., finish] = &events[..] else { panic!("{events:?}") };
    assert_eq!(role["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(tokens.len(), 5);
    assert!(tokens.iter().all(|token| token["choices"][0]["delta"]["content"].is_string()));
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn without_a_stream_the_answer_comes_whole() {
    let server = start(fast());
    let reply = completions(&server, json!({"model": "model-a", "prompt": [1, 2, 3]}));
    let answer = reply.json();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().split_whitespace().count(), 16);
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let body = json!({"model": "model-a", "messages": messages, "max_tokens": 4});
    let answer = chat(&server, body).json();
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
}

#[test]
fn an_answer_ends_by_itself_unless_told_to_go_on() {
    let server = start(SimConfig { mean_natural_tokens: 10, ..fast() });
    let tokens = |more: Value| {
        let mut body = json!({"model": "model-a", "prompt": "p", "max_tokens": 60});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = completions(&server, body).json();
        let reason = answer["choices"][0]["finish_reason"].as_str().unwrap().to_owned();
        (answer["usage"]["completion_tokens"].as_u64().unwrap(), reason)
    };
    let (natural, reason) = tokens(json!({}));
    assert!((5..=15).contains(&natural), "{natural}");
    assert_eq!(reason, "stop");
    assert_eq!(tokens(json!({"min_tokens": 30})), (30, "stop".to_owned()));
    assert_eq!(tokens(json!({"ignore_eos": true})), (60, "length".to_owned()));
}

#[test]
fn the_same_prompt_and_seed_have_the_same_answer() {
    let answer = |seed, prompt: &str| {
        let server = start(SimConfig { seed, ..fast() });
        let body = json!({"model": "model-a", "prompt": prompt, "max_tokens": 20});
        completions(&server, body).json()["choices"][0]["text"].clone()
    };
    assert_eq!(answer(1, "p"), answer(1, "p"));
    assert_ne!(answer(1, "p"), answer(1, "q"));
    assert_ne!(answer(1, "p"), answer(2, "p"));
}

#[test]
fn with_a_tokenizer_usage_agrees_with_its_counts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizer.json");
    let tokenizer = Tokenizer::load(path.as_ref()).unwrap();
    let lexicon = Lexicon::Tokenizer(tokenizer.shared());
    let server = start(SimConfig { lexicon, ..fast() });
    let prompt = "What do you know about the sea, and who told you?";
    let body = json!({"model": "model-a", "prompt": prompt, "max_tokens": 50, "ignore_eos": true});
    let answer = completions(&server, body).json();
    assert_eq!(answer["usage"]["prompt_tokens"], tokenizer.count_prompt(prompt).unwrap());
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert_eq!(tokenizer.count_output(text).unwrap(), 50);
}

#[test]
fn it_tells_its_models_health_and_version() {
    let server = start(fast());
    let models = get(&server, "/v1/models").json();
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["model-a", "model-b"]);
    assert_eq!(get(&server, "/health").status, 200);
    assert!(get(&server, "/version").json()["version"].is_string());
}

#[test]
fn an_unknown_model_is_refused_with_the_names_of_those_served() {
    let server = start(fast());
    let reply = completions(&server, json!({"model": "other", "prompt": "p"}));
    assert_eq!(reply.status, 404);
    let error = &reply.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    for name in ["other", "model-a", "model-b"] {
        assert!(error["message"].as_str().unwrap().contains(name), "{error}");
    }
    let any = start(SimConfig { models: Vec::new(), ..fast() });
    assert_eq!(completions(&any, json!({"model": "other", "prompt": "p"})).status, 200);
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let server = start(fast());
    let statuses = |path: &str, bodies: &[&str]| {
        for body in bodies {
            let reply = call(server.address(), "POST", path, body);
            assert_eq!(reply.status, 400, "{body}");
            assert!(reply.json()["error"]["message"].is_string());
        }
    };
    statuses("/v1/completions", &["{", "[]", r#"{"prompt":"p"}"#, r#"{"model":"model-a"}"#]);
    statuses("/v1/chat/completions", &[r#"{"model":"model-a","messages":[]}"#, "{}"]);
    assert_eq!(get(&server, "/v2/models").status, 404);
    let reply = get(&server, "/v1/completions");
    assert_eq!(reply.status, 405);
    assert!(reply.head.contains("allow: POST"), "{}", reply.head);
    assert!(server.truth().is_empty());
}

#[test]
fn what_can_never_fit_the_kv_cache_is_refused() {
    let server = start(SimConfig { kv_cache_tokens: 100, ..fast() });
    let reply = completions(&server, stream_of(99));
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
    assert_eq!(completions(&server, stream_of(98)).status, 200);
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = start(fast());
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    for _ in 0..3 {
        let body = stream_of(3).to_string();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: sim\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        reader.get_mut().write_all((head + &body).as_bytes()).unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        while read_chunk(&mut reader).is_some() {}
    }
    assert_eq!(server.truth().len(), 3);
}

#[test]
fn the_truth_has_each_token_and_agrees_with_what_was_sent() {
    let server = start(fast());
    let id = completions(&server, stream_of(20)).events()[0]["id"].clone();
    let truth = server.truth();
    let [record] = &truth[..] else { panic!("{truth:?}") };
    assert_eq!(record.id, id);
    assert_eq!((record.prompt_tokens, record.max_tokens, record.cancelled), (2, 20, false));
    assert_eq!(record.tokens.len(), 20);
    assert!(record.tokens.is_sorted());
    assert!(record.arrived < record.tokens[0]);
    assert_eq!(record.first_byte, Some(record.tokens[0]));
    assert!(record.ended >= record.tokens.last().copied());
    // 20 steps of a millisecond, the first with a prefill.
    assert!(record.e2e().unwrap() >= Duration::from_millis(19), "{record:?}");
    assert!(record.ttft().unwrap() < record.e2e().unwrap());
    assert!(record.tpot().unwrap() > Duration::ZERO);

    let json = get(&server, "/sim/truth").json();
    assert_eq!(json[0]["arrived"], record.arrived.as_secs_f64());
    assert_eq!(json[0]["tokens"].as_array().unwrap().len(), 20);
    assert_eq!(call(server.address(), "POST", "/sim/truth/reset", "").status, 200);
    assert!(server.truth().is_empty());
}

#[test]
fn what_exceeds_the_batch_waits_for_its_turn() {
    let server = start(SimConfig { max_batch: 1, ..fast() });
    let address = server.address();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            // One after the other, so that their order is known.
            let before = server.truth().len();
            let client = thread::spawn(move || {
                call(address, "POST", "/v1/completions", &stream_of(200).to_string()).status
            });
            eventually("the request arrives", || server.truth().len() > before);
            client
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    let truth = server.truth();
    assert!(truth[2].arrived < truth[0].tokens[199], "none had to wait");
    // Each begins only when the last has ended; half an answer is left for a machine that stutters.
    assert!(truth[1].tokens[0] > truth[0].tokens[100]);
    assert!(truth[2].tokens[0] > truth[1].tokens[100]);
}

#[test]
fn a_larger_batch_makes_for_slower_tokens() {
    let per_sequence = Duration::from_millis(2);
    let server = start(SimConfig { decode_per_sequence: per_sequence, ..fast() });
    let address = server.address();
    let tpot_of = |clients: usize| {
        server.reset_truth();
        let call = move || call(address, "POST", "/v1/completions", &stream_of(20).to_string());
        let clients: Vec<_> = (0..clients).map(|_| thread::spawn(call)).collect();
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
        server.truth()[0].tpot().unwrap()
    };
    // 3 ms alone, 17 ms with seven others.
    let (alone, together) = (tpot_of(1), tpot_of(8));
    assert!(together > alone * 2, "{alone:?} alone, {together:?} together");
}

#[test]
fn the_metrics_count_what_was_served() {
    let server = start(fast());
    completions(&server, stream_of(6));
    assert_eq!(metric(&server, "vllm:num_requests_running", "model_name=\"model-a\""), 0.0);
    assert_eq!(metric(&server, "vllm:num_requests_waiting", ""), 0.0);
    assert_eq!(metric(&server, "vllm:kv_cache_usage_perc", ""), 0.0);
    assert_eq!(metric(&server, "vllm:prompt_tokens_total", ""), 2.0);
    assert_eq!(metric(&server, "vllm:generation_tokens_total", ""), 6.0);
    assert_eq!(metric(&server, "vllm:request_success_total", "\"length\""), 1.0);
    assert_eq!(metric(&server, "vllm:time_to_first_token_seconds_count", ""), 1.0);
    assert_eq!(metric(&server, "vllm:inter_token_latency_seconds_count", ""), 5.0);
    assert_eq!(metric(&server, "vllm:request_time_per_output_token_seconds_count", ""), 1.0);
    assert_eq!(metric(&server, "vllm:request_queue_time_seconds_count", ""), 1.0);
    assert_eq!(metric(&server, "vllm:num_preemptions_total", ""), 0.0);
    assert_eq!(metric(&server, "vllm:e2e_request_latency_seconds_bucket", "+Inf"), 1.0);
}

#[test]
fn a_client_that_goes_away_makes_room() {
    let server = start(SimConfig { max_batch: 1, ..fast() });
    let body = stream_of(20_000).to_string();
    let (mut running, _) = open(server.address(), "POST", "/v1/completions", &body);
    read_chunk(&mut running).unwrap();
    let body = stream_of(4000).to_string();
    let (waiting, _) = open(server.address(), "POST", "/v1/completions", &body);
    eventually("one runs, one waits", || {
        metric(&server, "vllm:num_requests_running", "") == 1.0
            && metric(&server, "vllm:num_requests_waiting", "") == 1.0
            && metric(&server, "vllm:kv_cache_usage_perc", "") > 0.5
    });
    drop((running, waiting));
    eventually("none runs or waits", || {
        metric(&server, "vllm:num_requests_running", "") == 0.0
            && metric(&server, "vllm:num_requests_waiting", "") == 0.0
            && metric(&server, "vllm:kv_cache_usage_perc", "") == 0.0
    });
    assert_eq!(metric(&server, "vllm:request_success_total", "\"abort\""), 2.0);
    assert!(server.truth().iter().all(|record| record.cancelled && record.ended.is_some()));
    assert_eq!(completions(&server, stream_of(2)).status, 200);
}

#[test]
fn dropping_the_server_breaks_answers_off() {
    let server = start(fast());
    let address = server.address();
    let (mut reader, _) = open(address, "POST", "/v1/completions", &stream_of(20_000).to_string());
    read_chunk(&mut reader).unwrap();
    drop(server);
    let mut rest = Vec::new();
    // A reset or a plain end: what counts is that the body is not complete.
    let _ = reader.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    TcpStream::connect(address).unwrap_err();
}

#[test]
fn a_server_in_the_midst_of_a_long_step_stops_at_once() {
    let server = start(SimConfig { decode_base: Duration::from_secs(3600), ..fast() });
    let (_reader, _) = open(server.address(), "POST", "/v1/completions", &stream_of(2).to_string());
    eventually("it runs", || metric(&server, "vllm:num_requests_running", "") == 1.0);
    let begun = SystemTime::now();
    server.stop();
    assert!(begun.elapsed().unwrap() < PATIENCE);
}

#[test]
fn an_address_in_use_is_an_error() {
    let server = start(fast());
    SimServer::start(fast(), server.address()).unwrap_err();
    let nonsense = SimConfig { jitter: 1.0, ..fast() };
    SimServer::start(nonsense, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap_err();
}

#[test]
fn tokens_leave_when_they_are_due() {
    let intended = Duration::from_micros(4300);
    let server = start(SimConfig { decode_base: intended, ..fast() });
    completions(&server, stream_of(200));
    let truth = server.truth();
    let mut errors: Vec<_> =
        truth[0].tokens.windows(2).map(|pair| (pair[1] - pair[0]).abs_diff(intended)).collect();
    errors.sort_unstable();
    let median = errors[errors.len() / 2];
    assert!(median < Duration::from_millis(1), "the median error is {median:?}");
}

#[cfg(unix)]
#[test]
fn the_command_says_where_it_listens_and_ends_when_told() {
    use std::process::{Command, Stdio};

    let mut command = Command::new(env!("CARGO_BIN_EXE_servebench-sim"))
        .args(["--port", "0", "--preset", "large", "--model", "m", "--decode-base-ms", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(command.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on http://").unwrap();
    let body = r#"{"model": "m", "prompt": "p"}"#;
    let reply = call(address.parse().unwrap(), "POST", "/v1/completions", body);
    assert_eq!(reply.json()["usage"]["completion_tokens"], 16);
    let told = Command::new("kill").arg(command.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(command.wait().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
