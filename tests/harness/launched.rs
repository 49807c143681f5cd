//! Servers that the harness starts: ready before the first request, shared by the cases of a backend,
//! always stopped, and their last words shown where they die.

use super::*;

/// A backend that starts the simulated engine with `args`, by a shell that leaves a line in `starts`.
fn backend(name: &str, port: u16, args: &str, starts: &Path) -> String {
    let sim = env!("CARGO_BIN_EXE_servebench-sim");
    let script = format!("echo {name} >> {}; {sim} --port {port} {args} & wait", starts.display());
    format!(
        "[[backend]]\nname = \"{name}\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
         models = [\"m\"]\n\
         launch = {{ command = [\"sh\", \"-c\", {script:?}], env = {{ KEY = \"hidden-word\" }} }}\n"
    )
}

#[test]
fn cases_of_one_backend_share_a_server_and_the_next_backend_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let (first, second) = (free_port(), free_port());
    let backends = backend("old", first, "", &starts) + &backend("new", second, "", &starts);
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"2conc\", \"4conc\"]");
    project.bench(&["--self-check", "never"]).expect(0).says("verdict  pass: new/m/sharegpt@4conc");
    assert_eq!(std::fs::read_to_string(&starts).unwrap(), "old\nnew\n");
    assert!(nobody_listens(first) && nobody_listens(second), "the shell's child is stopped too");
    let log = project.folder.path().join("results/logs/old.log");
    assert!(std::fs::read_to_string(log).unwrap().contains("listening on"));
    assert_eq!(project.results().len(), 4);
}

#[test]
fn a_server_that_dies_before_it_is_ready_is_an_error_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let backends = backend("b", free_port(), "--no-such-flag; echo I was told $KEY", &starts);
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"2conc\"]");
    let run = project.bench(&[]);
    run.expect(2).says("ended before it was ready").says("--no-such-flag");
    run.says("I was told [redacted]");
    assert!(!run.stdout.contains("hidden-word") && !run.stderr.contains("hidden-word"));
}

#[test]
fn the_last_words_of_a_server_mean_nothing_to_a_terminal_or_to_ci() {
    let port = free_port();
    let words = r"\033[31mred\n::error::one\n x ##[add-mask]two ##vso[task.complete]three\n";
    let script = format!("printf '{words}'; exit 1");
    let backends = format!(
        "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
         models = [\"m\"]\nlaunch = {{ command = [\"sh\", \"-c\", {script:?}] }}\n"
    );
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"2conc\"]");
    let mut command = project.command(&["--bench"]);
    command.env("GITHUB_ACTIONS", "true");
    let run = finish(command);
    run.expect(2).says("three");
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
        assert!(!text.contains("##[") && !text.contains("##vso["), "{text}");
        assert!(!text.lines().any(|line| line.trim_start().starts_with("::error::one")), "{text}");
    }
}

#[test]
fn a_server_that_is_never_ready_is_given_up_and_stopped() {
    let port = free_port();
    let backends = format!(
        "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
         models = [\"m\"]\n\
         launch = {{ command = [{:?}, \"--port\", \"{port}\"], ready_url = \"/no-such-route\", \
         ready_timeout = \"500ms\" }}\n",
        env!("CARGO_BIN_EXE_servebench-sim")
    );
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"2conc\"]");
    project.bench(&[]).expect(2).says("was not ready (/no-such-route) within 500ms");
    assert!(nobody_listens(port));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_what_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let (starts, port) = (folder.path().join("starts"), free_port());
    let backends = backend("b", port, "--decode-base-ms 100", &starts);
    let project = Project::new("requests = 500", &backends, "[[bench]]\nloads = [\"2conc\"]");
    let mut command = project.command(&["--bench", "--no-progress"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..500 {
        if !nobody_listens(port) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(nobody_listens(port));
}

#[cfg(unix)]
#[test]
fn a_server_does_not_outlive_a_run_that_is_killed_and_its_log_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (starts, port) = (folder.path().join("starts"), free_port());
    let backends = backend("b", port, "--decode-base-ms 100", &starts);
    let project = Project::new("requests = 500", &backends, "[[bench]]\nloads = [\"2conc\"]");
    for runs in 1..=2 {
        let mut command = project.command(&["--bench", "--no-progress", "--self-check", "never"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let wait_until = |listens: bool| {
            for _ in 0..1500 {
                if nobody_listens(port) != listens {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            panic!("the server listens: {}", !listens);
        };
        wait_until(true);
        // Who watches over the server has begun.
        std::thread::sleep(Duration::from_millis(500));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until(false);
        let log =
            std::fs::read_to_string(project.folder.path().join("results/logs/b.log")).unwrap();
        assert_eq!(log.matches("listening on").count(), runs, "{log}");
    }
}

#[test]
fn a_server_is_not_started_where_another_answers_already() {
    let folder = tempfile::tempdir().unwrap();
    let (starts, other) = (folder.path().join("starts"), SimProcess::start(&[]));
    let port = other.url.rsplit(':').next().unwrap().parse().unwrap();
    let project =
        Project::new("", &backend("b", port, "", &starts), "[[bench]]\nloads = [\"2conc\"]");
    project.bench(&[]).expect(2).says("something answers at").says("leave `launch` out");
    assert!(!starts.exists(), "it is not even started");
}

#[test]
fn a_server_that_ends_while_it_is_measured_fails_the_case_with_its_last_words() {
    let port = free_port();
    let script = format!(
        "{} --port {port} & server=$!; sleep 2; echo out of memory, says $KEY; kill $server; exit 3",
        env!("CARGO_BIN_EXE_servebench-sim")
    );
    let backend = format!(
        "[[backend]]\nname = \"b\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
         models = [\"m\"]\n\
         launch = {{ command = [\"sh\", \"-c\", {script:?}], env = {{ KEY = \"hidden-word\" }} }}\n"
    );
    let group =
        "[[bench]]\nloads = [\"2conc\"]\nduration = \"4s\"\nslo = [\"error_ratio <= 100%\"]";
    let project = Project::new("", &backend, group);
    let run = project.bench(&["--self-check", "never", "--no-progress"]);
    run.expect(101).says("a server that was started ended by itself").says("exit status: 3");
    run.says("out of memory, says [redacted]");
    assert_eq!(project.results()[0]["servebench"]["verdict"], "slo_missed");
}

#[test]
fn two_servers_that_do_not_fit_side_by_side_are_started_for_each_trial() {
    let folder = tempfile::tempdir().unwrap();
    let (starts, port) = (folder.path().join("starts"), free_port());
    let backends = backend("old", port, "", &starts) + &backend("new", port, "", &starts);
    let group = "[[bench]]\nloads = [\"2conc\"]\ntrials = 2\nrequests = 4";
    let project = Project::new("", &backends, group);
    let both = project.bench(&["--against", "old"]);
    both.expect(2).says("--against: the backends `old` and `new` have one address");
    let run =
        project.bench(&["--against", "old", "--alternate", "restart", "--self-check", "never"]);
    assert!(matches!(run.code, 0 | 3 | 101), "{}", run.stderr);
    let started = std::fs::read_to_string(&starts).unwrap();
    assert!(started.starts_with("old\nnew\nnew\nold\n"), "{started}");
    assert!(nobody_listens(port));
}
