//! What the process must be allowed to do, and the remedy where it is not.

use caps::{CapSet, Capability};

/// The capabilities that loading and attaching need, and what for.
pub const NEEDED: [(Capability, &str); 2] =
    [(Capability::CAP_BPF, "to load eBPF"), (Capability::CAP_PERFMON, "to trace and to read kernel fields")];

/// Which of [`NEEDED`] the process lacks. CAP_SYS_ADMIN stands for both.
pub fn missing() -> Vec<Capability> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    if held.contains(&Capability::CAP_SYS_ADMIN) {
        return Vec::new();
    }
    NEEDED.iter().map(|(capability, _)| *capability).filter(|capability| !held.contains(capability)).collect()
}

/// One sentence on what is missing, with the remedy.
pub fn remedy(missing: &[Capability]) -> String {
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    format!(
        "not allowed to load eBPF: {} missing; run as root (sudo), or give the capabilities: setcap \
         cap_bpf,cap_perfmon,cap_net_admin+ep on the binary, or AmbientCapabilities= in a systemd unit",
        names.join(" and ")
    )
}
