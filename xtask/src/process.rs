//! Children that never outlive this process: each leads a process group that is ended on every path.

use std::{
    iter,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::interrupt;

/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A child under way; dropping it ends its whole process group.
pub(crate) struct Running {
    name: String,
    child: Child,
    group: Option<Pid>,
}

impl Running {
    /// Starts it without a terminal to read from, in a process group of its own.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        interrupt::check()?;
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self { name: name.to_owned(), child, group })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits for its end; past the limit, or when a signal comes, that is an error and the child is ended.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<ExitStatus> {
        match interrupt::poll(limit, || self.ended())? {
            Some(status) => Ok(status),
            None => bail!("{} was still running after {} s: ended it", self.name, limit.as_secs()),
        }
    }

    /// Waits for its end however long that takes; only a signal ends the wait.
    pub(crate) fn wait_forever(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            interrupt::pause(interrupt::SLICE)?;
        }
    }

    /// SIGTERM, and SIGKILL to whatever of the group is left after the grace time.
    fn end(&mut self) {
        let Some(group) = self.group.take() else { return };
        // It fails only once the group is gone.
        _ = kill_process_group(group, Signal::TERM);
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            // Reaps the leader; the group exists until its last member is gone.
            let leader_gone = !matches!(self.child.try_wait(), Ok(None));
            if leader_gone && test_kill_process_group(group).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        _ = kill_process_group(group, Signal::KILL);
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command to its end within the limit; an unsuccessful one is an error.
pub(crate) fn run(name: &str, command: &mut Command, limit: Duration) -> Result<()> {
    let status = Running::spawn(name, command)?.wait(limit)?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// What a short command prints, when it succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
pub(crate) fn typed(command: &Command) -> String {
    let envs = command.get_envs().filter(|(name, _)| *name != "PATH");
    let envs = envs.filter_map(|(name, value)| Some(format!("{}=\"{}\"", name.display(), value?.display())));
    let words = iter::once(command.get_program()).chain(command.get_args());
    envs.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}
