//! The server's own statistics, in Prometheus' text format and under vLLM's names.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::chunk::FinishReason;

const TTFT_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

const INTER_TOKEN_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];

const E2E_BUCKETS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// What has happened since the start.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) prompt_tokens: u64,
    pub(crate) generation_tokens: u64,
    stopped: u64,
    cut_off: u64,
    pub(crate) aborted: u64,
    pub(crate) ttft: Histogram,
    pub(crate) inter_token: Histogram,
    pub(crate) tpot: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) e2e: Histogram,
}

/// What is the case now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    /// From 0 to 1.
    pub(crate) kv_usage: f64,
}

impl Counters {
    /// Nothing has happened.
    pub(crate) fn new() -> Self {
        Self {
            prompt_tokens: 0,
            generation_tokens: 0,
            stopped: 0,
            cut_off: 0,
            aborted: 0,
            ttft: Histogram::new(TTFT_BUCKETS),
            inter_token: Histogram::new(INTER_TOKEN_BUCKETS),
            tpot: Histogram::new(INTER_TOKEN_BUCKETS),
            queue: Histogram::new(E2E_BUCKETS),
            e2e: Histogram::new(E2E_BUCKETS),
        }
    }

    /// An answer is complete.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        match reason {
            FinishReason::Stop => self.stopped += 1,
            FinishReason::Length => self.cut_off += 1,
        }
    }

    /// The page that a scraper reads.
    pub(crate) fn page(&self, model: &str, gauges: Gauges) -> String {
        let mut page =
            Page { text: String::new(), label: format!("model_name=\"{}\"", escaped(model)) };
        page.family("num_requests_running", "gauge", "Requests in the batch.");
        page.sample("num_requests_running", "", gauges.running);
        page.family("num_requests_waiting", "gauge", "Requests in the queue.");
        page.sample("num_requests_waiting", "", gauges.waiting);
        page.family("kv_cache_usage_perc", "gauge", "Share of the KV cache in use, from 0 to 1.");
        page.sample("kv_cache_usage_perc", "", gauges.kv_usage);
        // Room is kept for the whole of an answer from its start.
        page.family("num_preemptions_total", "counter", "Requests put back into the queue.");
        page.sample("num_preemptions_total", "", 0);
        page.family("prompt_tokens_total", "counter", "Prompt tokens read.");
        page.sample("prompt_tokens_total", "", self.prompt_tokens);
        page.family("generation_tokens_total", "counter", "Tokens generated.");
        page.sample("generation_tokens_total", "", self.generation_tokens);
        page.family("request_success_total", "counter", "Requests that have ended.");
        let ended = [("stop", self.stopped), ("length", self.cut_off), ("abort", self.aborted)];
        for (reason, count) in ended {
            let label = format!(",finished_reason=\"{reason}\"");
            page.sample("request_success_total", &label, count);
        }
        let help = "Time from a request to its first token.";
        page.histogram("time_to_first_token_seconds", help, &self.ttft);
        let help = "Time from each token to the next.";
        page.histogram("inter_token_latency_seconds", help, &self.inter_token);
        let help = "Mean time from each token of a request to its next.";
        page.histogram("request_time_per_output_token_seconds", help, &self.tpot);
        let help = "Time from a request to its first step.";
        page.histogram("request_queue_time_seconds", help, &self.queue);
        let help = "Time from a request to its last token.";
        page.histogram("e2e_request_latency_seconds", help, &self.e2e);
        page.text
    }
}

/// Counts by upper bound.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, not cumulated; what exceeds all is in `count` alone.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    /// Adds a value.
    pub(crate) fn observe(&mut self, value: Duration) {
        let value = value.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += value;
    }
}

struct Page {
    text: String,
    /// The label that every sample has.
    label: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP vllm:{name} {help}"));
        self.line(format_args!("# TYPE vllm:{name} {kind}"));
    }

    fn sample(&mut self, name: &str, more_labels: &str, value: impl fmt::Display) {
        let label = std::mem::take(&mut self.label);
        self.line(format_args!("vllm:{name}{{{label}{more_labels}}} {value}"));
        self.label = label;
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket_name = format!("{name}_bucket");
        let mut cumulated = 0;
        for (bound, bucket) in histogram.bounds.iter().zip(&histogram.buckets) {
            cumulated += bucket;
            self.sample(&bucket_name, &format!(",le=\"{bound:?}\""), cumulated);
        }
        self.sample(&bucket_name, ",le=\"+Inf\"", histogram.count);
        self.sample(&format!("{name}_sum"), "", histogram.sum);
        self.sample(&format!("{name}_count"), "", histogram.count);
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_gauges_counters_and_cumulated_histograms() {
        let mut counters = Counters::new();
        counters.prompt_tokens = 12;
        counters.finish(FinishReason::Length);
        for ms in [10, 30, 1_000_000_000] {
            counters.ttft.observe(Duration::from_millis(ms));
        }
        let page = counters.page("a\"b", Gauges { running: 3, waiting: 4, kv_usage: 0.5 });
        for line in [
            r#"vllm:num_requests_running{model_name="a\"b"} 3"#,
            r#"vllm:kv_cache_usage_perc{model_name="a\"b"} 0.5"#,
            r#"vllm:prompt_tokens_total{model_name="a\"b"} 12"#,
            r#"vllm:request_success_total{model_name="a\"b",finished_reason="length"} 1"#,
            r#"vllm:time_to_first_token_seconds_bucket{model_name="a\"b",le="0.005"} 0"#,
            r#"vllm:time_to_first_token_seconds_bucket{model_name="a\"b",le="0.01"} 1"#,
            r#"vllm:time_to_first_token_seconds_bucket{model_name="a\"b",le="2560.0"} 2"#,
            r#"vllm:time_to_first_token_seconds_bucket{model_name="a\"b",le="+Inf"} 3"#,
            r#"vllm:time_to_first_token_seconds_count{model_name="a\"b"} 3"#,
            "# TYPE vllm:inter_token_latency_seconds histogram",
        ] {
            assert!(page.lines().any(|found| found == line), "no `{line}` in\n{page}");
        }
    }
}
