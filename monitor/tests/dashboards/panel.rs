//! One panel, as Grafana's JSON has it.

use serde_json::{Value, json};

use crate::query::{self, expand};

/// A panel without its place, which [`crate::frame`] gives.
pub(crate) struct Panel {
    kind: &'static str,
    title: &'static str,
    unit: &'static str,
    about: String,
    width: u64,
    height: u64,
    targets: Vec<Value>,
    steps: Value,
    defaults: Value,
    columns: Vec<Column>,
    links: Value,
}

/// A column of a table: the query's field, its name, and its unit where it has one.
type Column = (&'static str, &'static str, Option<&'static str>);

/// Where a row of a table leads: the same pair, in detail.
const TO_PAIR: &str = "/d/finwatch-pair/finwatch-pair?${datasource:queryparam}&${__url_time_range}\
    &var-instance=${__data.fields.host}&var-side=${__data.fields.side}&var-proxy=${__data.fields.proxy}\
    &var-upstream=${__data.fields.upstream}";

impl Panel {
    fn new(kind: &'static str, title: &'static str, unit: &'static str, about: impl Into<String>) -> Self {
        Self {
            kind,
            title,
            unit,
            about: about.into(),
            width: 12,
            height: 8,
            targets: Vec::new(),
            steps: json!([{ "color": "green", "value": null }]),
            defaults: json!({}),
            columns: Vec::new(),
            links: json!([]),
        }
    }

    /// One value now.
    pub(crate) fn stat(title: &'static str, unit: &'static str, about: &str) -> Self {
        Self::new("stat", title, unit, about).size(4, 4)
    }

    /// Lines over time.
    pub(crate) fn lines(title: &'static str, unit: &'static str, about: &str) -> Self {
        Self::new("timeseries", title, unit, about)
    }

    /// Rows now, one for each series.
    pub(crate) fn table(title: &'static str, unit: &'static str, about: &str) -> Self {
        Self::new("table", title, unit, about)
    }

    /// A histogram over time.
    pub(crate) fn heatmap(title: &'static str, about: impl Into<String>) -> Self {
        Self::new("heatmap", title, "s", about).size(12, 9)
    }

    /// A bar for each query, over the time shown.
    pub(crate) fn bars(title: &'static str, unit: &'static str, about: impl Into<String>) -> Self {
        Self::new("bargauge", title, unit, about)
    }

    /// In cells, of which a row has 24.
    pub(crate) fn size(mut self, width: u64, height: u64) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// Its size.
    pub(crate) fn extent(&self) -> (u64, u64) {
        (self.width, self.height)
    }

    /// One query; see [`expand`] for what stands for what.
    pub(crate) fn query(mut self, expr: &str, legend: &str) -> Self {
        let number = self.targets.len();
        let now = matches!(self.kind, "stat" | "table" | "bargauge");
        let format = match self.kind {
            "table" => "table",
            "heatmap" => "heatmap",
            _ => "time_series",
        };
        self.targets.push(json!({
            "refId": reference(number),
            "datasource": query::datasource(),
            "editorMode": "code",
            "expr": expand(expr),
            "legendFormat": legend,
            "format": format,
            "range": !now,
            "instant": now,
        }));
        self
    }

    /// Another colour from these values on.
    pub(crate) fn from(mut self, steps: &[(f64, &str)]) -> Self {
        let first = std::iter::once(json!({ "color": "green", "value": null }));
        let more = steps.iter().map(|(value, color)| json!({ "color": color, "value": value }));
        self.steps = first.chain(more).collect();
        if self.kind == "timeseries" {
            self.defaults["custom"]["thresholdsStyle"] = json!({ "mode": "dashed" });
        }
        self
    }

    /// The end of the scale.
    pub(crate) fn max(mut self, max: f64) -> Self {
        self.defaults["max"] = json!(max);
        self
    }

    /// What stands there when there is nothing.
    pub(crate) fn or_else(mut self, text: &str) -> Self {
        self.defaults["noValue"] = json!(text);
        self
    }

    /// The columns of a table, in this order; other fields are left out.
    pub(crate) fn columns(mut self, columns: &[Column]) -> Self {
        self.columns = columns.to_vec();
        self
    }

    /// A row leads to its pair.
    pub(crate) fn leading_to_pair(mut self) -> Self {
        self.links = json!([{ "title": "The pair in detail", "url": TO_PAIR, "targetBlank": false }]);
        self
    }

    /// The panel at its place.
    pub(crate) fn at(self, id: u64, x: u64, y: u64) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            "min": 0,
            "color": { "mode": if self.kind == "timeseries" { "palette-classic" } else { "thresholds" } },
            "thresholds": { "mode": "absolute", "steps": self.steps },
            "custom": custom(self.kind),
            "links": self.links,
        });
        merge(&mut defaults, self.defaults);
        let overrides: Vec<Value> = self
            .columns
            .iter()
            .filter_map(|(_, name, unit)| Some((name, (*unit)?)))
            .map(|(name, unit)| {
                json!({
                    "matcher": { "id": "byName", "options": name },
                    "properties": [{ "id": "unit", "value": unit }],
                })
            })
            .collect();
        let mut panel = json!({
            "id": id,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": query::datasource(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "fieldConfig": { "defaults": defaults, "overrides": overrides },
            "options": options(self.kind),
            "targets": self.targets,
        });
        if !self.columns.is_empty() {
            panel["transformations"] = transformations(&self.columns);
        }
        panel
    }
}

/// A, B, ... Z.
fn reference(number: usize) -> String {
    let letter = u8::try_from(number).ok().and_then(|number| b'A'.checked_add(number));
    char::from(letter.filter(u8::is_ascii_uppercase).expect("at most 26 queries a panel")).to_string()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// One table of all queries, with the columns asked for, in their order.
fn transformations(columns: &[Column]) -> Value {
    let names: Vec<&str> = columns.iter().map(|(field, ..)| *field).collect();
    let order: Value =
        columns.iter().enumerate().map(|(at, (field, ..))| ((*field).to_owned(), json!(at))).collect();
    let renamed: Value = columns.iter().map(|(field, name, _)| ((*field).to_owned(), json!(name))).collect();
    json!([
        { "id": "merge", "options": {} },
        { "id": "filterFieldsByName", "options": { "include": { "names": names } } },
        {
            "id": "organize",
            "options": { "excludeByName": {}, "includeByName": {}, "indexByName": order, "renameByName": renamed },
        },
    ])
}

/// What a kind of panel draws.
fn custom(kind: &str) -> Value {
    match kind {
        "timeseries" => json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto", "spanNulls": false,
            "stacking": { "group": "A", "mode": "none" },
        }),
        "table" => json!({
            "align": "auto", "cellOptions": { "type": "auto" }, "inspect": false, "filterable": true,
        }),
        "heatmap" => json!({
            "hideFrom": { "legend": false, "tooltip": false, "viz": false },
            "scaleDistribution": { "type": "linear" },
        }),
        _ => json!({}),
    }
}

/// How a kind of panel shows it.
fn options(kind: &str) -> Value {
    let reduce = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
    match kind {
        "stat" => json!({
            "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
            "textMode": "value", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
            "reduceOptions": reduce,
        }),
        "timeseries" => json!({
            "legend": {
                "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["mean", "max"],
                "sortBy": "Max", "sortDesc": true,
            },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        "table" => json!({ "cellHeight": "sm", "frameIndex": 0, "showHeader": true }),
        "heatmap" => json!({
            "calculate": false, "cellGap": 1, "cellValues": { "unit": "cps" },
            "color": {
                "mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "fill": "dark-orange", "reverse": false,
                "scale": "exponential", "steps": 64,
            },
            "exemplars": { "color": "rgba(255,0,255,0.7)" },
            "filterValues": { "le": 1e-9 },
            "legend": { "show": true },
            "rowsFrame": { "layout": "auto" },
            "showValue": "never",
            "tooltip": { "mode": "single", "showColorScale": true, "yHistogram": true },
            "yAxis": { "axisPlacement": "left", "reverse": false, "unit": "s" },
        }),
        "bargauge" => json!({
            "displayMode": "basic", "valueMode": "color", "namePlacement": "left", "showUnfilled": true,
            "sizing": "auto", "minVizWidth": 8, "minVizHeight": 12, "maxVizHeight": 30, "orientation": "horizontal",
            "legend": { "displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": [] },
            "reduceOptions": reduce,
        }),
        other => panic!("no kind of panel: {other}"),
    }
}
