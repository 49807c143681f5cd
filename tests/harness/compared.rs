//! Comparisons as CI sees them: with another build in turn, and with results that were saved.

use super::*;

/// The group of one case whose trials take under a second.
const ONE_CASE: &str = "[[bench]]\nloads = [\"4conc\"]\nrequests = 30";

fn engine(name: &str, step_ms: f64) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!(
        "[[backend]]\nname = \"{name}\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}\"\n\
         models = [\"m\"]\nlaunch = {{ command = [{:?}, \"--port\", \"{port}\", \
         \"--decode-base-ms\", \"{step_ms}\"] }}\n",
        env!("CARGO_BIN_EXE_servebench-sim"),
    )
}

fn two_builds(old_ms: f64, new_ms: f64) -> Project {
    let backends = engine("old", old_ms) + &engine("new", new_ms);
    Project::new("compare = [\"tpot.p50\", \"e2e.p50\"]", &backends, ONE_CASE)
}

#[test]
fn a_build_that_is_a_tenth_slower_fails_with_the_metric_the_effect_and_its_interval() {
    let run = two_builds(10.0, 11.0).bench(&["--against", "old", "--self-check", "never"]);
    run.expect(101).says("verdict  regressed: new/m/sharegpt@4conc");
    run.says("it is worse than what it was compared with");
    let line = run.stdout.lines().find(|line| line.contains("regressed: tpot.p50 +")).unwrap();
    assert!(line.contains("(95 %: +") && line.contains(", from "), "{line}");
}

#[test]
fn an_equal_build_passes() {
    let project = two_builds(10.0, 10.0);
    let run = project.bench(&["--against", "old", "--self-check", "never"]);
    run.expect(0).says("pass");
    assert_eq!(project.results().len(), 2, "both results are kept");
}

/// The path of the baseline's one file.
fn saved(project: &Project) -> PathBuf {
    project.folder.path().join("results/baselines/main/sim+sim+sharegpt@4conc.json")
}

#[test]
fn a_baseline_is_saved_found_by_case_and_compared_with() {
    let project = Project::new("", BACKENDS, &format!("{ONE_CASE}\nbackends = [\"sim\"]"));
    project.bench(&["--baseline", "main"]).expect(2).says("there is no baseline `main`");
    // A cache that drops files keeps their folder.
    std::fs::create_dir_all(saved(&project).parent().unwrap()).unwrap();
    project.bench(&["--baseline", "main"]).expect(2).says("there is no baseline `main`");
    project.bench(&["--baseline-lenient", "main"]).expect(0).says("it is not in the baseline");
    project.bench(&["--save-baseline", "main"]).expect(0);
    let run = project.bench(&["--baseline", "main"]);
    run.says("baseline against main, by").says("ttft.p50").says("ttft.p99: a trial has 30");
    assert!(run.code == 0 || run.code == 101, "{}", run.stderr);

    // What was saved can be judged again, and nothing is measured.
    let run = project.bench(&["--load-baseline", "main", "--baseline", "main"]);
    run.expect(0).says("case     sim/sim/sharegpt@4conc").says("baseline against main");
    assert!(run.measured().is_empty());
    project.bench(&["--load-baseline", "main"]).expect(2).says("needs --baseline");

    // As bad as when it was measured: an objective that was missed then is not met by being loaded.
    let text = std::fs::read_to_string(saved(&project)).unwrap();
    for (verdict, code) in [("slo_missed", 101), ("invalid", 3)] {
        let other = project.folder.path().join("results/baselines").join(verdict);
        std::fs::create_dir_all(&other).unwrap();
        let changed = text.replace("\"verdict\":\"pass\"", &format!("\"verdict\":\"{verdict}\""));
        std::fs::write(other.join(saved(&project).file_name().unwrap()), changed).unwrap();
        project.bench(&["--load-baseline", verdict, "--baseline", "main"]).expect(code);
    }

    // A case by another name is new, and what it was called is gone.
    let text = std::fs::read_to_string(saved(&project)).unwrap();
    std::fs::write(saved(&project), text.replace("sim/sim/sharegpt@", "sim/sim/old@")).unwrap();
    let run = project.bench(&["--baseline", "main"]);
    run.expect(0).says("new      sim/sim/sharegpt@4conc").says("gone     sim/sim/old@4conc");
}

#[test]
fn what_is_not_alike_is_refused_and_what_is_damaged_named() {
    let project = Project::new("", BACKENDS, &format!("{ONE_CASE}\nbackends = [\"sim\"]"));
    project.bench(&["--save-baseline", "main"]).expect(0);
    let text = std::fs::read_to_string(saved(&project)).unwrap();

    let cpus = serde_json::from_str::<Value>(&text).unwrap()["servebench"]["environment"]["cpus"]
        .as_u64()
        .unwrap();
    let other = text.replace(&format!("\"cpus\":{cpus}"), "\"cpus\":999");
    std::fs::write(saved(&project), other).unwrap();
    let run = project.bench(&["--baseline", "main"]);
    run.expect(2).says("another cpus").says("--allow-env-diff cpus");
    assert!(run.measured().is_empty(), "it is refused before it takes its time: {}", run.stdout);
    let run = project.bench(&["--baseline", "main", "--allow-env-diff", "cpus"]);
    assert_ne!(run.code, 2, "{}", run.stderr);
    let run = project.bench(&["--baseline-lenient", "main"]);
    run.expect(0).says("new      sim/sim/sharegpt@4conc: the baseline is of another cpus");

    let run = project.bench(&["--baseline", "main", "--num-prompts", "29"]);
    run.expect(2).says("another workload");

    std::fs::write(saved(&project), &text[..text.len() / 2]).unwrap();
    let run = project.bench(&["--baseline", "main"]);
    run.expect(2).says("sim+sim+sharegpt@4conc.json").says("line 1");
}

#[test]
fn every_run_leaves_a_line_in_the_history() {
    let project = Project::new("", BACKENDS, &format!("{ONE_CASE}\nbackends = [\"sim\"]"));
    project.bench(&["--quick"]).expect(0);
    project.bench(&["--trials", "2"]).expect(0);
    let history = project.folder.path().join("results/history.jsonl");
    let history = std::fs::read_to_string(history).unwrap();
    let trials: Vec<usize> = history
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["servebench"]["trials"].as_array().unwrap().len())
        .collect();
    assert_eq!(trials, [1, 2]);
}

#[test]
fn a_slow_slide_is_seen_in_the_history() {
    let project = Project::new("", BACKENDS, &format!("{ONE_CASE}\nbackends = [\"sim\"]"));
    project.bench(&["--quick"]).expect(0);
    let path = project.folder.path().join("results/history.jsonl");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let history: String = (0..24)
        .map(|session| {
            let mut line = line.clone();
            line["date"] = format!("2026-01-{:02} 00:00:00", session + 1).into();
            let metrics = &mut line["servebench"]["trials"][0]["metrics"];
            let was_good = if session < 12 { 0.1 } else { 1.0 };
            metrics["tpot.p50"] = (metrics["tpot.p50"].as_f64().unwrap() * was_good).into();
            format!("{line}\n")
        })
        .collect();
    std::fs::write(&path, history).unwrap();
    let run = project.bench(&["--quick"]);
    run.expect(0).says("history  tpot.p50 is worse since 2026-01-13 00:00:00: +9");
}

#[test]
fn github_is_told_how_a_run_ended() {
    let benches = format!("{ONE_CASE}\nbackends = [\"sim\"]\nslo = [\"ttft.p50 < 1us\"]");
    let project = Project::new("", BACKENDS, &benches);
    let summary = project.folder.path().join("summary.md");
    let mut command = project.command(&["--bench", "--self-check", "never"]);
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", &summary);
    let run = finish(command);
    run.expect(101).says("::error title=slo missed%3A sim/sim/sharegpt@4conc::slo");
    let summary = std::fs::read_to_string(summary).unwrap();
    assert!(summary.contains("| `sim/sim/sharegpt@4conc` | slo missed |"), "{summary}");
}

#[test]
fn a_case_goes_on_until_its_objectives_are_decided() {
    let benches = |slo: &str| {
        format!(
            "[[bench]]\nbackends = [\"sim\"]\nloads = [\"8conc\"]\nrequests = 60\n\
             until_decided = \"20s\"\nslo = [\"{slo}\"]"
        )
    };
    for (slo, code, finding) in [("e2e.p95 < 9s", 0, "met"), ("e2e.p95 < 1ms", 101, "missed")] {
        let project = Project::new("", BACKENDS, &benches(slo));
        let run = project.bench(&["--self-check", "never"]);
        run.expect(code).says(&format!("slo      {finding}: e2e.p95"));
        assert!(!run.stdout.contains("undecided"), "{}", run.stdout);
        let trials = project.results()[0]["servebench"]["trials"].as_array().unwrap().len();
        assert!((1..10).contains(&trials), "it stops as soon as that is clear: {trials}");
    }
}
