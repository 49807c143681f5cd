//! placeholder
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
/// c
#[derive(Clone, Debug)]
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
}
impl SimConfig {
    pub fn preset(_: Preset) -> Self {
        todo!()
    }
}
