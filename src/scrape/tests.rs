use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use globset::{Glob, GlobSet};

use super::collector::Collector;
use super::raw::Raw;
use super::*;
use crate::metric::Statistic;
use crate::sim::{Preset, SimConfig, SimServer};

const VLLM: &str = include_str!("../../fixtures/metrics/vllm.txt");
const MAX: &str = include_str!("../../fixtures/metrics/max.txt");
const SGLANG: &str = include_str!("../../fixtures/metrics/sglang.txt");
const TRTLLM: &str = include_str!("../../fixtures/metrics/trtllm.txt");
const TRITON: &str = include_str!("../../fixtures/metrics/triton.txt");
const LLAMA_CPP: &str = include_str!("../../fixtures/metrics/llama_cpp.txt");
const TGI: &str = include_str!("../../fixtures/metrics/tgi.txt");

/// What comes of pages that are a second apart.
fn of_pages(pages: &[&str]) -> Scraped {
    let second = Duration::from_secs(1);
    let mut collector = Collector::new("http://x/metrics".to_owned(), Raw::default(), second / 2);
    for (place, page) in (0..).zip(pages) {
        collector.add(Ok((place * second, (*page).to_owned())));
    }
    collector.finish()
}

fn last(scraped: &Scraped, column: &str) -> Option<f64> {
    *scraped.server.columns.get(column)?.last()?
}

fn figures(scraped: &Scraped, timing: Timing) -> Option<HistogramFigures> {
    scraped.histograms.total().get(&timing)?.figures()
}

/// The page with another value of a metric.
fn with(page: &str, name: &str, value: u32) -> String {
    let changed = page.lines().map(|line| match line.rsplit_once(' ') {
        Some((series, _)) if series.split('{').next() == Some(name) => format!("{series} {value}"),
        _ => line.to_owned(),
    });
    changed.collect::<Vec<_>>().join("\n")
}

#[test]
fn vllm_s_page_is_understood() {
    let later = with(VLLM, "vllm:generation_tokens_total", 2587);
    let later = with(&later, "vllm:prompt_tokens_total", 1150);
    let later = with(&later, "vllm:prefix_cache_queries_total", 1150);
    let later = with(&later, "vllm:prefix_cache_hits_total", 50);
    let later = with(&later, "vllm:num_preemptions_total", 3);
    let scraped = of_pages(&[VLLM, &later]);
    assert_eq!(scraped.engine, Some("vLLM"));
    assert_eq!(last(&scraped, "requests_running"), Some(4.0));
    assert_eq!(last(&scraped, "requests_waiting"), Some(0.0));
    assert_eq!(last(&scraped, "kv_cache_usage"), Some(0.000_976_800_976_800_973_3));
    assert_eq!(last(&scraped, "preemptions"), Some(3.0));
    assert_eq!(last(&scraped, "prefix_cache_hit_ratio"), Some(0.25));
    assert_eq!(last(&scraped, "prompt_tokens_per_s"), Some(200.0));
    assert_eq!(last(&scraped, "generation_tokens_per_s"), Some(1000.0));
    assert_eq!(scraped.server.columns["generation_tokens_per_s"][0], None, "no time before it");
    assert_eq!((scraped.scrapes, scraped.failures), (2, 0));
    assert_eq!(scraped.warnings, Vec::<String>::new());
}

#[test]
fn a_run_s_histograms_are_those_of_its_own_requests() {
    // The page was recorded after 52 first tokens; that of an engine which has just started has none.
    let scraped = of_pages(&["", VLLM]);
    let ttft = figures(&scraped, Timing::Ttft).unwrap();
    assert_eq!(ttft.count, 52);
    assert!((ttft.mean_ms - 50_225.019 / 52.0).abs() < 0.01, "{ttft:?}");
    for timing in [Timing::Tpot, Timing::Itl, Timing::QueueTime, Timing::E2e] {
        let figures = figures(&scraped, timing).unwrap();
        let p50 = figures.p50.unwrap();
        assert!(p50.above_ms <= p50.estimate_ms, "{timing:?}");
        assert!(p50.at_most_ms.is_none_or(|most| p50.estimate_ms <= most), "{timing:?}");
    }
    let scraped = of_pages(&[VLLM, VLLM]);
    assert_eq!(figures(&scraped, Timing::Ttft), None, "nothing was asked meanwhile");
}

#[test]
fn vllm_s_older_names_mean_the_same() {
    let page = "\
vllm:num_requests_running{model_name=\"m\"} 5
vllm:gpu_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0.25
vllm:gpu_cache_usage_perc{model_name=\"m\",engine=\"1\"} 0.75
vllm:gpu_prefix_cache_queries_total{model_name=\"m\"} 0
vllm:gpu_prefix_cache_hits_total{model_name=\"m\"} 0
vllm:time_per_output_token_seconds_sum{model_name=\"m\"} 0
vllm:time_per_output_token_seconds_count{model_name=\"m\"} 0
";
    let later = page.replace("} 0\n", "} 8\n");
    let scraped = of_pages(&[page, &later]);
    assert_eq!(last(&scraped, "kv_cache_usage"), Some(0.5), "the mean of the engines");
    assert_eq!(last(&scraped, "prefix_cache_hit_ratio"), Some(1.0));
    let itl = figures(&scraped, Timing::Itl).unwrap();
    assert_eq!((itl.count, itl.mean_ms, itl.p50), (8, 1000.0, None));
    // Some versions have the old and the new at once.
    let both =
        format!("{later}vllm:inter_token_latency_seconds_count 8\nvllm:kv_cache_usage_perc 0.1\n");
    let scraped = of_pages(&[page, &both]);
    assert_eq!(figures(&scraped, Timing::Itl).unwrap().count, 8);
    assert_eq!(last(&scraped, "kv_cache_usage"), Some(0.1));
}

#[test]
fn max_s_page_is_understood() {
    let scraped = of_pages(&["", MAX]);
    assert_eq!(scraped.engine, Some("MAX"));
    assert_eq!(last(&scraped, "requests_running"), Some(0.0));
    assert_eq!(last(&scraped, "requests_waiting"), Some(0.0));
    assert_eq!(last(&scraped, "kv_cache_usage"), Some(0.0));
    assert_eq!(last(&scraped, "prefix_cache_hit_ratio"), Some(0.0));
    assert_eq!(last(&scraped, "prompt_tokens_per_s"), Some(770.0));
    assert_eq!(last(&scraped, "generation_tokens_per_s"), Some(5452.0));
    let ttft = figures(&scraped, Timing::Ttft).unwrap();
    assert_eq!(ttft.count, 39);
    assert!((ttft.mean_ms - 1_021.139_91 / 39.0).abs() < 1e-9, "{ttft:?}");
    let p50 = ttft.p50.unwrap();
    assert_eq!((p50.above_ms, p50.at_most_ms), (16.4, Some(24.4)), "in milliseconds as it is");
    let e2e = figures(&scraped, Timing::E2e).unwrap();
    assert_eq!(e2e.count, 39, "of both paths");
}

#[test]
fn the_other_engines_pages_are_understood() {
    for (page, engine, running, waiting, usage) in [
        (SGLANG, "SGLang", 22.0, 7.0, Some(0.3)),
        (TRTLLM, "TensorRT-LLM", 7.0, 2.0, Some(0.62)),
        (TRITON, "Triton with TensorRT-LLM", 9.0, 3.0, Some(0.25)),
        (LLAMA_CPP, "llama.cpp", 4.0, 46.0, None),
        (TGI, "TGI", 5.0, 3.0, None),
    ] {
        let scraped = of_pages(&["", page]);
        assert_eq!(scraped.engine, Some(engine));
        assert_eq!(last(&scraped, "requests_running"), Some(running), "{engine}");
        assert_eq!(last(&scraped, "requests_waiting"), Some(waiting), "{engine}");
        let read = last(&scraped, "kv_cache_usage");
        assert_eq!(read.map(|share| (share * 1e6).round() / 1e6), usage, "{engine}");
        assert_eq!(scraped.warnings, Vec::<String>::new(), "{engine}");
    }
    let sglang = of_pages(&["", SGLANG]);
    assert_eq!(last(&sglang, "preemptions"), Some(3.0));
    assert_eq!(last(&sglang, "prefix_cache_hit_ratio"), Some(61_000.0 / 8_128_902.0));
    assert_eq!(sglang.histograms.total().len(), 4);
    assert_eq!(last(&of_pages(&["", TRTLLM]), "prefix_cache_hit_ratio"), Some(0.4));
    assert_eq!(last(&of_pages(&["", LLAMA_CPP]), "generation_tokens_per_s"), Some(39_080.0));
    let tgi = of_pages(&["", TGI]);
    assert_eq!(last(&tgi, "prompt_tokens_per_s"), Some(11_000.0));
    assert_eq!(last(&tgi, "generation_tokens_per_s"), Some(15_750.0));
    assert_eq!(figures(&tgi, Timing::Tpot).unwrap().mean_ms, 14.0);
    // As a collector on the way writes them.
    let other = SGLANG.replace("sglang:", "sglang_");
    assert_eq!(of_pages(&[&other]).engine, Some("SGLang"));
}

#[test]
fn a_server_that_begins_anew_in_mid_run_is_counted_on() {
    let page = |tokens: u32, preemptions: u32, count: u32| {
        format!(
            "vllm:generation_tokens_total {tokens}\nvllm:num_preemptions_total {preemptions}\n\
             vllm:time_to_first_token_seconds_count {count}\n\
             vllm:time_to_first_token_seconds_sum {count}\n"
        )
    };
    let scraped =
        of_pages(&[&page(100, 5, 10), &page(300, 7, 14), &page(50, 1, 3), &page(60, 1, 4)]);
    let column = |name: &str| scraped.server.columns[name].clone();
    assert_eq!(column("preemptions"), [Some(0.0), Some(2.0), Some(3.0), Some(3.0)]);
    assert_eq!(column("generation_tokens_per_s"), [None, Some(200.0), None, Some(10.0)]);
    let ttft = figures(&scraped, Timing::Ttft).unwrap();
    assert_eq!((ttft.count, ttft.mean_ms), (4 + 4, 1000.0));
    let warning = only_warning(&scraped);
    assert!(warning.contains("http://x/metrics began anew 1 times"), "{warning}");
}

#[test]
fn a_replica_that_begins_anew_beside_others_is_counted_on_and_is_a_warning() {
    let page = |first: u32, second: u32| {
        format!(
            "vllm:generation_tokens_total{{engine=\"0\"}} {first}\n\
             vllm:generation_tokens_total{{engine=\"1\"}} {second}\n"
        )
    };
    // Together they show more at each look.
    let scraped = of_pages(&[&page(100, 100), &page(150, 200), &page(20, 600), &page(50, 700)]);
    let column = |name: &str| scraped.server.columns[name].clone();
    let counted = [0.0, 150.0, 150.0 + 20.0 + 400.0, 570.0 + 130.0].map(Some);
    assert_eq!(column("generation_tokens"), counted);
    assert_eq!(column("generation_tokens_per_s"), [None, Some(150.0), None, Some(130.0)]);
    assert!(only_warning(&scraped).contains("began anew 1 times"), "{:?}", scraped.warnings);
}

#[test]
fn speculative_decoding_is_counted_in_all_and_by_place() {
    let page = |prefix: &str, [drafts, tokens, accepted, first, second]: [u32; 5]| {
        let of = |name: &str| format!("{prefix}:spec_decode_num_{name}_total");
        let place = of("accepted_tokens_per_pos");
        format!(
            "{}{{m=\"a\"}} {drafts}\n{}{{m=\"a\"}} {tokens}\n{}{{m=\"a\"}} {accepted}\n\
             {place}{{m=\"a\",position=\"0\"}} {first}\n{place}{{m=\"a\",position=\"1\"}} {second}\n\
             {place}{{m=\"a\",position=\"9999\"}} 7\n{place}{{m=\"a\"}} 7\n",
            of("drafts"),
            of("draft_tokens"),
            of("accepted_tokens")
        )
    };
    for (prefix, engine) in [("vllm", "vLLM"), ("llamacpp", "llama.cpp")] {
        let before = page(prefix, [10, 20, 12, 8, 4]);
        let scraped = of_pages(&[&before, &page(prefix, [110, 220, 132, 88, 44])]);
        assert_eq!(scraped.engine, Some(engine));
        for (column, counted) in [
            ("spec_drafts", 100.0),
            ("spec_draft_tokens", 200.0),
            ("spec_accepted_tokens", 120.0),
            ("spec_accepted_tokens_at_0", 80.0),
            ("spec_accepted_tokens_at_1", 40.0),
        ] {
            assert_eq!(scraped.server.columns[column], [Some(0.0), Some(counted)], "{column}");
        }
        let places = scraped.server.columns.keys().filter(|name| name.contains("_at_"));
        assert_eq!(places.count(), 2, "what is no place is none");
    }
}

#[test]
fn tensorrt_llm_s_drafts_are_counted_under_either_name_and_a_length_of_0_is_none() {
    let later = with(TRTLLM, "trtllm_spec_decode_num_draft_tokens_total", 4000);
    let later = with(&later, "trtllm_spec_decode_num_accepted_tokens_total", 2400);
    let idle = with(&later, "trtllm_spec_decode_acceptance_length", 0);
    let plain = |page: &str| page.replace("_tokens_total{", "_tokens{");
    for pages in [[TRTLLM.to_owned(), idle.clone()], [plain(TRTLLM), plain(&idle)]] {
        let scraped = of_pages(&[&pages[0], &pages[1]]);
        assert_eq!(last(&scraped, "spec_draft_tokens"), Some(1000.0));
        assert_eq!(last(&scraped, "spec_accepted_tokens"), Some(600.0));
        assert_eq!(scraped.server.columns["spec_length"], [Some(2.75), None]);
        assert_eq!(scraped.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_count_that_is_named_late_was_0_before() {
    let queries = |count: u32| format!("sglang:prompt_tokens_total {count}\n");
    let hits = format!("{}sglang:cached_tokens_total 30\n", queries(300));
    let scraped = of_pages(&[&queries(100), &queries(200), &hits]);
    let hits = &scraped.server.columns["prefix_cache_hits"];
    assert_eq!(*hits, [Some(0.0), Some(0.0), Some(30.0)]);
}

#[test]
fn a_page_of_nothing_known_is_a_warning() {
    let scraped = of_pages(&["go_goroutines 5\nodd line\n"]);
    assert!(scraped.server.is_empty());
    assert_eq!(
        scraped.warnings,
        [
            "1 lines of http://x/metrics are not of Prometheus' text format and were skipped",
            "http://x/metrics holds no metric whose name is known",
        ]
    );
}

// Over real sockets.

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server that hands each connection and its number to `answer`, once the request's head has come.
fn serve(answer: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Url {
    let listener = TcpListener::bind(local()).unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (answer, mut stream) = (Arc::clone(&answer), stream.unwrap());
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.extend(byte);
                }
                answer(number, &mut stream);
            });
        }
    });
    Url::parse(&url).unwrap()
}

fn send(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    // The reader may hang up.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

const OK: &str = "200 OK\r\ncontent-type: text/plain; version=0.0.4";

fn often(url: Url) -> Options {
    Options::new(url).every(Duration::from_millis(20))
}

/// Looks for `ms` milliseconds. What came of it, and how long the end took. On a busy machine any reading may be
/// slow, which is another warning than those looked for.
fn watch(options: Options, ms: u64) -> (Scraped, Duration) {
    let (scraped, took) = watch_how_long(options, ms);
    (quick(scraped), took)
}

fn quick(mut scraped: Scraped) -> Scraped {
    scraped.warnings.retain(|warning| !warning.contains("took up to"));
    scraped
}

fn watch_how_long(options: Options, ms: u64) -> (Scraped, Duration) {
    let clock = Clock::start();
    let scraper = Scraper::start(options, clock);
    thread::sleep(Duration::from_millis(ms));
    let before = clock.now();
    let scraped = scraper.stop();
    (scraped, clock.now() - before)
}

fn only_warning(scraped: &Scraped) -> &str {
    assert_eq!(scraped.warnings.len(), 1, "{:?}", scraped.warnings);
    &scraped.warnings[0]
}

#[test]
fn the_embedded_engine_s_metrics_agree_with_its_truth() {
    let config = SimConfig {
        decode_base: Duration::from_millis(2),
        prefill_tokens_per_s: 1000.0,
        max_batch: 4,
        models: vec!["m".to_owned()],
        ..SimConfig::preset(Preset::Small)
    };
    let sim = SimServer::start(config, local()).unwrap();
    let url: Url = format!("{}/metrics", sim.base_url()).parse().unwrap();
    let address = sim.address();
    let ask = || {
        let body = r#"{"model":"m","prompt":"one two three four","max_tokens":12,"ignore_eos":true,"stream":true}"#;
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("[DONE]"), "{answer}");
    };
    // What was asked before the run is not of the run.
    ask();
    sim.reset_truth();
    let clock = Clock::start();
    let scraper = Scraper::start(often(url), clock);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(ask);
        }
    });
    // So that a look comes after the last of them.
    thread::sleep(Duration::from_millis(60));
    let elapsed_s = clock.now().as_secs_f64();
    let scraped = scraper.stop();
    let truth = sim.truth();
    assert_eq!(scraped.warnings, Vec::<String>::new());
    assert_eq!(scraped.engine, Some("vLLM"));

    let own = scraped.histograms.total();
    let figures = |timing| own[&timing].figures().unwrap();
    assert_eq!((truth.len(), figures(Timing::Ttft).count), (20, 20));
    assert_eq!(figures(Timing::E2e).count, 20);
    assert_eq!(figures(Timing::QueueTime).count, 20);
    assert_eq!(figures(Timing::Tpot).count, 20);
    let tokens: usize = truth.iter().map(|record| record.tokens.len()).sum();
    assert_eq!(tokens, 240);
    assert_eq!(figures(Timing::Itl).count as usize, tokens - 20);

    // The rates, over their times, add up to what was generated.
    let rates = &scraped.server.columns["generation_tokens_per_s"];
    let mut since = scraped.server.at_s[0];
    let mut generated = 0.0;
    for (at, rate) in scraped.server.at_s.iter().zip(rates) {
        if let Some(rate) = rate {
            generated += rate * (at - since);
            since = *at;
        }
    }
    assert!((generated - 240.0).abs() < 0.5, "{generated}");

    // The engine has each token before it leaves, and what it measures before it is late for us.
    let mean_ms = |of: fn(&crate::sim::TruthRecord) -> Option<Duration>| {
        let times = truth.iter().map(|record| of(record).unwrap().as_secs_f64());
        times.sum::<f64>() * 1e3 / 20.0
    };
    for (timing, real) in [
        (Timing::Ttft, mean_ms(crate::sim::TruthRecord::ttft)),
        (Timing::E2e, mean_ms(crate::sim::TruthRecord::e2e)),
    ] {
        let told = figures(timing).mean_ms;
        assert!(told <= real + 1.0 && real / 2.0 < told, "{timing:?}: {told} of {real}");
        let p50 = figures(timing).p50.unwrap();
        assert!(p50.above_ms <= p50.estimate_ms, "{p50:?}");
    }
    // Four run at a time, so that most wait.
    assert!(figures(Timing::QueueTime).mean_ms < figures(Timing::Ttft).mean_ms);
    assert_eq!(last(&scraped, "preemptions"), Some(0.0));
    let most = |column| scraped.server.statistic(column, Statistic::Max).unwrap();
    assert!(most("requests_running") <= 4.0);
    assert!(most("requests_waiting") <= 20.0);
    assert!(most("kv_cache_usage") < 1.0);
    assert!(scraped.server.at_s.iter().all(|at| *at <= elapsed_s + 1.0));
    assert!(scraped.server.at_s.is_sorted());
}

#[test]
fn never_is_more_than_one_look_under_way() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (inside, seen) = (Arc::clone(&now), Arc::clone(&most));
    let url = serve(move |_, stream| {
        seen.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(90));
        inside.fetch_sub(1, Ordering::SeqCst);
        send(stream, OK, b"vllm:num_requests_running 1\n");
    });
    // Stopped between two looks, or the last of them would come while the server still works.
    let clock = Clock::start();
    let scraper = Scraper::start(often(url), clock);
    thread::sleep(Duration::from_millis(400));
    assert_eq!(most.load(Ordering::SeqCst), 1);
    let scraped = scraper.stop();
    assert!((2..=6).contains(&scraped.scrapes), "{}", scraped.scrapes);
}

#[test]
fn a_server_that_hangs_costs_a_warning_and_little_time() {
    let url = serve(|_, _| thread::sleep(Duration::from_secs(60)));
    let (scraped, end) = watch(often(url), 0);
    assert!(end < Duration::from_millis(1500), "{end:?}");
    assert_eq!(scraped.scrapes, 0);
    assert!(only_warning(&scraped).contains("no answer within 500ms"), "{:?}", scraped.warnings);
    assert!(scraped.absent.unwrap().contains("no answer within"));
}

#[test]
fn a_server_that_hangs_in_mid_answer_costs_a_warning() {
    let url = serve(|_, stream| {
        let head =
            format!("HTTP/1.1 {OK}\r\ncontent-length: 99\r\n\r\nvllm:num_requests_running 1\n");
        stream.write_all(head.as_bytes()).unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    let (scraped, end) = watch(often(url), 0);
    assert!(end < Duration::from_millis(1500), "{end:?}");
    assert!(scraped.server.is_empty(), "half a page is none");
    assert!(only_warning(&scraped).contains("no answer within"));
}

#[test]
fn openmetrics_is_read_where_a_server_sends_it() {
    let url = serve(|_, stream| {
        let kind = "200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0";
        let page = "# TYPE vllm:generation_tokens counter\n\
                    vllm:generation_tokens_total{engine=\"0\"} 8.0 1700000000.123 # {id=\"a\"} 1.0\n\
                    vllm:num_requests_running{engine=\"0\"} 3.0\n# EOF\n";
        send(stream, kind, page.as_bytes());
    });
    let (scraped, _) = watch(often(url), 50);
    assert_eq!(scraped.warnings, Vec::<String>::new());
    assert_eq!(last(&scraped, "requests_running"), Some(3.0));
    let rates = scraped.server.values("generation_tokens_per_s");
    assert_eq!(rates.fold(0.0, f64::max), 0.0, "the count stands still");
}

#[test]
fn a_slow_answer_is_a_gap() {
    let url = serve(|number, stream| {
        if number == 1 {
            thread::sleep(Duration::from_millis(700));
        }
        send(stream, OK, b"vllm:num_requests_running 1\n");
    });
    let (scraped, _) = watch_how_long(often(url), 800);
    assert_eq!(scraped.failures, 1);
    let gap = scraped.server.at_s.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(0.45 < gap, "{gap}");
    assert!(scraped.warnings[0].contains("not read 1 of"), "{:?}", scraped.warnings);
    assert!(scraped.warnings[1].contains("took up to 0.5 s"), "{:?}", scraped.warnings);
}

#[test]
fn a_page_that_takes_long_is_read_for_a_twentieth_of_the_time() {
    let url = serve(|_, stream| {
        thread::sleep(Duration::from_millis(60));
        send(stream, OK, b"vllm:num_requests_running 1\n");
    });
    let (scraped, _) = watch(often(url), 2000);
    // At the beginning, after 1.2 s, and at the end.
    assert!((2..=3).contains(&scraped.scrapes), "{}", scraped.scrapes);
    assert!(Duration::from_millis(60) <= scraped.longest, "{:?}", scraped.longest);
}

#[test]
fn a_huge_page_is_not_read_to_its_end() {
    let sent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&sent);
    let url = serve(move |_, stream| {
        let head = format!("HTTP/1.1 {OK}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let line = "m{a=\"b\"} 1\n".repeat(10_000);
        while stream.write_all(line.as_bytes()).is_ok() {
            *count.lock().unwrap() += line.len();
        }
    });
    let options = Options { timeout: Duration::from_secs(20), ..often(url) };
    let clock = Clock::start();
    let scraper = Scraper::start(options, clock);
    thread::sleep(Duration::from_millis(300));
    let scraped = quick(scraper.stop());
    // On a slow machine it is still reading.
    if !scraped.warnings[0].contains("no answer within") {
        assert!(only_warning(&scraped).contains("longer than 16 MiB"), "{:?}", scraped.warnings);
        assert_eq!(scraped.failures, 1, "it is not asked again");
    }
    assert!(scraped.server.is_empty());
    assert!(*sent.lock().unwrap() < 64 * 1024 * 1024);
}

#[test]
fn what_is_not_there_or_no_metrics_is_asked_once() {
    for (head, reason) in [
        ("404 Not Found", "it answers 404 Not Found"),
        ("401 Unauthorized", "it answers 401 Unauthorized"),
        ("501 Not Implemented", "it answers 501 Not Implemented"),
        ("307 Temporary Redirect\r\nlocation: /other", "it answers 307 Temporary Redirect"),
        ("200 OK\r\ncontent-type: application/json", "it answers with `application/json`"),
        ("200 OK\r\ncontent-type: text/html; charset=utf-8", "it answers with `text/html`"),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let url = serve(move |_, stream| {
            count.fetch_add(1, Ordering::SeqCst);
            send(stream, head, b"vllm:num_requests_running 1\n");
        });
        let (scraped, _) = watch(often(url), 60);
        assert!(only_warning(&scraped).contains(reason), "{:?}", scraped.warnings);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{head}");
        assert!(scraped.absent.is_some() && scraped.server.is_empty());
    }
}

#[test]
fn a_server_that_is_refused_and_comes_back_is_read_again() {
    // An error of the server's may pass.
    let url = serve(|number, stream| match number {
        0 => send(stream, "503 Service Unavailable", b""),
        _ => send(stream, OK, b"vllm:num_requests_running 1\n"),
    });
    let (scraped, _) = watch(often(url), 100);
    assert!(0 < scraped.scrapes);
    assert!(only_warning(&scraped).contains("503"), "{:?}", scraped.warnings);
    assert_eq!(scraped.absent, None);
    // Nobody listens.
    let address = TcpListener::bind(local()).unwrap().local_addr().unwrap();
    let url = Url::parse(&format!("http://{address}/metrics")).unwrap();
    let (scraped, _) = watch(often(url), 60);
    assert!(1 < scraped.failures);
    assert!(only_warning(&scraped).contains("refused"), "{:?}", scraped.warnings);
}

#[test]
fn what_was_read_of_a_server_that_dies_in_mid_run_is_kept() {
    let sim = SimServer::start(SimConfig::preset(Preset::Small), local()).unwrap();
    let url: Url = format!("{}/metrics", sim.base_url()).parse().unwrap();
    let scraper = Scraper::start(often(url), Clock::start());
    thread::sleep(Duration::from_millis(100));
    sim.stop();
    thread::sleep(Duration::from_millis(100));
    let scraped = scraper.stop();
    assert!(0 < scraped.scrapes && 0 < scraped.failures);
    assert_eq!(scraped.server.at_s.len() as u64, scraped.scrapes);
    assert!(only_warning(&scraped).contains("times: "), "{:?}", scraped.warnings);
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    let listener = TcpListener::bind(local()).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            kept.lock().unwrap().push(String::from_utf8_lossy(&head[..length]).into_owned());
            send(&mut stream, "403 Forbidden\r\nx: sk-12345", b"sk-12345");
        }
    });
    let url = format!("http://user:hunter22@{address}/metrics?token=tok-6789");
    let mut options = often(Url::parse(&url).unwrap());
    options.headers.push(("x-api-key".to_owned(), Secret::new("sk-12345")));
    let shown = format!("{options:?}");
    let (scraped, _) = watch(options, 0);
    let head = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(
        head.contains("x-api-key: sk-12345") && head.contains("authorization: basic "),
        "{head}"
    );
    let all = format!("{scraped:?}");
    for secret in ["sk-12345", "hunter22", "tok-6789"] {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(!shown.contains("sk-12345"));
    let odd = Options {
        headers: vec![("bad name".to_owned(), Secret::new("sk-12345"))],
        ..often(Url::parse(&url).unwrap())
    };
    let (scraped, _) = watch(odd, 0);
    assert!(only_warning(&scraped).contains("a header of it cannot be sent"));
    assert!(!scraped.warnings[0].contains("sk-12345"));
}

#[test]
fn raw_metrics_are_kept_on_request() {
    let sim = SimServer::start(
        SimConfig { models: vec!["m".to_owned()], ..SimConfig::preset(Preset::Small) },
        local(),
    );
    let sim = sim.unwrap();
    let url: Url = format!("{}/metrics", sim.base_url()).parse().unwrap();
    let glob = Glob::new("vllm:request_success_*").unwrap();
    let raw = GlobSet::builder().add(glob).build().unwrap();
    let (scraped, _) = watch(Options { raw, ..often(url) }, 50);
    let name = "vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"}";
    assert_eq!(scraped.raw.columns.len(), 3);
    assert_eq!(scraped.raw.columns[name][0], Some(0.0));
}

#[test]
fn looks_are_a_whole_number_of_intervals_apart() {
    let ms = Duration::from_millis;
    assert_eq!(next(ms(0), ms(100), ms(30)), ms(100));
    assert_eq!(next(ms(100), ms(100), ms(350)), ms(400));
    assert_eq!(next(ms(100), ms(100), ms(200)), ms(300));
}
