//! Cargo's subcommands that packages and tests need, compiled where the version that was tried is not there.

use std::time::Duration;

use anyhow::Result;

use crate::{host, process};

/// Compiling one, on a slow machine.
const LIMIT: Duration = Duration::from_mins(30);

/// One of them.
pub(super) struct Subcommand {
    /// The package.
    pub(super) package: &'static str,
    /// What it is for.
    pub(super) why: &'static str,
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
}

/// Makes the Debian package; compressing with system libraries is left out.
pub(super) const DEB: Subcommand = Subcommand {
    package: "cargo-deb",
    why: "makes the Debian package",
    name: "deb",
    version: "3.8.0",
    options: &["--no-default-features"],
};

/// Judges the dependencies. It runs for seconds; optimised it would take minutes longer to compile.
pub(super) const DENY: Subcommand = Subcommand {
    package: "cargo-deny",
    why: "judges the dependencies: licences, duplicates, sources, advisories",
    name: "deny",
    version: "0.20.2",
    options: &["--debug"],
};

impl Subcommand {
    /// Whether that version is there.
    pub(super) fn is_installed(&self) -> bool {
        process::output(host::cargo().args([self.name, "--version"]))
            .is_some_and(|version| version.ends_with(self.version))
    }

    /// Compiles it.
    pub(super) fn install(&self) -> Result<()> {
        let mut install = host::cargo();
        install.args(["install", self.package, "--locked", "--version", self.version]).args(self.options);
        println!("{}", process::typed(&install));
        process::run(&format!("cargo install {}", self.package), &mut install, LIMIT)
    }
}
