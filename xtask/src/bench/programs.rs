//! What a process's eBPF programs cost, by the kernel's own statistics.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use serde::Serialize;

use super::usage::directory;
use crate::test::leftovers::held_programs;

/// What the programs did while something went on. The statistics cost something themselves and are on for no longer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Spent {
    /// The runs of the program that ran most often: the one at every state change.
    pub(crate) state_changes: u64,
    programs: Vec<Program>,
}

/// One program's share.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    runs: u64,
    nanoseconds: u64,
}

impl Spent {
    /// By the programs that a process has open, while `work` goes on.
    pub(crate) fn during<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let ids = held_programs(&directory(pid));
        ensure!(!ids.is_empty(), "process {pid} has no eBPF program open");
        let statistics = enable_stats(Stats::RunTime).context("switching the kernel's eBPF statistics on")?;
        let before = read(&ids)?;
        let outcome = work()?;
        let mut programs = read(&ids)?;
        drop(statistics);
        for (id, program) in &mut programs {
            let Some(before) = before.get(id) else { continue };
            program.runs = program.runs.saturating_sub(before.runs);
            program.nanoseconds = program.nanoseconds.saturating_sub(before.nanoseconds);
        }
        let programs: Vec<Program> = programs.into_values().filter(|program| program.runs > 0).collect();
        let state_changes = programs.iter().map(|program| program.runs).max();
        let state_changes =
            state_changes.with_context(|| format!("the eBPF programs of process {pid} did not run"))?;
        Ok((outcome, Self { state_changes, programs }))
    }

    /// In all programs.
    pub(crate) fn nanoseconds(&self) -> f64 {
        self.programs.iter().map(|program| program.nanoseconds as f64).sum()
    }

    /// In all programs, over the runs of the one at every state change.
    pub(crate) fn nanoseconds_per_state_change(&self) -> f64 {
        self.nanoseconds() / self.state_changes as f64
    }

    /// Of all programs.
    pub(crate) fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.runs).sum()
    }

    /// What one run of the program of this name takes; those of the name together.
    pub(crate) fn nanoseconds_per_run(&self, name: &str) -> Option<f64> {
        let ours = || self.programs.iter().filter(|program| program.name == name);
        let runs: u64 = ours().map(|program| program.runs).sum();
        let nanoseconds: u64 = ours().map(|program| program.nanoseconds).sum();
        (runs > 0).then(|| nanoseconds as f64 / runs as f64)
    }

    /// How often the program of this name runs at a state change.
    pub(crate) fn runs_per_state_change(&self, name: &str) -> f64 {
        let ours = self.programs.iter().filter(|program| program.name == name);
        ours.map(|program| program.runs).sum::<u64>() as f64 / self.state_changes as f64
    }
}

fn read(ids: &[u32]) -> Result<BTreeMap<u32, Program>> {
    let mut programs = BTreeMap::new();
    for program in loaded_programs() {
        // Others load and unload programs meanwhile: one that is gone is none of ours.
        if let Ok(program) = program
            && ids.contains(&program.id())
        {
            let name = program.name_as_str().unwrap_or("unnamed").to_owned();
            let nanoseconds = nanoseconds(program.run_time());
            programs.insert(program.id(), Program { name, runs: program.run_count(), nanoseconds });
        }
    }
    ensure!(!programs.is_empty(), "the kernel does not list the programs measured");
    Ok(programs)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_and_summed() {
        let program = |name: &str, runs, nanoseconds| Program { name: name.to_owned(), runs, nanoseconds };
        let programs =
            vec![program("all", 100, 20_000), program("few", 10, 5_000), program("few", 10, 1_000)];
        let spent = Spent { state_changes: 100, programs };
        assert_eq!(spent.nanoseconds_per_state_change().to_string(), "260");
        assert_eq!(spent.nanoseconds_per_run("few"), Some(300.0));
        assert_eq!(spent.runs_per_state_change("few").to_string(), "0.2");
        assert_eq!((spent.runs(), spent.nanoseconds_per_run("none")), (120, None));
    }
}
