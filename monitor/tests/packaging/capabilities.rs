//! Every way to start finwatch grants what it needs and no more; docs/security.md says which and what for.

use std::{collections::BTreeSet, env, fs};

use finwatch::kernel::rights::{FOR_CONNTRACK, FOR_NAMESPACES, FOR_PROCESSES, Lasting, NEEDED, lasting};
use procfs::sys::kernel::Version;

use crate::{path, text};

const DOCUMENT: &str = "docs/security.md";
const BEGIN: &str = "| feature | capability |";

fn names(capabilities: impl IntoIterator<Item = (caps::Capability, &'static str)>) -> BTreeSet<String> {
    capabilities.into_iter().map(|(capability, _)| capability.to_string()).collect()
}

fn needed() -> BTreeSet<String> {
    names(NEEDED)
}

/// What other namespaces and other users' processes take on top.
fn for_others() -> BTreeSet<String> {
    names(FOR_NAMESPACES.into_iter().chain(FOR_PROCESSES))
}

/// What a manifest adds, without Kubernetes' short form.
fn added(manifest: &str) -> BTreeSet<String> {
    assert!(!manifest.contains("privileged: true"), "{manifest}");
    let (_, rest) = manifest.split_once("add:\n").expect("capabilities are added");
    let lines = rest.lines().map_while(|line| line.trim().strip_prefix("- "));
    lines.map(|name| format!("CAP_{name}")).collect()
}

#[test]
fn the_manifests_add_what_is_needed_and_no_more() {
    assert_eq!(added(&text("deploy/kubernetes/finwatch.yaml")), needed());
    let all = needed().union(&for_others()).cloned().collect();
    assert_eq!(added(&text("deploy/kubernetes/finwatch-all-namespaces.yaml")), all);
}

#[test]
fn compose_adds_what_is_needed_and_no_more() {
    let compose = text("deploy/compose/compose.yaml");
    assert!(!compose.contains("privileged:"), "{compose}");
    let added = compose.lines().find_map(|line| line.trim().strip_prefix("cap_add: ["));
    let added = added.expect("capabilities are added").trim_end_matches(']').split(", ");
    assert_eq!(added.map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>(), needed());
    assert!(compose.contains("cap_drop: [ALL]"), "{compose}");
}

#[test]
fn the_drop_ins_add_what_their_features_take() {
    for (name, wanted) in [("namespaces", for_others()), ("conntrack", names(FOR_CONNTRACK))] {
        let drop_in = text(&format!("deploy/systemd/finwatch.service.d/{name}.conf"));
        for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let granted = drop_in.lines().filter_map(|line| line.strip_prefix(setting));
            let granted: BTreeSet<String> =
                granted.flat_map(str::split_whitespace).map(str::to_owned).collect();
            assert_eq!(granted, wanted, "{name}: {setting}");
        }
    }
}

#[test]
fn the_document_has_the_table_of_what_the_program_knows() {
    let (new, old) = (Some(Version::new(6, 0, 0)), Some(Version::new(5, 10, 0)));
    let all = Lasting { other_namespaces: true, conntrack: true };
    let keeps = |capability, kernel| lasting(all, kernel).iter().any(|(kept, _)| *kept == capability);
    let features = NEEDED.map(|row| ("everything", row)).into_iter();
    let features = features.chain(FOR_NAMESPACES.map(|row| ("other namespaces", row)));
    let features = features.chain(FOR_PROCESSES.map(|row| ("other users' processes", row)));
    let features = features.chain(FOR_CONNTRACK.map(|row| ("connection tracking (`--conntrack`)", row)));
    let rows = features.map(|(feature, (capability, what))| {
        let once_attached = match (keeps(capability, new), keeps(capability, old)) {
            (true, _) => "kept",
            (false, true) => "given up; kept on kernels before 6.0",
            (false, false) => "given up",
        };
        format!("| {feature} | {capability} | {what} | {once_attached} |\n")
    });
    let table =
        format!("{BEGIN} what for | once attached |\n|---|---|---|---|\n{}", rows.collect::<String>());
    let document = text(DOCUMENT);
    let begin = document.find(BEGIN).expect("the table's head");
    let end = begin + document[begin..].find("\n\n").expect("a blank line after it") + 1;
    if env::var_os("UPDATE_DOCS").is_some() {
        let updated = [&document[..begin], &table, &document[end..]].concat();
        fs::write(path(DOCUMENT), updated).expect("docs/ is writable");
        return;
    }
    assert_eq!(document[begin..end], table, "UPDATE_DOCS=1 rewrites it");
}
