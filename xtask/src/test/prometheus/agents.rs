//! Agents that are in trouble themselves: too small for their traffic, on a kernel that refuses a hook, with a
//! configuration that is broken, and gone.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use tempfile::NamedTempFile;

use crate::{daemon::Daemon, host, interrupt, process, traffic::nginx::Nginx};

/// Their names, as `instance`.
const SMALL: &str = "small";
const DEGRADED: &str = "degraded";
/// What is told of whom, and of nobody else.
pub(super) const TOLD: [(&str, &str); 5] = [
    ("FinwatchConnectionsUntracked", SMALL),
    ("FinwatchHookDegraded", DEGRADED),
    ("FinwatchPairsFolded", SMALL),
    ("FinwatchRecordsLost", SMALL),
    ("FinwatchReloadFailed", DEGRADED),
];
/// The least that may be asked for.
const BOUNDS: [&str; 6] =
    ["--max-pairs", "16", "--max-connections", "1024", "--incidents-per-second", "1000000"];
/// Connections at once: with both ends on this host, more than are watched.
const CONNECTIONS: u32 = 700;
/// Accepting ends: more than there may be pairs.
const ENDS: u8 = 40;
/// More incidents than the kernel holds for an agent that does not take them.
const INCIDENTS: u32 = 3_000;
/// Prometheus reads each second.
const SEEN: Duration = Duration::from_secs(3);
/// How long wrk, or a reload, may take.
const LIMIT: Duration = Duration::from_secs(20);
const NAMES: &str = "[names.upstreams]\n\"192.0.2.1:80\" = \"checkout\"\n";
const BROKEN: &str = "[names.upstreams]\n\"192.0.2.1:80:80\" = \"checkout\"\n";

/// Both of them.
pub(super) struct Agents {
    small: Daemon,
    busy: Nginx,
    /// Where nobody listens.
    dead: u16,
    degraded: Daemon,
    config: NamedTempFile,
}

impl Agents {
    /// Starts them; as yet all is well, but for the hook.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        let busy =
            Nginx::start(1, |port| format!("server {{ listen {port}; location / {{ return 200; }} }}"))?;
        let dead = host::free_port()?;
        let ports = [busy.port(), dead].map(|port| port.to_string());
        let watched = ["--include-port", &ports[0], "--include-port", &ports[1]];
        let small = Daemon::private_with(binary, &[&BOUNDS[..], &watched].concat())?;
        let config = NamedTempFile::new().context("a configuration")?;
        fs::write(config.path(), NAMES).context("the configuration")?;
        // What only this flag shows is shown, too.
        let flags = ["--conntrack", "--config", config.path().to_str().context("a path in UTF-8")?];
        let refusal = refusal()?;
        let degraded = Daemon::private_changed(binary, &[&flags[..], &watched].concat(), |command| {
            refuse(command, refusal);
        })?;
        Ok(Self { small, busy, dead, degraded, config })
    }

    /// What Prometheus is to read.
    pub(super) fn targets(&self) -> [(&str, &str); 2] {
        [(SMALL, self.small.address()), (DEGRADED, self.degraded.address())]
    }

    /// What is told of them comes true while Prometheus reads; in the end the degraded one is gone.
    pub(super) fn trouble(self) -> Result<()> {
        self.reload(BROKEN, 0)?;
        interrupt::pause(SEEN)?;
        self.reload(NAMES, 1)?;
        self.too_many_connections()?;
        interrupt::pause(SEEN)?;
        for host in 1..=ENDS {
            let address = (Ipv4Addr::new(127, 0, 0, host), self.busy.port());
            TcpStream::connect(address).context("connecting to nginx")?;
        }
        interrupt::pause(SEEN)?;
        self.small.signal(Signal::STOP)?;
        let refused =
            (0..INCIDENTS).filter(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, self.dead)).is_err());
        let refused = refused.count();
        self.small.signal(Signal::CONT)?;
        ensure!(refused == INCIDENTS as usize, "somebody listens at {}", self.dead);
        interrupt::pause(SEEN)?;
        let Self { small, degraded, .. } = self;
        drop(degraded);
        interrupt::pause(SEEN)?;
        drop(small);
        Ok(())
    }

    /// The degraded one reads its configuration again, and says how that went.
    fn reload(&self, text: &str, successful: u64) -> Result<()> {
        fs::write(self.config.path(), text).context("the configuration")?;
        self.degraded.signal(Signal::HUP)?;
        let done = interrupt::poll(LIMIT, || {
            let told = self.degraded.scrape()?.sum("finwatch_config_last_reload_successful", &[])?;
            Ok((told == successful).then_some(()))
        })?;
        done.with_context(|| format!("the reload is not told as {successful}"))
    }

    fn too_many_connections(&self) -> Result<()> {
        let wrk =
            host::find_program("wrk").context("wrk is not installed: `cargo xtask setup --for test`")?;
        let mut wrk = host::command(wrk);
        wrk.args(["-t1", &format!("-c{CONNECTIONS}"), "-d2", &format!("http://{}/", self.busy.address())]);
        process::run("wrk", wrk.stdout(Stdio::null()), LIMIT)
    }
}

/// The kernel answers `BPF_ITER_CREATE` with EPERM, and everything else as ever.
fn refusal() -> Result<BpfProgram> {
    const BPF_ITER_CREATE: u64 = 33;
    let is_create = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, BPF_ITER_CREATE)?;
    let rules = [(libc::SYS_bpf, vec![SeccompRule::new(vec![is_create])?])].into_iter().collect();
    let error = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, error, architecture)?.try_into()?)
}

/// Puts it in front of the command.
fn refuse(command: &mut Command, refusal: BpfProgram) {
    let apply = move || seccompiler::apply_filter(&refusal).map_err(std::io::Error::other);
    // SAFETY: two system calls upon a program that was made before; nothing is allocated unless they fail.
    unsafe { command.pre_exec(apply) };
}
