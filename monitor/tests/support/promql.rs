//! PromQL against docs/metrics.md: whether a query parses and names only metrics, labels and values that there are.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::{
    label::MatchOp,
    parser::{self, BinaryExpr, Expr, LabelModifier, VectorSelector},
    util::{ExprVisitor, walk_expr},
};

use crate::document::{Told, document, exposed, processes, quoted, section};

/// What Prometheus adds to every series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Every series a query may name, with its labels and their values.
pub(crate) struct Metrics(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Metrics {
    /// Those of docs/metrics.md, and what these recording rules make of them, by name; a rule's fault is the error.
    pub(crate) fn documented(rules: &[(String, String)]) -> Result<Self, String> {
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
        series.extend(prometheus());
        let mut metrics = Self(series);
        for (name, query) in rules {
            let expr = parser::parse(query).map_err(|error| format!("{name} does not parse: {error}"))?;
            let labels = metrics.labels_of(&expr).map_err(|fault| format!("{name}: {fault}"))?;
            metrics
                .0
                .insert(name.clone(), labels.into_iter().map(|label| (label, BTreeSet::new())).collect());
        }
        Ok(metrics)
    }

    /// What is wrong with a query, if anything.
    pub(crate) fn check(&self, query: &str) -> Result<(), String> {
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
                let wanted: Vec<&str> = match matcher.op {
                    MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
                    _ if matcher.value.contains(['.', '*']) => Vec::new(),
                    _ => matcher.value.split('|').collect(),
                };
                if let Some(none) =
                    wanted.iter().find(|value| !values.is_empty() && !values.contains(**value))
                {
                    return Err(format!("no value {none} of {name}'s {}", matcher.name));
                }
            }
            labels.extend(known.keys().cloned());
        }
        Ok(labels)
    }
}

/// What Prometheus makes itself.
fn prometheus() -> [(String, BTreeMap<String, BTreeSet<String>>); 2] {
    let open = ["alertname", "severity", "side", "proxy", "upstream", "workload"];
    let mut alerts: BTreeMap<_, _> = open.map(|label| (label.to_owned(), BTreeSet::new())).into();
    alerts.insert("alertstate".to_owned(), ["firing", "pending"].map(str::to_owned).into());
    [("up".to_owned(), BTreeMap::new()), ("ALERTS".to_owned(), alerts)]
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
                match &modifier.matching {
                    Some(LabelModifier::Include(on)) => {
                        expect(&left, &on.labels)?;
                        expect(&right, &on.labels)?;
                    }
                    // What only one side has is what is left out.
                    Some(LabelModifier::Exclude(ignored)) => {
                        expect(&left.union(&right).cloned().collect(), &ignored.labels)?;
                    }
                    None => {}
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
