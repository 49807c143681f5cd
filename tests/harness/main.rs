//! The bench binary as Cargo, CI and nextest run it: exit codes, output, results.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

mod absent;
mod addresses;
mod compared;
mod connections;
mod failures;
mod formats;
mod hostile;
mod launched;
mod saved;
mod secure;
mod side_by_side;
mod watched;

/// The bench target `serving`, built by the Cargo that runs this test.
fn bench_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // What Cargo tells this test of its package would tell build scripts of another one, which build again.
        let told =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
            cargo.env_remove(name);
        }
        let output = cargo
            .args(["test", "--no-run", "--bench", "serving", "--message-format", "json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the bench target builds");
        let messages = String::from_utf8(output.stdout).unwrap();
        let messages = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let executable = messages
            .filter(|message| message["target"]["name"] == "serving")
            .find_map(|message| Some(message["executable"].as_str()?.to_owned()));
        PathBuf::from(executable.expect("Cargo names the executable"))
    })
}

/// A folder with a plan in it, in which the binary runs.
struct Project {
    folder: TempDir,
}

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

const BACKENDS: &str = r#"
[[backend]]
name = "sim"
kind = "sim"
engine = { decode_base_ms = 1.0, decode_per_sequence_ms = 0.01, prefill_tokens_per_s = 1e6 }

[[backend]]
name = "sim-chat"
kind = "sim"
protocol = "chat"
engine = { decode_base_ms = 1.0, decode_per_sequence_ms = 0.01, prefill_tokens_per_s = 1e6 }
"#;

impl Project {
    /// With a plan of `[defaults]`, backends and `[[bench]]` groups.
    fn new(defaults: &str, backends: &str, benches: &str) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let requests = if defaults.contains("requests") { "" } else { "requests = 20" };
        let plan = format!(
            "[defaults]\n{requests}\ntokenizer = {tokenizer:?}\n{defaults}\n{backends}\n\
             [[workload]]\nname = \"sharegpt\"\npath = {dataset:?}\noutput_tokens = 10\n{benches}",
            tokenizer = fixtures.join("tokenizer.json"),
            dataset = fixtures.join("sharegpt.json"),
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plan.toml"), plan).unwrap();
        Self { folder }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bench_binary());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SERVEBENCH_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("SERVEBENCH_CONFIG", "plan.toml")
            .env_remove("OPENAI_API_KEY")
            // The lock that keeps runs apart is there too, and these tests run side by side.
            .env("TMPDIR", self.folder.path());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        finish(self.command(args))
    }

    fn bench(&self, args: &[&str]) -> Run {
        self.run(&[&["--bench"], args].concat())
    }

    fn results(&self) -> Vec<Value> {
        let Ok(folder) = std::fs::read_dir(self.folder.path().join("results")) else {
            return Vec::new();
        };
        let paths = folder.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| {
                let text = std::fs::read_to_string(path).unwrap();
                serde_json::from_str(&text).unwrap()
            })
            .collect()
    }
}

/// Runs `command` to its end, and again from the same state where the run says itself that this machine was too
/// busy to measure: these tests run side by side, and on machines that others use too.
fn finish(mut command: Command) -> Run {
    let folder = command.get_current_dir().map(|folder| folder.join("results"));
    let before = folder.as_deref().map(Kept::of);
    let mut run = run_once(&mut command);
    for _ in 0..8 {
        if run.code != 3 || !run.was_held_up() {
            break;
        }
        if let Some(before) = &before {
            before.restore();
        }
        run = run_once(&mut command);
    }
    run
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn nobody_listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

fn run_once(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The files of a folder as they were.
struct Kept<'a> {
    folder: &'a Path,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl<'a> Kept<'a> {
    fn of(folder: &'a Path) -> Self {
        let mut files = BTreeMap::new();
        Self::read(folder, &mut files);
        Self { folder, files }
    }

    fn read(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => Self::read(&path, files),
                false => drop(files.insert(path.clone(), std::fs::read(path).unwrap())),
            }
        }
    }

    fn restore(&self) {
        if let Err(error) = std::fs::remove_dir_all(self.folder) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
        for (path, bytes) in &self.files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

impl Run {
    /// A result is invalid since this client had no processor when it needed one.
    fn was_held_up(&self) -> bool {
        let causes = [
            "held up",
            "the bottleneck",
            "after their time",
            "this client adds",
            "could not send so fast",
        ];
        let mut doubts = self.stdout.lines().filter(|line| line.starts_with("invalid "));
        doubts.any(|doubt| causes.iter().any(|cause| doubt.contains(cause)))
    }

    #[track_caller]
    fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(&self, part: &str) -> &Self {
        let said = self.stdout.contains(part) || self.stderr.contains(part);
        assert!(said, "`{part}` in stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The cases whose result line says that they were measured.
    fn measured(&self) -> Vec<&str> {
        let lines = self.stdout.lines().filter(|line| is_bench_line(line));
        lines.filter_map(|line| line.split(' ').nth(1)).collect()
    }
}

/// `test NAME ... bench: 1,234 ns/iter (+/- 56)`, as the readers of such lines take it.
fn is_bench_line(line: &str) -> bool {
    let Some((name, figures)) =
        line.strip_prefix("test ").and_then(|l| l.split_once(" ... bench:"))
    else {
        return false;
    };
    let figures: Vec<&str> = figures.split_whitespace().collect();
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == ',');
    !name.trim_end().contains(' ')
        && matches!(figures[..], [average, "ns/iter", "(+/-", spread]
            if number(average) && number(spread.trim_end_matches(')')))
}

#[test]
fn each_case_prints_a_table_and_leaves_a_result() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"inf\", \"4conc\"]");
    let run = project.bench(&[]);
    run.expect(0);
    assert_eq!(
        run.measured(),
        [
            "sim/sim/sharegpt@inf",
            "sim/sim/sharegpt@4conc",
            "sim-chat/sim/sharegpt@inf",
            "sim-chat/sim/sharegpt@4conc"
        ]
    );
    let heading = "============ Serving Benchmark Result ============";
    assert_eq!(run.stdout.lines().filter(|line| *line == heading).count(), 4);
    let results = project.results();
    assert_eq!(results.len(), 4);
    for result in results {
        assert_eq!(result["completed"], 20);
        assert_eq!(result["failed"], 0);
        assert_eq!(result["total_output_tokens"], 200);
        assert_eq!(result["request_rate"], "inf");
        assert_eq!(result["ttfts"].as_array().unwrap().len(), 20);
        assert_eq!(result["servebench"]["verdict"], "pass");
        assert_eq!(result["servebench"]["schema_version"], 1);
        for field in ["mean_ttft_ms", "median_tpot_ms", "std_itl_ms", "p99_e2el_ms"] {
            assert!(result[field].is_f64(), "{field}");
        }
        for field in ["peak_gpu_memory_mib", "available_gpu_memory_mib", "gpu_utilization"] {
            assert!(result.as_object().unwrap().contains_key(field) && result[field].is_null());
        }
    }
}

#[test]
fn a_missed_objective_fails_the_run_and_names_case_statistic_limit_and_value() {
    let slo = r#"slo = ["ttft.p50 < 1us", "error_ratio == 0"]"#;
    let project = Project::new(slo, BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"inf\"]");
    let run = project.bench(&[]);
    run.expect(101);
    let failures = run.stdout.split("failures:").nth(1).unwrap();
    let median = project.results()[0]["median_ttft_ms"].as_f64().unwrap();
    for part in ["sim/sim/sharegpt@inf", "ttft.p50 < 0.001ms", &format!("({}", trimmed(median))] {
        assert!(failures.contains(part), "{part} in {failures}");
    }
    assert_eq!(project.results()[0]["servebench"]["verdict"], "slo_missed");
}

/// A number as objectives show it: two digits at most.
fn trimmed(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[test]
fn a_result_that_says_too_little_is_invalid_and_no_pass() {
    let slo = r#"slo = ["ttft.p99 < 1h"]"#;
    let project = Project::new(slo, BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"inf\"]");
    let run = project.bench(&[]);
    run.expect(3).says("p99 needs 100 samples and there are 20");
    // Nobody who reads libtest's lines alone takes it for a success.
    run.says("test sim/sim/sharegpt@inf ... FAILED")
        .says("test result: FAILED. 0 passed; 1 failed");
    assert!(run.measured().is_empty(), "{}", run.stdout);
}

#[test]
fn where_no_case_is_a_failure_nothing_says_that_all_is_well() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"inf\"]");
    let run = project.bench(&["no-such-case", "--no-tests", "fail"]);
    run.expect(4).says("no case is selected");
    assert!(!run.stdout.contains("ok."), "{}", run.stdout);
}

#[test]
fn filters_select_cases() {
    let benches = "[[bench]]\nloads = [\"inf\", \"2conc\", \"12conc\"]";
    let project = Project::new("requests = 4", BACKENDS, benches);
    let run = project.bench(&["sim/sim/sharegpt@2conc", "chat/sim/sharegpt@inf"]);
    let expected = ["sim/sim/sharegpt@2conc", "sim-chat/sim/sharegpt@inf"];
    assert_eq!(run.expect(0).measured(), expected);
    run.says("4 filtered out");
    let run = project.bench(&["--exact", "sim/sim/sharegpt@12conc"]);
    assert_eq!(run.expect(0).measured(), ["sim/sim/sharegpt@12conc"]);
    let run = project.bench(&["@inf", "--skip", "chat"]);
    assert_eq!(run.expect(0).measured(), ["sim/sim/sharegpt@inf"]);
}

#[test]
fn merged_output_holds_each_result_line_whole() {
    let benches = "[[bench]]\nloads = [\"inf\", \"2conc\", \"4conc\"]";
    let project = Project::new("requests = 4", BACKENDS, benches);
    let mut command = project.command(&["--bench"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" --bench 2>&1"]).arg(command.get_program());
    shell.current_dir(project.folder.path());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    command = shell;
    let run = finish(command);
    assert_eq!(run.expect(0).measured().len(), 6, "{}", run.stdout);
    run.says("sim/sim/sharegpt@inf: sending 4 requests");
}

#[test]
fn machine_formats_have_stdout_to_themselves() {
    let project = Project::new("requests = 4", BACKENDS, "[[bench]]\nloads = [\"inf\"]");
    let run = project.bench(&["--format", "json"]);
    run.expect(0).says("Serving Benchmark Result");
    for line in run.stdout.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

#[test]
fn no_number_of_threads_makes_cases_overlap_or_hang() {
    let benches = "[[bench]]\nloads = [\"inf\", \"2conc\"]";
    let project = Project::new("requests = 4", BACKENDS, benches);
    for threads in ["0", "1", "8"] {
        let run = project.bench(&["--test-threads", threads]);
        assert_eq!(run.expect(0).measured().len(), 4);
    }
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"inf\"]");
    project.bench(&["--frobnicate"]).expect(2).says("--frobnicate");
}

#[test]
fn a_filter_that_selects_nothing_is_a_warning_unless_it_shall_fail() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"inf\"]");
    project.bench(&["nothing"]).expect(0).says("warning: no case is selected");
    project.bench(&["nothing", "--no-tests", "fail"]).expect(4).says("error: no case is selected");
    let mut twin = project.command(&["--bench", "nothing"]);
    twin.env("SERVEBENCH_NO_TESTS", "fail");
    finish(twin).expect(4);
}

#[test]
fn every_flag_has_a_twin_that_it_wins_over() {
    let project = Project::new("", BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"inf\"]");
    for (args, requests) in [(&["--bench"][..], 3), (&["--bench", "--num-prompts", "5"], 5)] {
        let mut command = project.command(args);
        command.env("SERVEBENCH_NUM_PROMPTS", "3").env("SERVEBENCH_SEED", "");
        finish(command).expect(0).says(&format!("sending {requests} requests"));
    }
}

#[test]
fn a_twin_may_hold_several_objectives() {
    let project = Project::new("", BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"inf\"]");
    let mut command = project.command(&["--bench"]);
    command.env("SERVEBENCH_SLO", "ttft.p50 < 1h; tpot.mean < 1us");
    finish(command)
        .expect(101)
        .says("met: ttft.p50 < 3600000ms")
        .says("missed: tpot.mean < 0.001ms");
}

#[test]
fn help_shows_the_flags_in_groups() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"inf\"]");
    let run = project.run(&["--help"]);
    run.expect(0);
    for part in ["Selection:", "Workload:", "Load:", "Verdict:", "--base-url", "--list", "101"] {
        run.says(part);
    }
}

#[test]
fn listing_is_in_the_form_that_nextest_takes_and_sends_nothing() {
    let listener = Listener::start();
    let backends = format!(
        "{BACKENDS}\n{}\n[[backend]]\nname = \"unset\"\nkind = \"vllm\"\n\
         base_url = \"${{NO_SUCH_VARIABLE_HERE}}\"\nmodels = [\"m\"]\n",
        listener.backend()
    );
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"inf\"]");
    let run = project.run(&["--list", "--format", "terse"]);
    let names = ["sim/sim", "sim-chat/sim", "remote/m", "unset/m"];
    let expected: String =
        names.iter().map(|name| format!("{name}/sharegpt@inf: benchmark\n")).collect();
    assert_eq!(run.expect(0).stdout, expected);
    let run = project.run(&["--list", "--format", "terse", "--ignored"]);
    assert_eq!(run.expect(0).stdout, "unset/m/sharegpt@inf: benchmark\n");
    assert_eq!(listener.connections(), 0);
}

#[test]
fn without_bench_each_case_is_tried_in_miniature_and_nothing_leaves_the_machine() {
    let listener = Listener::start();
    let backends = format!("{BACKENDS}\n{}", listener.backend());
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"inf\", \"0.01qps\"]");
    let run = project.run(&[]);
    let passed = run.stdout.lines().filter(|line| line.ends_with(" ... ok")).count();
    run.expect(0).says("remote/m/sharegpt@0.01qps");
    assert_eq!(passed, 6, "{}", run.stdout);
    assert_eq!(listener.connections(), 0);
    assert!(project.results().is_empty());
}

#[test]
fn an_absent_server_is_ignored_with_its_address_unless_it_is_required() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let backends = backend_at(&url);
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"inf\"]");
    let run = project.bench(&[]);
    run.expect(0).says(&format!("no server at {url}")).says("1 ignored");
    let run = project.bench(&["--require-server"]);
    run.expect(2).says(&url).says("refused").says("FAILED");
}

#[test]
fn a_server_that_dies_in_mid_run_is_failed_requests_by_reason() {
    let mut server = SimProcess::start(&["--decode-base-ms", "20"]);
    let backends = backend_at(&server.url);
    let project = Project::new("requests = 8", &backends, "[[bench]]\nloads = [\"inf\"]");
    let args = ["--bench", "--sharegpt-output-len", "200"];
    let mut bench = project.command(&args);
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.wait_for_running(8);
    server.kill();
    let output = bench.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(101), "{stdout}");
    assert!(stdout.contains("8 requests failed: truncated"), "{stdout}");
    let result = &project.results()[0];
    assert_eq!((&result["completed"], &result["failed"]), (&Value::from(0), &Value::from(8)));
    assert_eq!(result["servebench"]["failures"]["truncated"]["count"], 8);
    assert!(result["mean_ttft_ms"].is_null(), "a failed request has no latency");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_what_it_has() {
    let project = Project::new(
        "requests = 20",
        BACKENDS,
        "[[bench]]\nbackends = [\"sim\"]\nloads = [\"1conc\"]\n\
         [[bench]]\nbackends = [\"sim-chat\"]\nloads = [\"inf\"]",
    );
    let mut bench = project.command(&["--bench", "--sharegpt-output-len", "400"]);
    let mut bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The second line on stderr would be too late: the run has begun with the first.
    let mut seen = [0; 64];
    assert!(0 < bench.stderr.as_mut().unwrap().read(&mut seen).unwrap());
    std::thread::sleep(Duration::from_millis(1500));
    let kill = Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let results = project.results();
    let [result] = &results[..] else { panic!("one case had begun: {results:?}") };
    assert_eq!(result["servebench"]["partial"], true);
    assert!(result["servebench"]["verdict"].is_null());
    let completed = result["completed"].as_u64().unwrap();
    assert!((1..20).contains(&completed), "{completed}");
    assert_eq!(result["servebench"]["failures"]["cancelled"]["count"], 1);
}

#[test]
fn a_mistake_in_the_plan_is_one_error_with_its_place_and_nothing_is_sent() {
    let listener = Listener::start();
    let project = Project::new("reqests = 5", &listener.backend(), "[[bench]]\nloads = [\"inf\"]");
    let run = project.bench(&[]);
    run.expect(2).says("plan.toml:4:1").says("reqests").says("requests");
    assert_eq!((run.stdout.as_str(), listener.connections()), ("", 0));
}

#[test]
fn a_mistake_that_a_word_explains_names_the_word_and_nothing_is_sent() {
    let listener = Listener::start();
    let bench = "[[bench]]\nloads = [\"inf\"]";
    for (defaults, benches, parts) in [
        ("slo = [\"tfft.p50 < 1s\"]", bench, ["plan.toml:4:8", "did you mean `ttft.p50`?"]),
        ("compare = []", bench, ["plan.toml:4:11", "leave it out"]),
        ("timeout = \"0s\"", bench, ["plan.toml:4:11", "above zero"]),
        ("", "[[bench]]\nbackends = []\nloads = [\"inf\"]", ["plan.toml:16:12", "makes no case"]),
    ] {
        let run = Project::new(defaults, &listener.backend(), benches).bench(&[]);
        for part in parts {
            run.expect(2).says(part);
        }
    }
    let project = Project::new("", &listener.backend(), bench);
    std::fs::write(project.folder.path().join("chats.json"), "[]").unwrap();
    let run = |args: &[&str]| project.bench(args);
    run(&["--dataset-path", "chat.json"]).expect(2).says("did you mean `chats.json`?");
    run(&["--slo", "tfft.p50 < 1s"]).expect(2).says("did you mean `ttft.p50`?");
    run(&["--model-alias", "x"]).expect(2).says("--model or --served-model-name");
    let mut twin = project.command(&["--bench"]);
    twin.env("SERVEBENCH_SLO", "eror_ratio < 1%");
    finish(twin).expect(2).says("did you mean `error_ratio`?");
    // Whose server is nowhere here may have its files elsewhere too.
    let unset = "[[backend]]\nname = \"u\"\nkind = \"vllm\"\nbase_url = \"${NO_SUCH_VARIABLE_HERE}\"\nmodels = [\"m\"]\n";
    let project = Project::new("", unset, bench);
    project.bench(&["--dataset-path", "chat.json"]).expect(0).says("1 ignored");
    assert_eq!(listener.connections(), 0);
}

#[test]
fn a_damaged_dataset_is_an_error_before_anything_is_sent() {
    let listener = Listener::start();
    let project = Project::new("", &listener.backend(), "[[bench]]\nloads = [\"inf\"]");
    let dataset = project.folder.path().join("cut.json");
    for damage in [&br#"[{"conversations":[{"from":"human","va"#[..], b"no JSON", b"[]"] {
        std::fs::write(&dataset, damage).unwrap();
        let run = project.bench(&["--dataset-path", "cut.json", "--require-server"]);
        run.expect(2).says("cut.json");
        assert_eq!(listener.connections(), 0);
    }
}

#[cfg(unix)]
#[test]
fn the_limit_on_open_files_is_raised_and_one_too_low_is_said_before_the_run() {
    let listener = Listener::start();
    let backends = format!("{BACKENDS}\n{}", listener.backend());
    let project = Project::new("requests = 1024", &backends, "[[bench]]\nloads = [\"1024conc\"]");
    // The fixture has too few conversations for so many users.
    let turn = |from: &str, n: u32| serde_json::json!({ "from": from, "value": format!("Count from {n} to {}.", n + 9) });
    let many: Vec<Value> = (0..1100)
        .map(|n| serde_json::json!({ "conversations": [turn("human", n), turn("gpt", n)] }))
        .collect();
    std::fs::write(project.folder.path().join("many.json"), serde_json::to_vec(&many).unwrap())
        .unwrap();
    let run = |limit: &str, case: &str| {
        let command = project.command(&[]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{limit}; exec \"$0\" \"$@\""));
        shell.arg(command.get_program()).args(["--bench", "--dataset-path", "many.json", case]);
        shell.current_dir(project.folder.path()).env("SERVEBENCH_CONFIG", "plan.toml");
        shell.env("TMPDIR", project.folder.path());
        finish(shell)
    };
    let raised = run("ulimit -Sn 256; ulimit -Hn 4096", "sim/");
    raised.says("sending 1024 requests");
    // A debug build on a busy machine may rightly doubt itself under so many users.
    assert!([0, 3].contains(&raised.code), "{}", raised.stdout);
    assert_eq!(project.results()[0]["completed"], 1024);
    let refused = run("ulimit -Sn 256; ulimit -Hn 256", "remote/");
    refused.expect(2).says("needs 1088 open files and the system allows 256");
    assert_eq!(listener.connections(), 1, "nothing but the look whether it is there");
}

#[test]
fn a_wrong_model_is_one_error_that_names_the_served_ones() {
    let server = SimProcess::start(&["--model", "llama"]);
    let project = Project::new("", &backend_at(&server.url), "[[bench]]\nloads = [\"inf\"]");
    project.bench(&[]).expect(2).says("http_404").says("it serves llama, not `m`");
}

#[test]
fn secrets_reach_no_output() {
    let listener = Listener::start();
    let backends = format!("{}\nheaders = {{ X-Team = \"${{TEAM_TOKEN}}\" }}", listener.backend());
    let project = Project::new("requests = 3", &backends, "[[bench]]\nloads = [\"inf\"]");
    for (args, code) in [(&["--bench"][..], 2), (&["--bench", "--skip-test-prompt"], 101)] {
        let mut command = project.command(args);
        command.env("OPENAI_API_KEY", "sk-very-secret").env("TEAM_TOKEN", "team-very-secret");
        let run = finish(command);
        run.expect(code).says("http_401");
        let result = format!("{:?}", project.results());
        for text in [&run.stdout, &run.stderr, &result] {
            assert!(!text.contains("very-secret"), "{text}");
        }
    }
    assert!(0 < listener.secrets.load(Ordering::SeqCst), "the secrets were sent");
    assert_eq!(project.results().len(), 1);
}

fn backend_at(url: &str) -> String {
    format!(
        "[[backend]]\nname = \"remote\"\nkind = \"vllm\"\nbase_url = \"{url}\"\nmodels = [\"m\"]\n"
    )
}

/// A server that refuses everybody with 401, and quotes what it was sent.
struct Listener {
    url: String,
    connections: &'static AtomicUsize,
    secrets: &'static AtomicUsize,
}

impl Listener {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections: &AtomicUsize = Box::leak(Box::default());
        let secrets: &AtomicUsize = Box::leak(Box::default());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || refuse(stream.unwrap(), secrets));
            }
        });
        Self { url, connections, secrets }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn backend(&self) -> String {
        backend_at(&self.url)
    }
}

fn refuse(mut stream: TcpStream, secrets: &AtomicUsize) {
    let mut request = vec![0; 64 * 1024];
    let length = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..length]);
    let head = request.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n", " ");
    secrets.fetch_add(usize::from(head.contains("very-secret")), Ordering::SeqCst);
    let body =
        serde_json::json!({ "error": { "message": format!("refused: {head}") } }).to_string();
    let length = body.len();
    let response = format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // A client that has gone away is no matter here.
    let _ = stream.write_all(response.as_bytes());
}

/// The simulated engine as a process of its own, which can be killed.
struct SimProcess {
    child: Child,
    url: String,
}

impl SimProcess {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_servebench-sim"))
            .args(["--port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, url }
    }

    /// Waits until so many requests are being answered.
    fn wait_for_running(&self, running: usize) {
        let address = self.url.strip_prefix("http://").unwrap();
        for _ in 0..500 {
            let mut stream = TcpStream::connect(address).unwrap();
            let request = "GET /metrics HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut metrics = String::new();
            stream.read_to_string(&mut metrics).unwrap();
            let line = metrics.lines().find(|line| line.starts_with("vllm:num_requests_running"));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            if value == Some(running as f64) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{running} requests never ran at once");
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for SimProcess {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
