//! The unit, judged by systemd's own tools, without and with its drop-in.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use crate::text;

/// What `systemd-analyze security` may add up to at most, in tenths: from 2 on it calls the exposure more than low.
const EXPOSURE: &str = "20";
/// With two capabilities that are close to root.
const EXPOSURE_WITH_DROP_IN: &str = "30";
const DROP_IN: &str = "finwatch.service.d/namespaces.conf";

/// Runs it on the unit, unless it is not here, which CI does not excuse.
fn analyze(arguments: &[&str], drop_in: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("finwatch.service");
    // The program that was built, as none is installed.
    let installed = "ExecStart=/usr/bin/finwatch ";
    let text = text("deploy/systemd/finwatch.service");
    assert!(text.contains(installed), "{text}");
    let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_finwatch"));
    fs::write(&unit, text.replace(installed, &built)).expect("our own directory");
    if drop_in {
        let place = directory.path().join(DROP_IN);
        fs::create_dir(place.parent().expect("a directory")).expect("our own directory");
        fs::write(place, crate::text(&format!("deploy/systemd/{DROP_IN}"))).expect("our own directory");
    }
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).arg(&unit).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "CI may not skip what needs systemd-analyze"
        );
        eprintln!(
            "SKIPPED {arguments:?}: no systemd-analyze here (`cargo xtask setup --for test` installs it)"
        );
        return;
    };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "systemd-analyze {arguments:?}, drop-in: {drop_in}:\n{said}");
    if arguments[0] == "verify" {
        assert_eq!(said, "", "without a warning; drop-in: {drop_in}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_it() {
    for drop_in in [false, true] {
        analyze(&["verify", "--man=no"], drop_in);
    }
}

#[test]
fn little_is_exposed() {
    for (threshold, drop_in) in [(EXPOSURE, false), (EXPOSURE_WITH_DROP_IN, true)] {
        analyze(&["security", "--offline=yes", "--threshold", threshold], drop_in);
    }
}
