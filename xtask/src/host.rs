//! What this host has and allows: programs, rights, free ports, the repository's own paths.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{process, test::KERNEL};

/// A build from nothing, on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_mins(30);
/// Where a user's PATH often does not look, though nginx and ip are there.
const MORE_PATHS: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The directories to look for programs in: PATH, cargo's own, and the system's.
fn search_path() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let cargo_home =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let more = cargo_home.map(|home| home.join("bin")).into_iter().chain(MORE_PATHS.map(PathBuf::from));
    for dir in more {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// The program's full path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// PHP-FPM, whose program Debian names by its version; the newest.
pub(crate) fn php_fpm() -> Option<PathBuf> {
    let entries = search_path().into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"php-fpm"));
    entries.map(|entry| entry.path()).filter(ours).max()
}

/// A command that finds what `find_program` finds.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Ok(path) = env::join_paths(search_path()) {
        command.env("PATH", path);
    }
    command
}

/// The cargo that runs this, in the repository.
pub(crate) fn cargo() -> Command {
    let mut command = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Which build of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What users run.
    Release,
    /// What the other tests have built already.
    Debug,
}

/// Builds the daemon and says where it is. For tests it is the one that is built with them: any other selection of packages
/// asks other features of the dependencies, and builds them, and the eBPF programs, once more.
pub(crate) fn build_finwatch(profile: Profile) -> Result<PathBuf> {
    let directory = match profile {
        Profile::Release => build(&["--package", "finwatch", "--release"], "release")?,
        Profile::Debug => build(&["--workspace", "--test", KERNEL], "debug")?,
    };
    Ok(directory.join("finwatch"))
}

/// Builds one of the daemon's examples, as for tests, and says where it is.
pub(crate) fn build_example(name: &str) -> Result<PathBuf> {
    Ok(build(&["--workspace", "--example", name], "debug")?.join("examples").join(name))
}

/// Builds; says in which directory.
fn build(what: &[&str], directory: &str) -> Result<PathBuf> {
    println!("cargo build {}", what.join(" "));
    process::run("cargo build", cargo().arg("build").args(what), BUILD_LIMIT)?;
    Ok(target().join(directory))
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What this process lacks for loading eBPF programs; `None` when it may try.
pub(crate) fn missing_rights() -> Option<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let caps = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |cap: u32| caps & (1 << cap) != 0;
    if has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON)) {
        None
    } else if is_root() {
        Some("this root lacks CAP_BPF and CAP_PERFMON (a container without them?)")
    } else {
        Some("loading eBPF programs takes root, or CAP_BPF and CAP_PERFMON")
    }
}

/// Fails where this process may not load eBPF programs, with what to type instead.
pub(crate) fn require_rights(task: &str) -> Result<()> {
    match missing_rights() {
        None => Ok(()),
        Some(missing) if is_root() => {
            bail!("{missing}; start the container with them, or run this on its host")
        }
        Some(missing) => bail!("{missing}; run: sudo -E env \"PATH=$PATH\" cargo xtask {task}"),
    }
}

/// A TCP port of the loopback address that nobody uses right now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }
}
