//! A simulated LLM server that knows the truth: OpenAI's HTTP API over a model of continuous
//! batching, which records when each token really left. One file a part; no part of the harness
//! that measures belongs here.

mod answer;
mod api_error;
mod chunk;
mod config;
mod counters;
mod dialect;
mod engine;
mod lexicon;
mod model;
mod request;
mod routes;
mod server;
mod truth;

pub use config::{Figure, Preset, SimConfig};
pub use dialect::{Dialect, UsageStyle};
pub use lexicon::Lexicon;
pub use server::SimServer;
pub use truth::TruthRecord;
