//! What a process's eBPF programs cost, by the kernel's own statistics.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use serde::Serialize;

use super::load::Served;
use crate::test::leftovers::held_programs;

/// The time in all programs, over the runs of the one that runs most: that at every state change.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) state_changes: u64,
    /// Others on the host open and close connections too.
    pub(crate) state_changes_per_request: f64,
    pub(crate) nanoseconds_per_state_change: f64,
}

/// Counts while `load` runs; the statistics are on for no longer.
pub(crate) fn cost(pid: u32, load: impl FnOnce() -> Result<Served>) -> Result<Cost> {
    let ids = held_programs(&Path::new("/proc").join(pid.to_string()));
    ensure!(!ids.is_empty(), "process {pid} has no eBPF program open");
    let statistics = enable_stats(Stats::RunTime).context("switching the kernel's eBPF statistics on")?;
    let before = runs(&ids)?;
    let served = load()?;
    let after = runs(&ids)?;
    drop(statistics);
    let (mut time, mut state_changes) = (Duration::ZERO, 0);
    for (id, (time_after, runs_after)) in after {
        let (time_before, runs_before) = before.get(&id).copied().unwrap_or_default();
        time += time_after.saturating_sub(time_before);
        state_changes = state_changes.max(runs_after.saturating_sub(runs_before));
    }
    ensure!(state_changes > 0, "the eBPF programs of process {pid} did not run");
    let nanoseconds_per_state_change = time.as_nanos() as f64 / state_changes as f64;
    let state_changes_per_request = state_changes as f64 / served.requests as f64;
    Ok(Cost { state_changes, state_changes_per_request, nanoseconds_per_state_change })
}

/// How long a run of the program of this name takes on average while `load` runs.
pub(crate) fn average(pid: u32, name: &str, load: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let ids = held_programs(&Path::new("/proc").join(pid.to_string()));
    let named = loaded_programs().flatten();
    let id = named
        .filter(|program| ids.contains(&program.id()))
        .find(|program| program.name_as_str() == Some(name))
        .with_context(|| format!("process {pid} has no eBPF program {name} open"))?
        .id();
    let statistics = enable_stats(Stats::RunTime).context("switching the kernel's eBPF statistics on")?;
    let (time_before, runs_before) = runs(&[id])?[&id];
    load()?;
    let (time_after, runs_after) = runs(&[id])?[&id];
    drop(statistics);
    let runs = u32::try_from(runs_after.saturating_sub(runs_before)).context("fewer runs")?;
    time_after.saturating_sub(time_before).checked_div(runs).with_context(|| format!("{name} did not run"))
}

/// The memory that a process has in RAM.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kibibytes: u64 = resident.and_then(|kib| kib.parse().ok()).context("no VmRSS")?;
    Ok(kibibytes * 1024)
}

fn runs(ids: &[u32]) -> Result<BTreeMap<u32, (Duration, u64)>> {
    let mut runs = BTreeMap::new();
    for program in loaded_programs() {
        // Others load and unload programs meanwhile: one that is gone is none of ours.
        if let Ok(program) = program
            && ids.contains(&program.id())
        {
            runs.insert(program.id(), (program.run_time(), program.run_count()));
        }
    }
    ensure!(!runs.is_empty(), "the kernel does not list the programs measured");
    Ok(runs)
}
