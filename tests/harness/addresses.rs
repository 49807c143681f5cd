//! Servers that are elsewhere than the plan says, or that want to be asked in another way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use super::failures::{good, response};
use super::*;

/// A request as it came.
#[derive(Clone)]
struct Seen {
    /// Its method and path.
    line: String,
    /// All of its head, in lower case.
    head: String,
    body: Value,
}

/// Answers each request as it is told, on a connection of its own.
struct Recorder {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    fn start(answer: impl Fn(&Seen) -> String + Send + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), answer).unwrap()
    }

    fn start_at(
        host: IpAddr,
        answer: impl Fn(&Seen) -> String + Send + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((host, 0)))?;
        let url = format!("http://{}", listener.local_addr()?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seen_here = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read_whole(&mut stream) else { continue };
                let response = answer(&request);
                seen_here.lock().unwrap().push(request);
                let _ = stream.write_all(response.as_bytes());
            }
        });
        Ok(Self { url, seen })
    }

    fn posts(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.line.starts_with("post")).cloned().collect()
    }

    fn backend(&self, more: &str) -> String {
        format!(
            "[[backend]]\nname = \"odd\"\nkind = \"openai\"\nbase_url = \"{}\"\nmodels = [\"m\"]\n{more}\n",
            self.url
        )
    }
}

fn read_whole(stream: &mut TcpStream) -> Option<Seen> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).ok()?.to_lowercase();
    let line = head.split(" http/").next()?.to_owned();
    let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next());
    let mut body = vec![0; length.map_or(Some(0), |length| length.parse().ok())?];
    stream.read_exact(&mut body).ok()?;
    Some(Seen { line, head, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn redirect(status: &str, location: &str) -> String {
    format!(
        "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

const ONE_BY_ONE: &str = "[[bench]]\nloads = [\"1conc\"]";
const ARGS: [&str; 3] = ["--self-check", "never", "--no-html"];

impl Run {
    /// A case of twenty short answers was measured: on a busy machine it may rightly doubt itself.
    #[track_caller]
    fn is_measured(&self) -> &Self {
        assert!([0, 3].contains(&self.code), "{}\n{}", self.stdout, self.stderr);
        self.says("Failed requests:                         0")
    }
}

fn with_key(project: &Project) -> Run {
    let mut command = project.command(&[&["--bench"], &ARGS[..]].concat());
    command.env("OPENAI_API_KEY", "sk-very-secret");
    finish(command)
}

#[test]
fn a_redirect_is_followed_once_and_the_place_that_it_leads_to_is_measured_and_told() {
    let server = Recorder::start(|request| match request.line.as_str() {
        "post /v1/completions" => redirect("307", "/v1/completions/"),
        "post /v1/completions/" => good(),
        _ => response("404 Not Found", "text/plain", ""),
    });
    let project = Project::new("", &server.backend(""), ONE_BY_ONE);
    let run = with_key(&project);
    run.is_measured().says("redirects to").says("/v1/completions/, where requests are sent");
    let posts = server.posts();
    let to_first = posts.iter().filter(|request| request.line == "post /v1/completions").count();
    assert_eq!(
        (to_first, posts.len()),
        (1, 22),
        "the first is sent twice, and twenty are measured"
    );
    assert!(posts.iter().all(|request| request.head.contains("bearer sk-very-secret")));
}

#[test]
fn another_origin_is_told_no_key_and_no_header_of_the_plan() {
    let other = Recorder::start(|request| match request.line.as_str() {
        "post /v1/completions" => good(),
        _ => response("404 Not Found", "text/plain", ""),
    });
    let to = format!("{}/v1/completions", other.url);
    let server = Recorder::start(move |_| redirect("308", &to));
    let backend = server.backend("headers = { x-key = \"team-very-secret\" }");
    let project = Project::new("", &backend, ONE_BY_ONE);
    let run = with_key(&project);
    run.is_measured().says("without the API key and the headers of the plan");
    let [result] = &project.results()[..] else { panic!("one result") };
    assert_eq!(result["servebench"]["plan"]["base_url"], other.url, "where it was measured");
    let seen = other.seen.lock().unwrap();
    assert!(21 <= seen.len());
    for request in seen.iter() {
        assert!(!request.head.contains("very-secret"), "{}", request.head);
    }
}

#[test]
fn a_redirect_that_leads_nowhere_is_an_error_that_names_the_places() {
    let circle = Recorder::start(|request| match request.line.as_str() {
        "post /v1/completions" => redirect("307", "/a?key=very-secret"),
        "post /a?key=very-secret" => redirect("308", "/v1/completions"),
        _ => response("404 Not Found", "text/plain", ""),
    });
    let endless = Recorder::start(|request| {
        redirect("307", &format!("{}x", request.line.trim_start_matches("post ")))
    });
    let moved = Recorder::start(|_| redirect("301", "https://h/v1/completions?key=very-secret"));
    for (server, said) in [
        (circle, "in a circle"),
        (endless, "more than 10 redirects follow each other"),
        (moved, "301 Moved Permanently: it redirects to https://h/v1/completions"),
    ] {
        let project = Project::new("", &server.backend(""), ONE_BY_ONE);
        let run = project.bench(&ARGS);
        run.expect(2).says(said);
        assert!(!run.stdout.contains("very-secret") && !run.stderr.contains("very-secret"));
        assert!(server.posts().len() <= 11);
    }
}

#[test]
fn a_load_that_is_redirected_fails_with_the_place() {
    let server = Recorder::start(|_| redirect("307", "/v1/completions/"));
    let project = Project::new("", &server.backend("probe = false"), ONE_BY_ONE);
    let run = project.bench(&[&ARGS[..], &["--require-server"]].concat());
    run.expect(101).says("http_307").says("it redirects to /v1/completions/");
    assert_eq!(server.posts().len(), 20, "none is sent twice");
}

#[test]
fn fields_that_are_refused_in_turn_are_left_out_and_the_last_refusal_is_told() {
    let refuses = |insatiable: bool| {
        Recorder::start(move |request| {
            let refusal = |message: &str| {
                let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
                response("400 Bad Request", "application/json", &body)
            };
            let has = |field: &str| request.body.get(field).is_some();
            if request.line.starts_with("get") {
                response("200 OK", "application/json", r#"{"data":[{"id":"m"}]}"#)
            } else if has("max_tokens") {
                refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
            } else if has("temperature") {
                refusal("Unsupported value: 'temperature' does not support 0.0 with this model.")
            } else if insatiable {
                refusal("no more of this today")
            } else {
                good().replace("\"text\":", "\"delta\":{},\"text\":")
            }
        })
    };
    // Chat whose answers have their text where completions have it would be empty.
    let kind = |server: &Recorder| server.backend("").replace("\"openai\"", "\"openai-chat\"");
    let server = refuses(true);
    let project = Project::new("", &kind(&server), ONE_BY_ONE);
    let run = project.bench(&ARGS);
    run.expect(2).says("no more of this today").says("without `temperature`");
    let server = refuses(false);
    let project = Project::new("", &kind(&server), ONE_BY_ONE);
    let run = project.bench(&ARGS);
    run.says("the server refuses `max_tokens`: `max_completion_tokens` is sent");
    run.says("the server refuses `temperature`");
    let posts = server.posts();
    let measured =
        posts.iter().filter(|request| request.body["max_completion_tokens"] == 10).count();
    assert!(10 < measured, "{measured}");
}

#[test]
fn a_model_that_the_server_does_not_list_is_refused_though_it_answers() {
    let serves = |models: &'static str| {
        Recorder::start(move |request| match request.line.starts_with("get") {
            true => response("200 OK", "application/json", models),
            false => good(),
        })
    };
    for (models, kind, refused, said) in [
        (r#"{"data":[{"id":"other"}]}"#, "openai", true, "it serves other, not `m`"),
        (r#"{"data":[{"id":"other"},{"id":"m","parent":"other"}]}"#, "openai", false, "verdict"),
        (r#"{"data":[]}"#, "openai", false, "verdict"),
        (r#"{"data":[{"id":"/m.gguf"}]}"#, "llama-cpp", false, "it answers to any name"),
        (r#"{"data":[{"id":"/m.gguf","owned_by":"llamacpp"}]}"#, "openai", false, "any name"),
    ] {
        let server = serves(models);
        let backend = server.backend("").replace("\"openai\"", &format!("{kind:?}"));
        let project = Project::new("", &format!("{backend}\nmetrics = false"), ONE_BY_ONE);
        let run = project.bench(&ARGS);
        run.says(said);
        if refused {
            run.expect(2);
            assert!(project.results().is_empty());
        } else {
            run.is_measured();
        }
    }
}

#[test]
fn a_host_may_be_an_address_of_ipv6() {
    let Ok(server) = Recorder::start_at(Ipv6Addr::LOCALHOST.into(), |_| good()) else {
        // This machine has no IPv6.
        return;
    };
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let project = Project::new("", "", "bench = []");
    std::fs::remove_file(project.folder.path().join("plan.toml")).unwrap();
    let target = ["--bench", "--backend", "openai", "--host", "::1", "--port", &port];
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tokenizer.json");
    let rest = format!(
        "--model a/m@2 --tokenizer {} --dataset-name random --random-input-len 8 --random-output-len 5 \
         --num-prompts 20 --endpoint /v1/completions?api-version=7",
        tokenizer.display()
    );
    let rest: Vec<&str> = rest.split_whitespace().collect();
    let mut command = project.command(&[&target[..], &rest, &ARGS].concat());
    command.env_remove("SERVEBENCH_CONFIG");
    finish(command).is_measured().says("openai/m-2/random@inf");
    let posts = server.posts();
    assert_eq!(posts.len(), 21);
    assert!(posts.iter().all(|post| post.line == "post /v1/completions?api-version=7"));
}
