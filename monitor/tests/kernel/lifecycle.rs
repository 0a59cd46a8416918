//! Starting, refusing to start, and ending.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::harness::{
    can_run,
    daemon::{self, Daemon},
    until,
};

/// Runs it to its end, which must come soon.
fn refused(mut command: Command) -> Output {
    let since = Instant::now();
    let output = command.output().expect("the finwatch binary starts");
    assert!(since.elapsed() < Duration::from_secs(10), "it refuses at once");
    assert!(!output.status.success(), "it must not succeed");
    output
}

/// What it says is one sentence, not a backtrace.
fn assert_one_sentence(output: &Output, about: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    assert_eq!(lines, 1, "one line:\n{text}");
    assert!(text.contains(about), "it names {about}:\n{text}");
}

fn programs_of(pid: Pid) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        ids.extend(text.lines().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    ids
}

fn loaded() -> BTreeSet<u32> {
    aya::programs::loaded_programs().flatten().map(|program| program.id()).collect()
}

#[test]
fn signals_end_it_with_nothing_attached() {
    if !can_run("signals_end_it_with_nothing_attached") {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Daemon::start(&[]);
        let programs = programs_of(daemon.pid);
        assert!(programs.len() >= 3, "its programs show in /proc: {programs:?}");
        assert!(programs.is_subset(&loaded()));
        let (status, took) = daemon.stop(signal).expect("it ends");
        assert!(status.success(), "{signal}: {status}\n{}", daemon.output());
        assert!(took < Duration::from_secs(1), "{signal}: {took:?}");
        until("its programs are gone", || programs.is_disjoint(&loaded()).then_some(()));
    }
}

#[test]
fn second_instance_refuses() {
    if !can_run("second_instance_refuses") {
        return;
    }
    let first = Daemon::start(&[]);
    let mut second = daemon::command(daemon::free_address(), &[]);
    second.arg("--run-dir").arg(first.directory.path());
    assert_one_sentence(&refused(second), "already runs");
    let alive = daemon::get(first.address, "/readyz").map(|(status, _)| status);
    assert_eq!(alive, Some(200), "the first one goes on");
}

#[test]
fn port_in_use() {
    if !can_run("port_in_use") {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = daemon::command(address, &[]);
    command.arg("--run-dir").arg(directory.path());
    assert_one_sentence(&refused(command), &address.to_string());
}

#[test]
fn bad_flags() {
    for (flag, value) in [("--max-pairs", "many"), ("--include-net", "300.0.0.0/8"), ("--no-such-flag", "1")]
    {
        let output = refused(daemon::command(daemon::free_address(), &[flag, value]));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(flag), "it names {flag}:\n{text}");
    }
}

#[test]
fn bad_configuration() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let refuse = |content: &str, about: &str| {
        let file = directory.path().join("finwatch.toml");
        fs::write(&file, content).expect("a temporary file");
        let output = refused(with_config(&file));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains(about) && text.contains("finwatch.toml"),
            "names {about} and the file:\n{text}"
        );
    };
    refuse("max-pairz = 5\n", "max-pairz");
    refuse("max-pairs = \"many\"\n", "max-pairs");
    refuse("max-pairs = \n", "line 1");
    let missing = directory.path().join("missing.toml");
    let text = refused(with_config(&missing)).stderr;
    assert!(String::from_utf8_lossy(&text).contains("missing.toml"));
}

fn with_config(file: &Path) -> Command {
    let mut command = daemon::command(daemon::free_address(), &[]);
    command.arg("--config").arg(file);
    command
}

/// `finwatch check` without the capabilities that other namespaces and other users' processes take.
#[test]
fn check_tells_what_other_namespaces_take() {
    if !can_run("check_tells_what_other_namespaces_take") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("finwatch.toml");
    let row = |netns: &str, name: &str| {
        fs::write(&file, format!("netns = \"{netns}\"\n")).expect("a temporary file");
        let mut check = Command::new("setpriv");
        check.args([
            "--bounding-set",
            "-sys_admin,-sys_ptrace,-dac_read_search",
            env!("CARGO_BIN_EXE_finwatch"),
        ]);
        let output = check.args(["check", "--strict", "--config"]).arg(&file).output();
        let output = output.expect("`setpriv` of util-linux starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let row = text.lines().find(|line| line.contains(name));
        (output.status.code(), row.unwrap_or_else(|| panic!("no row:\n{text}")).to_owned())
    };
    let (status, told) = row("all", "other namespaces");
    assert_eq!(status, Some(1), "{told}");
    for what in ["degraded", "CAP_SYS_ADMIN to enter", "CAP_SYS_PTRACE to find", "--netns host"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    let (_, told) = row("host", "other namespaces");
    assert!(told.starts_with("ok"), "{told}");
    let (_, told) = row("host", "older connections");
    for what in ["degraded", "\"unknown\"", "CAP_SYS_PTRACE to see", "CAP_DAC_READ_SEARCH to list"] {
        assert!(told.contains(what), "{what}: {told}");
    }
}
