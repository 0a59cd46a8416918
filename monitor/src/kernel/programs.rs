//! What the programs cost, from the kernel's own statistics.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};

use aya::Ebpf;

use super::hooks::Hook;
use crate::model::source::ProgramStats;

const NS_PER_SECOND: f64 = 1e9;

/// The loaded programs' descriptors, which live as long as the programs.
#[derive(Clone, Debug)]
pub struct Programs {
    descriptors: Vec<(&'static str, RawFd)>,
}

impl Programs {
    /// The programs of `ebpf` that are loaded.
    pub fn of(ebpf: &Ebpf) -> Self {
        let loaded = Hook::all().flat_map(|hook| hook.programs(true)).filter_map(|program| {
            let fd = ebpf.program(program)?.fd().ok()?;
            Some((program, fd.as_fd().as_raw_fd()))
        });
        Self { descriptors: loaded.collect() }
    }

    /// Reads every program's statistics.
    pub fn statistics(&self) -> Vec<ProgramStats> {
        let read = |(name, fd): &(&str, RawFd)| {
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            Some(parse(name, &text))
        };
        self.descriptors.iter().filter_map(read).collect()
    }
}

/// The statistics in a program descriptor's `fdinfo`:
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L2381-L2419>.
fn parse(program: &str, fdinfo: &str) -> ProgramStats {
    let fields: HashMap<&str, u64> = fdinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(name, value)| Some((name, value.trim().parse().ok()?)))
        .collect();
    let field = |name| fields.get(name).copied().unwrap_or(0);
    ProgramStats {
        program: program.to_owned(),
        runs: field("run_cnt"),
        run_seconds: field("run_time_ns") as f64 / NS_PER_SECOND,
        missed: field("recursion_misses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_is_read() {
        let text =
            "pos:\t0\nprog_type:\t26\nprog_id:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\nrecursion_misses:\t2\n";
        let stats = parse("set_state", text);
        assert_eq!((stats.runs, stats.missed), (3, 2));
        assert!((stats.run_seconds - 1.5e-6).abs() < 1e-12);
        assert_eq!(parse("set_state", "pos:\t0\n").runs, 0);
    }
}
