//! The daemon as the systemd unit starts it: another user, the unit's capabilities and no others.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Nobody, who owns nothing.
const USER: u32 = 65_534;
const UNIT: &str = include_str!("../../../../deploy/systemd/finwatch.service");
/// What the unit is given to show other network namespaces, too.
const NAMESPACES: &str = include_str!("../../../../deploy/systemd/finwatch.service.d/namespaces.conf");

/// The capabilities that the unit grants, by systemd's names.
pub(crate) fn granted() -> Vec<&'static str> {
    ambient(UNIT)
}

/// The same with the drop-in for other network namespaces.
pub(crate) fn granted_for_namespaces() -> Vec<&'static str> {
    [ambient(UNIT), ambient(NAMESPACES)].concat()
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
    let directory = run_directory(command);
    let program = directory.join("finwatch");
    fs::copy(command.get_program(), &program).expect("room for a copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    chown(&directory, Some(USER), Some(USER)).expect("our own directory");
    let names = capabilities.iter().map(|name| name.strip_prefix("CAP_").expect("a capability"));
    let only: String = names.map(|name| format!(",+{}", name.to_lowercase())).collect();
    let only = format!("-all{only}");
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
