//! Servers that do with their connections what HTTP allows, and what it does not.

use std::sync::Arc;

use super::failures::{FINISH, TOKEN, read_request};
use super::*;

/// Has a server call `serve` with each connection, on a thread of its own; its URL.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

fn project(url: &str, more: &str) -> Project {
    let backend = format!(
        "[[backend]]\nname = \"odd\"\nkind = \"openai\"\nbase_url = \"{url}\"\nmodels = [\"m\"]\nprobe = false\n\
         metrics = false\n"
    );
    Project::new(more, &backend, "[[bench]]\nloads = [\"1conc\"]")
}

fn run(project: &Project) -> (Run, Value) {
    let run = project.bench(&["--require-server", "--self-check", "never"]);
    let result = project.results().pop().expect("a result");
    (run, result)
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

/// A good answer on a connection that says that it stays open.
fn answer() -> String {
    let body = format!("data: {TOKEN}\n\ndata: {FINISH}\n\ndata: [DONE]\n\n");
    format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_that_meets_the_end_of_its_connection_is_sent_again_and_the_server_is_learned() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let url = listen(move |mut stream| {
        read_request(&mut stream);
        seen.fetch_add(1, Ordering::SeqCst);
        stream.write_all(answer().as_bytes()).unwrap();
        // It takes what comes next and answers nothing.
        let _ = stream.read(&mut [0; 16]);
    });
    let project = project(&url, "requests = 20");
    let (run, result) = run(&project);
    run.says("sent again on a fresh connection");
    assert_eq!((&result["completed"], &result["failed"]), (&20.into(), &0.into()));
    assert_eq!(result["servebench"]["resent"], 1, "then connections are not used again");
    // Those of the case; where the harness looks whether the server is there, one more.
    assert!((20..=22).contains(&requests.load(Ordering::SeqCst)));
}

#[test]
fn a_request_of_which_a_byte_was_answered_is_never_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let url = listen(move |mut stream| {
        loop {
            read_request(&mut stream);
            let number = seen.fetch_add(1, Ordering::SeqCst);
            if number % 2 == 1 {
                let _ = stream.write_all(b"HTTP/1.1 20");
                return;
            }
            stream.write_all(answer().as_bytes()).unwrap();
        }
    });
    let project = project(&url, "requests = 20");
    let (_, result) = run(&project);
    assert_eq!(result["servebench"]["resent"], 0);
    assert_eq!(result["servebench"]["failures"]["truncated"]["count"], 10);
}

#[test]
fn a_finish_reason_on_a_connection_that_stays_open_ends_the_answer() {
    let url = listen(|mut stream| {
        read_request(&mut stream);
        let events = format!("{HEAD}\r\ndata: {TOKEN}\n\ndata: {FINISH}\n\n");
        stream.write_all(events.as_bytes()).unwrap();
        // Until the client closes it.
        let _ = stream.read(&mut [0; 1]);
    });
    let project = project(&url, "requests = 2");
    let (_, result) = run(&project);
    assert_eq!((&result["completed"], &result["failed"]), (&2.into(), &0.into()));
    let e2e = result["servebench"]["latencies"]["e2e"]["statistics"]["max"]["estimate_ms"].as_f64();
    assert!(e2e.unwrap() < 900.0, "the wait for more of the response is no part of the answer");
}

#[test]
fn limits_hold_however_fast_a_response_comes() {
    for (piece, reason) in [
        (": ping\n\n".to_owned(), "timeout"),
        (format!("data: {TOKEN}\n\n"), "too_long"),
        (format!("data: {}\n\n", TOKEN.replace("word", &"w".repeat(100_000))), "too_long"),
        ("data: {\"choices\":[],\"usage\":{\"completion_tokens\":1}}\n\n".to_owned(), "timeout"),
    ] {
        let url = listen(move |mut stream| {
            read_request(&mut stream);
            let block = piece.repeat((1 << 18) / piece.len() + 1);
            let _ = stream.write_all(format!("{HEAD}\r\n").as_bytes());
            while stream.write_all(block.as_bytes()).is_ok() {}
        });
        let project = project(&url, "requests = 1\ntimeout = \"1s\"");
        let (_, result) = run(&project);
        assert_eq!(result["servebench"]["failures"][reason]["count"], 1, "{reason}");
        assert!(result["duration"].as_f64().unwrap() < 10.0, "{reason}");
    }
}

#[test]
fn a_response_that_breaks_http_has_a_reason_that_says_how() {
    for (response, says) in [
        ("HTTP/1.1 102 Processing\r\n\r\n".repeat(1000), "interim responses"),
        (format!("{HEAD}content-length: 3\r\ncontent-length: 4\r\n\r\nabc"), "content-lengths"),
        (format!("{HEAD}content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"), "`gzip`"),
        (answer() + &answer(), "extra response"),
        (format!("{HEAD}{}\r\n", "x: y\r\n".repeat(200)), "fields"),
    ] {
        let url = listen(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(response.as_bytes());
            let _ = stream.read(&mut [0; 1]);
        });
        let project = project(&url, "requests = 1\ntimeout = \"5s\"");
        let (_, result) = run(&project);
        let failure = &result["servebench"]["failures"]["bad_http"];
        assert_eq!(failure["count"], 1, "{says}");
        assert!(failure["example"].as_str().unwrap().contains(says), "{failure}");
    }
}
