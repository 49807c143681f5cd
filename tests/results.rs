//! A result as a document: its schema, and reading it back. That results are as the schema has it is seen in
//! CI, by another's validator.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use servebench::plan::Plan;
use servebench::report::{self, Report};

const SCHEMA: &str = "src/report/schema.json";

fn reports(bench: &str) -> Vec<Report> {
    let plan = format!(
        r#"
        defaults = {{ requests = 30, tokenizer = "fixtures/tokenizer.json", slo = ["ttft.p50 < 1us", "output_throughput > 1"] }}
        backend = [{{ name = "sim", kind = "sim", preset = "large" }}]
        [[workload]]
        name = "sharegpt"
        path = "fixtures/sharegpt.json"
        output_tokens = 8
        [[workload]]
        name = "turns"
        dataset = "multi_turn"
        input_tokens = 20
        output_tokens = 4
        [[bench]]
        {bench}
        "#
    );
    let cases = Plan::parse(&plan).unwrap().cases;
    cases.iter().map(|case| servebench::measure(case).unwrap()).collect()
}

/// Those of an open and a closed loop, with turns and without, with several trials, and of a search.
fn all() -> Vec<Report> {
    [
        r#"loads = ["200qps", "8conc", "inf"]"#,
        "loads = [\"400qps\"]\ntrials = 3\nworkloads = [\"sharegpt\"]",
        "loads = [\"sweep\"]\nduration = \"300ms\"\nsearch_steps = 2\nworkloads = [\"sharegpt\"]",
    ]
    .iter()
    .flat_map(|bench| reports(bench))
    .collect()
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let schema = serde_json::to_string_pretty(&report::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(SCHEMA, &schema).unwrap();
    }
    let published = std::fs::read_to_string(SCHEMA).unwrap();
    assert!(schema == published, "run this test with UPDATE_SCHEMA=1 and look at the difference");
}

#[test]
fn results_are_read_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let reports = all();
    assert!(6 < reports.len());
    for report in reports.iter().flat_map(|report| report.steps.iter().chain([report])) {
        let case = &report.servebench.case;
        let document = serde_json::to_value(report).unwrap();
        let path = folder.path().join("result.json");
        std::fs::write(&path, document.to_string()).unwrap();
        let read = Report::read(&path).unwrap();
        let thin = report.clone().without_details();
        let lines = |report: &Report| serde_json::to_string_pretty(report).unwrap();
        let (read, thin) = (lines(&read), lines(&thin));
        let different = read.lines().zip(thin.lines()).find(|(read, thin)| read != thin);
        assert_eq!(different, None, "{case}");
        assert_eq!(read.len(), thin.len(), "{case}");
    }
}

#[test]
fn a_file_that_is_no_result_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.json");
    for (text, part) in [
        ("{}", "is no result of a case"),
        ("{\"servebench\": {\"schema_version\": 99}}", "is of version 99"),
        ("{\"servebench\": {\"schema_version\": 1}}", "missing field"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", Report::read(&path).unwrap_err());
        assert!(error.contains(part) && error.contains("other.json"), "{error}");
    }
}
