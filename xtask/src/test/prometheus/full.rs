//! The traffic of every finding, each scenario with its own checks, while Prometheus reads a daemon of its own; and what
//! sets off the alerts that no finding does.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, ensure};

use super::{
    super::{Tally, findings, software},
    Instances, STARTED, nested, time_wait,
};
use crate::daemon::Daemon;

/// What other software adds to what nginx and Node.js do.
const SOFTWARE: [&str; 5] = [
    "silent drop: never acknowledged",
    "CLOSE_WAIT leak",
    "a pool fills up",
    "connects that time out, and to a host that is not there",
    "gunicorn's accept queue is full",
];
/// The agent that sees this host's own sockets alone, as `instance`: a race of which both ends are seen is told at the
/// proxy's.
pub(super) const HOST_ONLY: &str = "host-only";

/// Starts that agent; it tells the proxies of [`findings`] apart that are elsewhere.
pub(super) fn host_only(binary: &Path) -> Result<Daemon> {
    Daemon::private_with(binary, &["--netns", "host", "--proxy-ranges", "198.18.0.0/24"])
}

/// Plays it, one after the other: each has daemons of its own beside those that Prometheus reads.
pub(super) fn play(binary: &Path) -> Result<Tally> {
    let findings = findings::run(binary, &findings::scenarios())?;
    let software = software::run(binary, &SOFTWARE)?;
    time_wait::grows()?;
    nested::interrupts()?;
    Ok(findings + software)
}

/// No panel, no recording rule and no alert is without data.
pub(super) fn has_data(evaluated: &BTreeMap<String, Instances>) -> Result<()> {
    let empty = evaluated.iter().filter(|(_, instances)| instances.is_empty()).map(|(name, _)| name);
    let missing: Vec<_> = empty.filter(|name| !name.ends_with(STARTED)).collect();
    ensure!(missing.is_empty(), "nothing is returned for {missing:#?}");
    Ok(())
}
