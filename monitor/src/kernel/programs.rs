//! What the programs cost, from the kernel's own statistics.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::Ebpf;

use super::hooks::HOOKS;

/// One program's runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often it ran; the kernel counts only while `kernel.bpf_stats_enabled` is 1.
    pub runs: u64,
    /// How long it ran in all, counted likewise.
    pub time: Duration,
    /// How often it was skipped because it would have interrupted itself; always counted.
    pub missed: u64,
}

/// Reads every program's statistics from its descriptor.
pub fn statistics(ebpf: &Ebpf) -> Vec<(&'static str, Runs)> {
    HOOKS
        .iter()
        .filter_map(|hook| {
            let fd = ebpf.program(hook.program)?.fd().ok()?;
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()?;
            Some((hook.program, parse(&text)))
        })
        .collect()
}

/// The statistics in a program descriptor's `fdinfo`:
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L2381-L2419>.
fn parse(fdinfo: &str) -> Runs {
    let fields: HashMap<&str, u64> = fdinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(name, value)| Some((name, value.trim().parse().ok()?)))
        .collect();
    let field = |name| fields.get(name).copied().unwrap_or(0);
    Runs {
        runs: field("run_cnt"),
        time: Duration::from_nanos(field("run_time_ns")),
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
        assert_eq!(parse(text), Runs { runs: 3, time: Duration::from_nanos(1500), missed: 2 });
        assert_eq!(parse("pos:\t0\n"), Runs::default());
    }
}
