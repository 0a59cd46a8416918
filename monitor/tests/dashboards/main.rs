//! The dashboards: the code that makes them (`UPDATE_DOCS=1 cargo test -p finwatch --test dashboards` writes the files),
//! and what they are held to: they ask only for what docs/metrics.md promises, in PromQL that parses.

#[path = "../support/document.rs"]
mod document;
#[path = "../support/promql.rs"]
mod promql;

mod agent;
mod frame;
mod overview;
mod pair;
mod panel;
mod query;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use serde_json::Value;

use document::exposed;
use promql::Metrics;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
/// What Grafana puts in itself, with a value it might have; `$name` of the dashboard's variables becomes `.*`.
const BUILT_IN: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__range", "6h")];
/// The newest schema of the dashboards that are no Kubernetes resources.
const SCHEMA_VERSION: u64 = 42;

#[test]
fn the_files_are_what_the_code_makes() {
    let mut made = BTreeMap::new();
    for dashboard in [overview::overview(), pair::pair(), agent::agent()] {
        made.insert(format!("finwatch-{}.json", dashboard.name), dashboard.text());
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        for (file, text) in &made {
            fs::write(Path::new(DIRECTORY).join(file), text).expect("dashboards/ can be written");
        }
    }
    let files: BTreeMap<String, String> = dashboards()
        .into_iter()
        .map(|(file, _)| {
            let text = fs::read_to_string(Path::new(DIRECTORY).join(&file)).expect("UTF-8");
            (file, text)
        })
        .collect();
    assert!(files.keys().eq(made.keys()), "dashboards/ has {:?}", files.keys());
    for (file, text) in &made {
        assert!(
            files[file] == *text,
            "{file} is not current: UPDATE_DOCS=1 cargo test -p finwatch --test dashboards"
        );
    }
}

#[test]
fn every_dashboard_asks_for_documented_metrics_only() {
    let metrics = Metrics::documented(&[]).expect("no rules");
    for (file, dashboard) in dashboards() {
        for query in queries(&dashboard) {
            let text = substituted(&dashboard, &query);
            if let Err(fault) = metrics.check(&text) {
                panic!("{file}: {fault}\nin {query}");
            }
        }
    }
}

#[test]
fn every_dashboard_can_be_imported() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        let uid = dashboard["uid"].as_str().filter(|uid| !uid.is_empty() && uid.len() <= 40);
        assert!(
            uid.is_some_and(|uid| uids.insert(uid.to_owned())),
            "{file}: its uid is missing or not its own"
        );
        assert!(dashboard["id"].is_null(), "{file}: the id is the server's to give");
        assert_eq!(dashboard["schemaVersion"].as_u64(), Some(SCHEMA_VERSION), "{file}");
        for text in ["title", "description"] {
            assert!(dashboard[text].as_str().is_some_and(|text| !text.is_empty()), "{file}: no {text}");
        }
        for trap in ["__inputs", "__requires", "__elements"] {
            assert!(dashboard.get(trap).is_none(), "{file}: {trap} cannot be provisioned from a file");
        }
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().expect("a title");
            assert!(panel["id"].as_u64().is_some_and(|id| ids.insert(id)), "{file}: {title}: id not its own");
            assert!(titles.insert(title), "{file}: {title} twice");
            if panel["type"] != "row" {
                let targets = panel["targets"].as_array().expect("queries");
                let asked: BTreeSet<_> = targets.iter().map(|target| target["expr"].as_str()).collect();
                assert!(!asked.is_empty() && asked.len() == targets.len(), "{file}: {title} asks twice");
                assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{file}: {title}");
                assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {title}: no unit");
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
            }
        }
        assert!(!ids.is_empty(), "{file}: no panels");
    }
}

#[test]
fn panels_do_not_overlap() {
    for (file, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in panels(&dashboard) {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
            assert!(x + w <= 24, "{file}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{file}: {}", panel["title"]);
            }
        }
    }
}

#[test]
fn every_family_is_shown() {
    let all: String = dashboards().iter().flat_map(|(_, dashboard)| queries(dashboard)).collect();
    for name in exposed().into_keys() {
        assert!(all.contains(&name), "no panel shows {name}");
    }
}

#[test]
fn dashboards_lead_to_each_other_with_what_was_chosen() {
    let dashboards = dashboards();
    let uids: BTreeSet<&str> =
        dashboards.iter().filter_map(|(_, dashboard)| dashboard["uid"].as_str()).collect();
    for (file, dashboard) in &dashboards {
        let links = dashboard["links"].as_array().expect("links");
        assert!(
            links.iter().any(|link| link["tags"][0] == "finwatch" && link["includeVars"] == true),
            "{file}"
        );
        assert_eq!(dashboard["tags"][0], "finwatch", "{file}");
        let annotations = dashboard["annotations"]["list"].as_array().expect("annotations");
        let alerts = |one: &Value| one["expr"].as_str().is_some_and(|expr| expr.starts_with("ALERTS{"));
        assert!(annotations.iter().any(alerts), "{file}: no annotations from alerts");
        let names: Vec<&str> =
            variables(dashboard).filter_map(|variable| variable["name"].as_str()).collect();
        assert_eq!(names[..2], ["datasource", "instance"], "{file}");
        if dashboard["uid"] != "finwatch-agent" {
            assert_eq!(names[2..], ["side", "proxy", "upstream", "workload"], "{file}");
        }
        let mut urls = Vec::new();
        collect(dashboard, "url", &mut urls);
        for url in urls.iter().filter_map(|url| url.strip_prefix("/d/")) {
            assert!(uids.contains(url.split('/').next().expect("a uid")), "{file}: {url}");
            for name in url.split("&var-").skip(1).filter_map(|rest| rest.split('=').next()) {
                assert!(names.contains(&name), "{file}: {url} sets {name}");
            }
        }
    }
}

/// The test must be able to fail: each of these has one fault.
#[test]
fn faults_are_found() {
    let metrics = Metrics::documented(&[]).expect("no rules");
    let faulty = [
        ("finwatch_pears", "no metric"),
        ("finwatch_socket", "no metric"),
        ("down", "no metric"),
        ("finwatch_pairs{", "does not parse"),
        ("rate(finwatch_peer_close_idle_seconds[5m])", "no metric"),
        ("finwatch_pairs_bucket", "no metric"),
        (r#"finwatch_pairs{upstream="10.0.0.1:80"}"#, "no label"),
        (r#"finwatch_connections_closed_total{by="nobody"}"#, "no value"),
        (r#"finwatch_connections_closed_total{by=~"peer|nobody"}"#, "no value"),
        ("sum by (reason) (finwatch_connections_closed_total)", "no label"),
        ("finwatch_pairs / on (side) finwatch_pairs_limit", "no label"),
        ("finwatch_pairs / on (instance) group_left (side) finwatch_pairs_limit", "no label"),
        ("topk(scalar(finwatch_pears), finwatch_pairs)", "no metric"),
        (r#"{side="proxy"}"#, "no name"),
        (r#"{__name__=~"finwatch_pairs|finwatch_pears"}"#, "no metric"),
        ("finwatch_pairs_folded_total + $unknown", "does not parse"),
    ];
    for (query, fault) in faulty {
        let found = metrics.check(query).expect_err(query);
        assert!(found.contains(fault), "{query}: {found}");
    }
    let good = "sum by (le, side) (rate(finwatch_peer_close_idle_seconds_bucket{instance=~\".*\"}[5m]))";
    assert_eq!(metrics.check(good), Ok(()));
}

/// Every dashboard, with its file's name.
fn dashboards() -> Vec<(String, Value)> {
    let files =
        fs::read_dir(Path::new(DIRECTORY)).expect("dashboards/").map(|entry| entry.expect("a file").path());
    let dashboards: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let dashboard =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, dashboard)
        })
        .collect();
    assert!(!dashboards.is_empty());
    dashboards
}

/// Rows, what is folded into them, and all other panels.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().expect("panels").iter();
    top.flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()))
        .collect()
}

/// Every query: of panels, annotations and variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(dashboard, "expr", &mut found);
    assert!(!found.is_empty());
    for variable in variables(dashboard).filter(|variable| variable["type"] == "query") {
        let query = variable["query"]["query"].as_str().expect("a query");
        assert_eq!(variable["definition"], query);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) =
            inner.and_then(|inner| inner.rsplit_once(',')).expect("label_values(series, label)");
        found.push(format!("count by ({}) ({selector})", label.trim()));
    }
    found
}

/// Whatever is called so, at any depth: none can hide.
fn collect(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name).map(|text| text.as_str().expect("text").to_owned()));
            fields.values().for_each(|field| collect(field, name, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        _ => {}
    }
}

fn variables(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["templating"]["list"].as_array().into_iter().flatten()
}

/// The query as Grafana sends it. What stands for nothing remains, and does not parse or names nothing.
fn substituted(dashboard: &Value, query: &str) -> String {
    let mut text = query.to_owned();
    for (name, value) in BUILT_IN {
        text = text.replace(name, value);
    }
    for name in variables(dashboard).filter_map(|variable| variable["name"].as_str()) {
        for (from, to) in [("${name}", ".*"), ("\"$name\"", "\".*\""), ("\"$name|\"", "\".*|\"")] {
            text = text.replace(&from.replace("name", name), to);
        }
    }
    assert!(!text.contains('$'), "an unknown variable in {query}");
    text
}
