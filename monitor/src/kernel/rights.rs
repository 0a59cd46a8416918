//! What the process must be allowed to do, and the remedy where it is not.

use caps::{CapSet, Capability, CapsHashSet};

/// The capabilities that loading and attaching need, and what for. Programs that only trace need no CAP_NET_ADMIN:
/// <https://github.com/torvalds/linux/blob/v5.10/kernel/bpf/syscall.c#L2010-L2051>
pub const NEEDED: [(Capability, &str); 2] =
    [(Capability::CAP_BPF, "to load eBPF"), (Capability::CAP_PERFMON, "to trace and to read kernel fields")];

/// What else it takes to show the sockets of other network namespaces, and what for.
pub const FOR_NAMESPACES: [(Capability, &str); 2] = [
    (Capability::CAP_SYS_ADMIN, "to enter other network namespaces"),
    (Capability::CAP_SYS_PTRACE, "to find them, and who holds connections that are older than the agent"),
];

/// Which of [`NEEDED`] the process lacks. CAP_SYS_ADMIN stands for both.
pub fn missing() -> Vec<Capability> {
    let held = held();
    if held.contains(&Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED.iter().map(|(capability, _)| *capability).filter(|capability| !held.contains(capability)).collect()
}

/// Which of [`FOR_NAMESPACES`] the process lacks, each with what for.
pub fn missing_for_namespaces() -> Vec<(Capability, &'static str)> {
    let held = held();
    FOR_NAMESPACES.into_iter().filter(|(capability, _)| !held.contains(capability)).collect()
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
    fn the_remedy_names_what_is_missing_and_all_that_is_needed() {
        let told = remedy(&[Capability::CAP_PERFMON]);
        assert!(told.contains("eBPF: CAP_PERFMON missing"), "{told}");
        assert!(told.contains("setcap cap_bpf,cap_perfmon+ep "), "{told}");
    }
}
