//! What the engines call their metrics, and what those mean in one vocabulary. Pure.
//!
//! As their sources have it: vLLM's `v1/metrics/loggers.py` (and v0's `engine/metrics.py`), SGLang's
//! `metrics_collector.py`, TensorRT-LLM's `metrics/collector.py`, the README of Triton's
//! `tensorrtllm_backend`, llama.cpp's `tools/server/server-task.cpp`, TGI's `docs/source/reference/metrics.md`; MAX's
//! as a server of version 26.7 wrote them.

use super::text::Sample;

/// A number that a server tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Requests that are worked on.
    Running,
    /// Requests in the queue.
    Waiting,
    /// Share of the KV cache that is in use, from 0 to 1.
    CacheShare,
    /// Blocks of the KV cache in use.
    CacheUsed,
    /// Blocks that the KV cache has.
    CacheSize,
    /// How often a request was put back because the cache was full.
    Preemptions,
    /// Prompt tokens that were looked up in the prefix cache.
    PrefixQueries,
    /// Prompt tokens that were found there.
    PrefixHits,
    /// Prompt tokens that were not.
    PrefixMisses,
    /// Prompt tokens, all so far.
    PromptTokens,
    /// Generated tokens, all so far.
    GenerationTokens,
    /// Drafts of speculative decoding, all so far.
    Drafts,
    /// Tokens of those drafts.
    DraftTokens,
    /// Draft tokens that were accepted.
    AcceptedTokens,
    /// Those of them that stood at a place of their draft, the first of which is 0.
    AcceptedAt(u8),
    /// Share of the draft tokens that were accepted lately, where the server keeps no counts.
    SpecAcceptance,
    /// Tokens that a step generated lately with a draft, likewise; 0 where there was none.
    SpecLength,
}

impl Quantity {
    /// Whether it only grows, but where the server begins anew.
    pub fn is_count(self) -> bool {
        match self {
            Self::Preemptions
            | Self::PrefixQueries
            | Self::PrefixHits
            | Self::PrefixMisses
            | Self::PromptTokens
            | Self::GenerationTokens
            | Self::Drafts
            | Self::DraftTokens
            | Self::AcceptedTokens
            | Self::AcceptedAt(_) => true,
            Self::Running
            | Self::Waiting
            | Self::CacheShare
            | Self::CacheUsed
            | Self::CacheSize
            | Self::SpecAcceptance
            | Self::SpecLength => false,
        }
    }
}

/// A latency that a server measures itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timing {
    /// Arrival to the first token.
    Ttft,
    /// Mean time per output token of a request. TGI counts the first token and its prefill in.
    Tpot,
    /// Time from a token to the next.
    Itl,
    /// Arrival to the first step of work.
    QueueTime,
    /// Arrival to the last token.
    E2e,
}

impl Timing {
    /// The name in results: that of the client's own latency, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::Itl => "itl",
            Self::QueueTime => "queue_time",
            Self::E2e => "e2e",
        }
    }
}

/// What a metric means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meaning {
    /// Its value is this quantity.
    Value(Quantity),
    /// Its values are the draft tokens that were accepted at each place, which this label says.
    AcceptedAt(&'static str),
    /// It is a histogram of this latency, in units of so many milliseconds.
    Histogram(Timing, f64),
}

/// Places in a draft beyond these are not told from each other.
const MOST_PLACES: u8 = 32;

/// The place in a draft that a label of the value says.
pub fn place_in_draft(sample: &Sample<'_>, label: &str) -> Option<u8> {
    sample.label(label)?.parse().ok().filter(|place| *place < MOST_PLACES)
}

/// A name that is known. Of the names that mean the same, the first that a page holds counts.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    name: &'static str,
    /// The label that a value must have; none is as an empty one.
    label: Option<(&'static str, &'static str)>,
    /// What it means.
    pub meaning: Meaning,
}

/// An engine and the names that it uses.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// What it is called.
    pub name: &'static str,
    /// How its metrics' names begin.
    prefix: &'static str,
    names: &'static [Known],
}

const fn value(name: &'static str, quantity: Quantity) -> Known {
    Known { name, label: None, meaning: Meaning::Value(quantity) }
}

const fn accepted_at(name: &'static str, label: &'static str) -> Known {
    Known { name, label: None, meaning: Meaning::AcceptedAt(label) }
}

const fn of(label: (&'static str, &'static str), known: Known) -> Known {
    Known { label: Some(label), ..known }
}

const fn seconds(name: &'static str, timing: Timing) -> Known {
    Known { name, label: None, meaning: Meaning::Histogram(timing, 1e3) }
}

const fn milliseconds(name: &'static str, timing: Timing) -> Known {
    Known { name, label: None, meaning: Meaning::Histogram(timing, 1.0) }
}

/// The engines whose names are known.
pub const ENGINES: [Engine; 7] = [
    Engine { name: "vLLM", prefix: "vllm:", names: VLLM },
    Engine { name: "SGLang", prefix: "sglang:", names: SGLANG },
    Engine { name: "TensorRT-LLM", prefix: "trtllm_", names: TRTLLM },
    Engine { name: "Triton with TensorRT-LLM", prefix: "nv_trt_llm_", names: TRITON },
    Engine { name: "MAX", prefix: "maxserve_", names: MAX },
    Engine { name: "llama.cpp", prefix: "llamacpp:", names: LLAMA_CPP },
    Engine { name: "TGI", prefix: "tgi_", names: TGI },
];

/// The older names are those of v0 and of the first v1; `time_per_output_token_seconds` was of each gap.
const VLLM: &[Known] = &[
    value("vllm:num_requests_running", Quantity::Running),
    value("vllm:num_requests_waiting", Quantity::Waiting),
    value("vllm:kv_cache_usage_perc", Quantity::CacheShare),
    value("vllm:gpu_cache_usage_perc", Quantity::CacheShare),
    value("vllm:num_preemptions_total", Quantity::Preemptions),
    value("vllm:prefix_cache_queries_total", Quantity::PrefixQueries),
    value("vllm:gpu_prefix_cache_queries_total", Quantity::PrefixQueries),
    value("vllm:prefix_cache_hits_total", Quantity::PrefixHits),
    value("vllm:gpu_prefix_cache_hits_total", Quantity::PrefixHits),
    value("vllm:prompt_tokens_total", Quantity::PromptTokens),
    value("vllm:generation_tokens_total", Quantity::GenerationTokens),
    value("vllm:spec_decode_num_drafts_total", Quantity::Drafts),
    value("vllm:spec_decode_num_draft_tokens_total", Quantity::DraftTokens),
    value("vllm:spec_decode_num_accepted_tokens_total", Quantity::AcceptedTokens),
    accepted_at("vllm:spec_decode_num_accepted_tokens_per_pos_total", "position"),
    seconds("vllm:time_to_first_token_seconds", Timing::Ttft),
    seconds("vllm:request_time_per_output_token_seconds", Timing::Tpot),
    seconds("vllm:inter_token_latency_seconds", Timing::Itl),
    seconds("vllm:time_per_output_token_seconds", Timing::Itl),
    seconds("vllm:request_queue_time_seconds", Timing::QueueTime),
    seconds("vllm:e2e_request_latency_seconds", Timing::E2e),
];

/// Tokens are counted as a request ends. Where requests have priorities, the series of none is of all. The
/// older `time_per_output_token_seconds` was of each gap.
const SGLANG: &[Known] = &[
    of(("priority", ""), value("sglang:num_running_reqs", Quantity::Running)),
    of(("priority", ""), value("sglang:num_queue_reqs", Quantity::Waiting)),
    value("sglang:token_usage", Quantity::CacheShare),
    value("sglang:num_retracted_requests_total", Quantity::Preemptions),
    value("sglang:prompt_tokens_total", Quantity::PrefixQueries),
    value("sglang:cached_tokens_total", Quantity::PrefixHits),
    value("sglang:prompt_tokens_total", Quantity::PromptTokens),
    value("sglang:generation_tokens_total", Quantity::GenerationTokens),
    value("sglang:spec_accept_rate", Quantity::SpecAcceptance),
    value("sglang:spec_accept_length", Quantity::SpecLength),
    seconds("sglang:time_to_first_token_seconds", Timing::Ttft),
    seconds("sglang:inter_token_latency_seconds", Timing::Itl),
    seconds("sglang:time_per_output_token_seconds", Timing::Itl),
    seconds("sglang:queue_time_seconds", Timing::QueueTime),
    seconds("sglang:e2e_request_latency_seconds", Timing::E2e),
];

/// Of `trtllm-serve`, at `/prometheus/metrics`. Tokens are counted as a request ends, those of drafts at each step. What it
/// counts by place (`trtllm_spec_decode_accepted_tokens_total`) is of requests that ended, and there is no count of the
/// drafts beside it.
const TRTLLM: &[Known] = &[
    value("trtllm_num_requests_running", Quantity::Running),
    value("trtllm_num_requests_waiting", Quantity::Waiting),
    value("trtllm_kv_cache_utilization", Quantity::CacheShare),
    value("trtllm_prompt_tokens_total", Quantity::PrefixQueries),
    value("trtllm_prompt_cached_tokens_total", Quantity::PrefixHits),
    value("trtllm_prompt_tokens_total", Quantity::PromptTokens),
    value("trtllm_generation_tokens_total", Quantity::GenerationTokens),
    value("trtllm_spec_decode_num_draft_tokens_total", Quantity::DraftTokens),
    value("trtllm_spec_decode_num_draft_tokens", Quantity::DraftTokens),
    value("trtllm_spec_decode_num_accepted_tokens_total", Quantity::AcceptedTokens),
    value("trtllm_spec_decode_num_accepted_tokens", Quantity::AcceptedTokens),
    value("trtllm_spec_decode_acceptance_length", Quantity::SpecLength),
    seconds("trtllm_time_to_first_token_seconds", Timing::Ttft),
    seconds("trtllm_time_per_output_token_seconds", Timing::Tpot),
    seconds("trtllm_request_queue_time_seconds", Timing::QueueTime),
    seconds("trtllm_e2e_request_latency_seconds", Timing::E2e),
];

const TRITON: &[Known] = &[
    of(("request_type", "active"), value("nv_trt_llm_request_metrics", Quantity::Running)),
    of(("request_type", "waiting"), value("nv_trt_llm_request_metrics", Quantity::Waiting)),
    of(
        ("kv_cache_block_type", "used"),
        value("nv_trt_llm_kv_cache_block_metrics", Quantity::CacheUsed),
    ),
    of(
        ("kv_cache_block_type", "max"),
        value("nv_trt_llm_kv_cache_block_metrics", Quantity::CacheSize),
    ),
];

/// What runs is every HTTP request that is open, those in the queue among them.
const MAX: &[Known] = &[
    value("maxserve_num_requests_running", Quantity::Running),
    value("maxserve_num_requests_queued", Quantity::Waiting),
    value("maxserve_cache_num_used_blocks", Quantity::CacheUsed),
    value("maxserve_cache_num_total_blocks", Quantity::CacheSize),
    value("maxserve_cache_preemption_count_total", Quantity::Preemptions),
    value("maxserve_cache_hits_tokens_total", Quantity::PrefixHits),
    value("maxserve_cache_misses_tokens_total", Quantity::PrefixMisses),
    value("maxserve_num_input_tokens_total", Quantity::PromptTokens),
    value("maxserve_num_output_tokens_total", Quantity::GenerationTokens),
    milliseconds("maxserve_time_to_first_token_milliseconds", Timing::Ttft),
    milliseconds("maxserve_time_per_output_token_milliseconds", Timing::Tpot),
    milliseconds("maxserve_itl_milliseconds", Timing::Itl),
    milliseconds("maxserve_request_time_milliseconds", Timing::E2e),
];

/// The share of the cache is of older versions.
const LLAMA_CPP: &[Known] = &[
    value("llamacpp:requests_processing", Quantity::Running),
    value("llamacpp:requests_deferred", Quantity::Waiting),
    value("llamacpp:kv_cache_usage_ratio", Quantity::CacheShare),
    value("llamacpp:prompt_tokens_total", Quantity::PromptTokens),
    value("llamacpp:tokens_predicted_total", Quantity::GenerationTokens),
    value("llamacpp:spec_decode_num_drafts_total", Quantity::Drafts),
    value("llamacpp:spec_decode_num_draft_tokens_total", Quantity::DraftTokens),
    value("llamacpp:spec_decode_num_accepted_tokens_total", Quantity::AcceptedTokens),
    accepted_at("llamacpp:spec_decode_num_accepted_tokens_per_pos_total", "position"),
];

/// Tokens are counted as a request ends.
const TGI: &[Known] = &[
    value("tgi_batch_current_size", Quantity::Running),
    value("tgi_queue_size", Quantity::Waiting),
    value("tgi_request_input_length_sum", Quantity::PromptTokens),
    value("tgi_request_generated_tokens_sum", Quantity::GenerationTokens),
    seconds("tgi_request_mean_time_per_token_duration", Timing::Tpot),
    seconds("tgi_request_queue_duration", Timing::QueueTime),
    seconds("tgi_request_duration", Timing::E2e),
];

/// What part of a metric a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// All of it.
    Whole,
    /// How many were counted up to a bound.
    Bucket(f64),
    /// Their sum.
    Sum,
    /// Their number.
    Count,
}

impl Engine {
    /// The engine whose names begin as the value's does.
    pub fn of(sample: &Sample<'_>) -> Option<&'static Self> {
        ENGINES.iter().find(|engine| {
            sample.name.get(..engine.prefix.len()).is_some_and(|start| same(start, engine.prefix))
        })
    }

    /// What a value means: the place of its name in the list, the name and the part of the metric.
    pub fn meanings(
        &self,
        sample: &Sample<'_>,
    ) -> impl Iterator<Item = (usize, &'static Known, Part)> {
        self.names
            .iter()
            .enumerate()
            .filter_map(move |(place, known)| Some((place, known, known.part(sample)?)))
    }
}

impl Known {
    fn part(&self, sample: &Sample<'_>) -> Option<Part> {
        let (start, end) = sample.name.split_at_checked(self.name.len())?;
        if !same(start, self.name) {
            return None;
        }
        match (self.meaning, end) {
            (Meaning::Value(_) | Meaning::AcceptedAt(_), "") => match self.label {
                Some((label, wanted)) if sample.label(label).unwrap_or_default() != wanted => None,
                _ => Some(Part::Whole),
            },
            (Meaning::Histogram(..), "_bucket") => {
                Some(Part::Bucket(sample.label("le")?.parse().ok()?))
            }
            (Meaning::Histogram(..), "_sum") => Some(Part::Sum),
            (Meaning::Histogram(..), "_count") => Some(Part::Count),
            _ => None,
        }
    }
}

/// Whether two names are the same, but that a collector on the way may have made `:` a `_`.
fn same(name: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b':' { b'_' } else { byte };
    name.bytes().map(plain).eq(other.bytes().map(plain))
}
