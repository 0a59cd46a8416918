//! The hooks: one table that the loader, `check`, the metrics and the docs read.

use finwatch_ebpf::offsets::{FIELDS, Field};

use super::btf::Btf;
use crate::model::source::HookMode;

/// A tracepoint and the program that is attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint's name in the kernel.
    pub tracepoint: &'static str,
    /// The program's name in the eBPF object.
    pub program: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// The arguments it has where it tells everything.
    pub full_arguments: u32,
    /// What is lost where it has fewer.
    pub partial: &'static str,
    /// Whether the agent is of no use without it.
    pub required: bool,
}

/// All hooks, in the order in which they are attached: resets first, so that no end is judged without them.
pub const HOOKS: [Hook; 3] = [
    Hook {
        tracepoint: "tcp_receive_reset",
        program: "receive_reset",
        purpose: "resets that reach a socket",
        without: "resets received are not counted and lost requests are not found",
        full_arguments: 1,
        partial: "",
        required: true,
    },
    Hook {
        tracepoint: "tcp_send_reset",
        program: "send_reset",
        purpose: "resets that this host sends",
        without: "resets sent are not counted",
        full_arguments: 3,
        partial: "this kernel does not trace resets without a full socket: late data met by a TIME_WAIT socket and \
                  segments to closed ports are not counted (OutRsts in /proc/net/snmp has their number)",
        required: false,
    },
    Hook {
        tracepoint: "inet_sock_set_state",
        program: "set_state",
        purpose: "connections that open and close",
        without: "nothing can be counted",
        full_arguments: 3,
        partial: "",
        required: true,
    },
];

/// Fields without which the programs still work: processes named by a generic thread name keep it, workloads are
/// unknown.
const OPTIONAL_TYPES: [&str; 5] = ["cgroup", "kernfs_node", "mm_struct", "file", "dentry"];
const OPTIONAL_PATHS: [&str; 2] = ["sk_cgrp_data", "mm"];

/// Whether the programs cannot work without the field.
pub fn is_required(field: &Field) -> bool {
    !OPTIONAL_TYPES.contains(&field.kernel_type) && !OPTIONAL_PATHS.contains(&field.path)
}

/// Where each of [`FIELDS`] is in the running kernel.
pub fn locate(btf: &Btf<'_>) -> Vec<(&'static Field, Option<u32>)> {
    FIELDS.iter().map(|field| (field, btf.offset_of(field.kernel_type, field.path))).collect()
}

/// What the running kernel offers of a hook.
pub fn offered(btf: &Btf<'_>, hook: &Hook) -> HookMode {
    match btf.tracepoint_arguments(hook.tracepoint) {
        None => HookMode::Off,
        Some(arguments) if arguments < hook.full_arguments => HookMode::Partial,
        Some(_) => HookMode::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_exist() {
        let optional = FIELDS.iter().filter(|field| !is_required(field)).count();
        assert_eq!(optional, 7);
    }
}
