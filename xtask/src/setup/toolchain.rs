//! The toolchain for the eBPF half, found the way `monitor/build.rs` finds it, and the linker that fits it.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// Names the toolchain outright, for `monitor/build.rs` too.
const CHOICE: &str = "FINWATCH_EBPF_TOOLCHAIN";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
/// The bpf-linker that was tried with Debian's compiler.
const LINKER_VERSION: &str = "0.13.0";

/// Which toolchain builds the eBPF half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// One of rustup's, with rust-src.
    Rustup,
    /// Debian's rustc-web.
    Debian,
}

impl Toolchain {
    /// The one `monitor/build.rs` will use.
    pub(crate) fn find() -> Option<Self> {
        if let Ok(choice) = env::var(CHOICE) {
            return Some(if choice.starts_with('/') { Self::Debian } else { Self::Rustup });
        }
        if nightlies().iter().any(|name| has_sources(name)) {
            return Some(Self::Rustup);
        }
        let debian = Path::new(DEBIAN_CORE).exists() && Path::new(DEBIAN_RUSTC).exists();
        debian.then_some(Self::Debian)
    }
}

fn nightlies() -> Vec<String> {
    let listed = process::output(host::command("rustup").args(["toolchain", "list", "--quiet"]));
    let listed = listed.unwrap_or_default();
    listed.lines().filter(|name| name.starts_with("nightly")).map(str::to_owned).collect()
}

fn has_sources(toolchain: &str) -> bool {
    let sysroot =
        process::output(host::command("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]));
    sysroot.is_some_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/core").exists())
}

/// How bpf-linker is to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linker {
    /// With its own LLVM, which reads what a rustup nightly writes.
    Own,
    /// With the LLVM Debian's compiler uses.
    Debians,
}

impl Linker {
    /// The one for that toolchain; without one, Debian's will be installed first.
    pub(crate) fn fitting(toolchain: Option<Toolchain>) -> Self {
        match toolchain {
            Some(Toolchain::Rustup) => Self::Own,
            Some(Toolchain::Debian) | None => Self::Debians,
        }
    }

    /// In a few words.
    pub(crate) fn how(self) -> &'static str {
        match self {
            Self::Own => "cargo install",
            Self::Debians => "cargo install, against the LLVM of Debian's compiler",
        }
    }

    /// The command that installs it, once the compiler is there.
    pub(crate) fn install(self) -> Result<Command> {
        let mut install = host::cargo();
        install.args(["install", "bpf-linker", "--locked"]);
        if self == Self::Debians {
            let version = process::output(Command::new(DEBIAN_RUSTC).args(["--version", "--verbose"]));
            let version = version.with_context(|| format!("{DEBIAN_RUSTC} does not run"))?;
            let llvm =
                llvm_major(&version).with_context(|| format!("{DEBIAN_RUSTC} names no LLVM version"))?;
            let features = format!("llvm-{llvm},no-llvm-linking");
            install.args(["--version", LINKER_VERSION, "--no-default-features", "--features", &features]);
            install.env("RUSTFLAGS", format!("-C link-arg=-lLLVM-{llvm}"));
        }
        Ok(install)
    }
}

fn llvm_major(version: &str) -> Option<&str> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_is_the_compilers() {
        assert_eq!(llvm_major("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8"), Some("22"));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }

    #[test]
    fn without_a_toolchain_debians_is_meant() {
        assert_eq!(Linker::fitting(None), Linker::Debians);
        assert_eq!(Linker::fitting(Some(Toolchain::Rustup)), Linker::Own);
    }
}
