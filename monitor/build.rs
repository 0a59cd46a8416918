//! Builds the eBPF programs with whichever of the two usual toolchains is there.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// Names the toolchain outright: a rustup toolchain with rust-src, or a prefix such as `/usr`.
const CHOICE: &str = "FINWATCH_EBPF_TOOLCHAIN";
/// Where Debian's `rustc-web` and `libstd-rust-web-dev-bpf` live.
const DEBIAN: &str = "/usr";
/// The crates that use an unstable feature: aya-ebpf, and our programs for the atomic addition (`src/probes/atomic.rs`).
const UNSTABLE_CRATES: &str = "aya_ebpf,finwatch_probes";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed={CHOICE}");
    println!("cargo:rerun-if-env-changed=PATH");
    let toolchain = toolchain()?;
    if !runs("bpf-linker", &["--version"]) {
        bail!(
            "bpf-linker is not on PATH: `cargo xtask setup` installs it, or see README.md for the two ways by hand"
        );
    }
    if toolchain == DEBIAN {
        // SAFETY: a build script's main thread, before anything else runs.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", UNSTABLE_CRATES) };
    }
    let package = Package {
        name: "finwatch-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../monitor-ebpf"),
        features: &["probes"],
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain)).context("building the eBPF programs")
}

/// The rustup name or path of a toolchain that can build for `bpfel-unknown-none`.
fn toolchain() -> Result<String> {
    if let Ok(choice) = env::var(CHOICE) {
        return Ok(choice);
    }
    for nightly in nightlies() {
        if sysroot(&nightly)
            .is_some_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/core").exists())
        {
            return Ok(nightly);
        }
    }
    if Path::new(DEBIAN).join("lib/rustlib/bpfel-unknown-none").exists()
        && runs("/usr/bin/rustc", &["--version"])
    {
        return Ok(DEBIAN.to_owned());
    }
    bail!(
        "no toolchain for eBPF: install either Debian's `rustc-web libstd-rust-web-dev-bpf` (apt-get install \
         --no-install-recommends), or a rustup nightly with rust-src (rustup toolchain install nightly --component \
         rust-src); `cargo xtask setup` does the first, and {CHOICE} names another"
    )
}

fn nightlies() -> Vec<String> {
    let listed = Command::new("rustup").args(["toolchain", "list", "--quiet"]).stderr(Stdio::null()).output();
    let Ok(listed) = listed else { return Vec::new() };
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    names.lines().filter(|name| name.starts_with("nightly")).map(str::to_owned).collect()
}

fn sysroot(toolchain: &str) -> Option<String> {
    let printed =
        Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output().ok()?;
    printed.status.success().then(|| String::from_utf8_lossy(&printed.stdout).trim().to_owned())
}

fn runs(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
