//! What is read beside the requests, as a user sees it: GPUs by a driver of our own, and the server's metrics.

use super::*;

const ONE_CASE: &str = "[[bench]]\nloads = [\"4conc\"]\nbackends = [\"sim\"]";

/// The name by which programs know the driver's library.
const DRIVER: &str = "libnvidia-ml.so.1";

/// A driver that answers from `script`, built from the source that the unit tests use.
fn driver(library: &Path, script: &str) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvml/fake_nvml.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(library).arg(source);
    assert!(compiler.status().unwrap().success());
    std::fs::write(format!("{}.script", library.display()), script).unwrap();
}

/// A file that is no library, in place of a driver that this machine may have.
fn no_driver(folder: &Path) {
    for name in [DRIVER, "libnvidia-ml.so"] {
        std::fs::write(folder.join(name), "this is no library").unwrap();
    }
}

/// Two GPUs, of which the second does not say its power, and was held back by heat.
const TWO: &str = "driver version 580.1
driver cuda 13010
0 uuid GPU-a
0 name H100
0 utilization 90/40
0 memory_mib 0/80000 30000/50000
0 power_mw 650000
0 energy_mj 5000000 5004500 5009000
0 temperature_c 61
1 uuid GPU-b
1 name H100
1 utilization 70/40
1 memory_mib 0/80000 38000/42000
1 throttle_bits 32";

/// The first of [`BACKENDS`] alone, with a line more.
fn sim_with(line: &str) -> String {
    format!("[[backend]]{}\n{line}\n", BACKENDS.split("[[backend]]").nth(1).unwrap())
}

/// A run that finds in `folder`, before any other, what the system calls the driver's library.
fn with_system(project: &Project, folder: &Path, args: &[&str]) -> Command {
    let mut command = project.command(args);
    let inherited = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&inherited));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
    command
}

/// The same, which measures.
fn bench_with_system(project: &Project, folder: &Path, args: &[&str]) -> Command {
    with_system(project, folder, &[&["--bench", "--self-check", "never"], args].concat())
}

#[cfg(target_os = "linux")]
#[test]
fn gpus_are_in_the_table_the_result_and_the_objectives() {
    let folder = tempfile::tempdir().unwrap();
    driver(&folder.path().join(DRIVER), TWO);
    let backend = sim_with("metrics = { interval = \"20ms\" }");
    let project = Project::new("requests = 150", &backend, ONE_CASE);
    let slos = "gpu_utilization > 75; gpu_memory_peak_mib < 38000; kv_cache_usage.max < 0.95; \
                energy_per_output_token < 0.5";
    let run =
        finish(bench_with_system(&project, folder.path(), &["--collect-gpu-stats", "--slo", slos]));
    run.expect(101).says("GPU Utilization (%):                     80.00");
    run.says("Peak GPU Memory Used (MiB):              38000.00");
    run.says("GPU Memory Available (MiB):              42000.00");
    run.says("slo      met: gpu_utilization.mean > 75 (80 %");
    run.says("slo      missed: gpu_memory_peak_mib < 38000 (38000 MiB");
    run.says("slo      met: kv_cache_usage.max < 0.95");
    run.says(
        "slo      unknown: energy_per_output_token < 0.5 (n/a): not every GPU that counts said",
    );
    run.says("gpu1 was held back in 100 % of the readings (sw_thermal_slowdown)");
    let result = &project.results()[0];
    assert_eq!(result["peak_gpu_memory_mib"], serde_json::json!([30000.0, 38000.0]));
    assert_eq!(result["gpu_utilization"], serde_json::json!([90.0, 70.0]));
    let sources = result["servebench"]["telemetry"]["sources"].as_array().unwrap();
    let gpu = |name: &str| sources.iter().find(|source| source["source"] == name).unwrap();
    assert_eq!(gpu("gpu0")["figures"]["power_w"]["mean"], 650.0);
    assert!(
        gpu("gpu1")["missing"]["power_w"].as_str().unwrap().contains("not available"),
        "{sources:?}"
    );
    assert_eq!(gpu("gpu1")["gpu"]["throttle_reasons"][0], "sw_thermal_slowdown");
}

#[cfg(target_os = "linux")]
#[test]
fn energy_is_per_token_where_every_gpu_says_it_and_a_held_back_one_may_spoil_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let script = "0 uuid GPU-a\n0 name H100\n0 power_mw 650000\n0 throttle_bits 32\n\
                  0 energy_mj 1000 2000 3000 4000 5000 6000 7000 8000 9000";
    driver(&folder.path().join(DRIVER), script);
    let project =
        Project::new("gpu = { interval = \"20ms\", throttled = \"invalid\" }", BACKENDS, ONE_CASE);
    let run = finish(bench_with_system(&project, folder.path(), &[]));
    run.expect(3).says("invalid  gpu0 was held back in 100 %").says("J per output token");
    let result = &project.results()[0];
    let scalars = &result["servebench"]["scalars"];
    let per_token = scalars["energy_per_output_token"].as_f64().unwrap();
    let tokens = result["total_output_tokens"].as_f64().unwrap();
    // A joule between any two readings.
    let joules = per_token * tokens;
    assert!((joules - joules.round()).abs() < 1e-6 && 1.0 <= joules, "{joules}");
    assert_eq!(scalars["gpu_throttled_ratio"], 1.0);
}

#[test]
fn without_a_driver_a_run_passes_and_says_why_unless_gpus_are_required() {
    let folder = tempfile::tempdir().unwrap();
    no_driver(folder.path());
    let project = Project::new("", BACKENDS, ONE_CASE);
    let run = finish(bench_with_system(&project, folder.path(), &["--collect-gpu-stats"]));
    run.expect(0).says("gpu      none was read:").says("libnvidia-ml.so.1");
    run.says("GPU Utilization (%):                     n/a");
    let result = &project.results()[0];
    assert_eq!(result["gpu_utilization"], Value::Null);
    assert!(result["servebench"]["telemetry"]["absent"]["gpu"].is_string());
    let run = finish(bench_with_system(&project, folder.path(), &["--require-gpu"]));
    run.expect(2).says("the case requires GPUs");
}

#[cfg(target_os = "linux")]
#[test]
fn a_driver_that_the_environment_names_is_read_where_the_system_has_none() {
    let folder = tempfile::tempdir().unwrap();
    no_driver(folder.path());
    let own = folder.path().join("own.so");
    driver(&own, TWO);
    let project = Project::new("", BACKENDS, ONE_CASE);
    let mut command = bench_with_system(&project, folder.path(), &["--collect-gpu-stats"]);
    command.env("NVML_PATH", own);
    finish(command).expect(0).says("GPU Utilization (%):                     80.00");
}

#[test]
fn what_the_server_says_of_itself_is_beside_what_was_measured() {
    let project = Project::new("", BACKENDS, ONE_CASE);
    let run = project.bench(&["--self-check", "never"]);
    run.expect(0).says("server   vLLM: running").says("server   TTFT by its own count: mean");
    let result = &project.results()[0];
    let telemetry = &result["servebench"]["telemetry"];
    let own = &telemetry["server_latencies"]["ttft"];
    assert_eq!(own["count"], result["completed"]);
    let (own, here) = (own["mean_ms"].as_f64().unwrap(), result["mean_ttft_ms"].as_f64().unwrap());
    assert!(own <= here && here < own + 50.0, "{own} ms by the server's count, {here} ms here");
    assert_eq!(telemetry["absent"], serde_json::json!({}));
}

#[test]
fn a_server_that_shows_no_metrics_is_named_only_where_they_were_asked_for() {
    let page =
        |metrics: &str| Project::new("", &sim_with(&format!("metrics = {metrics}")), ONE_CASE);
    let project = page("{ url = \"/no-such-page\" }");
    project
        .bench(&["--self-check", "never"])
        .expect(0)
        .says("warning  the metrics at http://127.0.0.1");
    assert!(project.results()[0]["servebench"]["telemetry"]["absent"]["server"].is_string());
    let project = page("false");
    let run = project.bench(&["--self-check", "never"]);
    run.expect(0);
    assert!(!run.stdout.contains("metrics") && !run.stdout.contains("server   "), "{}", run.stdout);
}

#[test]
fn in_miniature_no_gpu_is_needed_and_no_metrics_are_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    no_driver(folder.path());
    let project = Project::new("gpu = { require = true }", BACKENDS, ONE_CASE);
    finish(with_system(&project, folder.path(), &[])).expect(0);
}

/// A page that shows two GPUs, as NVIDIA's exporter does.
const EXPORTED: &str = "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",modelName=\"H100\"} 90
DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",UUID=\"GPU-b\",modelName=\"H100\"} 10
DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-a\",modelName=\"H100\"} 30000
";

#[test]
fn gpus_of_another_machine_are_read_from_the_page_that_shows_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let page = format!("http://{}/metrics", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{EXPORTED}",
                EXPORTED.len()
            );
        }
    });
    let gpu = |devices: &str| {
        format!("gpu = {{ exporter = {page:?}, require = true, devices = {devices} }}")
    };
    let project = Project::new(&gpu("[\"GPU-a\"]"), BACKENDS, ONE_CASE);
    project.bench(&["--self-check", "never"]).expect(0).says("gpu0     H100: 90 % busy, 30000 MiB");
    assert_eq!(project.results()[0]["gpu_utilization"], serde_json::json!([90.0]));
    let project = Project::new(&gpu("[7]"), BACKENDS, ONE_CASE);
    let run = project.bench(&["--self-check", "never"]);
    run.expect(2).says("the case requires GPUs: the exporter's page shows no such GPU");
}
