//! The Python servers that tests put behind proxies, and what judges the Helm chart, in an environment of their own under
//! `target/`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// Exact versions with their hashes.
const SERVERS: &str = include_str!("requirements.txt");
/// Helm as a library, and Kubernetes' schemas; published for this architecture.
#[cfg(target_arch = "x86_64")]
const CHART: &str = include_str!("chart.txt");
#[cfg(not(target_arch = "x86_64"))]
const CHART: &str = "";
/// Downloading 100 MiB.
const LIMIT: Duration = Duration::from_mins(5);
/// Debian's: `python3-venv` belongs to it, and not to another one that PATH may name first.
const PYTHON: &str = "/usr/bin/python3";

/// Where the environment is.
pub(crate) fn environment() -> PathBuf {
    host::target().join("python-servers")
}

/// One of its programs.
pub(crate) fn program(name: &str) -> PathBuf {
    environment().join("bin").join(name)
}

/// Whether the environment holds what is asked for.
pub(super) fn installed() -> bool {
    fs::read_to_string(marker()).is_ok_and(|installed| installed == requirements())
}

/// Whether Helm is among them.
pub(crate) fn has_helm() -> bool {
    !CHART.is_empty()
}

/// What pip is told. The programs name the environment's place, so that one that has moved is not what is asked for.
fn requirements() -> String {
    format!("# For {}\n{SERVERS}{CHART}", environment().display())
}

/// Whether Debian's Python can make environments.
pub(super) fn makes_environments() -> bool {
    process::output(host::command(PYTHON).args(["-c", "import ensurepip, venv"])).is_some()
}

/// Makes the environment anew.
pub(super) fn install() -> Result<()> {
    let dir = environment();
    println!("python3 -m venv --clear {}", dir.display());
    process::run("python3 -m venv", host::command(PYTHON).args(["-m", "venv", "--clear"]).arg(&dir), LIMIT)?;
    let requirements = dir.join("wanted.txt");
    fs::write(&requirements, self::requirements()).context("writing what pip shall install")?;
    let mut pip = host::command(program("python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
    process::run(
        "pip install",
        pip.args(["--only-binary", ":all:", "--requirement"]).arg(&requirements),
        LIMIT,
    )?;
    fs::rename(&requirements, marker()).context("noting what pip has installed")
}

/// Written last: what has been installed.
fn marker() -> PathBuf {
    environment().join("installed.txt")
}
