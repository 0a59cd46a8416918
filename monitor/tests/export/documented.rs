//! docs/metrics.md and /metrics tell the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
};

use finwatch_ebpf::wire::KEY_EXTERNAL;

use crate::{
    parsed::{Family, parse, text},
    support::{Pairs, Record, exporter, levels, proxy_key, upstream_key},
};

const PAIR_FAMILIES: [&str; 2] = ["## What happened to pairs", "### Sockets of pairs"];
const NAMESPACE_FAMILIES: &str = "### Queues and ports of namespaces";
const AGENT_FAMILIES: &str = "## The agent itself";
const PAIR_LABELS: [&str; 4] = ["side", "proxy", "upstream", "workload"];

/// Type, and values by label; no values where the document leaves them open.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).expect("docs/metrics.md")
}

fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let begin = document.find(&format!("\n{title}\n")).unwrap_or_else(|| panic!("no section {title}")) + 1;
    let rest = &document[begin + title.len()..];
    let end = ["\n## ", "\n### "].iter().filter_map(|next| rest.find(next)).min();
    &rest[..end.unwrap_or(rest.len())]
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of a section's table, by family.
fn table(section: &str) -> BTreeMap<String, Told> {
    let mut families = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        for name in quoted(cells[0]) {
            let told = Told { kind: cells[1].to_owned(), labels: labels(cells[2]) };
            assert!(families.insert(format!("finwatch_{name}"), told).is_none(), "{name} stands there twice");
        }
    }
    assert!(!families.is_empty());
    families
}

/// "`hook`, `mode`: `full`, `off`": what stands before a colon, or in a cell without one, is a label.
fn labels(cell: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (names, values) = cell.split_once(':').unwrap_or((cell, ""));
    let mut labels: BTreeMap<String, BTreeSet<String>> =
        quoted(names).map(|name| (name.to_owned(), BTreeSet::new())).collect();
    if let Some(last) = quoted(names).last() {
        labels.insert(last.to_owned(), quoted(values).map(str::to_owned).collect());
    }
    labels
}

/// What an exposition with everything in it shows, told as the document tells it.
fn shown(families: &[Family], text: &str, open: &[&str]) -> BTreeMap<String, Told> {
    families
        .iter()
        .filter(|family| family.name.starts_with("finwatch_"))
        .map(|family| {
            let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {} ", family.name)));
            let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (name, value) in family.samples.iter().flat_map(|sample| &sample.labels) {
                let values = labels.entry(name.clone()).or_default();
                if !open.contains(&name.as_str()) {
                    values.insert(value.clone());
                }
            }
            labels.remove("le");
            (family.name.clone(), Told { kind: kind.expect("a type").to_owned(), labels })
        })
        .collect()
}

fn everything() -> String {
    let mut external = upstream_key("::", "10.0.0.1", 443);
    external.flags = KEY_EXTERNAL;
    let records =
        [proxy_key(b"nginx", "10.0.0.1", 443), external].map(|key| Record::new(key).touched_everywhere());
    text(&exporter(Pairs(records.map(Some).into())).with_levels(Arc::new(levels(2)), 10))
}

#[test]
fn the_document_and_the_exposition_name_the_same_families_labels_and_values() {
    let document = document();
    let text = everything();
    let families = parse(&text);
    let mut told = BTreeMap::new();
    for (name, mut family) in PAIR_FAMILIES.into_iter().flat_map(|title| table(section(&document, title))) {
        family.labels.extend(PAIR_LABELS.map(|label| (label.to_owned(), BTreeSet::new())));
        told.insert(name, family);
    }
    told.extend(table(section(&document, NAMESPACE_FAMILIES)));
    told.extend(table(section(&document, AGENT_FAMILIES)));
    let open = [&PAIR_LABELS[..], &["program", "hook", "version", "revision", "netns", "src"]].concat();
    let shown = shown(&families, &text, &open);
    for (name, told) in &told {
        assert_eq!(Some(told), shown.get(name), "{name}: the document is left, /metrics right");
    }
    for name in shown.keys() {
        assert!(told.contains_key(name), "{name} does not stand in the document");
    }
}

#[test]
fn process_families_are_those_of_the_document() {
    let document = document();
    let agent = section(&document, AGENT_FAMILIES);
    let told: BTreeSet<&str> =
        quoted(agent).filter(|name| name.starts_with("process_") && !name.ends_with('*')).collect();
    let families = parse(&everything());
    let shown: BTreeSet<&str> = families
        .iter()
        .map(|family| family.name.as_str())
        .filter(|name| !name.starts_with("finwatch_"))
        .collect();
    assert_eq!(told, shown);
}

#[test]
fn values_of_side_stand_in_the_document() {
    let document = document();
    let labels = section(&document, "## Labels of every pair family");
    let families = parse(&everything());
    let sides: BTreeSet<&String> = families
        .iter()
        .flat_map(|family| &family.samples)
        .filter_map(|sample| sample.labels.get("side"))
        .collect();
    assert_eq!(sides.len(), 3);
    for side in sides {
        assert!(quoted(labels).any(|told| told == side), "{side}");
    }
}
