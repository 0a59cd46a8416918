//! What queries are written with, and Grafana's words for it.

use serde_json::{Value, json};

/// The series of the pairs chosen.
const PAIR: &str =
    r#"instance=~"$instance",side=~"$side",proxy=~"$proxy",upstream=~"$upstream",workload=~"$workload""#;
/// The series of the hosts chosen.
const HOST: &str = r#"instance=~"$instance""#;

/// The data source that the variable names.
pub(crate) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Puts matchers in place of `PAIR` and `HOST`, the time that a rate is over in place of `RATE`, the time shown in
/// place of `RANGE`.
pub(crate) fn expand(expr: &str) -> String {
    expr.replace("PAIR", PAIR)
        .replace("HOST", HOST)
        .replace("RATE", "$__rate_interval")
        .replace("RANGE", "$__range")
}

/// By how much a counter has grown over the time shown. A series that appeared meanwhile came from 0, which increase()
/// does not see, provided that the agent was there before.
pub(crate) fn grown(series: &str) -> String {
    format!(
        "(({series} unless {series} offset RANGE) and on (job, instance) (finwatch_build_info offset RANGE)) \
         or increase({series}[RANGE])"
    )
}

/// How many values a histogram took in above a bound, over the time shown.
pub(crate) fn grown_above(histogram: &str, matchers: &str, ms: u32) -> String {
    format!(
        "increase({histogram}_count{{{matchers}}}[RANGE]) \
         - ignoring (le) increase({histogram}_bucket{{{matchers},{}}}[RANGE])",
        at(ms)
    )
}

/// The matcher of a bucket by its bound, as Prometheus 2 writes it and as Prometheus 3 does.
pub(crate) fn at(ms: u32) -> String {
    let seconds = f64::from(ms) / 1_000.0;
    let text = seconds.to_string();
    if seconds.fract() == 0.0 { format!("le=~\"{text}|{text}[.]0\"") } else { format!("le=\"{text}\"") }
}
