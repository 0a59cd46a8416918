//! What watches while the load runs, and what it takes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::programs;
use crate::{daemon::Daemon, host, interrupt, process::Running, test::leftovers::held_programs};

/// The least that can be counted at every state change.
pub(super) const COUNTING: &str =
    "tracepoint:sock:inet_sock_set_state { @[args->newstate, args->dport] = count(); }";
/// bpftrace finds tracepoints in tracefs; where nobody has mounted that, it is mounted for bpftrace alone.
const WITH_TRACEFS: &str =
    "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$0\" \"$@\"";
/// How long bpftrace may take to load its program.
const START_LIMIT: Duration = Duration::from_secs(30);
/// From there to its being attached.
const ATTACH: Duration = Duration::from_secs(1);

/// What watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Nothing.
    Untraced,
    /// The daemon.
    Finwatch,
    /// A one-liner that only counts.
    Bpftrace,
}

/// What a tracer takes while the load runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    /// Of one CPU, in user and kernel mode; the programs run on the load's account.
    pub(crate) cpu_ratio: f64,
    pub(crate) resident_bytes: u64,
}

/// A tracer under way.
pub(crate) enum Tracer {
    Finwatch(Daemon),
    Bpftrace(Running),
}

impl Tracer {
    /// Starts what that mode needs.
    pub(crate) fn start(mode: Mode, finwatch: &Path) -> Result<Option<Self>> {
        match mode {
            Mode::Untraced => Ok(None),
            Mode::Finwatch => Daemon::private(finwatch).map(Self::Finwatch).map(Some),
            Mode::Bpftrace => bpftrace().map(Self::Bpftrace).map(Some),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Finwatch(daemon) => daemon.pid(),
            Self::Bpftrace(running) => running.id(),
        }
    }

    /// What it takes while `load` runs.
    pub(crate) fn usage<T>(&self, load: impl FnOnce() -> Result<T>) -> Result<(T, Usage)> {
        let (start, before) = (Instant::now(), self.cpu_time()?);
        let outcome = load()?;
        let cpu_time = self.cpu_time()?.saturating_sub(before);
        let cpu_ratio = cpu_time.as_secs_f64() / start.elapsed().as_secs_f64();
        Ok((outcome, Usage { cpu_ratio, resident_bytes: programs::resident_bytes(self.pid())? }))
    }

    fn cpu_time(&self) -> Result<Duration> {
        let ticks = cpu_ticks(&self.read("stat")?).context("no CPU time in stat")?;
        Ok(Duration::from_secs(ticks).div_f64(rustix::param::clock_ticks_per_second() as f64))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = proc(self.pid()).join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

fn proc(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// utime and stime of `/proc/PID/stat`, counted after the command's name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

fn bpftrace() -> Result<Running> {
    let bpftrace = host::find_program("bpftrace").context("bpftrace is not installed")?;
    let mut command = host::command("unshare");
    command.args(["--mount", "sh", "-c", WITH_TRACEFS]).arg(bpftrace).args(["-e", COUNTING]);
    let mut running = Running::spawn("bpftrace", command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let loaded = interrupt::poll(START_LIMIT, || {
        if let Some(status) = running.ended()? {
            bail!("bpftrace ended ({status}): does this run here? bpftrace -e '{COUNTING}'");
        }
        Ok((!held_programs(&proc(running.id())).is_empty()).then_some(()))
    })?;
    loaded.context("bpftrace loaded no program in time")?;
    interrupt::pause(ATTACH)?;
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_after_any_name() {
        let stat = "42 (odd) name) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42 (short) S 1"), None);
    }
}
