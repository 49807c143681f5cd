//! Servers that break every rule, one kind after the other: no request is lost, counted twice, or longer than its
//! limit, and none takes the client's memory. The server is not part of this package: a Python script, which
//! listens on the port that it is given, answers a request for `/KIND/v1/completions` as that kind, and prints
//! its kinds where a second argument follows. It takes minutes, so it runs where `HOSTILE_SERVER` names the script;
//! `HOSTILE_KINDS` selects some of the kinds.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

const REQUESTS: u64 = 20;
const TIMEOUT: Duration = Duration::from_secs(2);
const MOST_MEMORY_KIB: u64 = 200 * 1024;

/// What one kind of server did to us.
struct Seen {
    completed: u64,
    failures: BTreeMap<String, u64>,
    longest: Duration,
    memory_kib: u64,
}

#[cfg(target_os = "linux")]
#[test]
fn no_server_takes_more_than_its_time_and_every_request_is_counted_once() {
    let Some(script) = std::env::var_os("HOSTILE_SERVER").map(PathBuf::from) else {
        return;
    };
    let listed = Command::new("python3").arg(&script).args(["0", "list"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let chosen = std::env::var("HOSTILE_KINDS").unwrap_or(listed);
    let kinds: Vec<&str> = chosen.split_whitespace().collect();
    assert!(!kinds.is_empty(), "{} names its kinds", script.display());
    let left = Mutex::new(kinds.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(kind) = left.lock().unwrap().next() else {
                        return;
                    };
                    let seen = try_kind(&script, kind);
                    writeln!(
                        std::io::stderr(),
                        "{kind}: {} completed, {:?}, {:.2} s at most, {} MiB",
                        seen.completed,
                        seen.failures,
                        seen.longest.as_secs_f64(),
                        seen.memory_kib / 1024
                    )
                    .unwrap();
                    if let Some(told) = fault(kind, &seen) {
                        wrong.lock().unwrap().push(format!("{kind}: {told}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn fault(kind: &str, seen: &Seen) -> Option<String> {
    let failed: u64 = seen.failures.values().sum();
    if seen.completed + failed != REQUESTS {
        return Some(format!("{} completed and {failed} failed", seen.completed));
    }
    if TIMEOUT + Duration::from_secs(1) < seen.longest {
        return Some(format!("a request took {:.2} s", seen.longest.as_secs_f64()));
    }
    if MOST_MEMORY_KIB < seen.memory_kib {
        return Some(format!("it took {} MiB", seen.memory_kib / 1024));
    }
    let (right, _) = RIGHT.iter().find(|(_, kinds)| kinds.split(' ').any(|known| known == kind))?;
    let ends = seen.failures.keys().map(String::as_str).chain((seen.completed > 0).then_some("ok"));
    let mut strange = ends.filter(|end| !right.split(' ').any(|may| may == *end));
    strange.next().map(|end| format!("`{end}` is not among `{right}`"))
}

/// How the requests to kinds of servers may end: `ok`, or the reason of their failure. A server that sends much may
/// take all of a request's time on a busy machine.
const RIGHT: &[(&str, &str)] = &[
    (
        "ok",
        "ok json_block missing_terminator missing_terminator_open extra_after_end trailers \
         chunk_ext cl_long_done te_and_cl c100 endless_usage after_finish_no_done \
         deep_json_obj_field num_1e999 usage_2p63 usage_u32max usage_neg usage_float usage_string \
         usage_null usage_zero usage_list usage_2p32 usage_decreasing usage_prompt_huge nul_content \
         bom surrogate surrogate_split keepalive_close keepalive_rst keepalive_late_close \
         pipelined_late date_wrong finish_reason_big lf_only_head head_latin1 many_reads_byte \
         early_ok_noread",
    ),
    (
        "truncated",
        "rst_after_headers rst_before_headers close_before_headers half_status_line rst_mid_chunk \
         close_mid_chunk empty200 bad_chunk_size neg_chunk_size huge_chunk_size overflow_chunk_size \
         cl_short cl_long cl_huge cl_neg c101 s204 half_close half_close_pre http09 \
         http2_preface_resp tls_alert hdr_fold",
    ),
    (
        "bad_json",
        "html200 json_block_pretty_array deep_json raw_nul bad_utf8 split_utf8_events bom_mid \
         dup_keys dup_keys_usage finish_reason_num text_num choices_obj",
    ),
    ("server_error", "json_block_garbage deep_json_error finish_error finish_abort"),
    (
        "timeout",
        "endless_chunk_ext slow_header_1b endless_white loris pings pings_fast endless_stream_slow \
         error_body_stall never_answer",
    ),
    (
        "bad_http",
        "cl_two flood1xx head10mb_one head100k head97 endless_header gzip gzip_bomb pipelined_extra",
    ),
    ("http_301", "s301"),
    ("http_307", "s307"),
    ("http_304", "s304"),
    ("http_0", "s000"),
    ("http_999", "s999"),
    ("http_429", "s429"),
    ("ok http_503", "s503_other"),
    ("bad_json timeout", "endless_line endless_text_block deep_block"),
    ("too_long timeout", "endless_stream"),
    ("http_500", "deep_error_body error_body_big error_body_endless"),
    ("server_error timeout", "error_event_big"),
    ("ok timeout", "choices_million"),
    ("empty", "only_done only_role"),
    ("http_413", "early_413"),
];

fn try_kind(script: &Path, kind: &str) -> Seen {
    let port = free_port();
    let mut server = Command::new("python3");
    server.arg(script).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().unwrap();
    let listens = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        !nobody_listens(port)
    });
    assert!(listens, "{} listens", script.display());
    let backend = format!(
        "[[backend]]\nname = \"hostile\"\nkind = \"vllm\"\nbase_url = \"http://127.0.0.1:{port}/{kind}\"\n\
         models = [\"m\"]\nprobe = false"
    );
    let limits = format!("requests = {REQUESTS}\ntimeout = \"{}s\"", TIMEOUT.as_secs());
    let project = Project::new(&limits, &backend, "[[bench]]\nloads = [\"20conc\"]");
    let args = [
        "--bench",
        "--self-check",
        "never",
        "--no-progress",
        "--skip-test-prompt",
        "--no-html",
        "--save-records",
    ];
    let mut command = project.command(&args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = command.spawn().unwrap();
    let mut memory_kib = 0;
    while run.try_wait().unwrap().is_none() {
        memory_kib = most_memory_kib(run.id()).unwrap_or(memory_kib);
        std::thread::sleep(Duration::from_millis(10));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let results = project.results();
    let [result] = &results[..] else {
        panic!("{kind}: {} results", results.len());
    };
    let failures = result["servebench"]["failures"].as_object().unwrap();
    let longest = records(&project).map(|record| {
        let time = |name: &str| record[name].as_f64().unwrap();
        time("ended_s") - time("sent_s")
    });
    Seen {
        completed: result["completed"].as_u64().unwrap(),
        failures: failures
            .iter()
            .map(|(reason, failure)| (reason.clone(), failure["count"].as_u64().unwrap()))
            .collect(),
        longest: Duration::from_secs_f64(longest.fold(0.0, f64::max)),
        memory_kib,
    }
}

/// The lines of the run's records.
fn records(project: &Project) -> impl Iterator<Item = Value> {
    let files = std::fs::read_dir(project.folder.path().join("results")).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.to_string_lossy().ends_with(".records.jsonl")).unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, REQUESTS);
    lines.into_iter()
}

/// The most memory that process `id` has had at once.
fn most_memory_kib(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
