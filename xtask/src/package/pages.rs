//! What the binary says about itself: manual pages and completions; and the changelog that Debian asks for.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};

use super::{MINUTE, VERSION};
use crate::{host, process};

const MAINTAINER: &str = "The finwatch developers <finwatch@users.noreply.github.com>";

/// Writes them into `dir`.
pub(super) fn write(binary: &Path, dir: &Path) -> Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    process::run("finwatch man", host::command(binary).args(["man", "--dir"]).arg(&man), MINUTE)?;
    for shell in ["bash", "zsh", "fish"] {
        let script = process::output(host::command(binary).args(["completions", shell]));
        let script = script.with_context(|| format!("finwatch completions {shell} failed"))?;
        fs::write(completions.join(shell), script + "\n").context("cannot write the completions")?;
    }
    fs::write(dir.join("changelog"), changelog()?).context("cannot write the changelog")
}

fn changelog() -> Result<String> {
    Ok(format!(
        "finwatch ({VERSION}-1) unstable; urgency=medium\n\n  * Release {VERSION}.\n\n -- {MAINTAINER}  {}\n",
        date()?
    ))
}

/// That of the last commit, else today's, as Debian writes it.
fn date() -> Result<String> {
    let committed =
        process::output(host::command("git").arg("-C").arg(host::root()).args(["log", "-1", "--format=%ct"]));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let seconds = committed.and_then(|seconds| seconds.parse().ok()).unwrap_or_else(now);
    let date = process::output(host::command("date").args([
        "--utc",
        "--rfc-email",
        "--date",
        &format!("@{seconds}"),
    ]));
    date.context("date does not tell the date")
}
