//! `cargo xtask package`: one static binary, and from it the Debian package, the tarball and the container image.

mod image;
mod pages;
mod tarball;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub(crate) use self::image::buildah;
use crate::{
    host, process,
    setup::{self, Purpose},
};

/// The one version of everything: the workspace's.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A build from nothing, on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
/// The C library is linked in: one binary for every distribution, the image included.
const STATIC: &str = "-C target-feature=+crt-static";

/// What was made.
pub(crate) struct Packages {
    /// The binary.
    pub(crate) binary: PathBuf,
    /// The Debian package.
    pub(crate) deb: PathBuf,
    /// The tarball.
    pub(crate) tarball: PathBuf,
    /// The image, as an archive that every container engine loads.
    pub(crate) image: PathBuf,
}

/// `cargo xtask package`.
pub(crate) fn command() -> Result<()> {
    setup::ensure(Purpose::Package)?;
    let made = make()?;
    for file in [made.deb, made.tarball, made.image] {
        println!("{}", file.display());
    }
    Ok(())
}

/// Makes them all.
pub(crate) fn make() -> Result<Packages> {
    let binary = build()?;
    let dir = directory();
    pages::write(&binary, &dir)?;
    Ok(Packages {
        deb: deb(&dir, None)?,
        tarball: tarball::make(&binary, &dir)?,
        image: image::make(&binary, &dir)?,
        binary,
    })
}

/// Where they come to lie.
pub(crate) fn directory() -> PathBuf {
    // Named in monitor/Cargo.toml, too.
    host::root().join("target/package")
}

fn build() -> Result<PathBuf> {
    println!("building finwatch (release, static)");
    let mut build = host::cargo();
    build.args(["build", "--package", "finwatch", "--release", "--target", &triple()]);
    process::run("cargo build", build.env("RUSTFLAGS", STATIC), BUILD_LIMIT)?;
    Ok(host::target().join(triple()).join("release/finwatch"))
}

/// The target: this machine's, named so that build scripts are linked as ever.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// The Debian package, of the binary and the files that are there; under another version where a test wants one.
pub(crate) fn deb(dir: &Path, version: Option<&str>) -> Result<PathBuf> {
    let made = dir.join("deb");
    fs::create_dir_all(&made).with_context(|| format!("cannot make {}", made.display()))?;
    let mut command = host::cargo();
    command
        .args(["deb", "--no-build", "--strip", "--package", "finwatch", "--target", &triple(), "--output"])
        .arg(&made);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    let printed = process::output(&mut command);
    let printed = printed.context("cargo deb failed: `cargo deb --no-build --package finwatch` says why")?;
    let deb = PathBuf::from(printed.lines().last().unwrap_or_default());
    ensure!(deb.is_file(), "cargo deb named no package: {printed}");
    Ok(deb)
}
