//! Servers that misbehave: each failure is counted by its reason, is in no figure, and fails the build.

use std::sync::Arc;

use super::*;

/// A server that answers the requests in their order as it is told, each on a connection of its own.
pub struct Scripted {
    pub url: String,
    /// The bodies that were sent.
    pub bodies: Arc<std::sync::Mutex<Vec<Value>>>,
    /// The first lines of the requests.
    pub lines: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Scripted {
    /// `answer` is given the number of a request and its body; after the last of `requests` nobody
    /// listens any more.
    pub fn start(
        requests: usize,
        answer: impl Fn(usize, &Value) -> String + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
        let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (seen, seen_lines) = (Arc::clone(&bodies), Arc::clone(&lines));
        std::thread::spawn(move || {
            let mut listener = Some(listener);
            for number in 0..requests {
                let (mut stream, _) = listener.as_ref().unwrap().accept().unwrap();
                let (line, body) = read_request(&mut stream);
                seen_lines.lock().unwrap().push(line);
                let response = answer(number, &body);
                seen.lock().unwrap().push(body);
                if number + 1 == requests {
                    listener = None;
                }
                stream.write_all(response.as_bytes()).unwrap();
            }
        });
        Self { url, bodies, lines }
    }

    pub fn backend(&self, more: &str) -> String {
        format!(
            "[[backend]]\nname = \"odd\"\nkind = \"openai\"\nbase_url = \"{}\"\nmodels = [\"m\"]\n{more}\n",
            self.url
        )
    }
}

/// The first line and the body of the request that comes.
pub fn read_request(stream: &mut TcpStream) -> (String, Value) {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the request has an end");
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap().to_lowercase();
    let line = head.lines().next().unwrap().to_owned();
    let Some((_, length)) = head.split_once("content-length: ") else { return (line, Value::Null) };
    let length = length.lines().next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (line, serde_json::from_slice(&body).unwrap())
}

pub fn response(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn stream(events: &[&str]) -> String {
    let events: Vec<String> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    response("200 OK", "text/event-stream", &events.concat())
}

pub const TOKEN: &str = r#"{"choices":[{"text":" word"}]}"#;
pub const FINISH: &str = r#"{"choices":[{"text":"","finish_reason":"length"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#;
const ERROR: &str = r#"{"error":{"message":"out of memory"}}"#;

pub fn good() -> String {
    stream(&[TOKEN, TOKEN, TOKEN, TOKEN, TOKEN, FINISH, USAGE, "[DONE]"])
}

/// A response whose connection ends before it does.
fn cut() -> String {
    let whole = stream(&[TOKEN, TOKEN, TOKEN]);
    whole.replace("content-length: ", "content-length: 9")
}

fn mixed(number: usize) -> String {
    match number {
        0..10 => response("503 Service Unavailable", "application/json", ERROR),
        10..20 => stream(&[TOKEN, ERROR, "[DONE]"]),
        20..30 => cut(),
        30..35 => stream(&["[DONE]"]),
        _ => good(),
    }
}

const ONE_BY_ONE: &str = "[[bench]]\nloads = [\"1conc\"]";

#[test]
fn each_failure_is_counted_by_its_reason_and_is_in_no_figure() {
    // After the 95th nobody listens: five are refused.
    let server = Scripted::start(95, |number, _| mixed(number));
    let backend = server.backend("probe = false");
    let project = Project::new("requests = 100\nslo = [\"ttft.p50 < 10s\"]", &backend, ONE_BY_ONE);
    let run = project.bench(&["--require-server", "--self-check", "never"]);
    run.expect(101).says("an objective was missed").says("error_ratio == 0");
    let [result] = &project.results()[..] else { panic!("one result") };
    assert_eq!((&result["completed"], &result["failed"]), (&60.into(), &40.into()));
    let counts: Vec<(&str, u64)> = result["servebench"]["failures"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(reason, failures)| (reason.as_str(), failures["count"].as_u64().unwrap()))
        .collect();
    let expected =
        [("connect", 5), ("empty", 5), ("http_503", 10), ("server_error", 10), ("truncated", 10)];
    assert_eq!(counts, expected);
    for (reason, _) in expected {
        run.says(&format!("failed   {reason}: "));
    }
    run.says("such as: out of memory");
    // Sixty answers of five tokens.
    assert_eq!(result["total_output_tokens"], 300);
    assert_eq!(result["total_input_tokens"], 600);
    let latencies = &result["servebench"]["latencies"];
    for (latency, count) in [("ttft", 60), ("e2e", 60), ("chunk_gap", 240)] {
        assert_eq!(latencies[latency]["count"], count, "{latency}");
    }
}

#[test]
fn where_all_fail_figures_are_null_and_the_result_is_still_one() {
    let server = Scripted::start(20, |_, _| response("503 Service Unavailable", "text/plain", ""));
    let project = Project::new("", &server.backend("probe = false"), ONE_BY_ONE);
    project.bench(&["--require-server"]).expect(101).says("http_503: 20");
    let [result] = &project.results()[..] else { panic!("one result") };
    for field in ["mean_ttft_ms", "p99_tpot_ms", "median_itl_ms", "mean_e2el_ms"] {
        assert_eq!(result[field], Value::Null, "{field}");
    }
    assert_eq!(result["servebench"]["latencies"]["ttft"]["reason"], "no request completed");
}

#[test]
fn a_field_that_the_server_refuses_is_left_out_of_all_requests_and_noted() {
    let server = Scripted::start(23, |_, body| {
        let refusal = |field: &str| {
            let error =
                format!(r#"{{"error":{{"message":"Unrecognized request argument: {field}"}}}}"#);
            response("400 Bad Request", "application/json", &error)
        };
        match body {
            Value::Null => response("200 OK", "application/json", "{}"),
            body if body.get("stream_options").is_some() => refusal("stream_options"),
            body if body.get("ignore_eos").is_some() => refusal("ignore_eos"),
            _ => good(),
        }
    });
    let project = Project::new("", &server.backend("ignore_eos = true"), ONE_BY_ONE);
    // One to see whether it is there, three to try it, and those of the case but for what is refused.
    let run = project.bench(&["--self-check", "never"]);
    run.says("warning  the server refuses `stream_options`");
    run.says("warning  the server refuses `ignore_eos`");
    let bodies = server.bodies.lock().unwrap();
    let measured: Vec<&Value> = bodies.iter().filter(|body| body["max_tokens"] == 10).collect();
    assert!(10 < measured.len(), "{}", measured.len());
    assert!(measured.iter().all(|body| body.get("stream_options").is_none()));
    assert!(measured.iter().all(|body| body.get("ignore_eos").is_none()));
}

#[test]
fn a_server_that_does_not_stream_has_an_end_to_end_latency_and_no_ttft() {
    let block = r#"{"choices":[{"text":" a b","finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":10}}"#;
    let server = Scripted::start(23, move |_, _| response("200 OK", "application/json", block));
    let project = Project::new("", &server.backend(""), ONE_BY_ONE);
    let run = project.bench(&["--self-check", "never"]);
    run.expect(0).says("warning  the server answers in one block");
    assert!(!run.stdout.contains("bench:           0 ns"), "{}", run.stdout);
    let [result] = &project.results()[..] else { panic!("one result") };
    assert_eq!((&result["completed"], &result["total_output_tokens"]), (&20.into(), &200.into()));
    for (field, known) in [("mean_ttft_ms", false), ("mean_tpot_ms", false), ("mean_e2el_ms", true)]
    {
        assert_eq!(result[field].is_f64(), known, "{field}: {}", result[field]);
    }
    let reason = &result["servebench"]["latencies"]["ttft"]["reason"];
    assert_eq!(reason, "the server answered in one block, not in a stream");
}

#[test]
fn a_proxy_is_asked_for_whole_urls_and_never_for_the_loopback() {
    let proxy = Scripted::start(23, |_, _| good());
    let elsewhere = proxy.backend("").replace(&proxy.url, "http://llm.example:8000");
    let project = Project::new("", &elsewhere, ONE_BY_ONE);
    let mut command = project.command(&["--bench", "--self-check", "never"]);
    command.env("http_proxy", &proxy.url).env_remove("no_proxy").env_remove("NO_PROXY");
    finish(command).expect(0).says("verdict  pass");
    let lines = proxy.lines.lock().unwrap();
    assert_eq!(lines[0], "get http://llm.example:8000/v1/models http/1.1");
    assert_eq!(lines[21], "post http://llm.example:8000/v1/completions http/1.1");

    let server = Scripted::start(23, |_, _| good());
    let project = Project::new("", &server.backend(""), ONE_BY_ONE);
    let mut command = project.command(&["--bench", "--self-check", "never"]);
    command.env("http_proxy", "http://127.0.0.1:1").env_remove("no_proxy").env_remove("NO_PROXY");
    finish(command).expect(0).says("verdict  pass");
    assert_eq!(server.lines.lock().unwrap()[21], "post /v1/completions http/1.1");
}
