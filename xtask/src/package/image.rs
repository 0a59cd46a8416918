//! The container image, built by buildah without a daemon: nothing is run within, so nothing needs more than a chroot.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{MINUTE, VERSION};
use crate::{host, process};

/// Makes the archive in `dir`.
pub(super) fn make(binary: &Path, dir: &Path) -> Result<PathBuf> {
    let context = dir.join("image");
    let run = context.join("run");
    fs::create_dir_all(&run).with_context(|| format!("cannot make {}", run.display()))?;
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(host::root().join(file), context.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    fs::copy(binary, context.join("finwatch")).context("cannot copy the binary")?;
    process::run("strip", host::command("strip").arg(context.join("finwatch")), MINUTE)?;
    let tag = format!("finwatch:{VERSION}");
    let label = format!("org.opencontainers.image.version={VERSION}");
    let mut build = buildah(dir);
    build.args(["bud", "--isolation", "chroot", "--label", &label, "--tag", &tag, "--file"]);
    build.arg(host::root().join("deploy/container/Containerfile")).arg(&context);
    process::run("buildah bud", &mut build, MINUTE)?;
    let archive = dir.join(format!("finwatch-{VERSION}-{}.oci.tar", env::consts::ARCH));
    if archive.exists() {
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    }
    let mut push = buildah(dir);
    push.args(["push", "--quiet", &tag, &format!("oci-archive:{}:{tag}", archive.display())]);
    process::run("buildah push", &mut push, MINUTE)?;
    Ok(archive)
}

/// Its store is ours, and needs no file system of its own.
pub(crate) fn buildah(dir: &Path) -> std::process::Command {
    let mut buildah = host::command("buildah");
    let store = dir.join("buildah");
    buildah.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    buildah.args(["--storage-driver", "vfs"]);
    buildah
}
