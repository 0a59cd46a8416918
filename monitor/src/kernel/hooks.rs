//! The hooks: one table that the loader, `check`, the metrics and the docs read.

use finwatch_ebpf::offsets::{FIELDS, Field};

use super::btf::Btf;
use crate::model::source::HookMode;

/// How exactly the times of requests are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// To the microsecond, where the kernel can.
    Finest,
    /// To a jiffy, with one hook instead of two.
    Jiffy,
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// A tracepoint of this many arguments where it tells everything.
    Tracepoint(u32),
    /// An iterator over kernel objects.
    Iterator,
}

/// A place in the kernel and the program that is attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint's name in the kernel; that of an iterator begins with [`ITERATOR_PREFIX`].
    pub name: &'static str,
    /// What it is.
    pub kind: HookKind,
    /// The program's name in the eBPF object.
    pub program: &'static str,
    /// More programs on the same hook, for what the kernel skips the ones before for: it runs no program inside itself. All but
    /// the first of them only where tracepoints are [`preemptible`].
    pub others: &'static [&'static str],
    /// What it is for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// What is lost where it has fewer.
    pub partial: &'static str,
    /// Whether the agent is of no use without it.
    pub required: bool,
}

/// The hooks that are always attached, in this order: resets first, so that no end is judged without them.
pub const HOOKS: [Hook; 4] = [
    Hook {
        name: "tcp_receive_reset",
        kind: HookKind::Tracepoint(1),
        program: "receive_reset",
        others: &["receive_reset_2", "receive_reset_3"],
        purpose: "resets that reach a socket",
        without: "resets received are not counted and lost requests are not found",
        partial: "",
        required: true,
    },
    Hook {
        name: "tcp_send_reset",
        kind: HookKind::Tracepoint(3),
        program: "send_reset",
        others: &["send_reset_2", "send_reset_3"],
        purpose: "resets that this host sends",
        without: "resets sent are not counted",
        partial: "this kernel does not trace resets without a full socket: late data met by a TIME_WAIT socket and \
                  segments to closed ports are not counted (OutRsts in /proc/net/snmp has their number)",
        required: false,
    },
    Hook {
        name: "inet_sock_set_state",
        kind: HookKind::Tracepoint(3),
        program: "set_state",
        others: &["missed", "missed_2", "missed_3"],
        purpose: "connections that open and close",
        without: "nothing can be counted",
        partial: "",
        required: true,
    },
    Hook {
        name: "iter/tcp",
        kind: HookKind::Iterator,
        program: "walk",
        others: &[],
        purpose: "the sockets there are now, and those that were there before",
        without: "sockets, accept queues and ephemeral ports are not shown, and connections older than the agent are \
                  not watched",
        partial: "sockets are listed by netlink instead: connections older than the agent are not watched and show \
                  under \"other\", and ends that were missed are not found",
        required: false,
    },
];

/// The hooks that follow requests, attached only where that was asked for.
pub const REQUEST_HOOKS: [Hook; 2] = [
    Hook {
        name: "sock_send_length",
        kind: HookKind::Tracepoint(3),
        program: "send_length",
        others: &[],
        purpose: "what applications send: requests and answers",
        without: "requests are not followed",
        partial: "",
        required: false,
    },
    Hook {
        name: "sock_recv_length",
        kind: HookKind::Tracepoint(3),
        program: "recv_length",
        others: &[],
        purpose: "what applications receive: requests and answers",
        without: "requests are not followed",
        partial: "",
        required: false,
    },
];

/// The hook that follows requests in their place: kernels up to 6.2 have no other.
pub const READ_HOOK: Hook = Hook {
    name: "tcp_rcv_space_adjust",
    kind: HookKind::Tracepoint(1),
    program: "data_read",
    others: &[],
    purpose: "what applications read: requests and answers",
    without: "requests are not followed",
    partial: "requests are counted when the next data is read; the time to their answer is told to a jiffy, and only on \
              the end that opens connections",
    required: false,
};

impl Hook {
    /// Every hook that there may be.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        HOOKS.iter().chain(&REQUEST_HOOKS).chain([&READ_HOOK])
    }

    /// Its programs, in the order in which they run.
    pub fn programs(&self, preemptible: bool) -> impl Iterator<Item = &'static str> + use<> {
        let others = if preemptible { self.others } else { &self.others[..self.others.len().min(1)] };
        std::iter::once(self.program).chain(others.iter().copied())
    }
}

/// Whether another program on the same hook does what the kernel skips this one for.
pub fn is_doubled(program: &str) -> bool {
    Hook::all().any(|hook| !hook.others.is_empty() && hook.programs(true).any(|one| one == program))
}

/// Whether another task may run in the midst of a program on a tracepoint. Kernels up to 6.18 let nobody else have the
/// processor before all programs have run; 7.3 guards tracepoints by "fast" SRCU, which counts in `srcu_ctr`, and whose own data
/// each processor has. Older kernels have the one or the other, for other purposes.
pub fn preemptible(btf: &Btf<'_>) -> bool {
    btf.has_struct("srcu_ctr") && btf.has_variable("tracepoint_srcu_srcu_data")
}

/// Begins the name of an iterator hook; the rest is what it goes over.
pub const ITERATOR_PREFIX: &str = "iter/";

/// Fields without which the programs still work: processes named by a generic thread name keep it, workloads are
/// unknown, and so are the processes of connections older than the agent.
const OPTIONAL_TYPES: [&str; 6] = ["cgroup", "kernfs_node", "mm_struct", "file", "dentry", "socket_alloc"];
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
    match hook.kind {
        HookKind::Tracepoint(full) => match btf.tracepoint_arguments(hook.name) {
            None => HookMode::Off,
            Some(arguments) if arguments < full => HookMode::Partial,
            Some(_) => HookMode::Full,
        },
        HookKind::Iterator => match btf.offset_of("bpf_iter__tcp", "sk_common") {
            None => HookMode::Off,
            Some(_) => HookMode::Full,
        },
    }
}

/// The hooks that the running kernel and what was asked for call for, in the order in which they are attached, each with
/// what the kernel offers of it.
pub fn wanted(btf: &Btf<'_>, requests: Option<Precision>) -> Vec<(&'static Hook, HookMode)> {
    let following = requests.map(|precision| following(btf, precision)).unwrap_or_default();
    following.into_iter().chain(HOOKS.iter().map(|hook| (hook, offered(btf, hook)))).collect()
}

/// The hooks that follow requests here; what they see of the time is all that can be asked of them, or not.
pub fn following(btf: &Btf<'_>, precision: Precision) -> Vec<(&'static Hook, HookMode)> {
    let pair = REQUEST_HOOKS.iter().map(|hook| (hook, offered(btf, hook)));
    let whole = pair.clone().all(|(_, mode)| mode == HookMode::Full);
    match offered(btf, &READ_HOOK) {
        HookMode::Full if !whole || precision == Precision::Jiffy => vec![(&READ_HOOK, HookMode::Partial)],
        _ => pair.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_exist() {
        let optional = FIELDS.iter().filter(|field| !is_required(field)).count();
        assert_eq!(optional, 8);
    }
}
