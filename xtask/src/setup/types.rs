//! What Grafana publishes as the types of its dashboards and the Prometheus operator as those of its monitors, and the
//! compiler that checks them, under `target/`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// Exact versions, with their hashes in the second.
const PACKAGE: &str = include_str!("types/package.json");
const LOCK: &str = include_str!("types/package-lock.json");
/// Downloading some MiB.
const LIMIT: Duration = Duration::from_mins(5);

/// Where they are.
pub(crate) fn directory() -> PathBuf {
    host::target().join("types")
}

/// Whether what [`LOCK`] asks for is there.
pub(super) fn installed() -> bool {
    fs::read_to_string(marker()).is_ok_and(|installed| installed == LOCK)
}

/// Installs them anew; none of their scripts is run.
pub(super) fn install() -> Result<()> {
    let dir = directory();
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    fs::write(dir.join("package.json"), PACKAGE).context("writing what npm shall install")?;
    fs::write(dir.join("package-lock.json"), LOCK).context("writing what npm shall install")?;
    let mut npm = host::command("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&dir);
    println!("{}", process::typed(&npm));
    process::run("npm ci", npm.current_dir(&dir), LIMIT)?;
    fs::write(marker(), LOCK).context("noting what npm has installed")
}

/// Written last: what has been installed.
fn marker() -> PathBuf {
    directory().join("installed.json")
}
