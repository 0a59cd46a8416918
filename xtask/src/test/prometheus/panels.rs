//! Every query of the dashboards, as Grafana would send it with everything chosen.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::host;

/// What Grafana puts in itself.
const RATE_INTERVAL: &str = "10s";

/// A query and where it stands.
pub(super) struct Query {
    /// "finwatch pair: Who closes".
    pub(super) panel: String,
    pub(super) expr: String,
}

/// The queries of all panels, annotations and variables; `range` is the time shown.
pub(super) fn queries(range: u64) -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(host::root().join("dashboards")).context("dashboards/")? {
        let path = entry.context("dashboards/")?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let dashboard: Value = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        let title = dashboard["title"].as_str().unwrap_or_default();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for panel in list(&dashboard["panels"]) {
            let name = format!("{title}: {}", panel["title"].as_str().unwrap_or_default());
            for target in list(&panel["targets"]) {
                queries.push((name.clone(), target["expr"].clone()));
            }
        }
        for annotation in list(&dashboard["annotations"]["list"]) {
            if annotation["expr"].is_string() {
                let name = annotation["name"].as_str().unwrap_or_default();
                queries.push((format!("{title}: annotation {name}"), annotation["expr"].clone()));
            }
        }
        for variable in list(&dashboard["templating"]["list"]) {
            if let Some(asked) = variable["query"]["query"].as_str() {
                let name = variable["name"].as_str().unwrap_or_default();
                queries.push((format!("{title}: variable {name}"), series(asked)?.into()));
            }
        }
    }
    queries
        .into_iter()
        .map(|(panel, expr)| {
            let expr = expr.as_str().with_context(|| format!("{panel}: a query without text"))?;
            let expr = substituted(expr, range);
            ensure!(!expr.contains('$'), "{panel}: an unknown variable in {expr}");
            Ok(Query { panel, expr })
        })
        .collect()
}

/// `label_values(series, label)` as a query.
fn series(asked: &str) -> Result<String> {
    let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (series, label) =
        inner.and_then(|inner| inner.rsplit_once(", ")).context("label_values(series, label)")?;
    Ok(format!("count by ({label}) ({series})"))
}

fn substituted(expr: &str, range: u64) -> String {
    let mut text = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$__range", &format!("{range}s"));
    for name in ["instance", "side", "proxy", "upstream", "workload"] {
        text = text.replace(&format!("${name}"), ".*");
    }
    text
}
