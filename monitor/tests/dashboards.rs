//! The dashboards ask only for what docs/metrics.md promises, in PromQL that parses.

#[path = "support/document.rs"]
mod document;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use promql_parser::{
    label::MatchOp,
    parser::{self, BinaryExpr, Expr, LabelModifier, VectorSelector},
    util::{ExprVisitor, walk_expr},
};
use serde_json::Value;

use document::{Told, document, exposed, processes, quoted, section};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards");
/// What Prometheus adds to every series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];
/// What Grafana puts in itself, with a value it might have; `$name` of the dashboard's variables becomes `.*`.
const BUILT_IN: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__range", "6h")];
/// The newest schema of the dashboards that are no Kubernetes resources.
const SCHEMA_VERSION: u64 = 42;
#[test]
fn every_dashboard_asks_for_documented_metrics_only() {
    let metrics = Metrics::documented();
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
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().expect("a title");
            assert!(panel["id"].as_u64().is_some_and(|id| ids.insert(id)), "{file}: {title}: id not its own");
            if panel["type"] != "row" {
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
fn every_family_of_pairs_is_shown() {
    let all: String = dashboards().iter().flat_map(|(_, dashboard)| queries(dashboard)).collect();
    for name in
        exposed().into_iter().filter(|(_, told)| told.labels.contains_key("side")).map(|(name, _)| name)
    {
        assert!(all.contains(&name), "no panel shows {name}");
    }
}

/// The test must be able to fail: each of these has one fault.
#[test]
fn faults_are_found() {
    let metrics = Metrics::documented();
    let faulty = [
        ("finwatch_pears", "no metric"),
        ("finwatch_socket", "no metric"),
        ("up", "no metric"),
        ("finwatch_pairs{", "does not parse"),
        ("rate(finwatch_peer_close_idle_seconds[5m])", "no metric"),
        ("finwatch_pairs_bucket", "no metric"),
        (r#"finwatch_pairs{upstream="10.0.0.1:80"}"#, "no label"),
        (r#"finwatch_connections_closed_total{by="nobody"}"#, "no value"),
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

/// Every series a query may name, with its labels and their values.
struct Metrics(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Metrics {
    fn documented() -> Self {
        let text = document();
        let mut series = BTreeMap::new();
        for (name, Told { kind, labels }) in exposed() {
            if kind == "histogram" {
                let mut with_le = labels.clone();
                with_le.insert("le".to_owned(), BTreeSet::new());
                series.insert(format!("{name}_bucket"), with_le);
                series.insert(format!("{name}_sum"), labels.clone());
                series.insert(format!("{name}_count"), labels);
            } else {
                series.insert(name, labels);
            }
        }
        series.extend(processes(&text).into_iter().map(|name| (name.to_owned(), BTreeMap::new())));
        // `side` tells its values in a section of its own, not in a table.
        let sides: BTreeSet<String> = quoted(section(&text, "## Labels of every pair family"))
            .filter(|word| ["proxy", "upstream", "none"].contains(word))
            .map(str::to_owned)
            .collect();
        for values in series.values_mut().filter_map(|labels| labels.get_mut("side")) {
            values.clone_from(&sides);
        }
        Self(series)
    }

    /// What is wrong with a query, if anything.
    fn check(&self, query: &str) -> Result<(), String> {
        let expr = parser::parse(query).map_err(|error| format!("does not parse: {error}"))?;
        self.labels_of(&expr).map(|_| ())
    }

    /// Checks an expression; returns the labels that its parts may have.
    fn labels_of(&self, expr: &Expr) -> Result<BTreeSet<String>, String> {
        let mut visitor = Visitor { metrics: self, labels: BTreeSet::new() };
        walk_expr(&mut visitor, expr)?;
        Ok(visitor.labels)
    }

    fn selector(&self, selector: &VectorSelector) -> Result<BTreeSet<String>, String> {
        let alternatives: Vec<&str> = if let Some(name) = &selector.name {
            vec![name]
        } else {
            let by_name = selector.matchers.matchers.iter().find(|matcher| matcher.name == "__name__");
            by_name.ok_or("no name")?.value.split('|').collect()
        };
        let mut labels: BTreeSet<String> = TARGET_LABELS.map(str::to_owned).into();
        for name in alternatives {
            let known = self.0.get(name).ok_or_else(|| format!("no metric {name} in docs/metrics.md"))?;
            for matcher in selector.matchers.matchers.iter().filter(|matcher| matcher.name != "__name__") {
                if TARGET_LABELS.contains(&matcher.name.as_str()) {
                    continue;
                }
                let values =
                    known.get(&matcher.name).ok_or_else(|| format!("no label {} of {name}", matcher.name))?;
                let exact = matches!(matcher.op, MatchOp::Equal | MatchOp::NotEqual);
                if exact && !values.is_empty() && !values.contains(&matcher.value) {
                    return Err(format!("no value {} of {name}'s {}", matcher.value, matcher.name));
                }
            }
            labels.extend(known.keys().cloned());
        }
        Ok(labels)
    }
}

struct Visitor<'a> {
    metrics: &'a Metrics,
    labels: BTreeSet<String>,
}

fn expect(available: &BTreeSet<String>, wanted: &[String]) -> Result<(), String> {
    match wanted.iter().find(|label| !available.contains(*label)) {
        Some(label) => Err(format!("no label {label} of what it is asked of")),
        None => Ok(()),
    }
}

impl ExprVisitor for Visitor<'_> {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.labels.extend(self.metrics.selector(selector)?),
            Expr::MatrixSelector(matrix) => self.labels.extend(self.metrics.selector(&matrix.vs)?),
            Expr::Aggregate(aggregate) => {
                let available = self.metrics.labels_of(&aggregate.expr)?;
                if let Some(LabelModifier::Include(by) | LabelModifier::Exclude(by)) = &aggregate.modifier {
                    expect(&available, &by.labels)?;
                }
                // The walk leaves the parameter out.
                if let Some(parameter) = &aggregate.param {
                    self.metrics.labels_of(parameter)?;
                }
            }
            Expr::Binary(BinaryExpr { lhs, rhs, modifier: Some(modifier), .. }) => {
                let (left, right) = (self.metrics.labels_of(lhs)?, self.metrics.labels_of(rhs)?);
                if let Some(LabelModifier::Include(on) | LabelModifier::Exclude(on)) = &modifier.matching {
                    expect(&left, &on.labels)?;
                    expect(&right, &on.labels)?;
                }
                if let Some(taken) = modifier.card.labels() {
                    expect(&right, &taken.labels)?;
                }
            }
            _ => {}
        }
        Ok(true)
    }
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
            (path.display().to_string(), dashboard)
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
    collect(dashboard, &mut found);
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

/// Whatever is called `expr`, at any depth: none can hide.
fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").map(|expr| expr.as_str().expect("text").to_owned()));
            fields.values().for_each(|field| collect(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
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
        text = text.replace(&format!("${{{name}}}"), ".*").replace(&format!("\"${name}\""), "\".*\"");
    }
    assert!(!text.contains('$'), "an unknown variable in {query}");
    text
}
