//! What a test run must not leave behind: processes, network namespaces, attached programs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{host, interrupt};

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";
/// The kernel frees programs a moment after their last user went.
const GRACE: Duration = Duration::from_secs(5);
/// What finwatch calls its programs that are always attached.
const PROGRAMS: [&str; 10] = [
    "set_state",
    "missed",
    "missed_2",
    "missed_3",
    "receive_reset",
    "receive_reset_2",
    "receive_reset_3",
    "send_reset",
    "send_reset_2",
    "send_reset_3",
];

/// What there is at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    namespaces: BTreeSet<String>,
    processes: BTreeSet<String>,
    programs: BTreeSet<u32>,
}

impl Host {
    /// What there is now.
    pub(crate) fn now() -> Self {
        let names = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
        Self {
            namespaces: names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
            processes: processes().filter_map(|process| ours(&process)).collect(),
            programs: programs(),
        }
    }

    /// Fails, naming it, when there is something now that was not there before.
    pub(crate) fn nothing_new(&self) -> Result<()> {
        let clean = interrupt::poll(GRACE, || Ok(self.new_now().is_empty().then_some(())))?;
        if clean.is_none() {
            bail!("left behind: {}", self.new_now().join(", "));
        }
        Ok(())
    }

    fn new_now(&self) -> Vec<String> {
        let now = Self::now();
        let mut new: Vec<String> = now
            .namespaces
            .difference(&self.namespaces)
            .map(|name| format!("network namespace {name}"))
            .collect();
        new.extend(now.processes.difference(&self.processes).map(|process| format!("process {process}")));
        let programs: BTreeSet<u32> = now.programs.difference(&self.programs).copied().collect();
        if !programs.is_empty() {
            // Another finwatch on this host may have been started meanwhile: what a process holds is its own affair.
            let held: BTreeSet<u32> = processes().flat_map(|process| held_programs(&process)).collect();
            new.extend(programs.difference(&held).map(|id| format!("eBPF program {id}")));
        }
        new
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    entries.filter(numbered).map(|entry| entry.path())
}

/// The process by number and executable, if it was built here.
fn ours(process: &Path) -> Option<String> {
    let executable = fs::read_link(process.join("exe")).ok()?;
    let name = executable.file_name()?.to_string_lossy();
    // This very process and the cargo commands around it go on.
    let tested = executable.starts_with(host::target()) && name != "xtask" && !name.starts_with("xtask-");
    tested
        .then(|| format!("{} ({})", process.file_name().unwrap_or_default().display(), executable.display()))
}

fn programs() -> BTreeSet<u32> {
    let loaded = aya::programs::loaded_programs().flatten();
    loaded
        .filter(|program| program.name_as_str().is_some_and(|name| PROGRAMS.contains(&name)))
        .map(|program| program.id())
        .collect()
}

/// The programs a process has open.
pub(crate) fn held_programs(process: &Path) -> Vec<u32> {
    let descriptors = fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos.filter_map(|info| program_id(&info)).collect()
}

fn program_id(info: &str) -> Option<u32> {
    // A link's description has a `link_type` and names the program as well.
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
    id.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptors_program_is_read() {
        assert_eq!(program_id("pos:\t0\nprog_type:\t5\nprog_id:\t100\nrun_cnt:\t0\n"), Some(100));
        assert_eq!(program_id("pos:\t0\nflags:\t02\n"), None);
    }
}
