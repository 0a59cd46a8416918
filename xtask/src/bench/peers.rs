//! Other watchers of the same events, as their users run them: what finwatch's cost is compared with.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::usage::directory;
use crate::{host, interrupt, process::Running, test::leftovers::held_programs};

/// They find tracepoints in tracefs; where nobody has mounted that, it is mounted for the watcher alone.
const WITH_TRACEFS: &str =
    "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$0\" \"$@\"";
/// How long one may take to load its programs.
const START_LIMIT: Duration = Duration::from_secs(30);
/// From there to its being attached.
const ATTACH: Duration = Duration::from_secs(1);

/// A watcher that Debian has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// A one-liner that only counts: the least that can be told at every state change.
    Bpftrace,
    /// A line for each connection that has ended.
    Tcplife,
    /// A line for each state change.
    Tcpstates,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Bpftrace, Self::Tcplife, Self::Tcpstates];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Bpftrace => &[
                "bpftrace",
                "-e",
                "tracepoint:sock:inet_sock_set_state { @[args->newstate, args->dport] = count(); }",
            ],
            Self::Tcplife => &["tcplife"],
            Self::Tcpstates => &["tcpstates"],
        }
    }

    fn program(self) -> Option<PathBuf> {
        host::find_program(self.arguments()[0])
    }

    /// Whether it is here.
    pub(crate) fn is_installed(self) -> bool {
        self.program().is_some()
    }

    /// What one would type.
    pub(crate) fn typed(self) -> String {
        let quoted = self.arguments().iter().map(|argument| {
            if argument.contains(' ') { format!("'{argument}'") } else { (*argument).to_owned() }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Starts it; what it prints goes nowhere.
    pub(crate) fn start(self) -> Result<Running> {
        let [name, arguments @ ..] = self.arguments() else { bail!("a watcher without a name") };
        let program = self.program().with_context(|| format!("{name} is not installed"))?;
        let mut command = host::command("unshare");
        command.args(["--mount", "sh", "-c", WITH_TRACEFS]).arg(program).args(arguments);
        let mut running = Running::spawn(name, command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let loaded = interrupt::poll(START_LIMIT, || {
            if let Some(status) = running.ended()? {
                bail!("{name} ended ({status}): does this run here? {}", self.typed());
            }
            Ok((!held_programs(&directory(running.id())).is_empty()).then_some(()))
        })?;
        loaded.with_context(|| format!("{name} loaded no program in time"))?;
        interrupt::pause(ATTACH)?;
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_typed() {
        assert_eq!(Peer::Tcplife.typed(), "tcplife");
        assert!(Peer::Bpftrace.typed().starts_with("bpftrace -e 'tracepoint:"));
        assert!(Peer::Bpftrace.typed().ends_with("}'"));
    }
}
