//! The numbers of one case's charts, to five digits: more cannot be seen. Pure.

use serde_json::{Value, json};

use super::{Case, Session};
use crate::charts::{Bars, GapHeat, Waterfall};
use crate::compare::Change;
use crate::report::{LatencyReport, Report, SloReport};
use crate::series::Series;

/// The latencies that have a chart, with their titles.
const LATENCIES: [(&str, &str); 3] = [("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "E2E")];
/// What is drawn of GPUs, of the server and of the client's machine.
const GPU: [&str; 1] = ["utilization_percent"];
const SERVER: [&str; 3] = ["requests_running", "requests_waiting", "kv_cache_usage"];
/// The most readings of a line.
const READINGS: usize = 300;
/// The most sessions and metrics of a history.
const SESSIONS: usize = 100;
const METRICS: [&str; 4] = ["ttft.p50", "ttft.p99", "tpot.mean", "output_throughput"];

/// The data of a case that was measured.
pub(super) fn of(case: &Case<'_>, report: &Report) -> Value {
    let own = &report.servebench;
    json!({
        "distributions": LATENCIES
            .into_iter()
            .filter_map(|(name, title)| distribution(name, title, report, case.before))
            .collect::<Vec<_>>(),
        "against": own.comparison.as_ref().map(|comparison| &comparison.against),
        "timeline": timeline(report),
        "waterfall": waterfall(&own.waterfall),
        "heat": own.chunk_gap_heat.as_ref().map(heat),
        "history": history(&case.history, &own.history_changes),
    })
}

/// A number to five digits; `null` where it is none.
pub(super) fn short(value: f64) -> Value {
    format!("{value:.4e}").parse::<f64>().map_or(Value::Null, Value::from)
}

fn shorts(values: &[f64]) -> Value {
    values.iter().map(|value| short(*value)).collect()
}

fn shorts_or_null(values: &[Option<f64>]) -> Value {
    values.iter().map(|value| value.map_or(Value::Null, short)).collect()
}

fn distribution(
    name: &str,
    title: &str,
    report: &Report,
    before: Option<&Report>,
) -> Option<Value> {
    let curve = |report: &Report| {
        let latency = report.servebench.latencies.get(name);
        latency.map_or(Value::Null, |LatencyReport { curve_ms, .. }| shorts(curve_ms))
    };
    let own = &report.servebench;
    let latency = own.latencies.get(name).filter(|latency| !latency.curve_ms.is_empty())?;
    let bars = latency
        .bars
        .as_ref()
        .map(|Bars { edges_ms, counts }| json!({ "edges_ms": shorts(edges_ms), "counts": counts }));
    Some(json!({
        "name": name,
        "title": title,
        "curve_ms": curve(report),
        "before_ms": before.map(curve),
        "bars": bars,
        "limits": own.slos.iter().filter_map(|slo| limit(name, slo)).collect::<Vec<_>>(),
    }))
}

/// The line of an objective, and on which height of the curve it is judged.
fn limit(latency: &str, slo: &SloReport) -> Option<Value> {
    let statistic = slo.slo.split(' ').next()?.strip_prefix(latency)?.strip_prefix('.')?;
    let percent = statistic.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok());
    Some(json!({
        "label": slo.slo.split_once('.')?.1,
        "ms": short(slo.limit),
        "percent": percent,
        "missed": slo.finding == "missed",
    }))
}

fn timeline(report: &Report) -> Value {
    let own = &report.servebench;
    let steady = own.steady_state.as_ref();
    let sources = |kind: &'static str, columns: &'static [&str]| -> Vec<Value> {
        let sources = own.telemetry.sources.iter().filter(|source| source.kind == kind);
        let drawn = sources.filter(|source| {
            columns.iter().any(|column| source.series.columns.contains_key(*column))
        });
        drawn
            .map(|source| {
                let mut drawn = series(&source.series.decimated(READINGS), columns);
                drawn["name"] = json!(source.source);
                drawn["counts"] = json!(source.counts);
                drawn
            })
            .collect()
    };
    let columns = ["output_tokens_per_s", "in_flight", "failed_per_s"];
    let mut timeline = series(&own.timeline, &columns);
    timeline["steady_s"] =
        steady.map_or(Value::Null, |it| shorts(&[it.from.as_secs_f64(), it.to.as_secs_f64()]));
    timeline["gpus"] = json!(sources("gpu", &GPU));
    timeline["servers"] = json!(sources("server", &SERVER));
    timeline
}

fn series(series: &Series, columns: &[&str]) -> Value {
    let columns = columns.iter().filter_map(|name| Some((name, series.columns.get(*name)?)));
    let columns = columns.map(|(name, values)| ((*name).to_owned(), shorts_or_null(values)));
    json!({ "at_s": shorts(&series.at_s), "columns": columns.collect::<serde_json::Map<_, _>>() })
}

fn waterfall(waterfall: &Waterfall) -> Value {
    json!({
        "of": waterfall.of,
        "scheduled_s": shorts(&waterfall.scheduled_s),
        "sent_s": shorts(&waterfall.sent_s),
        "first_token_s": shorts_or_null(&waterfall.first_token_s),
        "ended_s": shorts(&waterfall.ended_s),
        "failure": waterfall.failure,
    })
}

fn heat(heat: &GapHeat) -> Value {
    json!({
        "time_edges_s": shorts(&heat.time_edges_s),
        "gap_edges_ms": shorts(&heat.gap_edges_ms),
        "counts": heat.counts,
    })
}

/// `null` for fewer than two sessions.
fn history(sessions: &[Session], changes: &[Change]) -> Value {
    let sessions = &sessions[sessions.len().saturating_sub(SESSIONS)..];
    if sessions.len() < 2 {
        return Value::Null;
    }
    let metrics = METRICS.into_iter().map(|metric| {
        let levels: Vec<Option<f64>> =
            sessions.iter().map(|session| session.levels.get(metric).copied()).collect();
        let changes: Vec<Value> = changes
            .iter()
            .filter(|change| change.metric == metric)
            .map(|change| {
                json!({
                    "since": change.since,
                    "before": short(change.before),
                    "after": short(change.after),
                    "percent": short(change.percent),
                    "worse": change.worse,
                })
            })
            .collect();
        json!({ "metric": metric, "levels": shorts_or_null(&levels), "changes": changes })
    });
    json!({
        "dates": sessions.iter().map(|session| session.date.as_str()).collect::<Vec<_>>(),
        "metrics": metrics.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_five_digits_and_what_is_none_is_null() {
        assert_eq!(shorts(&[1234.5678, 0.000_012_345_6]).to_string(), "[1234.6,0.000012346]");
        assert_eq!(shorts(&[f64::NAN, f64::INFINITY]), json!([null, null]));
    }

    #[test]
    fn an_objective_stands_at_its_limit_and_its_share() {
        let slo = |slo: &str| SloReport {
            step: None,
            slo: slo.to_owned(),
            finding: "missed".to_owned(),
            value: None,
            shown: String::new(),
            limit: 500.0,
            margin_ratio: None,
            undecided: false,
            more_requests_needed: None,
            least_requests: None,
            effective_requests: None,
            interval: None,
            reason: None,
        };
        let line = limit("ttft", &slo("ttft.p99.9 < 500ms")).unwrap();
        let expected =
            json!({"label": "p99.9 < 500ms", "ms": 500.0, "percent": 99.9, "missed": true});
        assert_eq!(line, expected);
        assert_eq!(limit("ttft", &slo("ttft.mean < 500ms")).unwrap()["percent"], Value::Null);
        assert_eq!(limit("ttft", &slo("scheduled_ttft.p99 < 500ms")), None);
        assert_eq!(limit("ttft", &slo("error_ratio == 0")), None);
    }
}
