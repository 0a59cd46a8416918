//! Reads docs/metrics.md, to which others are held.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

const PAIR_FAMILIES: [&str; 2] = ["## What happened to pairs", "### Sockets of pairs"];
const NAMESPACE_FAMILIES: &str = "### Queues and ports of namespaces";
const AGENT_FAMILIES: &str = "## The agent itself";
/// The labels of every family of pairs.
pub(crate) const PAIR_LABELS: [&str; 4] = ["side", "proxy", "upstream", "workload"];

/// Type, and values by label; no values where the document leaves them open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The TYPE.
    pub(crate) kind: String,
    /// Labels, each with its values.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

/// The whole text.
pub(crate) fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).expect("docs/metrics.md")
}

/// What stands below a title, up to the next.
pub(crate) fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let begin = document.find(&format!("\n{title}\n")).unwrap_or_else(|| panic!("no section {title}")) + 1;
    let rest = &document[begin + title.len()..];
    let end = ["\n## ", "\n### "].iter().filter_map(|next| rest.find(next)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// What stands between backquotes.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of a section's table, by family.
pub(crate) fn table(section: &str) -> BTreeMap<String, Told> {
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

/// Every family that the document says is exposed, with all of its labels, but for those of [`processes`].
pub(crate) fn exposed() -> BTreeMap<String, Told> {
    let document = document();
    let mut told = BTreeMap::new();
    for (name, mut family) in PAIR_FAMILIES.into_iter().flat_map(|title| table(section(&document, title))) {
        family.labels.extend(PAIR_LABELS.map(|label| (label.to_owned(), BTreeSet::new())));
        told.insert(name, family);
    }
    told.extend(table(section(&document, NAMESPACE_FAMILIES)));
    told.extend(table(section(&document, AGENT_FAMILIES)));
    told
}

/// The standard families about the agent's process.
pub(crate) fn processes(document: &str) -> BTreeSet<&str> {
    let agent = section(document, AGENT_FAMILIES);
    quoted(agent).filter(|name| name.starts_with("process_") && !name.ends_with('*')).collect()
}
