//! What a process takes: processor time, memory, and the kernel's memory of its maps.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What a process takes while something goes on.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    /// Of one CPU, in user mode.
    pub(crate) user_ratio: f64,
    /// Of one CPU, in user and kernel mode; programs run on the load's account.
    pub(crate) cpu_ratio: f64,
    pub(crate) resident_bytes: u64,
    /// The most it has had since it began.
    pub(crate) peak_bytes: u64,
}

impl Usage {
    /// Of a process while `work` goes on.
    pub(crate) fn during<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let (begun, before) = (Instant::now(), Times::of(pid)?);
        let outcome = work()?;
        let (elapsed, after) = (begun.elapsed().as_secs_f64(), Times::of(pid)?);
        let share = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() / elapsed;
        let usage = Self {
            user_ratio: share(after.user, before.user),
            cpu_ratio: share(after.user + after.system, before.user + before.system),
            resident_bytes: resident_bytes(pid)?,
            peak_bytes: peak_bytes(pid)?,
        };
        Ok((outcome, usage))
    }
}

/// Processor time since a process began.
struct Times {
    user: Duration,
    system: Duration,
}

impl Times {
    fn of(pid: u32) -> Result<Self> {
        let [user, system] = ticks(&read(pid, "stat")?).context("no CPU time in stat")?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let time = |ticks| Duration::from_secs(ticks).div_f64(per_second);
        Ok(Self { user: time(user), system: time(system) })
    }
}

/// The memory that a process has in RAM.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most it has had since it began, or since [`forget_peak`].
pub(crate) fn peak_bytes(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// From now on [`peak_bytes`] tells the most there was since.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    let path = directory(pid).join("clear_refs");
    fs::write(&path, "5").with_context(|| format!("writing {}", path.display()))
}

/// Where the kernel tells about a process.
pub(crate) fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    let kibibytes: u64 = line.and_then(|kib| kib.parse().ok()).with_context(|| format!("no {field}"))?;
    Ok(kibibytes * 1024)
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = directory(pid).join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// utime and stime of `/proc/PID/stat`, counted after the command's name, which may hold anything.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some([times.next()?.ok()?, times.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_after_any_name() {
        let stat = "42 (odd) name) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some([7, 5]));
        assert_eq!(ticks("42 (short) S 1"), None);
    }
}
