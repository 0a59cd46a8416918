//! The unit, judged by systemd's own tools, without and with its drop-ins.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use crate::text;

/// What `systemd-analyze security` may add up to at most, in tenths: from 2 on it calls the exposure more than low.
const EXPOSURE: &str = "20";
/// With the capabilities that are close to root.
const EXPOSURE_WITH_DROP_INS: &str = "30";
const DROP_INS: [&str; 2] = ["finwatch.service.d/namespaces.conf", "finwatch.service.d/conntrack.conf"];

/// Runs it on the unit, unless it is not here, which CI does not excuse.
fn analyze(arguments: &[&str], drop_ins: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("finwatch.service");
    // The program that was built, as none is installed.
    let installed = "ExecStart=/usr/bin/finwatch ";
    let text = text("deploy/systemd/finwatch.service");
    assert!(text.contains(installed), "{text}");
    let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_finwatch"));
    fs::write(&unit, text.replace(installed, &built)).expect("our own directory");
    for drop_in in drop_ins {
        let place = directory.path().join(drop_in);
        fs::create_dir_all(place.parent().expect("a directory")).expect("our own directory");
        fs::write(place, crate::text(&format!("deploy/systemd/{drop_in}"))).expect("our own directory");
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
    assert!(output.status.success(), "systemd-analyze {arguments:?}, {drop_ins:?}:\n{said}");
    if arguments[0] == "verify" {
        assert_eq!(said, "", "without a warning; {drop_ins:?}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_it() {
    for drop_ins in [&[][..], &DROP_INS] {
        analyze(&["verify", "--man=no"], drop_ins);
    }
}

#[test]
fn little_is_exposed() {
    for (threshold, drop_ins) in [(EXPOSURE, &[][..]), (EXPOSURE_WITH_DROP_INS, &DROP_INS)] {
        analyze(&["security", "--offline=yes", "--threshold", threshold], drop_ins);
    }
}
