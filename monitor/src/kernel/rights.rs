//! What the process must be allowed to do, the remedy where it is not, and what it gives up once everything is attached.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use procfs::{
    process::{LimitValue, Process},
    sys::kernel::Version,
};

use crate::{cli::args::Netns, config::Config};

/// The capabilities that loading and attaching need, and what for. Programs that only trace need no CAP_NET_ADMIN:
/// <https://github.com/torvalds/linux/blob/v5.10/kernel/bpf/syscall.c#L2010-L2051>
pub const NEEDED: [(Capability, &str); 2] =
    [(Capability::CAP_BPF, "to load eBPF"), (Capability::CAP_PERFMON, "to trace and to read kernel fields")];

/// What else it takes to show the sockets of other network namespaces, and what for.
pub const FOR_NAMESPACES: [(Capability, &str); 2] = [
    (Capability::CAP_SYS_ADMIN, "to enter other network namespaces"),
    (Capability::CAP_SYS_PTRACE, "to find them"),
];

/// What it takes to tell whose the connections are that are older than the agent, where another user's process holds them:
/// `proc_fd_permission` in
/// <https://github.com/torvalds/linux/blob/0d72b92883c651a11059d93335f33d65c6eb653b/fs/proc/fd.c>
pub const FOR_PROCESSES: [(Capability, &str); 2] = [
    (Capability::CAP_SYS_PTRACE, "to see what other users' processes hold"),
    (Capability::CAP_DAC_READ_SEARCH, "to list it"),
];

/// What it takes to ask the kernel's connection tracking, and what for: `nfnetlink_rcv` in
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nfnetlink.c>
pub const FOR_CONNTRACK: [(Capability, &str); 1] =
    [(Capability::CAP_NET_ADMIN, "to ask the kernel's connection tracking")];

/// Files that a daemon may have to have open: its hooks and tables, two servers' clients, and what it reads now and then.
pub const OPEN_FILES: u64 = 256;

/// The first version on which a map that is open can be used without CAP_BPF whatever `kernel.unprivileged_bpf_disabled`
/// says; where that is set, those before refuse every call of bpf:
/// <https://github.com/torvalds/linux/commit/c8644cd0efe719608ddcb341bcf087d4bc0bf6b8>
const MAPS_ARE_FREE: Version = Version { major: 6, minor: 0, patch: 0 };

/// What takes rights for as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// To show other network namespaces' sockets.
    pub other_namespaces: bool,
    /// To ask the kernel's connection tracking.
    pub conntrack: bool,
}

impl From<&Config> for Lasting {
    fn from(config: &Config) -> Self {
        Self { other_namespaces: config.netns == Netns::All, conntrack: config.conntrack }
    }
}

/// What is still needed when everything is attached, and what for.
pub fn lasting(wanted: Lasting, kernel: Option<Version>) -> Vec<(Capability, &'static str)> {
    let for_maps = kernel.is_none_or(|version| version < MAPS_ARE_FREE);
    let maps = for_maps.then_some((Capability::CAP_BPF, "to use the tables, on kernels before 6.0"));
    let namespaces = FOR_NAMESPACES.into_iter().filter(|_| wanted.other_namespaces);
    let conntrack = FOR_CONNTRACK.into_iter().filter(|_| wanted.conntrack);
    maps.into_iter().chain(namespaces).chain(FOR_PROCESSES).chain(conntrack).collect()
}

/// How many files may be open, where that is fewer than [`OPEN_FILES`].
pub fn too_few_files() -> Option<u64> {
    match Process::myself().and_then(|process| process.limits()).ok()?.max_open_files.soft_limit {
        LimitValue::Value(files) if files < OPEN_FILES => Some(files),
        _ => None,
    }
}

/// Gives up for good what is not [`lasting`], for the calling thread and those that it starts.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up(wanted: Lasting) -> Result<(), CapsError> {
    let lasting = lasting(wanted, Version::current().ok());
    let lasting: CapsHashSet = lasting.into_iter().map(|(capability, _)| capability).collect();
    let held = caps::read(None, CapSet::Permitted)?;
    // Root's programs get what the bounding set has; whoever is not allowed to narrow it has no use for it either.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&lasting) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    let kept: CapsHashSet = held.intersection(&lasting).copied().collect();
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// What a process may do, this one where no number is given; `None` where that cannot be read.
pub fn held_by(pid: Option<i32>) -> Option<Vec<Capability>> {
    let mut held: Vec<Capability> = caps::read(pid, CapSet::Permitted).ok()?.into_iter().collect();
    held.sort_by_key(Capability::index);
    Some(held)
}

/// Which of [`NEEDED`] the process lacks. CAP_SYS_ADMIN stands for both.
pub fn missing() -> Vec<Capability> {
    let held = held();
    if held.contains(&Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED.iter().map(|(capability, _)| *capability).filter(|capability| !held.contains(capability)).collect()
}

/// Which of `wanted` the process lacks, each with what for.
pub fn missing_of(wanted: &[(Capability, &'static str)]) -> Vec<(Capability, &'static str)> {
    let held = held();
    wanted.iter().filter(|(capability, _)| !held.contains(capability)).copied().collect()
}

fn held() -> CapsHashSet {
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

/// One sentence on what is missing, with the remedy.
pub fn remedy(missing: &[Capability]) -> String {
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let needed = NEEDED.map(|(capability, _)| capability.to_string().to_lowercase());
    format!(
        "not allowed to load eBPF: {} missing; run as root (sudo), or give the capabilities: setcap {}+ep on the binary, \
         or AmbientCapabilities= in a systemd unit",
        names.join(" and "),
        needed.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_depends_on_what_is_wanted_and_on_the_kernel() {
        let names = |[other_namespaces, conntrack]: [bool; 2], kernel| -> CapsHashSet {
            let lasting = lasting(Lasting { other_namespaces, conntrack }, kernel);
            lasting.into_iter().map(|(capability, _)| capability).collect()
        };
        let processes = CapsHashSet::from([Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]);
        let and = |capability| -> CapsHashSet { processes.iter().copied().chain([capability]).collect() };
        let new = Some(Version::new(6, 0, 0));
        assert_eq!(names([false, false], new), processes);
        assert_eq!(names([true, false], new), and(Capability::CAP_SYS_ADMIN));
        assert_eq!(names([false, true], new), and(Capability::CAP_NET_ADMIN));
        for old in [Some(Version::new(5, 10, 250)), None] {
            assert_eq!(names([false, false], old), and(Capability::CAP_BPF));
        }
    }

    #[test]
    fn the_remedy_names_what_is_missing_and_all_that_is_needed() {
        let told = remedy(&[Capability::CAP_PERFMON]);
        assert!(told.contains("eBPF: CAP_PERFMON missing"), "{told}");
        assert!(told.contains("setcap cap_bpf,cap_perfmon+ep "), "{told}");
    }
}
