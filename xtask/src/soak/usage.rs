//! What the daemon takes: memory, the kernel's memory of its tables, descriptors and threads; and whether that grows.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::bench::{tables, usage::resident_bytes};

/// Threads that the runtime starts where two tasks wait for the kernel at once; they stay for some seconds.
const FOR_A_WHILE: u64 = 2;
const KIB: u64 = 1024;

/// What it takes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    resident_bytes: u64,
    table_bytes: u64,
    descriptors: u64,
    threads: u64,
}

impl Usage {
    /// Of this process now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let count = |what: &str| -> Result<u64> {
            let path = process.join(what);
            let entries = fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?;
            Ok(entries.count() as u64)
        };
        Ok(Self {
            resident_bytes: resident_bytes(pid)?,
            table_bytes: tables::bytes(&tables::held(pid)?),
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }

    /// What is open now that was not `before`.
    pub(crate) fn more_open_than(&self, before: &Self) -> Option<String> {
        let (before, now) = (before.descriptors, self.descriptors);
        (now > before).then(|| format!("{now} descriptors are open, before the load it were {before}"))
    }

    fn highest(usages: &[Self]) -> Self {
        Self::each(usages, u64::max)
    }

    fn lowest(usages: &[Self]) -> Self {
        Self::each(usages, u64::min)
    }

    fn each(usages: &[Self], choose: fn(u64, u64) -> u64) -> Self {
        let chosen = usages.iter().copied().reduce(|one, other| Self {
            resident_bytes: choose(one.resident_bytes, other.resident_bytes),
            table_bytes: choose(one.table_bytes, other.table_bytes),
            descriptors: choose(one.descriptors, other.descriptors),
            threads: choose(one.threads, other.threads),
        });
        chosen.unwrap_or_default()
    }
}

/// What it took from the beginning to the end of a load.
#[derive(Debug, Default)]
pub(crate) struct Course(Vec<Usage>);

impl Course {
    /// One more look.
    pub(crate) fn add(&mut self, usage: Usage) {
        self.0.push(usage);
    }

    /// The first third is the warm-up: caches, the history of counts and the incidents in memory fill up.
    fn warm(&self) -> &[Usage] {
        &self.0[self.0.len() / 3..]
    }

    /// The first and the last quarter after the warm-up.
    fn ends(&self) -> [&[Usage]; 2] {
        let warm = self.warm();
        let quarter = warm.len().div_ceil(4);
        [&warm[..quarter], &warm[warm.len() - quarter..]]
    }

    /// What has grown after the warm-up: memory by more than so many bytes; of what comes and goes, the least at the end
    /// is more than the most at first.
    pub(crate) fn growth(&self, may_grow: u64) -> Vec<String> {
        let [warm, end] = self.ends();
        let (before, highest, lowest) = (Usage::highest(warm), Usage::highest(end), Usage::lowest(end));
        [
            (
                "resident memory, KiB",
                before.resident_bytes / KIB,
                highest.resident_bytes / KIB,
                may_grow / KIB,
            ),
            ("tables in the kernel, KiB", before.table_bytes / KIB, highest.table_bytes / KIB, 0),
            ("descriptors", before.descriptors, lowest.descriptors, 0),
            ("threads", before.threads, lowest.threads, FOR_A_WHILE),
        ]
        .into_iter()
        .filter(|(_, first, last, may_grow)| *last > first + may_grow)
        .map(|(what, first, last, _)| format!("{what}: {first} after the warm-up, {last} at the end"))
        .collect()
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        let start = self.0.first().copied().unwrap_or_default();
        let [first, last] = self.ends().map(Usage::highest);
        let looks = [start, first, last, Usage::highest(&self.0)];
        let mut table = String::from(
            "| | at the start | after the warm-up | at the end | highest |\n|---|--:|--:|--:|--:|\n",
        );
        for (name, usages) in [
            ("resident memory, KiB", looks.map(|usage| usage.resident_bytes / KIB)),
            ("tables in the kernel, KiB", looks.map(|usage| usage.table_bytes / KIB)),
            ("descriptors", looks.map(|usage| usage.descriptors)),
            ("threads", looks.map(|usage| usage.threads)),
        ] {
            let [start, first, last, highest] = usages;
            // Writing to a String does not fail.
            let _ = writeln!(table, "| {name} | {start} | {first} | {last} | {highest} |");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(resident: impl Fn(u64) -> u64) -> Course {
        let usage = |second| Usage { resident_bytes: resident(second) * KIB, ..Usage::default() };
        Course((0..120).map(usage).collect())
    }

    #[test]
    fn growth_counts_after_the_warm_up() {
        assert_eq!(course(|second| second.min(40)).growth(0), Vec::<String>::new());
        assert_eq!(course(|second| second % 7).growth(0), Vec::<String>::new());
        assert_eq!(course(|second| second).growth(59 * KIB).len(), 1);
        assert_eq!(course(|second| second).growth(60 * KIB).len(), 0);
    }

    #[test]
    fn what_comes_and_goes_grows_when_its_least_does() {
        let course = |threads: fn(u64) -> u64| {
            Course((0..120).map(|second| Usage { threads: threads(second), ..Usage::default() }).collect())
        };
        assert_eq!(course(|second| 5 + second % 7).growth(0), Vec::<String>::new());
        assert_eq!(course(|second| 5 + second / 60).growth(0), Vec::<String>::new());
        assert_eq!(course(|second| 5 + second / 5 + second % 7).growth(0).len(), 1);
    }
}
