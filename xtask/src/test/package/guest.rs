//! A small Debian that boots with its own systemd, in namespaces of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{MINUTE, Namespace};
use crate::{
    host, interrupt,
    process::{self, Running, typed},
};

/// The release that is installed on.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus";
/// Downloading and unpacking some 60 packages, on a slow line.
const MAKING: Duration = Duration::from_mins(15);
const BOOTING: Duration = Duration::from_mins(2);

/// A guest under way; dropping it shuts it down.
pub(super) struct Guest {
    // In this order: it ends before its root and its network go.
    running: Running,
    leader: u32,
    root: TempDir,
    /// Its network.
    pub(super) namespace: Namespace,
}

impl Guest {
    /// Boots one whose processes may be granted these capabilities.
    pub(super) fn boot(capabilities: &str) -> Result<Self> {
        let archive = archive()?;
        let root =
            tempfile::Builder::new().prefix("guest-").tempdir_in(host::target()).context("a directory")?;
        // Its root directory is everybody's to read, as on any system.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.path(), mode).context("the directory's mode")?;
        let mut unpack = host::command("tar");
        unpack.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(root.path());
        process::run("tar", &mut unpack, 5 * MINUTE)?;
        let namespace = Namespace::for_guest()?;
        let mut nspawn = host::command("systemd-nspawn");
        nspawn.args(["--quiet", "--boot", "--console=pipe", "--register=no", "--keep-unit", "--directory"]);
        nspawn.arg(root.path()).arg(format!("--network-namespace-path={}", namespace.path().display()));
        // The bounds of the guest, in which its systemd draws those of the unit.
        nspawn.arg(format!("--capability={capabilities}")).arg("--system-call-filter=bpf");
        let running = Running::spawn("systemd-nspawn", nspawn.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let mut guest = Self { running, leader: 0, root, namespace };
        let booted = interrupt::poll(BOOTING, || {
            ensure!(guest.running.ended()?.is_none(), "systemd-nspawn ended at once: {}", typed(&nspawn));
            // Its first child only makes the one that becomes the guest's systemd.
            guest.leader = child(guest.running.id()).unwrap_or_default();
            let state = guest.command("systemctl").arg("is-system-running").output();
            let state = state.context("nsenter does not start")?.stdout;
            Ok(matches!(state.trim_ascii(), b"running" | b"degraded").then_some(()))
        })?;
        booted.context("the guest has not booted")?;
        Ok(guest)
    }

    /// A command within.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = host::command("nsenter");
        command.args(["--target", &self.leader.to_string(), "--all", program]).stdin(Stdio::null());
        command
    }

    /// What a command within prints; it must succeed.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output =
            self.command(program).args(args).output().with_context(|| format!("{program} does not start"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "in the guest, {program} {args:?}: {}\n{said}\n{complaint}",
            output.status
        );
        Ok(said)
    }

    /// Puts a file into it.
    pub(super) fn put(&self, file: &Path, place: &str) -> Result<()> {
        fs::copy(file, self.path(place)).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    /// One of its files, from here.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file.trim_start_matches('/'))
    }
}

fn child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The guest's files, made once.
fn archive() -> Result<PathBuf> {
    let archive = host::target().join(format!("guest-{SUITE}.tar"));
    if !archive.exists() {
        let making = archive.with_extension("making.tar");
        let mut command = host::command("mmdebstrap");
        command.args(["--variant=minbase", "--include", PACKAGES, SUITE]).arg(&making);
        process::run("mmdebstrap", &mut command, MAKING)?;
        fs::rename(&making, &archive).context("keeping the guest's files")?;
    }
    Ok(archive)
}
