//! The traffic of every finding, each scenario with its own checks, while Prometheus reads a daemon of its own.

use std::{collections::BTreeSet, path::Path, thread};

use anyhow::{Result, ensure};

use super::{
    super::{Tally, findings, software},
    STARTED,
};

/// What other software adds to what nginx and Node.js do.
const SOFTWARE: [&str; 3] =
    ["silent drop: never acknowledged", "CLOSE_WAIT leak", "gunicorn's accept queue is full"];
/// Alerts that no traffic sets off here: the agent has room, its hooks work, nothing is out of reach, no pool grows for
/// long, no test holds a thousand sockets in TIME_WAIT, and a race of which both ends are seen is told at the proxy's.
const NEVER: [&str; 13] = [
    "FinwatchAgentDown",
    "FinwatchConnectionsUntracked",
    "FinwatchConnectsTimeOut",
    "FinwatchHookDegraded",
    "FinwatchOwnSideCloses",
    "FinwatchPairsFolded",
    "FinwatchPoolExhausted",
    "FinwatchRecordsLost",
    "FinwatchReloadFailed",
    "FinwatchRunsMissed",
    "FinwatchTimeWaitGrowth",
    "FinwatchTimeWaitOverflow",
    "FinwatchUpstreamUnreachable",
];

/// Plays it.
pub(super) fn play(binary: &Path) -> Result<Tally> {
    thread::scope(|scope| {
        let software = scope.spawn(|| software::run(binary, &SOFTWARE));
        let findings = findings::run(binary, &findings::scenarios());
        let software = software.join().unwrap_or_else(|_| Ok(Tally::ONE_FAILED));
        Ok(findings? + software?)
    })
}

/// No panel and no recording rule is without data, no alert but those that nothing here sets off.
pub(super) fn has_data(empty: &BTreeSet<String>) -> Result<()> {
    let wanted = |name: &&String| !NEVER.contains(&name.as_str()) && !name.ends_with(STARTED);
    let missing: Vec<_> = empty.iter().filter(wanted).collect();
    ensure!(missing.is_empty(), "nothing is returned for {missing:#?}");
    Ok(())
}
