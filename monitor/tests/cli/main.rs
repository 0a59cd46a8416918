//! The commands that ask a daemon or print: what they say when they cannot, and what completions and manual are worth.

mod configuration;
mod errors;
mod generated;

use std::process::Command;

/// `finwatch` with these arguments.
fn finwatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    command.args(arguments).stdin(std::process::Stdio::null());
    command
}

/// Whether a program is there. If not, says so loudly; in CI that is a failure.
fn has(test: &str, program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    skip(test, &format!("needs {program}"));
    false
}

fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} {why} and CI may not skip it");
    eprintln!("SKIPPED {test}: {why}");
}
