//! docs/sequences.md is this table, printed; docs/kernels.md has every hook.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use finwatch::kernel::hooks::Hook;

use crate::{harness::metrics::expand, sequence::Sequence, sequences};

const INTRODUCTION: &str = "\
# Sequences

What can happen to a connection, the state transitions the kernel makes of it, and what finwatch counts: exactly this and
nothing else. Each row is a test of the same name in `monitor/tests/kernel/` that produces it on the real kernel, over IPv4,
IPv6 and an IPv6 socket that speaks IPv4, and asserts every counter of the pair and the transitions themselves. Each has a near
neighbour that differs in one thing and is counted otherwise.

This file is generated: `UPDATE_DOCS=1 cargo test -p finwatch --test kernel docs` writes it, the same test checks it.

States: 1 ESTABLISHED, 2 SYN_SENT, 3 SYN_RECV, 4 FIN_WAIT1, 5 FIN_WAIT2, 7 CLOSE, 8 CLOSE_WAIT, 9 LAST_ACK, 11 CLOSING. `RST-in`
is `tcp_receive_reset` (which also fires when data meets a socket that the application has closed), `RST-out` is
`tcp_send_reset`; with a question mark only on kernels from 6.10 on, as older ones do not trace resets they send without a full
socket. Of each connection on which something went wrong one incident is recorded, with the cause that its row counts. Every
connection that is opened and closed also adds one sample to `connection_duration_seconds`. Counters leave out the prefix `finwatch_`.
";

#[test]
fn docs_are_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sequences.md");
    let wanted = document();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).expect("docs/ is writable");
    }
    let have = fs::read_to_string(&path).unwrap_or_default();
    assert!(have == wanted, "docs/sequences.md is not this table; UPDATE_DOCS=1 rewrites it");
}

#[test]
fn docs_name_neighbours_that_exist() {
    let names: BTreeSet<&str> = sequences::all().map(|sequence| sequence.name).collect();
    assert_eq!(names.len(), sequences::all().count(), "two sequences of one name");
    for sequence in sequences::all() {
        assert!(names.contains(sequence.near), "{}: no neighbour {}", sequence.name, sequence.near);
    }
}

#[test]
fn kernels_are_told_of_by_hook() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
    let text = fs::read_to_string(path).expect("`cargo xtask vm --document` writes docs/kernels.md");
    for hook in Hook::all() {
        assert!(text.contains(&format!("`{}`", hook.name)), "no word of {}", hook.name);
    }
    let kernels = text.lines().find(|line| line.starts_with('|')).expect("a table");
    for series in ["5.10.", "6.1.", "6.12.", "7."] {
        assert!(kernels.contains(&format!("| {series}")), "no kernel {series}");
    }
}

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    text +=
        "\n| test | what happens | side: transitions | counted | near neighbour |\n|---|---|---|---|---|\n";
    for sequence in sequences::all() {
        let paths: Vec<String> =
            sequence.ends.iter().map(|end| format!("{}: {}", end.side.label(), path(end.path))).collect();
        writeln!(
            text,
            "| `{}` | {} | {} | {} | `{}` |",
            sequence.name,
            sequence.what.trim(),
            paths.join("<br>"),
            counted(sequence),
            sequence.near
        )
        .expect("a string");
    }
    text
}

fn path(path: &str) -> &str {
    if path.is_empty() { "none" } else { path }
}

fn counted(sequence: &Sequence) -> String {
    let ends: Vec<String> = sequence
        .ends
        .iter()
        .map(|end| {
            let items: Vec<String> = end.counted.iter().map(|item| counter(item)).collect();
            let items = if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
            if sequence.ends.len() > 1 { format!("{}: {items}", end.side.label()) } else { items }
        })
        .collect();
    ends.join("<br>")
}

fn counter(item: &str) -> String {
    let (item, mark) = item.strip_suffix('?').map_or((item, ""), |item| (item, " (?)"));
    let Some((series, count)) = expand(item).into_iter().next() else {
        return format!("no series, but an incident `{}`", item.trim_start_matches("incident:"));
    };
    let times = if count > 1.0 { format!(" {count} times") } else { String::new() };
    let bucket = match item.find(['<', '>']) {
        Some(at) if item.as_bytes()[at] == b'<' => format!(" (up to {} s)", &item[at + 1..]),
        Some(at) => format!(" (over {} s)", &item[at + 1..]),
        None => String::new(),
    };
    format!("`{series}`{times}{bucket}{mark}")
}
