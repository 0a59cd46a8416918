//! What watches while the load runs, and what it takes.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::{empty, peers::Peer, usage::Usage};
use crate::{daemon::Daemon, interrupt, process::Running};

/// How often the daemon is scraped.
pub(super) const SCRAPED_EVERY: Duration = Duration::from_secs(5);

/// What watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Nothing.
    Untraced,
    /// Programs on the daemon's hooks that return at once.
    Empty,
    /// The daemon.
    Finwatch,
    /// The daemon, following requests.
    Requests,
    /// The daemon, following requests to a jiffy.
    RequestsCoarse,
    /// Another.
    Peer(Peer),
}

impl Mode {
    /// What a table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::Empty => "empty programs on finwatch's hooks",
            Self::Finwatch => "finwatch",
            Self::Requests => "finwatch --requests",
            Self::RequestsCoarse => "finwatch --requests=coarse",
            Self::Peer(Peer::Bpftrace) => "bpftrace, only counting",
            Self::Peer(Peer::Tcplife) => "tcplife",
            Self::Peer(Peer::Tcpstates) => "tcpstates",
        }
    }
}

/// A tracer under way.
pub(crate) enum Tracer {
    // Named for its drop: detaches the programs.
    Empty(#[expect(dead_code, reason = "it is there until it is dropped")] empty::Tracepoints),
    Finwatch(Daemon),
    Peer(Running),
}

impl Tracer {
    /// Starts what that mode needs.
    pub(crate) fn start(mode: Mode, finwatch: &Path) -> Result<Option<Self>> {
        let daemon = |flags: &[&str]| Daemon::private_with(finwatch, flags).map(Self::Finwatch).map(Some);
        match mode {
            Mode::Untraced => Ok(None),
            Mode::Empty => empty::Tracepoints::attach().map(Self::Empty).map(Some),
            Mode::Finwatch => daemon(&[]),
            Mode::Requests => daemon(&["--requests=on"]),
            Mode::RequestsCoarse => daemon(&["--requests=coarse"]),
            Mode::Peer(peer) => peer.start().map(Self::Peer).map(Some),
        }
    }

    /// The process that has the programs open.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Empty(_) => std::process::id(),
            Self::Finwatch(daemon) => daemon.pid(),
            Self::Peer(running) => running.id(),
        }
    }

    /// What its process takes while `load` runs; nothing where that is this very process. The daemon is scraped meanwhile.
    pub(crate) fn usage<T: Send>(
        &self,
        load: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(T, Option<Usage>)> {
        let measured = match self {
            Self::Empty(_) => return Ok((load()?, None)),
            Self::Finwatch(daemon) => Usage::during(daemon.pid(), || scraped(daemon, load)),
            Self::Peer(running) => Usage::during(running.id(), load),
        };
        measured.map(|(outcome, usage)| (outcome, Some(usage)))
    }
}

/// Runs `load` on a thread and scrapes the daemon until that ends.
pub(crate) fn scraped<T: Send>(daemon: &Daemon, load: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let load = scope.spawn(load);
        let mut due = Instant::now();
        while !load.is_finished() {
            if Instant::now() >= due {
                daemon.scrape()?;
                due += SCRAPED_EVERY;
            }
            thread::sleep(interrupt::SLICE);
        }
        load.join().map_err(|_panic| anyhow!("the thread of the load has ended"))?
    })
}
