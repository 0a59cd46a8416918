//! docs/metrics.md and /metrics tell the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use finwatch_ebpf::wire::KEY_EXTERNAL;

use crate::{
    document::{PAIR_LABELS, Told, document, exposed, processes, quoted, section},
    parsed::{Family, parse, text},
    support::{Pairs, Record, exporter, levels, proxy_key, upstream_key},
};

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
    let text = everything();
    let families = parse(&text);
    let told = exposed();
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
    let told = processes(&document);
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
