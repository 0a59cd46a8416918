//! What all dashboards have: variables, links, annotations, and panels in rows.

use serde_json::{Value, json};

use crate::{
    panel::Panel,
    query::{datasource, expand},
};

/// The repository's folder of documents.
const DOCS: &str = "https://github.com/finwatch/finwatch/blob/main/docs";
/// What every pair has some of, sooner or later.
const ANY: &str = r#"__name__=~"finwatch_connections_opened_total|finwatch_connections_closed_total|finwatch_connect_failures_total""#;

/// A dashboard.
pub(crate) struct Dashboard {
    /// The end of its file's name and of its uid.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) about: &'static str,
    /// Rows: what each is about, and its panels.
    pub(crate) rows: Vec<(&'static str, Vec<Panel>)>,
}

impl Dashboard {
    /// Its JSON, as files have it.
    pub(crate) fn text(self) -> String {
        let text = serde_json::to_string_pretty(&self.json()).expect("JSON");
        text + "\n"
    }

    fn json(self) -> Value {
        let name = self.name;
        json!({
            "uid": format!("finwatch-{name}"),
            "title": format!("finwatch {name}"),
            "description": self.about,
            "tags": ["finwatch"],
            "id": null,
            "version": 1,
            "schemaVersion": 42,
            "editable": true,
            "graphTooltip": 1,
            "fiscalYearStartMonth": 0,
            "weekStart": "",
            "timezone": "browser",
            "preload": false,
            "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" },
            "timepicker": {},
            "links": links(),
            "annotations": { "list": annotations(name) },
            "templating": { "list": variables(name) },
            "panels": placed(self.rows),
        })
    }
}

/// Panels from the left, in lines from above, each row below its title.
fn placed(rows: Vec<(&'static str, Vec<Panel>)>) -> Vec<Value> {
    let mut placed = Vec::new();
    let mut y = 0;
    for (title, panels) in rows {
        placed.push(json!({
            "id": placed.len() + 1, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
        }));
        y += 1;
        let (mut x, mut line) = (0, 0);
        for panel in panels {
            let (width, height) = panel.extent();
            if x + width > 24 {
                (x, y, line) = (0, y + line, 0);
            }
            placed.push(panel.at(placed.len() as u64 + 1, x, y));
            (x, line) = (x + width, line.max(height));
        }
        y += line;
    }
    placed
}

fn links() -> Value {
    let link = |kind: &str, title: &str, url: &str, tags: &[&str], tooltip: &str| {
        json!({
            "type": kind, "title": title, "url": url, "tags": tags, "tooltip": tooltip,
            "icon": if kind == "link" { "doc" } else { "external link" },
            "asDropdown": false, "targetBlank": kind == "link", "includeVars": true, "keepTime": true,
        })
    };
    json!([
        link(
            "dashboards",
            "finwatch",
            "",
            &["finwatch"],
            "The other dashboards, with the same hosts and pairs"
        ),
        link(
            "link",
            "Runbooks",
            &format!("{DOCS}/runbooks.md"),
            &[],
            "What each alert means, and what to do"
        ),
        link("link", "Metrics", &format!("{DOCS}/metrics.md"), &[], "What each metric counts"),
    ])
}

fn annotations(name: &str) -> Value {
    // Alerts about hosts have no pair: the empty alternative takes them in.
    let about = if name == "agent" { "" } else { r#",proxy=~"$proxy|",upstream=~"$upstream|""# };
    let alerts = format!(r#"ALERTS{{alertname=~"Finwatch.+",alertstate="firing",HOST{about}}}"#);
    let started =
        "changes(process_start_time_seconds{HOST}[RATE]) > 0 and on (job, instance) finwatch_build_info";
    let query = |name: &str, color: &str, expr: &str, title: &str, text: &str| {
        json!({
            "datasource": datasource(), "enable": true, "hide": false, "iconColor": color, "name": name,
            "expr": expand(expr), "step": "60s", "titleFormat": title, "textFormat": text,
        })
    };
    json!([
        {
            "builtIn": 1,
            "datasource": { "type": "grafana", "uid": "-- Grafana --" },
            "enable": true,
            "hide": true,
            "iconColor": "rgba(0, 211, 255, 1)",
            "name": "Annotations & Alerts",
            "type": "dashboard",
        },
        query("Alerts", "red", &alerts, "{{alertname}}", "{{instance}} {{proxy}} {{upstream}}"),
        query("Agent started", "purple", started, "finwatch started on {{instance}}", ""),
    ])
}

fn variables(dashboard: &str) -> Vec<Value> {
    let mut list = vec![json!({
        "name": "datasource", "label": "Data source", "description": "The Prometheus that reads the agents.",
        "type": "datasource", "query": "prometheus", "options": [], "regex": "", "refresh": 1,
        "multi": false, "includeAll": false, "skipUrlSync": false, "hide": 0,
    })];
    let mut asked = expand("HOST");
    list.push(variable(
        "instance",
        "Host",
        "The agents, as Prometheus names them.",
        "label_values(finwatch_build_info, instance)",
    ));
    if dashboard == "agent" {
        return list;
    }
    for (name, label, about) in [
        ("side", "Side", "proxy: connections that the host opened. upstream: those that it accepted."),
        ("proxy", "Proxy", "The opening end: a process, or on side = upstream an address."),
        ("upstream", "Upstream", "The accepting end."),
        ("workload", "Workload", "The local process's systemd unit, container or pod."),
    ] {
        list.push(variable(name, label, about, &format!("label_values({{{ANY},{asked}}}, {name})")));
        asked = format!("{asked},{name}=~\"${name}\"");
    }
    list
}

fn variable(name: &str, label: &str, about: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "description": about, "type": "query", "datasource": datasource(),
        "definition": query,
        "query": { "qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery" },
        "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        "options": [], "regex": "", "skipUrlSync": false, "hide": 0,
    })
}
