//! `--compare`: saved results next to each other, without a run.

use super::*;

const ARGS: [&str; 3] = ["--self-check", "never", "--output-format"];

/// Results of both backends in `results`, and those of one in the baseline `main`.
fn measured() -> Project {
    let bench = "[[bench]]\nloads = [\"2conc\", \"4conc\"]\n";
    let project = Project::new("", BACKENDS, bench);
    project.bench(&[&ARGS[..], &["github-benchmark"]].concat()).expect(0);
    project.bench(&["sim/*", "--self-check", "never", "--save-baseline", "main"]).expect(0);
    project
}

fn head(run: &Run) -> Vec<&str> {
    run.stdout.lines().next().unwrap().split_whitespace().collect()
}

#[test]
fn results_are_compared_by_folder_file_and_baseline_and_nothing_runs() {
    let project = measured();
    let count = project.results().len();

    // The lists for other tools that lie in the folder are none.
    let run = project.run(&["--compare", "results", "main"]);
    run.expect(0);
    assert_eq!(head(&run), ["results", "main"]);
    for case in
        ["sim/sim/sharegpt@2conc ", "sim/sim/sharegpt@4conc ", "sim-chat/sim/sharegpt@2conc "]
    {
        assert!(run.stdout.lines().any(|line| line.starts_with(case)), "{}", run.stdout);
    }
    // The newest of a case is the one in the baseline, and the other backend is not there.
    let row = run.stdout.lines().find(|line| line.starts_with("  ttft.p50 (ms)")).unwrap();
    assert!(row.trim_end().ends_with('-'), "{row}");
    assert!(!run.stdout.contains('\u{1b}'), "no colours in a file");

    // One folder: its backends next to each other; filters and metrics as elsewhere.
    let run =
        project.bench(&["@2conc", "--compare-metrics", "e2e.p50,goodput", "--compare", "results"]);
    run.expect(0).says("\nsim/sharegpt@2conc ").says("\n  e2e.p50 (ms) ");
    assert_eq!(head(&run), ["sim", "sim-chat"]);
    assert!(!run.stdout.contains("@4conc") && !run.stdout.contains("ttft"), "{}", run.stdout);

    let files = project.folder.path().join("results/baselines/main");
    let file = files.join("sim+sim+sharegpt@2conc.json");
    let path = file.to_str().unwrap();
    // A plan that is damaged does not matter where no name is looked up.
    std::fs::write(project.folder.path().join("plan.toml"), "seed = ").unwrap();
    let args = ["--compare-threshold", "1%", "--color", "always", "--compare", path, path];
    project.run(&args).expect(0).says("nothing is worse than the best by 1 % or more");
    assert_eq!(project.results().len(), count, "nothing was measured");
}

#[test]
fn what_cannot_be_compared_is_named() {
    let project = Project::new("", BACKENDS, "[[bench]]\nloads = [\"2conc\"]\n");
    let run = project.run(&["--compare", "main"]);
    run.expect(2).says("`main` is no file and no folder").says("results/baselines/main");
    let folder = project.folder.path().join("old");
    std::fs::create_dir(&folder).unwrap();
    project.run(&["--compare", "old"]).expect(2).says("no result in the folder `old`");
    std::fs::write(folder.join("x.json"), "{\"date\": ").unwrap();
    project.run(&["--compare", "old"]).expect(2).says("x.json");
    project
        .run(&["--compare", "old", "--compare-metrics", "ttft"])
        .expect(2)
        .says("needs a statistic");
}
