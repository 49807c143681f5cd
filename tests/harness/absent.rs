//! Servers that are nowhere, that are there and wrong, and that are still loading.

use std::io::{BufRead as _, BufReader};

use super::*;

/// Where each connection is treated so.
fn listen(treat: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || treat(stream.unwrap()));
        }
    });
    address.to_string()
}

fn at(url: &str, more: &str) -> Project {
    let backend = format!("{}connect_timeout = \"500ms\"\n{more}", backend_at(url));
    Project::new("", &backend, "[[bench]]\nloads = [\"2conc\"]")
}

#[test]
fn a_server_that_is_there_and_wrong_fails_its_cases_with_the_reason() {
    let silent = listen(|_stream| std::thread::sleep(Duration::from_secs(60)));
    let closes = listen(|mut stream| drop(stream.read(&mut [0; 1024])));
    let plain = listen(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    });
    for (url, reason) in [
        (format!("http://{silent}"), "does not answer within 500ms"),
        (format!("http://{closes}"), "cannot be used: error sending request"),
        (format!("https://{plain}"), "no secure connection can be opened"),
        ("http://no-such-host.invalid".to_owned(), "cannot be used: error sending request"),
    ] {
        let run = at(&url, "").bench(&[]);
        run.expect(2).says(reason).says("FAILED. 0 passed; 1 failed; 0 ignored");
    }
}

#[test]
fn a_server_that_the_command_line_names_is_never_ignored() {
    let url = format!("http://127.0.0.1:{}", free_port());
    at(&url, "").bench(&[]).expect(0).says("1 ignored");
    let by_flag = ["--backend", "remote", "--base-url", &url];
    at(&url, "").bench(&by_flag).expect(2).says("no server at").says("1 failed; 0 ignored");
    let project = at(&url, "");
    let mut twin = project.command(&["--bench", "--backend", "remote"]);
    twin.env("SERVEBENCH_BASE_URL", &url);
    finish(twin).expect(2).says("no server at");
    let mut flags = project.command(&["--bench", "--backend", "openai", "--base-url", &url]);
    flags.args(["--model", "m", "--dataset-name", "random", "--tokenizer"]);
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tokenizer.json");
    flags.arg(tokenizer).env_remove("SERVEBENCH_CONFIG");
    finish(flags).expect(2).says("no server at");
}

#[test]
fn a_server_that_loads_is_waited_for_and_not_longer_than_is_said() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let project = at(&url, "ready_timeout = \"60s\"");
    let mut command = project.command(&["--bench", "--self-check", "never"]);
    let mut bench = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut sim = None;
    for line in BufReader::new(bench.stderr.take().unwrap()).lines() {
        // Only then: it is not there before it is looked for.
        if line.unwrap().contains("waiting for the server of `remote`") && sim.is_none() {
            let mut server = Command::new(env!("CARGO_BIN_EXE_servebench-sim"));
            server.args(["--port", &port.to_string()]).stdout(Stdio::null());
            sim = Some(server.spawn().unwrap());
        }
    }
    let code = bench.wait().unwrap().code();
    let mut sim = sim.expect("it says that it waits");
    sim.kill().unwrap();
    sim.wait().unwrap();
    // A busy machine makes its figures doubtful.
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    assert_eq!(project.results()[0]["completed"], 20);

    let run = project.bench(&["--ready-timeout", "600ms"]);
    run.expect(2).says("no server at").says("after 600ms");
    let loading = listen(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream
            .write_all(b"HTTP/1.1 503 Loading\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
    let run = at(&format!("http://{loading}"), "").bench(&["--ready-timeout", "600ms"]);
    run.expect(2).says("is not ready after 600ms: it answers with HTTP status 503");
}

#[test]
fn a_key_that_is_not_there_is_said_before_anything_is_sent() {
    let server = SimProcess::start(&[]);
    let project = at(&server.url, "api_key_env = \"SOME_ABSENT_KEYS\"");
    let mut command = project.command(&["--bench"]);
    command.env("SOME_ABSENT_KEY", "k");
    let run = finish(command);
    run.expect(2).says("plan.toml:").says("`SOME_ABSENT_KEYS` is not set; did you mean");
    project.run(&[]).expect(0);
}

#[test]
fn in_miniature_a_case_whose_address_is_not_set_is_tried_too() {
    let project = at("${NO_SUCH_ADDRESS}", "");
    project.bench(&[]).expect(0).says("NO_SUCH_ADDRESS is not set").says("1 ignored");
    project.run(&[]).expect(0).says("1 passed; 0 failed; 0 ignored");
    let plan = project.folder.path().join("plan.toml");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replace("sharegpt.json", "sharegtp.json")).unwrap();
    project.run(&[]).expect(2).says("sharegtp.json");
}
