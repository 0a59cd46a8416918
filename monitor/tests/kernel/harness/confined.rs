//! The daemon as the systemd unit starts it: another user, the unit's capabilities and no others.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::resource::{Resource, setrlimit};

/// Nobody, who owns nothing.
const USER: u32 = 65_534;
const UNIT: &str = include_str!("../../../../deploy/systemd/finwatch.service");
/// What the unit is given to show other network namespaces, too.
const NAMESPACES: &str = include_str!("../../../../deploy/systemd/finwatch.service.d/namespaces.conf");
/// What it is given to ask connection tracking.
const CONNTRACK: &str = include_str!("../../../../deploy/systemd/finwatch.service.d/conntrack.conf");

/// The capabilities that the unit grants, by systemd's names.
pub(crate) fn granted() -> Vec<&'static str> {
    ambient(UNIT)
}

/// The same with the drop-in for other network namespaces.
pub(crate) fn granted_for_namespaces() -> Vec<&'static str> {
    [ambient(UNIT), ambient(NAMESPACES)].concat()
}

/// The same with the drop-in for connection tracking.
pub(crate) fn granted_for_conntrack() -> Vec<&'static str> {
    [ambient(UNIT), ambient(CONNTRACK)].concat()
}

fn ambient(unit: &'static str) -> Vec<&'static str> {
    let settings = unit.lines().filter_map(|line| line.strip_prefix("AmbientCapabilities="));
    let granted: Vec<&str> = settings.flat_map(str::split_whitespace).collect();
    assert!(!granted.is_empty(), "{unit}");
    granted
}

/// Starts `command`, a daemon's, as [`USER`] with these as its ambient, inheritable and bounding capabilities. It gets its run
/// directory, and a copy of the program there: the one that was built may lie where only its owner gets.
pub(crate) fn confine(command: &mut Command, capabilities: &[&str]) {
    // As LimitMEMLOCK= has it, for this process and those it starts. Root of a container may not: it has
    // a newer kernel, which does not count maps.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    let directory = run_directory(command);
    let program = directory.join("finwatch");
    // By a process of its own: a descriptor of ours that writes could be inherited by whatever another test starts, and a
    // program that somebody may write to is not started.
    let copied =
        Command::new("install").args(["--mode", "755"]).arg(command.get_program()).arg(&program).status();
    assert!(copied.expect("`install` of coreutils starts").success());
    chown(&directory, Some(USER), Some(USER)).expect("our own directory");
    let short = |name: &&str| format!("+{}", name.strip_prefix("CAP_").expect("a capability").to_lowercase());
    let only = [String::from("-all")]
        .into_iter()
        .chain(capabilities.iter().map(short))
        .collect::<Vec<_>>()
        .join(",");
    let user = USER.to_string();
    let mut confined = Command::new("setpriv");
    confined.args([
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--no-new-privs",
        "--pdeathsig",
        "KILL",
    ]);
    confined.args(["--bounding-set", &only, "--inh-caps", &only, "--ambient-caps", &only]);
    confined.arg(program).args(command.get_args()).stdin(Stdio::null());
    *command = confined;
}

fn run_directory(command: &Command) -> PathBuf {
    let mut arguments = command.get_args().skip_while(|argument| *argument != "--run-dir");
    Path::new(arguments.nth(1).expect("a daemon's command names it")).to_owned()
}
