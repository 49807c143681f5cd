//! The files that a run leaves for other tools, as those find them.

use super::failures::{Scripted, response};
use super::*;

const ALL: &str = "junit,csv,markdown,bencher,github-benchmark,jsonl";
const FILES: [&str; 6] = [
    "bigger-is-better.json",
    "bmf.json",
    "junit.xml",
    "results.csv",
    "smaller-is-better.json",
    "summary.md",
];
/// Two cases, of which one misses its objective, and one whose server is not there.
const BENCHES: &str = r#"
[[bench]]
backends = ["sim"]
loads = ["4conc", "2conc"]
[[bench]]
backends = ["away"]
loads = ["1conc"]
[[override]]
cases = ["*@2conc"]
slo = ["ttft.p50 < 1us"]
"#;

fn backends() -> String {
    format!(
        "{BACKENDS}[[backend]]\nname = \"away\"\nkind = \"vllm\"\nbase_url = \
         \"${{NOT_SET_IN_TESTS}}\"\nmodels = [\"m\"]\n"
    )
}

/// The files for people: hidden ones are the program's own.
fn names(folder: &Path, extension: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| name.ends_with(extension) && !name.starts_with('.')).collect();
    names.sort();
    names
}

fn read(project: &Project, name: &str) -> String {
    std::fs::read_to_string(project.folder.path().join("results").join(name)).unwrap()
}

#[test]
fn each_format_that_is_asked_for_holds_every_case_of_the_run() {
    let project = Project::new("", &backends(), BENCHES);
    let run = project.bench(&["--self-check", "never", "--output-format", ALL]);
    run.expect(101);
    let folder = project.folder.path().join("results");
    for name in FILES {
        let text = read(&project, name);
        assert!(text.contains("sim/sim/sharegpt@2conc"), "{name}: {text}");
        assert!(text.contains("sim/sim/sharegpt@4conc"), "{name}: {text}");
    }
    let junit = read(&project, "junit.xml");
    for part in [
        "tests=\"3\" skipped=\"1\" failures=\"1\" errors=\"0\"",
        "::serving\"",
        "<skipped message=\"the environment variable NOT_SET_IN_TESTS is not set\"/>",
        "type=\"slo\">slo      missed: ttft.p50 &lt; 0.001ms",
    ] {
        assert!(junit.contains(part), "{part} in\n{junit}");
    }
    assert_eq!(read(&project, "results.csv").lines().count(), 3, "a head, and what was measured");

    // A line for each request beside each result.
    let records = names(&folder, ".records.jsonl");
    assert_eq!(records.len(), 2);
    for name in records {
        let result = read(&project, &name.replace(".records.jsonl", ".json"));
        let result: Value = serde_json::from_str(&result).unwrap();
        let text = read(&project, &name);
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 20);
        let mut told: Vec<f64> =
            lines.iter().map(|line| line["ttft_ms"].as_f64().unwrap()).collect();
        let mut known: Vec<f64> = result["ttfts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ttft| ttft.as_f64().unwrap() * 1e3)
            .collect();
        told.sort_by(f64::total_cmp);
        known.sort_by(f64::total_cmp);
        let same = |(one, two): (&f64, &f64)| (one - two).abs() < 1e-6;
        assert!(told.iter().zip(&known).all(same), "{told:?} and {known:?}");
    }

    // A filter that selects nothing here is meant for another bench target.
    project.bench(&["elsewhere/", "--output-format", ALL]).expect(0);
    assert!(read(&project, "junit.xml").contains("2conc"));
    // The run that comes next leaves nothing of this one in them.
    project.bench(&["@4conc", "--self-check", "never", "--output-format", ALL]).expect(0);
    for name in FILES {
        assert!(!read(&project, name).contains("2conc"), "{name}");
    }
}

#[test]
fn without_being_asked_a_run_leaves_results_and_a_page_and_the_plan_can_ask_for_more() {
    let bench = "[[bench]]\nbackends = [\"sim\"]\nloads = [\"2conc\"]\n";
    let project = Project::new("", BACKENDS, bench);
    project.bench(&["--self-check", "never"]).expect(0);
    let folder = project.folder.path().join("results");
    let left = names(&folder, "");
    assert_eq!(left.len(), 3, "a result, the history and the page: {left:?}");
    let page = folder.join("report.html");
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written.contains("sim/sim/sharegpt"), "its case is in it");

    // Of what was saved it is made anew; another run may do without it.
    std::fs::remove_file(&page).unwrap();
    project.bench(&["--report", "results"]).expect(0).says("report results/report.html");
    assert!(std::fs::read_to_string(&page).unwrap().contains("sim/sim/sharegpt"));
    project.bench(&["--report", "no-such-folder"]).expect(2).says("no-such-folder");
    std::fs::remove_file(&page).unwrap();
    project.bench(&["--self-check", "never", "--no-html"]).expect(0);
    assert!(!page.exists());

    let report = "[report]\nformats = [\"junit\", \"csv\"]\nhtml = false\nfolder = \"out\"\n";
    let project = Project::new("", BACKENDS, &format!("{bench}{report}"));
    project.bench(&["--self-check", "never"]).expect(0);
    let out = project.folder.path().join("out");
    assert_eq!(names(&out, ""), ["junit.xml", "results.csv"]);
    // A flag, or its twin, has its way.
    let mut command = project.command(&["--bench", "--self-check", "never"]);
    command.env("SERVEBENCH_OUTPUT_FORMAT", "bencher,markdown");
    finish(command).expect(0);
    assert_eq!(names(&out, ""), ["bmf.json", "junit.xml", "results.csv", "summary.md"]);

    let run = project.bench(&["--output-format", "xml"]);
    run.expect(2).says("junit, csv, markdown, bencher, github-benchmark, html, jsonl");
    let wrong = Project::new("", BACKENDS, &format!("{bench}[report]\nformats = [\"xml\"]\n"));
    wrong.bench(&[]).expect(2).says("plan.toml:").says("`xml`").says("`github-benchmark`");
}

#[test]
fn processes_of_one_nextest_run_make_one_report_together() {
    let project = Project::new("", &backends(), BENCHES);
    let process = |run: &str, filter: &str| {
        let args = ["--bench", "--exact", filter, "--self-check", "never"];
        let mut command = project.command(&args);
        command.env("NEXTEST_RUN_ID", run).env("SERVEBENCH_OUTPUT_FORMAT", "junit,csv");
        finish(command)
    };
    process("one", "sim/sim/sharegpt@4conc").expect(0);
    process("one", "sim/sim/sharegpt@2conc").expect(101);
    // Tried again, it is still one case.
    process("one", "sim/sim/sharegpt@2conc").expect(101);
    process("one", "away/m/sharegpt@1conc").expect(0);
    let junit = read(&project, "junit.xml");
    assert!(junit.contains("tests=\"3\" skipped=\"1\" failures=\"1\""), "{junit}");
    assert_eq!(read(&project, "results.csv").lines().count(), 3);

    process("two", "sim/sim/sharegpt@4conc").expect(0);
    let junit = read(&project, "junit.xml");
    assert!(junit.contains("tests=\"1\" skipped=\"0\" failures=\"0\""), "{junit}");
}

#[test]
fn a_case_that_could_not_be_measured_is_an_error_in_junit() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let backends = format!(
        "[[backend]]\nname = \"gone\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
         models = [\"m\"]\n"
    );
    let project = Project::new("", &backends, "[[bench]]\nloads = [\"2conc\"]\n");
    let run = project.bench(&["--require-server", "--output-format", "junit,github-benchmark"]);
    run.expect(2);
    let junit = read(&project, "junit.xml");
    assert!(junit.contains("errors=\"1\"") && junit.contains("type=\"error\""), "{junit}");
    assert_eq!(names(&project.folder.path().join("results"), "better.json"), [""; 0]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_what_there_is_in_every_format() {
    let bench = "[[bench]]\nbackends = [\"sim\"]\nloads = [\"2conc\", \"20qps\"]\n\
                 [[override]]\ncases = [\"*@20qps\"]\nduration = \"60s\"\nrequests = 2000\n";
    let project = Project::new("", BACKENDS, bench);
    let args = ["--bench", "--self-check", "never", "--output-format", ALL];
    let mut command = project.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let folder = project.folder.path().join("results");
    let running = folder.join("sim+sim+sharegpt@20qps.records.jsonl");
    let lines = || std::fs::read_to_string(&running).unwrap_or_default().lines().count();
    // What has ended is on disk while the case goes on.
    while lines() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(50));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let junit = read(&project, "junit.xml");
    assert!(junit.contains("tests=\"2\""), "{junit}");
    assert!(junit.contains("message=\"the run was interrupted\""), "{junit}");
    assert!(read(&project, "results.csv").contains("sharegpt@20qps,interrupted,"));
    let tracked = read(&project, "bmf.json");
    assert!(tracked.contains("@2conc") && !tracked.contains("@20qps"), "half a run is no figure");
    let records = names(&folder, ".records.jsonl");
    assert_eq!(records.len(), 2, "{records:?}");
    let partial = records.iter().find(|name| name.contains("20.0qps")).unwrap();
    assert!(5 <= read(&project, partial).lines().count());
}

#[test]
fn what_a_hostile_server_says_means_nothing_to_a_terminal_or_a_format() {
    let words = "<script>alert(1)</script> \u{1b}[2J\u{7} | `x` \" ' & \u{202e}txt\n::error::gone";
    let error = serde_json::json!({ "error": { "message": words } }).to_string();
    let server = Scripted::start(20, move |_, _| {
        response("503 Service Unavailable", "application/json", &error)
    });
    let bench = "[[bench]]\nloads = [\"1conc\"]";
    let project = Project::new("", &server.backend("probe = false"), bench);
    let mut command = project.command(&[
        "--bench",
        "--require-server",
        "--self-check",
        "never",
        "--output-format",
        ALL,
    ]);
    command.env("GITHUB_ACTIONS", "true");
    let run = finish(command);
    run.expect(101).says("http_503: 20");
    let obeyed =
        |character: char| character != '\n' && (character.is_control() || character == '\u{202e}');
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains(obeyed), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("::error::gone")), "{text}");
    }
    for name in ["junit.xml", "summary.md"] {
        let text = read(&project, name);
        assert!(text.contains("alert(1)") && !text.contains(obeyed), "{name}: {text:?}");
    }
    assert!(!read(&project, "junit.xml").contains("<script"));
    let folder = project.folder.path().join("results");
    let records = read(&project, &names(&folder, ".records.jsonl")[0]);
    assert_eq!(records.lines().count(), 20, "a line break in a message breaks no line");
}
