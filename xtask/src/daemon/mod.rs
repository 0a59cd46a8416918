//! A finwatch daemon of our own, from its start to its end.

pub(crate) mod metrics;
pub(crate) mod triage;
pub(crate) mod watch;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use self::{metrics::Samples, triage::Triage};
use crate::{host, interrupt, process::Running};

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:9778";
/// How long attaching every hook may take where much else goes on.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// A daemon under way; dropping it ends it.
pub(crate) struct Daemon {
    running: Running,
    address: String,
    binary: PathBuf,
    // After `running`: the daemon ends before its directory goes.
    dir: Option<TempDir>,
}

impl Daemon {
    /// One that nobody else talks to: its own port, its own directory, its log kept apart.
    pub(crate) fn private(binary: &Path) -> Result<Self> {
        Self::private_with(binary, &[])
    }

    /// The same with flags.
    pub(crate) fn private_with(binary: &Path, flags: &[&str]) -> Result<Self> {
        Self::private_changed(binary, flags, |_| ())
    }

    /// The same with its command changed.
    pub(crate) fn private_changed(
        binary: &Path,
        flags: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("finwatch-run-").tempdir().context("a directory to run in")?;
        let log = File::create(log_path(&dir)).context("the daemon's log")?;
        let address = format!("127.0.0.1:{}", host::free_port()?);
        let mut command = host::command(binary);
        command.args(["run", "--listen", &address, "--run-dir"]).arg(dir.path()).args(flags);
        command.stdout(log.try_clone().context("the daemon's log")?).stderr(log);
        change(&mut command);
        let running = Running::spawn("finwatch run", &mut command)?;
        let mut daemon = Self { running, address, binary: binary.to_owned(), dir: Some(dir) };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// The host's own daemon, with the user's flags and its log on our terminal.
    pub(crate) fn foreground(binary: &Path, address: &str, flags: &[String]) -> Result<Self> {
        let running = Running::spawn("finwatch run", host::command(binary).arg("run").args(flags))?;
        let mut daemon = Self { running, address: address.to_owned(), binary: binary.to_owned(), dir: None };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let url = format!("http://{}/readyz", self.address);
        let ready = interrupt::poll(READY_LIMIT, || {
            if let Some(status) = self.running.ended()? {
                bail!("finwatch run ended before it was ready ({status}){}", self.log());
            }
            Ok(metrics::get(&url).ok())
        })?;
        if ready.is_none() {
            bail!("{url} did not answer 200 within {} s{}", READY_LIMIT.as_secs(), self.log());
        }
        Ok(())
    }

    /// What a daemon with a log of its own has said.
    fn log(&self) -> String {
        let text =
            self.dir.as_ref().and_then(|dir| fs::read_to_string(log_path(dir)).ok()).unwrap_or_default();
        if text.is_empty() { text } else { format!(":\n{}", text.trim_end()) }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, signal).context("signalling finwatch run")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where its metrics are.
    pub(crate) fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Its metrics now.
    pub(crate) fn scrape(&self) -> Result<Samples> {
        Samples::scrape(&self.metrics_url())
    }

    /// What `finwatch triage` says about the time since.
    pub(crate) fn triage(&self, since: Duration) -> Result<Triage> {
        let dir = self.dir.as_ref().context("only a daemon with a directory of its own is asked")?;
        Triage::ask(&self.binary, dir.path(), since)
    }

    /// Goes on until it ends by itself or a signal comes.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.running.wait_forever()
    }
}

fn log_path(dir: &TempDir) -> PathBuf {
    dir.path().join("finwatch.log")
}
