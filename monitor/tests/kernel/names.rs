//! Names that a local user makes up for processes: each is one series, none forges another, and no terminal obeys them.

use std::{collections::BTreeMap, path::Path, process::Command};

use finwatch::model::{
    incident::IncidentRecord,
    labels::{Side, is_harmful, process_name},
    observation::Observation,
};
use nom_openmetrics::parser;
use serde_json::Value;

use crate::{
    harness::{
        can_run,
        daemon::Daemon,
        netns::in_namespace,
        tmux::Tmux,
        traffic::{listen, local, open_and_close_as, refused_as},
        until,
    },
    top::{possible, start},
};

const PORT: u16 = 8_080;
/// Nobody listens there.
const CLOSED: u16 = 8_081;
/// What the kernel keeps of a name is 15 bytes of any kind but NUL.
const NAMES: [&[u8]; 9] = [
    b"nginx",
    b"\"} 1\nforged 5\n#",
    b"\x1b[2J\x1b]0;owned\x07",
    b"back\\slash\\\"x\\\"",
    b"\xff\xfe\xc3(\x80\xed\xa0\x80",
    b"\xc2\x9b31m\x9b31m",
    b"ngi\xe2\x80\x8bnx\xe2\x80\xae",
    b"other",
    b"external",
];

/// What a command of finwatch prints, its exit status being 0 or 1.
fn told(run_dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    let output = command.args(arguments).arg("--run-dir").arg(run_dir).output().expect("finwatch starts");
    assert!(output.status.code().is_some_and(|status| status < 2), "{arguments:?}: {output:?}");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("it prints UTF-8");
    assert_harmless(&text);
    text
}

fn assert_harmless(text: &str) {
    for line in text.lines() {
        assert!(!line.contains(is_harmful), "{line:?}");
    }
}

/// As many as each name's connections, by the label `proxy`; read by a parser that is not ours.
fn opened(text: &str) -> BTreeMap<String, String> {
    let (rest, families) = parser::prometheus(text).expect("the text format");
    assert_eq!(rest, "");
    let samples = families.iter().flat_map(|family| &family.samples);
    let known = |name: &str| name.starts_with("finwatch_") || name.starts_with("process_");
    assert!(samples.clone().all(|sample| known(sample.name())), "forged:\n{text}");
    let mut opened = BTreeMap::new();
    for sample in samples.filter(|sample| sample.name() == "finwatch_connections_opened_total") {
        let label = |name: &str| {
            sample.labels().iter().find(|label| label.name == name).map(|label| label.value.clone())
        };
        if label("side").as_deref() == Some("proxy") && label("upstream") == Some(format!("127.0.0.1:{PORT}"))
        {
            let before = opened.insert(label("proxy").expect("a label"), sample.number().to_string());
            assert_eq!(before, None, "two series of one name:\n{text}");
        }
    }
    opened
}

#[test]
fn names_forge_nothing_and_nothing_obeys_them() {
    if !can_run("names_forge_nothing_and_nothing_obeys_them") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&["--log-level", "debug"]);
        let run_dir = daemon.directory.path();
        let listener = listen(local(1, PORT));
        for name in NAMES {
            open_and_close_as(name, &listener);
            refused_as(name, local(1, CLOSED));
        }
        let printed = NAMES.map(process_name);
        let records = until("every refusal is an incident", || {
            let records = daemon.incidents();
            (records.len() == NAMES.len()).then_some(records)
        });

        let text = daemon.text();
        assert_harmless(&text);
        let wanted: BTreeMap<String, String> =
            printed.iter().map(|name| (name.clone(), "1".to_owned())).collect();
        assert_eq!(opened(&text), wanted);

        let named = |records: &[IncidentRecord]| -> Vec<String> {
            records.iter().map(|record| record.pair.proxy.clone()).collect()
        };
        assert_eq!(named(&records), printed);
        let listed = told(run_dir, &["incidents", "--json"]);
        let read = |line: &str| serde_json::from_str::<IncidentRecord>(line).expect("a record");
        assert_eq!(named(&listed.lines().map(read).collect::<Vec<_>>()), printed);
        let shown = told(run_dir, &["incidents"]);
        // Each is two lines and more: one tells the time, the next the pair.
        let heads = shown.lines().filter(|line| line.contains("connect() refused")).count();
        assert_eq!(heads, NAMES.len(), "{shown}");
        assert!(
            printed.iter().all(|name| shown.contains(&format!("{name} -> 127.0.0.1:{CLOSED}"))),
            "{shown}"
        );

        told(run_dir, &["triage"]);
        let judged: Value = serde_json::from_str(&told(run_dir, &["triage", "--json"])).expect("JSON");
        let observation: Observation =
            serde_json::from_value(judged["observation"].clone()).expect("an observation");
        let labels = observation.pairs.into_iter().map(|pair| pair.labels);
        let ours = labels
            .filter(|labels| labels.side == Side::Proxy && labels.upstream == format!("127.0.0.1:{PORT}"));
        assert_eq!(
            ours.map(|labels| labels.proxy).collect::<Vec<_>>(),
            wanted.into_keys().collect::<Vec<_>>()
        );

        let log = daemon.output();
        assert_harmless(&log);
        assert_eq!(log.matches("incident cause=ConnectRefused").count(), NAMES.len(), "{log}");
    });
}

#[test]
fn a_terminal_shows_them_and_does_nothing_else() {
    if !possible("a_terminal_shows_them_and_does_nothing_else") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let listener = listen(local(1, PORT));
        for name in NAMES {
            open_and_close_as(name, &listener);
        }
        let tmux = Tmux::start(120, 40);
        start(&tmux, &daemon);
        tmux.shows("a row for every name", |screen| {
            let rows = NAMES.map(|name| format!("{} -> 127.0.0.1:{PORT}", process_name(name)));
            rows.iter().all(|row| screen.lines().any(|line| line.starts_with(row)))
        });
        assert_ne!(tmux.title(), "owned");
    });
}
