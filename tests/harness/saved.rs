//! What was measured stays: whatever happens to its folder, to the process and to who reads its output.

use super::*;

/// A case that takes some seconds, each request of it a moment.
fn slow() -> Project {
    Project::new("requests = 60", BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"20qps\"]")
}

/// So that it is still at work when it is interrupted, on any machine.
const LONG: [&str; 2] = ["--num-prompts", "600"];

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[track_caller]
fn wait_until(what: impl Fn() -> bool) {
    for _ in 0..1500 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it did not happen within 30 s");
}

fn records(project: &Project) -> usize {
    let results = project.folder.path().join("results");
    let names = names(&results);
    let Some(name) = names.iter().find(|name| name.ends_with(".records.jsonl")) else { return 0 };
    std::fs::read_to_string(results.join(name)).unwrap_or_default().lines().count()
}

#[test]
fn where_nothing_can_be_saved_nothing_is_sent() {
    let listener = Listener::start();
    let backend = listener.backend();
    for path in ["results", "results/baselines", "results/history.jsonl"] {
        let project = Project::new("", &backend, "[[bench]]\nloads = [\"inf\"]");
        let path = project.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.ends_with("history.jsonl") {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
        let run = project.bench(&["--save-baseline", "main", "--skip-test-prompt"]);
        run.expect(2).says(path.file_name().unwrap().to_str().unwrap());
        assert_eq!(run.stdout, "");
    }
    let project = Project::new("", &backend, "[[bench]]\nloads = [\"inf\"]");
    project.bench(&["--save-baseline", "a:b"]).expect(2).says("a:b").says("letters, digits");
    project.bench(&["--save-baseline", ".."]).expect(2);
    assert_eq!(listener.connections(), 0);
}

#[cfg(unix)]
#[test]
fn a_result_that_cannot_be_saved_is_printed_and_kept_elsewhere() {
    let project = slow();
    let mut command =
        project.command(&["--bench", "--no-progress", "--self-check", "never", "--save-records"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(|| 0 < records(&project));
    let results = project.folder.path().join("results");
    std::fs::remove_dir_all(&results).unwrap();
    std::fs::write(&results, "").unwrap();
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(2), "{stdout}\n{stderr}");
    assert!(stdout.contains("Serving Benchmark Result"), "{stdout}");
    assert!(stdout.contains("FAILED") && !stdout.contains("ok. 0"), "{stdout}");
    assert!(stderr.contains("what was measured is not all saved"), "{stderr}");
    // The folder for temporary files is the project's.
    let kept = names(project.folder.path());
    let kept = kept.iter().find(|name| name.ends_with(".json")).expect("a result elsewhere");
    let text = std::fs::read_to_string(project.folder.path().join(kept)).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["completed"], 60);
    assert_eq!(result["ttfts"].as_array().unwrap().len(), 60, "whole");
}

/// Whether SIGHUP, the first signal, is ignored here.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|set| u64::from_str_radix(set.trim(), 16).unwrap() & 1 == 1)
}

#[cfg(unix)]
#[test]
fn the_end_of_the_terminal_is_an_interruption_unless_nohup_says_otherwise() {
    // Where this test itself was started by nohup, so is all that it starts.
    let kinds = if is_hangup_ignored() { &[(true, 0)][..] } else { &[(false, 130), (true, 0)] };
    for &(nohup, code) in kinds {
        let project = slow();
        let args = ["--bench", "--no-progress", "--self-check", "never", "--save-records"];
        let mut command = project.command(&args);
        if !nohup {
            command.args(LONG);
        }
        if nohup {
            let inner = std::mem::replace(&mut command, Command::new("nohup"));
            command.arg(inner.get_program()).args(inner.get_args());
            command.current_dir(inner.get_current_dir().unwrap());
            for (name, value) in inner.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until(|| 0 < records(&project));
        let killed = Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let output = child.wait_with_output().unwrap();
        // A busy machine may doubt the figures.
        let ended = output.status.code().map(|code| if code == 3 { 0 } else { code });
        assert_eq!(ended, Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let results = project.results();
        assert_eq!(results.len(), 1);
        assert_eq!(results[0]["servebench"]["partial"], !nohup);
    }
}

#[cfg(unix)]
#[test]
fn what_a_killed_run_wrote_down_is_kept_by_the_next_one() {
    let project = slow();
    let args = ["--bench", "--no-progress", "--self-check", "never", "--save-records"];
    let mut command = project.command(&args);
    let mut child = command.args(LONG).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(|| 3 < records(&project));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = records(&project);
    let run = project.run(&args);
    run.says("a run that ended without a result are kept in");
    let results = project.folder.path().join("results");
    let names = names(&results);
    let kept = names.iter().find(|name| name.contains("-unfinished-")).expect("the first run's");
    let kept = std::fs::read_to_string(results.join(kept)).unwrap();
    assert_eq!(kept.lines().count(), before);
    let of_result: Vec<&String> = names
        .iter()
        .filter(|name| name.ends_with(".records.jsonl") && !name.contains("-unfinished-"))
        .collect();
    assert_eq!(of_result.len(), 1, "{names:?}");
}

#[test]
fn two_plans_that_share_a_folder_have_files_of_their_own() {
    let project = Project::new("", BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"inf\"]");
    let plan = std::fs::read_to_string(project.folder.path().join("plan.toml")).unwrap();
    let chat = plan.replace("backends = [\"sim\"]", "backends = [\"sim-chat\"]");
    std::fs::write(project.folder.path().join("chat.toml"), chat).unwrap();
    let formats = "junit,csv,markdown,bencher,github-benchmark";
    for _ in 0..2 {
        for plan in ["plan.toml", "chat.toml"] {
            project.bench(&["--config", plan, "--self-check", "never", "--output-format", formats]);
        }
    }
    let results = project.folder.path().join("results");
    for (first, second) in [
        ("junit.xml", "junit-chat.xml"),
        ("results.csv", "results-chat.csv"),
        ("summary.md", "summary-chat.md"),
        ("bmf.json", "bmf-chat.json"),
        ("report.html", "report-chat.html"),
        ("smaller-is-better.json", "smaller-is-better-chat.json"),
    ] {
        for (name, is_chat) in [(first, false), (second, true)] {
            let text = std::fs::read_to_string(results.join(name)).unwrap();
            assert!(!text.is_empty(), "{name}");
            assert_eq!(text.contains("sim-chat"), is_chat, "{name}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_ends_nothing() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"inf\", \"4conc\"]");
    for args in [&["--bench", "--list"][..], &["--bench", "--self-check", "never"]] {
        let mut command = project.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // A busy machine may doubt the figures.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("roken pipe"), "{stderr}");
    }
    assert_eq!(project.results().len(), 4);
}

#[test]
fn a_summary_that_cannot_be_written_is_a_warning() {
    let project = Project::new("", BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"inf\"]");
    let mut command = project.command(&["--bench", "--self-check", "never"]);
    command.env("GITHUB_STEP_SUMMARY", project.folder.path());
    let run = finish(command);
    assert!(matches!(run.code, 0 | 3), "{}", run.stderr);
    run.says("warning: the summary for GitHub is not written (GITHUB_STEP_SUMMARY)");
}

#[test]
fn the_plan_is_that_of_the_package_that_cargo_runs() {
    let project =
        Project::new("", BACKENDS, "[[bench]]\nbackends = [\"sim\"]\nloads = [\"7conc\"]");
    let benches = project.folder.path().join("benches");
    std::fs::create_dir(&benches).unwrap();
    std::fs::rename(project.folder.path().join("plan.toml"), benches.join("serving.toml")).unwrap();
    let mut command = project.command(&["--bench", "--list"]);
    command.env_remove("SERVEBENCH_CONFIG").env("CARGO_MANIFEST_DIR", project.folder.path());
    let run = finish(command);
    run.expect(0);
    assert_eq!(run.stdout, "sim/sim/sharegpt@7conc: benchmark\n");
}
