//! cargo-deb, which makes the Debian package.

use std::time::Duration;

use anyhow::Result;

use crate::{host, process};

/// The version that was tried.
const VERSION: &str = "3.8.0";
/// Compiling it, on a slow machine.
const LIMIT: Duration = Duration::from_mins(30);

/// Whether that version is there.
pub(super) fn installed() -> bool {
    process::output(host::cargo().args(["deb", "--version"]))
        .is_some_and(|version| version.ends_with(VERSION))
}

/// Compiles it; compressing with system libraries is left out.
pub(super) fn install() -> Result<()> {
    let mut install = host::cargo();
    install.args(["install", "cargo-deb", "--locked", "--no-default-features", "--version", VERSION]);
    println!("{}", process::typed(&install));
    process::run("cargo install cargo-deb", &mut install, LIMIT)
}
