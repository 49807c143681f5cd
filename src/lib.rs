//! Benchmarks LLM serving as an ordinary `cargo bench`: drives a streaming endpoint with an exact load,
//! measures TTFT, TPOT and throughput, judges them by objectives, and fails the build when one is
//! missed.
//!
//! # In `cargo bench`
//!
//! ```toml
//! # Cargo.toml
//! [dev-dependencies]
//! servebench = "0.1"
//!
//! [lib]
//! bench = false        # else the library's own harness refuses our flags
//!
//! [[bench]]
//! name = "serving"
//! harness = false
//! ```
//!
//! ```no_run
//! // benches/serving.rs; the plan is benches/serving.toml
//! fn main() -> std::process::ExitCode {
//!     servebench::main!()
//! }
//! ```
//!
//! # From Rust
//!
//! A plan can be made and run without the harness. This one needs no server: it starts the
//! simulated engine.
//!
//! ```
//! use servebench::plan::Plan;
//!
//! let plan = Plan::parse(
//!     r#"
//!     defaults = { requests = 4, tokenizer = "fixtures/tokenizer.json" }
//!     [[backend]]
//!     name = "sim"
//!     kind = "sim"
//!     [[workload]]
//!     name = "sharegpt"
//!     path = "fixtures/sharegpt.json"
//!     output_tokens = 4
//!     [[bench]]
//!     loads = ["2conc"]
//!     "#,
//! )?;
//! for case in &plan.cases {
//!     let report = servebench::measure(case)?;
//!     assert_eq!(report.completed, 4);
//!     println!("{}: {:?} tok/s", case.name, report.output_throughput);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The way of the data
//!
//! Each module may use only those above it.
//!
//! ```text
//! config -> plan -> workload + schedule -> engine -> records -> summary -> verdict -> report -> render
//!                                            |                     ^
//!                                            +-> live -> progress  |
//!                      gpu + scrape + host -> series -> telemetry -+
//! ```

// Words.
mod clock;
mod duration;
mod file_name;
mod lock;
mod loopback;
mod nearest;
mod own_file;
mod plain;
mod punctual;
mod secret;
mod share;
mod stop;
mod surrogates;

pub mod chunks;
pub mod metric;
pub mod record;

// Intent.
pub mod course;
pub mod load;
pub mod prompt;
pub mod schedule;
pub mod slo;
pub mod tls;

mod vocabulary;

mod hub;

mod chat_template;
mod files;

mod output_format;
pub mod tokenizer;
pub mod workload;

pub mod sim;
pub mod wire;

pub mod config;
pub mod flags;
pub mod plan;

// Action.
mod dialer;
mod headers;
mod http1;
mod nap;
mod pacer;
mod reader;
mod socket;
mod watchdog;

mod connection;
mod http2;

mod client;
mod descriptors;
mod engine;
mod journal;
mod live;
mod manners;
mod probe;

mod reaper;

mod launch;
mod servers;
mod strain;
mod tokens;

mod drive;
mod trial;

// Judgement.
pub mod statistics;

pub mod samples;
pub mod search;

pub mod series;

pub mod environment;
pub mod gpu;
pub mod host;
pub mod scrape;

pub mod telemetry;

mod bunches;
pub mod summary;

pub mod charts;
pub mod compare;
mod evidence;
pub mod turns;

mod backlog;
mod distortion;

pub mod self_check;
pub mod steady;
pub mod validity;
pub mod verdict;

// Telling.
pub mod report;

pub mod render;

mod progress;

// Order.
mod measure;

mod cli;
mod harness;

pub use harness::run_bench;
pub use measure::measure;

/// The body of a bench target's `main`: reads `benches/<bench target>.toml`, or the file that
/// `--config` or `SERVEBENCH_CONFIG` names, and runs it as the command line says.
///
/// `servebench::main!("path/to/plan.toml")` reads another file by default; its path is seen from the
/// package's root.
#[macro_export]
macro_rules! main {
    () => {
        $crate::main!(concat!("benches/", env!("CARGO_CRATE_NAME"), ".toml"))
    };
    ($config:expr) => {
        $crate::run_bench(env!("CARGO_MANIFEST_DIR"), $config)
    };
}
