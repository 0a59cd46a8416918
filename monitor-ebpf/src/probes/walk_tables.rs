//! Where a walk counts. One walk is made at a time, so plain additions lose nothing.

use finwatch_ebpf::levels::{
    LISTENER_SLOTS, ListenerEntry, PORT_SLOTS, PortEntry, STATE_SLOTS, WALK_RESERVED, Walk,
};

use crate::{
    maps::{LEVELS, PORTS_HELD, QUEUES, RESERVED_PORTS},
    socket::{Common, words},
};

/// Slots that are tried before an entry is given up.
const PROBES: u32 = 16;
/// 2^64 divided by the golden ratio: spreads what differs little (Fibonacci hashing).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a walk sees of a connection beside its state.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// 1 when it has been quiet for a second.
    pub idle: u32,
    /// 1 when a request waits upon it for as long.
    pub unanswered: u32,
    /// For how many seconds it has been in CLOSE_WAIT.
    pub close_wait: u32,
}

/// Counts a socket for its pair.
#[inline(always)]
pub fn count_socket(walk: u32, slot: u32, state: u8, seen: Seen) {
    let Some(record) = LEVELS.get_ptr_mut(slot) else { return };
    // SAFETY: a live map value; nobody else writes it.
    let record = unsafe { &mut *record };
    if record.walk != walk {
        record.walk = walk;
        record.idle = 0;
        record.oldest_close_wait = 0;
        record.unanswered = 0;
        record.sockets = [0; STATE_SLOTS];
    }
    record.sockets[usize::from(state) & (STATE_SLOTS - 1)] += 1;
    record.idle += seen.idle;
    record.unanswered += seen.unanswered;
    if seen.close_wait > record.oldest_close_wait {
        record.oldest_close_wait = seen.close_wait;
    }
}

/// Counts the socket's local port as held toward its destination, if it is an ephemeral one. On
/// its own, as the stacks of all functions under way must fit into 512 bytes.
#[inline(never)]
pub fn hold_port(walk: &mut Walk, sk: Common) {
    let port = u32::from(sk.bound_port());
    if port < walk.port_low || port > walk.port_high || is_reserved(walk, port) {
        return;
    }
    let held = PortEntry {
        walk: walk.id,
        used: 1,
        source: words(sk.local()),
        destination: words(sk.remote()),
        port: u32::from(sk.remote_port()),
        reserved: 0,
    };
    let hash = mix(mix(mix(u64::from(held.port), held.destination[1]), held.destination[0]), held.source[1]);
    for probe in 0..PROBES {
        let index = index(hash, probe, PORT_SLOTS);
        let Some(entry) = PORTS_HELD.get_ptr_mut(index) else { return };
        // SAFETY: a live map value; nobody else writes it.
        let entry = unsafe { &mut *entry };
        if entry.walk != walk.id {
            *entry = held;
            return;
        }
        if entry.port == held.port && entry.destination == held.destination && entry.source == held.source {
            entry.used += 1;
            return;
        }
    }
    walk.ports_lost += 1;
}

#[inline(always)]
fn is_reserved(walk: &Walk, port: u32) -> bool {
    walk.mode & WALK_RESERVED != 0
        && RESERVED_PORTS.get(port / u64::BITS).is_some_and(|bits| bits >> (port % u64::BITS) & 1 != 0)
}

/// Counts a listening socket's queue; `false` when there is no room.
#[inline(always)]
pub fn queue(walk: u32, sk: Common, cgroup: u64, length: u32, limit: u32) -> bool {
    let address = words(sk.local());
    let port = u32::from(sk.bound_port());
    let hash = mix(mix(mix(u64::from(port), address[1]), address[0]), cgroup);
    for probe in 0..PROBES {
        let index = index(hash, probe, LISTENER_SLOTS);
        let Some(entry) = QUEUES.get_ptr_mut(index) else { return false };
        // SAFETY: a live map value; nobody else writes it.
        let entry = unsafe { &mut *entry };
        if entry.walk != walk {
            *entry = ListenerEntry { walk, port, address, cgroup, length, limit };
            return true;
        }
        if entry.port == port && entry.address == address && entry.cgroup == cgroup {
            // Sockets that share a port (SO_REUSEPORT) are shown as one.
            entry.length = entry.length.saturating_add(length);
            entry.limit = entry.limit.saturating_add(limit);
            return true;
        }
    }
    false
}

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(SPREAD)
}

#[inline(always)]
fn index(hash: u64, probe: u32, slots: u32) -> u32 {
    ((hash >> 32) as u32).wrapping_add(probe) & (slots - 1)
}
