//! What the commands that ask the daemon have in common: where it is, how far back, and how to print.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{LogArgs, Options};
use crate::{
    api::{client::Daemon, socket},
    config::{
        Config,
        value::{AbsolutePath, Given},
    },
};

/// Exit status: something was found.
pub const FOUND: u8 = 1;
/// Columns where there is no terminal to ask.
const WIDTH: usize = 80;
/// Longer lines are hard to read.
const WIDEST: usize = 100;
/// Narrower tables have no room for their figures.
const NARROWEST: usize = 60;

/// Where the daemon is.
#[derive(Clone, Debug, Args)]
pub struct DaemonArgs {
    /// The daemon's configuration file, where it has one: names its run directory, and what is watched where there is
    /// no daemon. [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's run directory. [default: /run/finwatch]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<Given<AbsolutePath>>,
}

impl DaemonArgs {
    /// The configuration that the daemon has, or would have.
    ///
    /// # Errors
    /// When the file is not valid.
    pub fn config(&self, log: LogArgs) -> Result<Config> {
        let flags = Options { run_dir: self.run_dir.clone(), ..Options::default() };
        Ok(Config::load(log, flags, self.config.as_deref())?)
    }
}

/// The daemon of a configuration.
pub fn daemon(config: &Config) -> Daemon {
    Daemon::at(socket::path(&config.run_dir))
}

/// A small runtime for one question.
///
/// # Errors
/// When the system has no more threads.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().context("cannot start a thread")
}

/// The terminal's width, within reason.
pub fn width() -> usize {
    let terminal = io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    terminal.map_or(WIDTH, |(width, _)| usize::from(width.0)).clamp(NARROWEST, WIDEST)
}

/// Whether standard output may be coloured: it is a terminal, and `NO_COLOR` (<https://no-color.org>) is not set.
pub fn color() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints, and ends with `status`; a reader that has seen enough is no error.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(text: &str, status: ExitCode) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(status),
        Err(error) => Err(error).context("cannot write to standard output"),
        Ok(()) => Ok(status),
    }
}

/// Seconds for a question, at least one.
pub fn seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}

/// Completes with Ctrl-C, which is listened for from the call on. Within a runtime.
pub fn interrupted() -> impl Future<Output = ()> + Send {
    let interrupt = signal(SignalKind::interrupt());
    async move {
        match interrupt {
            Ok(mut interrupt) => drop(interrupt.recv().await),
            // Where signals cannot be had, the time ends it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// A word to whoever waits in front of a terminal.
pub fn tell(what: impl Display) {
    if io::stderr().is_terminal() {
        eprintln!("finwatch: {what}");
    }
}
