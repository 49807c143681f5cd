//! placeholder
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
/// p
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// s
    Small,
    /// l
    Large,
}
/// l
#[derive(Clone, Debug)]
pub enum Lexicon {
    /// a
    Approximate,
    /// t
    Tokenizer(Arc<tokenizers::Tokenizer>),
}
/// c
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SimConfig {
    pub max_batch: usize,
    pub max_batched_tokens: u32,
    pub prefill_tokens_per_s: f64,
    pub decode_base: Duration,
    pub decode_per_sequence: Duration,
    pub kv_cache_tokens: u64,
    pub jitter: f64,
    pub seed: u64,
    pub models: Vec<String>,
    pub lexicon: Lexicon,
}
impl SimConfig {
    /// p
    pub fn preset(_: Preset) -> Self {
        todo!()
    }
}
/// s
pub struct SimServer;
#[allow(missing_docs)]
impl SimServer {
    pub fn start(_config: SimConfig, _address: SocketAddr) -> io::Result<Self> {
        todo!()
    }
    pub fn base_url(&self) -> String {
        todo!()
    }
}
