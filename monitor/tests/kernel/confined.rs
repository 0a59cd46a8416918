//! Run as its unit runs it, the daemon sees everything; once attached it has given up what it does not need.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, process::Command};

use finwatch::kernel::hooks::{HOOKS, READ_HOOK, REQUEST_HOOKS};

use crate::harness::{
    can_run,
    confined::{confine, granted, granted_for_namespaces},
    daemon::{self, Daemon},
    metrics::Scrape,
    netns, trace,
    traffic::{listen, local, open_and_close},
    until,
};

const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;
/// What others' namespaces and processes take.
const OTHERS: u64 = DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN;

/// What this kernel takes for whatever uses tables.
pub(crate) fn for_tables() -> u64 {
    if trace::version() < (6, 0) { BPF } else { 0 }
}

/// The value of a line of a thread's status, for every thread.
fn of_threads(daemon: &Daemon, name: &str) -> BTreeSet<String> {
    let threads: Vec<_> =
        fs::read_dir(format!("/proc/{}/task", daemon.pid)).expect("it runs").flatten().collect();
    assert!(threads.len() > 2, "the runtime's threads are there");
    let value = |status: String| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name}: {status}")).trim().to_owned()
    };
    threads
        .iter()
        .map(|thread| value(fs::read_to_string(thread.path().join("status")).expect("a thread")))
        .collect()
}

/// All threads hold this and can get nothing back.
pub(crate) fn assert_held(daemon: &Daemon, capabilities: u64) {
    let mask = |bits: u64| BTreeSet::from([format!("{bits:016x}")]);
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(of_threads(daemon, set), mask(capabilities), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(of_threads(daemon, set), mask(0), "{set}");
    }
}

/// Every hook is attached, in as much of it as this kernel has.
fn assert_every_hook_is_attached(scrape: &Scrape) {
    let resets = if trace::traces_all_resets() { "full" } else { "partial" };
    let always = HOOKS.iter().map(|hook| (hook, if hook.program == "send_reset" { resets } else { "full" }));
    let requests: Vec<_> = if trace::traces_lengths() {
        REQUEST_HOOKS.iter().map(|hook| (hook, "full")).collect()
    } else {
        vec![(&READ_HOOK, "partial")]
    };
    for (hook, mode) in always.chain(requests) {
        let attached = scrape.sum("finwatch_hook_attached", &[("hook", hook.name), ("mode", mode)]);
        assert!((attached - 1.0).abs() < 0.5, "{} {mode}: {attached}", hook.name);
    }
}

#[test]
fn the_units_capabilities_are_enough_and_are_given_up() {
    if !can_run("the_units_capabilities_are_enough_and_are_given_up") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated_with(&["--requests", "--snapshot-age", "1s"], |command| {
            confine(command, &granted());
        });
        assert_every_hook_is_attached(&daemon.scrape());
        assert_held(&daemon, for_tables());
        assert_eq!(of_threads(&daemon, "NoNewPrivs"), ["1".to_owned()].into());
        let listener = listen(local(1, 30_000));
        open_and_close(&listener);
        let scrape = until("the connection is closed on both sides", || {
            let scrape = daemon.scrape();
            (scrape.sum("finwatch_connections_closed_total", &[]) > 1.5).then_some(scrape)
        });
        for (side, by) in [("proxy", "local"), ("upstream", "peer")] {
            let closed = scrape.sum(
                "finwatch_connections_closed_total",
                &[("side", side), ("by", by), ("upstream", "127.0.0.1:30000")],
            );
            assert!((closed - 1.0).abs() < 0.5, "{side}: {closed}");
        }
        // Walks go on without capabilities.
        until("the listening socket, which came after the first walk", || {
            let limit =
                daemon.scrape().sum("finwatch_accept_queue_limit", &[("upstream", "127.0.0.1:30000")]);
            (limit > 0.5).then_some(())
        });
    });
}

#[test]
fn with_the_drop_in_other_namespaces_are_read() {
    if !can_run("with_the_drop_in_other_namespaces_are_read") {
        return;
    }
    let address = daemon::free_address();
    let queue = |daemon: &Daemon, port: u16| {
        let upstream = format!("127.0.0.1:{port}");
        daemon.scrape().sum("finwatch_accept_queue_limit", &[("upstream", &upstream)]) > 0.5
    };
    netns::in_namespace(|| {
        let listener = listen(local(1, 30_000));
        netns::outside(|| {
            let port = daemon::free_port();
            let own = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
            let daemon = Daemon::start_at(address, &["--snapshot-age", "1s"], |command| {
                confine(command, &granted_for_namespaces());
            });
            assert_held(&daemon, OTHERS | for_tables());
            until("both namespaces' queues", || {
                (queue(&daemon, 30_000) && queue(&daemon, port)).then_some(())
            });
            drop(own);
        });
        drop(listener);
    });
}

#[test]
fn root_gives_up_what_it_does_not_need() {
    if !can_run("root_gives_up_what_it_does_not_need") {
        return;
    }
    let daemon = Daemon::start(&[]);
    assert_held(&daemon, OTHERS | for_tables());
    let bounding = of_threads(&daemon, "CapBnd");
    assert_eq!(bounding, [format!("{:016x}", OTHERS | for_tables())].into());

    // `check` says so, of the daemon and of what it would keep itself.
    let mut check = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    let config = daemon.directory.path().join("check.toml");
    fs::write(&config, format!("run-dir = \"{}\"\n", daemon.directory.path().display()))
        .expect("our own directory");
    let output = check.args(["check", "--config"]).arg(config).output().expect("finwatch starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let row = |name: &str| {
        let row = told.lines().find_map(|line| line.strip_prefix("ok")?.trim_start().strip_prefix(name));
        row.unwrap_or_else(|| panic!("no row {name}:\n{told}")).trim().to_owned()
    };
    let for_tables = if for_tables() > 0 { ", CAP_BPF" } else { "" };
    let held = format!("holds CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN{for_tables}");
    assert_eq!(row("once attached"), held);
    assert_eq!(row("daemon"), format!("pid {}: {held}", daemon.pid));
}
