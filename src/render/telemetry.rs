//! The lines about what was read of GPUs and of the server beside the table of a case.

use crate::report::{Report, SourceReport};

/// What the three lines of the table say: the mean utilization over the GPUs that count, %; the most memory
/// that was in use of one, and the least that was free, MiB. `None` where no GPU was to be read.
pub fn gpu_figures(report: &Report) -> Option<[Option<f64>; 3]> {
    let telemetry = &report.servebench.telemetry;
    let asked = telemetry.absent.contains_key("gpu")
        || telemetry.sources.iter().any(|source| source.kind == "gpu");
    asked.then(|| {
        let all = |field: &Option<Vec<f64>>| field.clone().unwrap_or_default().into_iter();
        let count = all(&report.gpu_utilization).count() as f64;
        [
            (0.0 < count).then(|| all(&report.gpu_utilization).sum::<f64>() / count),
            all(&report.peak_gpu_memory_mib).reduce(f64::max),
            all(&report.available_gpu_memory_mib).reduce(f64::min),
        ]
    })
}

/// The lines below the table.
pub fn lines(report: &Report) -> Vec<String> {
    let telemetry = &report.servebench.telemetry;
    let mut lines = Vec::new();
    for source in &telemetry.sources {
        lines.extend(match source.kind.as_str() {
            "gpu" => Some(gpu_line(source)),
            "server" if source.counts => server_line(source),
            _ => None,
        });
    }
    lines.extend(speculation_line(report));
    lines.extend(energy_line(report));
    if let Some(reason) = telemetry.absent.get("gpu") {
        lines.push(format!("gpu      none was read: {reason}"));
    }
    lines.extend(latency_line(report));
    lines
}

fn gpu_line(source: &SourceReport) -> String {
    let figure = |column: &str| source.figures.get(column);
    let mut parts = Vec::new();
    if let Some(utilization) = figure("utilization_percent") {
        parts.push(format!("{:.0} % busy", utilization.mean));
    }
    if let Some(memory) = figure("memory_used_mib") {
        parts.push(format!("{:.0} MiB at most", memory.max));
    }
    if let Some(power) = figure("power_w") {
        parts.push(format!("{:.0} W", power.mean));
    }
    if let Some(temperature) = figure("temperature_c") {
        parts.push(format!("{:.0} °C at most", temperature.max));
    }
    if let Some(throttled) = figure("throttled").filter(|throttled| 0.0 < throttled.max) {
        parts.push(format!("held back in {:.0} % of the readings", 100.0 * throttled.mean));
    }
    if !source.counts {
        parts.push("not of the server".to_owned());
    }
    format!("{:<8} {}: {}", source.source, source.what, parts.join(", "))
}

/// `None` where nothing is known that people ask for.
fn server_line(source: &SourceReport) -> Option<String> {
    let figure = |column: &str| source.figures.get(column);
    let mut parts = Vec::new();
    for (column, name) in [("requests_running", "running"), ("requests_waiting", "waiting")] {
        if let Some(figure) = figure(column) {
            parts.push(format!(
                "{name} {:.1} on average and {:.0} at most",
                figure.mean, figure.max
            ));
        }
    }
    if let Some(usage) = figure("kv_cache_usage") {
        parts.push(format!("KV cache {:.0} % full at most", 100.0 * usage.max));
    }
    if let Some(preemptions) = figure("preemptions").filter(|figure| 0.0 < figure.max) {
        parts.push(format!("{:.0} preemptions", preemptions.max - preemptions.min));
    }
    (!parts.is_empty()).then(|| format!("server   {}: {}", source.what, parts.join(", ")))
}

/// What became of the drafts; `None` where the server counts none.
fn speculation_line(report: &Report) -> Option<String> {
    let own = &report.servebench;
    let speculation = own.telemetry.speculation.as_ref()?;
    let scalar = |name: &str| own.scalars.get(name).copied().flatten();
    let accepted = scalar("spec_acceptance_ratio")?;
    let mut line = format!("server   {:.0} % of the drafts' tokens accepted", 100.0 * accepted);
    if let Some(ratios) = &speculation.accepted_ratio_by_position {
        let ratios: Vec<_> = ratios.iter().map(|ratio| format!("{:.0}", 100.0 * ratio)).collect();
        line.push_str(&format!(" (by position {} %)", ratios.join(", ")));
    }
    if let Some(length) = scalar("spec_accepted_length") {
        line.push_str(&format!(", {length:.2} tokens a step"));
    }
    if let Some(drafts) = speculation.drafts {
        line.push_str(&format!(", {drafts} drafts"));
    }
    Some(line)
}

fn energy_line(report: &Report) -> Option<String> {
    let scalar = |name: &str| report.servebench.scalars.get(name).copied().flatten();
    let per_token = scalar("energy_per_output_token")?;
    let per_joule = scalar("output_tokens_per_joule")?;
    Some(format!("energy   {per_token:.3} J per output token, {per_joule:.2} tok/s per W"))
}

/// The server's own TTFT beside the client's: what is between them is its front, the network and the client.
fn latency_line(report: &Report) -> Option<String> {
    let own = report.servebench.telemetry.server_latencies.get("ttft")?;
    let here = report.mean_ttft_ms?;
    let mut line = format!(
        "server   TTFT by its own count: mean {:.2} ms of {} requests, here {here:.2} ms",
        own.mean_ms, own.count
    );
    if own.count == report.completed {
        // Its front may be before the count: that of MAX is a process of its own.
        let between = here - own.mean_ms;
        line.push_str(&format!("; {between:+.2} ms are its front's, the network's and ours"));
    }
    if let Some(queue) = report.servebench.telemetry.server_latencies.get("queue_time") {
        line.push_str(&format!("; {:.2} ms of it queued", queue.mean_ms));
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::completed;
    use crate::render::tests::report;
    use crate::summary::tests::counted;
    use crate::telemetry::Speculation;

    #[test]
    fn a_line_says_what_became_of_the_drafts() {
        let mut report = report("sharegpt", &[counted(completed(&[60, 70]), 2)]);
        assert_eq!(speculation_line(&report), None);
        let own = &mut report.servebench;
        own.scalars.insert("spec_acceptance_ratio".to_owned(), Some(0.4));
        own.scalars.insert("spec_accepted_length".to_owned(), Some(2.2));
        let mut speculation = Speculation {
            drafts: Some(100),
            draft_tokens: Some(300),
            accepted_tokens: Some(120),
            accepted_ratio_by_position: Some(vec![0.7, 0.4, 0.1]),
        };
        own.telemetry.speculation = Some(speculation.clone());
        assert_eq!(
            speculation_line(&report).unwrap(),
            "server   40 % of the drafts' tokens accepted (by position 70, 40, 10 %), 2.20 tokens a step, 100 drafts"
        );
        speculation.drafts = None;
        speculation.accepted_ratio_by_position = None;
        report.servebench.telemetry.speculation = Some(speculation);
        report.servebench.scalars.remove("spec_accepted_length");
        let line = speculation_line(&report).unwrap();
        assert_eq!(line, "server   40 % of the drafts' tokens accepted");
    }
}
