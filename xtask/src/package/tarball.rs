//! The tarball: the binary and what belongs to it, for systems without Debian's packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{MINUTE, VERSION};
use crate::{host, process};

/// Files of the repository, and where each goes.
const FILES: [(&str, &str); 7] = [
    ("deploy/finwatch.toml", "finwatch.toml"),
    ("deploy/systemd/finwatch.service", "finwatch.service"),
    ("deploy/systemd/finwatch.service.d/namespaces.conf", "namespaces.conf"),
    ("deploy/systemd/finwatch.service.d/conntrack.conf", "conntrack.conf"),
    ("docs/install.md", "install.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
];

/// Makes it in `dir`, which has the generated files.
pub(super) fn make(binary: &Path, dir: &Path) -> Result<PathBuf> {
    let name = format!("finwatch-{VERSION}-{}-linux", env::consts::ARCH);
    let root = dir.join(&name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let files = FILES.map(|(file, place)| (host::root().join(file), root.join(place)));
    for (file, place) in [(binary.to_owned(), root.join("finwatch"))].into_iter().chain(files) {
        fs::copy(&file, place).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    process::run("strip", host::command("strip").arg(root.join("finwatch")), MINUTE)?;
    let generated = ["man", "completions"].map(|generated| dir.join(generated));
    process::run("cp", host::command("cp").arg("-R").args(generated).arg(&root), MINUTE)?;
    let tarball = dir.join(format!("{name}.tar.gz"));
    let mut tar = host::command("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--sort=name", "--file"]).arg(&tarball);
    process::run("tar", tar.arg("--directory").arg(dir).arg(&name), MINUTE)?;
    Ok(tarball)
}
