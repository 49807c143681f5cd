use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::ZonedDateTime;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};
use serde_json::Value;

use super::{bencher, csv_table, github_benchmark, junit, markdown, table};
use crate::environment::Environment;
use crate::evidence::{Looks, Requests};
use crate::plan::Plan;
use crate::record::Failure;
use crate::record::tests::{completed, failed};
use crate::report::{Ending, Measured, Report};
use crate::self_check::SelfCheck;
use crate::steady::SteadyState;
use crate::strain::Strain;
use crate::summary::tests::counted;
use crate::summary::{Counted, Summary};
use crate::telemetry::Telemetry;
use crate::validity::{Asserted, Validity};
use crate::verdict;
use crate::workload::Workload;

const PLAN: &str = r#"
    defaults = { tokenizer = "t.json", slo = ["ttft.p50 < 60ms", "tpot.p99 < 1ms"] }
    backend = [{ name = "sim", kind = "sim" }]
    workload = [{ name = "WORKLOAD", path = "d.json" }]
    bench = [{ loads = ["inf"] }]
"#;

/// The result of a case on a workload of that name, of which these requests came.
pub(crate) fn report(workload: &str, requests: &[Counted]) -> Report {
    let plan = PLAN.replace("WORKLOAD", workload);
    let case = Arc::new(Plan::parse(&plan).unwrap().cases[0].clone());
    let workload = Workload {
        requests: Vec::new(),
        arrivals: None,
        hash: "0".to_owned(),
        notes: Vec::new(),
        recognised: Vec::new(),
    };
    let summary = Summary::new(requests, None);
    let whole = 0..requests.len();
    let evidence = Requests::new(requests, vec![whole], None);
    let judgements = verdict::judge(&case.slos, &summary, &evidence, Looks::One);
    let telemetry = Telemetry::default();
    let measured = Measured {
        telemetry: &telemetry,
        environment: Environment::default(),
        counted_telemetry: &telemetry,
        case: &case,
        base_url: None,
        requests,
        trials: &[],
        trial_summaries: &[],
        sent: requests.len(),
        summary: &summary,
        steady_state: SteadyState::new(requests, &case.load),
        turns: None,
        judgements: &judgements,
        verdict: Some(verdict::verdict(&judgements, false, false)),
        validity: Validity::new(
            &case.load,
            requests,
            &summary,
            &Strain::default(),
            None,
            &Asserted::of(&case),
        ),
        self_check: Ok(SelfCheck {
            streams: 100,
            gap_ms: 10.0,
            requests: 100,
            added_ttft_ms_p50: 0.054,
            added_ttft_ms_p99: 0.211,
            chunk_gap_error_ms_p99: 0.0149,
            from_cache: false,
        }),
        workload: &workload,
        salt: None,
        warnings: vec!["a word\nin two lines".to_owned()],
        metadata: &[],
    };
    Report::new(measured, &ZonedDateTime::now())
}

/// Requests none of whose latencies are alike.
fn varied(count: u64) -> Vec<Counted> {
    let request = |n: u64| {
        let mut record = completed(&[60 + n, 70 + 2 * n, 80 + 4 * n]);
        let at = |ms: u64| Duration::from_micros(1000 * ms + 137 * n);
        record.ended = at(81 + 4 * n);
        let ms = [60 + n, 70 + 2 * n, 80 + 4 * n];
        record.stream.chunks.edit(|number, chunk| chunk.at = at(ms[number]));
        counted(record, 3 + (n % 2) as u32)
    };
    (0..count).map(request).collect()
}

/// What a case in the document is called by a name with its unit; `None` where it has no such figure.
fn figure(document: &Value, name: &str) -> Option<f64> {
    let own = &document["servebench"];
    let units = ["_tok_per_s", "_req_per_s", "_J_per_tok", "_tok_per_J"];
    let scalar = units.iter().fold(name, |name, unit| name.trim_end_matches(unit));
    if let Some(value) = own["scalars"].get(scalar) {
        return value.as_f64();
    }
    let name = name.strip_suffix("_ms").unwrap_or_else(|| panic!("{name} has no unit"));
    let latencies = own["latencies"].as_object().unwrap();
    let statistics = latencies.iter().filter_map(|(latency, of)| {
        let statistic = name.strip_prefix(latency.as_str())?.strip_prefix('_')?;
        Some((statistic.replace("p99_9", "p99.9"), of))
    });
    let mut found =
        statistics.filter_map(|(statistic, of)| of["statistics"].get(statistic.as_str()).cloned());
    found.next().and_then(|figure| figure["estimate_ms"].as_f64())
}

/// The rows of all tables, cell by cell as they are read.
fn cells(markdown: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::TableRow | Tag::TableHead) => rows.push(Vec::new()),
            Event::Start(Tag::TableCell) => rows.last_mut().unwrap().push(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(cell) = rows.last_mut().and_then(|row: &mut Vec<String>| row.last_mut())
                {
                    cell.push_str(&text);
                }
            }
            Event::End(TagEnd::Table) => rows.push(Vec::new()),
            _ => {}
        }
    }
    rows.retain(|row| !row.is_empty());
    rows
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.2}"))
}

#[test]
fn every_number_of_every_format_is_that_of_the_document() {
    let report = report("sharegpt", &varied(300));
    let document = serde_json::to_value(&report).unwrap();
    let endings = [Ending::measured(report.clone())];
    let number = |field: &str| document[field].as_f64();

    let text = table::render(&report);
    let fields = [
        ("Successful requests:", "completed"),
        ("Failed requests:", "failed"),
        ("Benchmark duration (s):", "duration"),
        ("Total input tokens:", "total_input_tokens"),
        ("Total generated tokens:", "total_output_tokens"),
        ("Request throughput (req/s):", "request_throughput"),
        ("Input token throughput (tok/s):", "input_throughput"),
        ("Output token throughput (tok/s):", "output_throughput"),
        ("Mean TTFT (ms):", "mean_ttft_ms"),
        ("Median TTFT (ms):", "median_ttft_ms"),
        ("P99 TTFT (ms):", "p99_ttft_ms"),
        ("Mean TPOT (ms):", "mean_tpot_ms"),
        ("Median TPOT (ms):", "median_tpot_ms"),
        ("P99 TPOT (ms):", "p99_tpot_ms"),
        ("Mean ITL (ms):", "mean_itl_ms"),
        ("Median ITL (ms):", "median_itl_ms"),
        ("P99 ITL (ms):", "p99_itl_ms"),
    ];
    for (label, field) in fields {
        let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap();
        let value = number(field);
        let whole = document[field].is_u64().then(|| format!("{}", value.unwrap()));
        assert_eq!(line.trim(), whole.unwrap_or_else(|| shown(value)), "{label}");
    }

    let text = csv_table::render(&endings).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let [row] = rows.as_slice() else { panic!("one row a case: {text}") };
    let mut figures = 0;
    for (name, cell) in names.iter().zip(row).skip(10) {
        let value = match name {
            "duration_s" => number("duration"),
            "requests" => document["servebench"]["plan"]["requests_counted"].as_f64(),
            "seed" => document["servebench"]["plan"]["seed"].as_f64(),
            "trials" => Some(0.0),
            _ if document.get(name).is_some() => number(name),
            _ => figure(&document, name),
        };
        assert_eq!(cell.parse().ok(), value, "{name}");
        figures += usize::from(value.is_some());
    }
    assert!(50 < figures, "{text}");

    let metrics: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_str(&bencher::render(&endings).unwrap()).unwrap();
    let metrics = &metrics["sim/sim/sharegpt@inf"];
    assert!(15 < metrics.len());
    for (name, metric) in metrics {
        assert_eq!(metric["value"].as_f64(), figure(&document, &name.replace('-', "_")), "{name}");
    }
    let ttft = &document["servebench"]["latencies"]["ttft"]["statistics"]["p50"]["interval_ms"];
    assert_eq!(metrics["ttft-p50-ms"]["lower_value"], ttft[0]);
    assert_eq!(metrics["ttft-p50-ms"]["upper_value"], ttft[1]);

    let mut entries = 0;
    for direction in [github_benchmark::Direction::Smaller, github_benchmark::Direction::Bigger] {
        let text = github_benchmark::render(direction, &endings).unwrap().unwrap();
        for entry in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
            let (case, name) = entry["name"].as_str().unwrap().split_once(' ').unwrap();
            assert_eq!(case, "sim/sim/sharegpt@inf");
            let unit = entry["unit"].as_str().unwrap().replace('/', "_per_");
            let name = format!("{}_{unit}", name.replacen('.', "_", 1));
            let name = name.strip_suffix("_ratio").unwrap_or(&name);
            assert_eq!(entry["value"].as_f64(), figure(&document, name), "{name}");
            entries += 1;
        }
    }
    assert_eq!(entries, metrics.len() - 1, "all but the share of failures");

    let text = junit::render("crate::serving", &endings).unwrap();
    let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
    let case = &read.test_suites[0].test_cases[0];
    assert_eq!(case.properties.len(), metrics.len());
    for property in &case.properties {
        let value = property.value.as_str().parse().ok();
        assert_eq!(value, figure(&document, property.name.as_str()), "{}", property.name.as_str());
    }
    let time = case.time.unwrap().as_secs_f64();
    assert!((time - report.duration).abs() < 0.0011, "{time}");
    assert_eq!(case.system_out.as_ref().unwrap().as_str(), table::render(&report).trim_end());

    let rows = cells(&markdown::render(&endings, usize::MAX));
    let flat = ["median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "output_throughput"];
    let expected: Vec<String> = flat.map(|field| shown(number(field))).to_vec();
    assert_eq!(rows[1][2..], expected);
    let mut figures = 0;
    for row in &rows[3..7] {
        for (statistic, cell) in rows[2][1..].iter().zip(&row[1..]) {
            let name = format!("{}_{statistic}_ms", row[0]);
            assert_eq!(*cell, shown(figure(&document, &name)), "{name}");
            figures += 1;
        }
    }
    for row in &rows[8..] {
        let (name, unit) = row[0].split_once(' ').unwrap_or((&row[0], ""));
        let value = document["servebench"]["scalars"][name].as_f64().unwrap();
        let digits = if unit.is_empty() { 4 } else { 2 };
        assert_eq!(row[1], format!("{value:.digits$}"), "{name}");
        figures += 1;
    }
    assert!(25 < figures);
}

#[test]
fn what_is_not_known_is_left_out_and_never_0() {
    let nothing = report("sharegpt", &[counted(failed(Failure::Timeout), 0)]);
    let endings = [Ending::measured(nothing)];
    let smaller = github_benchmark::render(github_benchmark::Direction::Smaller, &endings);
    assert_eq!(smaller.unwrap(), None, "the action takes no empty list");
    let text = bencher::render(&endings).unwrap();
    assert!(!text.contains("null") && !text.contains("ttft"), "{text}");
    assert!(text.contains("\"error-ratio\": {\n      \"value\": 1.0\n"), "{text}");
    let text = csv_table::render(&endings).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let row = reader.records().next().unwrap().unwrap();
    let place = names.iter().position(|name| name == "ttft_p50_ms").unwrap();
    assert_eq!(&row[place], "");

    // A percentile that so few requests cannot support is none for a tracker.
    let few = [Ending::measured(report("sharegpt", &varied(50)))];
    let text = bencher::render(&few).unwrap();
    assert!(text.contains("ttft-p50-ms") && !text.contains("ttft-p99-ms"), "{text}");
    let text = markdown::render(&few, usize::MAX);
    assert!(cells(&text)[1][3].ends_with(" *"), "{text}");
}

#[test]
fn a_failure_in_junit_says_of_what_kind_it_is_and_why() {
    let mut requests = varied(300);
    requests.push(counted(failed(Failure::Timeout), 0));
    let missed = report("sharegpt", &requests);
    let mut interrupted = missed.clone();
    interrupted.servebench.verdict = None;
    let endings = [
        Ending::measured(missed),
        Ending::measured(interrupted),
        Ending::Broken { case: "b".to_owned(), message: "no server".to_owned() },
        Ending::Ignored { case: "c".to_owned(), reason: "VLLM_URL is not set".to_owned() },
        Ending::measured(report("met", &vec![counted(completed(&[20, 21, 21]), 30); 300])),
    ];
    let text = junit::render("crate::serving", &endings).unwrap();
    for part in [
        "<testsuites name=\"servebench\" tests=\"5\" skipped=\"1\" failures=\"1\" errors=\"2\">",
        "<testsuite name=\"crate::serving\"",
        "type=\"slo\">slo      missed: ",
        "\nfailed   timeout: 1, such as: it said timeout</failure>",
        "<error message=\"the run was interrupted\" type=\"error\">",
        "<error message=\"no server\" type=\"error\"/>",
        "<skipped message=\"VLLM_URL is not set\"/>",
        "<testcase name=\"sim/sim/met@inf\" classname=\"crate::serving\" time=\"",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

/// What somebody may write into a name or an error.
const HOSTILE: &str = "<script>alert(1)</script> \"'&amp; | ``` `x` \\| *b* _u_ [l](http://x) @u #1 \u{1b}[31m \
                       \u{0}\u{b}\u{fffe}\u{ffff} \u{202e}txt\u{2066} שלום\r\n# title\n| a | b |\n,;=1+1";

fn hostile() -> [Ending; 3] {
    let mut requests = varied(120);
    requests.push(counted(failed(Failure::Timeout), 0));
    let mut report = report("sharegpt", &requests);
    report.model_id = HOSTILE.to_owned();
    report.servebench.case = HOSTILE.to_owned();
    report.servebench.warnings = vec![HOSTILE.to_owned()];
    let failures = report.servebench.failures.values_mut();
    failures.for_each(|failure| failure.example = HOSTILE.to_owned());
    [
        Ending::measured(report.clone()),
        Ending::Broken { case: HOSTILE.to_owned(), message: HOSTILE.to_owned() },
        Ending::Ignored { case: HOSTILE.to_owned(), reason: HOSTILE.to_owned() },
    ]
}

#[test]
fn nothing_in_a_name_or_an_error_means_anything_to_a_terminal() {
    let text = table::render(hostile()[0].report().unwrap());
    let obeyed = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(text.chars().find(obeyed), None, "{text}");
    assert!(
        !text.contains('\u{202e}') && !text.lines().any(|line| line.starts_with('#')),
        "{text}"
    );
}

#[test]
fn nothing_in_a_name_or_an_error_means_anything_to_xml() {
    let text = junit::render(HOSTILE, &hostile()).unwrap();
    let forbidden = |character: &char| matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    assert_eq!(text.chars().find(forbidden), None, "{text}");
    let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
    let name = read.test_suites[0].test_cases[0].name.as_str().to_owned();
    assert!(name.starts_with("<script>alert(1)</script> \"'&amp; | ``` `x`"), "{name}");
    assert_eq!(read.test_suites[0].test_cases.len(), 3);
}

#[test]
fn a_name_in_csv_is_one_field_that_nothing_obeys() {
    let text = csv_table::render(&hostile()).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let row = reader.records().next().unwrap().unwrap();
    let plain = super::text::plain(HOSTILE);
    assert_eq!((&row[0], &row[5]), (plain.as_str(), plain.as_str()));
}

#[test]
fn nothing_in_a_name_or_an_error_means_anything_to_markdown() {
    let text = markdown::render(&hostile(), usize::MAX);
    let plain = super::text::plain(HOSTILE);
    let rows = cells(&text);
    let of_cases: Vec<&str> = rows[1..4].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(of_cases, [plain.as_str(); 3]);
    assert!(rows[..4].iter().all(|row| row.len() == 6), "no cell was split: {text}");

    let mut titles = 0;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => titles += 1,
            Event::Start(tag @ (Tag::Link { .. } | Tag::Emphasis | Tag::Strong)) => {
                panic!("{tag:?} in\n{text}")
            }
            _ => {}
        }
    }
    assert_eq!(titles, 1);
    let mut page = String::new();
    html::push_html(&mut page, Parser::new_ext(&text, Options::ENABLE_TABLES));
    assert!(!page.contains("<script"), "{page}");
    assert_eq!(page.matches("<details").count(), 3);
    assert_eq!(page.matches("</details>").count(), 3);
}

#[test]
fn a_long_document_keeps_a_row_of_each_case_before_details() {
    let broken = |n: usize| Ending::Broken { case: n.to_string(), message: "x".repeat(10_000) };
    let endings: Vec<Ending> = (0..3000).map(broken).collect();
    let text = markdown::render(&endings, 900 * 1024);
    assert!(text.len() <= 900 * 1024, "{}", text.len());
    assert!(text.contains("| `2999` |") && text.contains("<details"));
    let text = markdown::render(&endings, 1000);
    assert!(text.len() <= 1000 && text.ends_with("| … | | | | | |\n"), "{text}");
}
