//! Which pair a connection belongs to, and its slot.

use core::ptr::{addr_of_mut, write_volatile};

use aya_ebpf::{bindings::BPF_NOEXIST, maps::lpm_trie::Key};
use aya_log_ebpf::debug;
use finwatch_ebpf::wire::{
    EndpointKey, FILTER_EXCLUDE_NETS, FILTER_EXCLUDE_PORTS, FILTER_INCLUDE_NETS, FILTER_INCLUDE_PORTS,
    FILTER_NETNS, FILTER_NO_REQUEST_RULES, FIRST_FREE_SLOT, KEY_EXTERNAL, KEY_FOLDED, OWNER_BUCKETS, PairKey,
    PairRecord, RULE_EXCLUDE, SIDE_PROXY, SIDE_UPSTREAM, SLOT_FOLDED_PROXY, SLOT_FOLDED_UPSTREAM, SLOT_FREE,
    SLOT_IN_USE,
};

use crate::{
    count::add,
    maps::{
        FREE_SLOTS, IN_USE, NETS, NO_REQUEST_RULES, OWNERS, PAIR_INDEX, PAIRS, PORTS, PROXY_RANGES, setting,
        totals,
    },
    process,
    socket::{Common, Tcp, bytes, jiffies},
};

const ADDRESS_BITS: u32 = 128;
/// An owner may take another slot while it has fewer than this many times the free ones: alone it gets three
/// quarters of the table, and some always remain for others.
const OWNER_SHARE: u64 = 3;
/// Who is charged where nobody is known.
const OWNER_UNKNOWN: u64 = u64::MAX;

/// A pair and who is charged for its slot.
pub struct Pair {
    pub key: PairKey,
    pub pid: u32,
    owner: u64,
}

impl Pair {
    /// The pair of a connection that the current task opens.
    #[inline(always)]
    pub fn opened(sk: Common, tcp: Tcp) -> Self {
        Self::opened_by(sk, tcp, process::name(), process::pid())
    }

    /// The pair of a connection that this process has opened.
    #[inline(always)]
    pub fn opened_by(sk: Common, tcp: Tcp, name: [u64; 2], pid: u32) -> Self {
        let cgroup = tcp.cgroup();
        Self { pid, owner: owner(tcp, cgroup), ..Self::toward(sk, name, cgroup) }
    }

    /// The pair of a connection of which only the ends are known, and that this host opened it.
    #[inline(always)]
    pub fn toward(sk: Common, name: [u64; 2], cgroup: u64) -> Self {
        Self {
            key: PairKey {
                side: SIDE_PROXY,
                flags: 0,
                port: sk.remote_port(),
                reserved: 0,
                upstream: sk.remote(),
                proxy: bytes(name),
                cgroup,
            },
            pid: 0,
            owner: OWNER_UNKNOWN,
        }
    }

    /// The pair of a connection that this host has accepted.
    #[inline(always)]
    pub fn accepted(sk: Common, tcp: Tcp) -> Self {
        let cgroup = tcp.cgroup();
        Self { owner: owner(tcp, cgroup), ..Self::from(sk, tcp.local_port(), cgroup) }
    }

    /// The pair of a connection of which only the ends are known, and that this host accepts it.
    #[inline(always)]
    pub fn from(sk: Common, local_port: u16, cgroup: u64) -> Self {
        let remote = sk.remote();
        let known = PROXY_RANGES.get(Key::new(ADDRESS_BITS, remote)).is_some();
        let (flags, proxy) = if known { (0, remote) } else { (KEY_EXTERNAL, [0; 16]) };
        Self {
            key: PairKey {
                side: SIDE_UPSTREAM,
                flags,
                port: local_port,
                reserved: 0,
                upstream: sk.local(),
                proxy,
                cgroup,
            },
            pid: 0,
            owner: OWNER_UNKNOWN,
        }
    }

    /// Whether the user wants to know about it.
    #[inline(always)]
    pub fn wanted(&self, sk: Common) -> bool {
        let filter = setting!(filter);
        if filter & FILTER_NETNS != 0 && sk.netns() != setting!(netns) {
            return false;
        }
        if filter & (FILTER_INCLUDE_PORTS | FILTER_EXCLUDE_PORTS) != 0 {
            let port = u32::from(self.key.port);
            // SAFETY: the agent does not change the table after loading.
            let rule = rule(unsafe { PORTS.get(port) });
            if refused(rule, filter & FILTER_INCLUDE_PORTS != 0) {
                return false;
            }
        }
        if filter & (FILTER_INCLUDE_NETS | FILTER_EXCLUDE_NETS) != 0 {
            let rule = rule(NETS.get(Key::new(ADDRESS_BITS, sk.remote())));
            if refused(rule, filter & FILTER_INCLUDE_NETS != 0) {
                return false;
            }
        }
        true
    }

    /// Whether the rules about requests are switched off for it.
    #[inline(always)]
    pub fn without_request_rules(&self) -> bool {
        without_request_rules(self.key.upstream, self.key.port)
    }

    /// The pair's slot; that of the folded pairs when there is no room.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        // SAFETY: entries are replaced only by the agent, after an hour without sockets.
        match unsafe { PAIR_INDEX.get(&self.key) } {
            Some(slot) => *slot,
            None => self.new_slot(),
        }
    }

    /// The pair's slot if it has one; that of the folded pairs otherwise. Nothing is handed out.
    #[inline(always)]
    pub fn known_slot(&self) -> u32 {
        // SAFETY: as in `slot`.
        match unsafe { PAIR_INDEX.get(&self.key) } {
            Some(slot) => *slot,
            None => self.folded_slot(),
        }
    }

    #[inline(never)]
    fn new_slot(&self) -> u32 {
        let Some(slot) = self.take_slot() else { return self.fold() };
        let Some(record) = PAIRS.get_ptr_mut(slot) else { return self.fold() };
        let bucket = bucket(self.owner);
        // SAFETY: the slot was free: nobody else writes the record.
        unsafe { (*record).key = self.key };
        // SAFETY: as above.
        unsafe { (*record).pid = self.pid };
        // SAFETY: as above.
        unsafe { (*record).owner = bucket };
        mark_in_use(slot, record);
        match PAIR_INDEX.insert(&self.key, slot, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                charge(bucket);
                slot
            }
            Err(_) => self.lost_race(slot),
        }
    }

    /// Another CPU was faster: its slot is used and ours goes back.
    #[inline(always)]
    fn lost_race(&self, slot: u32) -> u32 {
        mark(slot, SLOT_FREE);
        // A full stack is impossible: it has room for every slot.
        let _ = FREE_SLOTS.push(slot, 0);
        // SAFETY: as in `slot`.
        match unsafe { PAIR_INDEX.get(&self.key) } {
            Some(slot) => *slot,
            None => self.fold(),
        }
    }

    #[inline(always)]
    fn take_slot(&self) -> Option<u32> {
        let totals = totals()?;
        let taken = OWNERS.get(bucket(self.owner))?;
        // SAFETY: a live map value.
        let pairs = unsafe { (*totals).pairs };
        let free = u64::from(setting!(max_pairs)).saturating_sub(pairs);
        if *taken >= free * OWNER_SHARE {
            return None;
        }
        FREE_SLOTS.pop().ok().flatten().filter(|slot| *slot >= FIRST_FREE_SLOT)
    }

    #[inline(always)]
    fn fold(&self) -> u32 {
        debug!((), "no room for a pair: side {}, port {}, pid {}", self.key.side, self.key.port, self.pid);
        self.folded_slot()
    }

    #[inline(always)]
    fn folded_slot(&self) -> u32 {
        let slot = if self.key.side == SIDE_PROXY { SLOT_FOLDED_PROXY } else { SLOT_FOLDED_UPSTREAM };
        if let Some(record) = PAIRS.get_ptr_mut(slot) {
            // SAFETY: every CPU writes the same value.
            unsafe { (*record).key.side = self.key.side };
            // SAFETY: as above.
            unsafe { (*record).key.flags = KEY_FOLDED };
            mark_in_use(slot, record);
        }
        slot
    }
}

/// Whether the rules about requests are switched off for an upstream.
#[inline(always)]
pub fn without_request_rules(upstream: [u8; 16], port: u16) -> bool {
    if setting!(filter) & FILTER_NO_REQUEST_RULES == 0 {
        return false;
    }
    let port = u32::from(port);
    let exact = EndpointKey { address: upstream, port };
    let any = EndpointKey { address: [0; 16], port };
    // SAFETY: the agent does not change the table after loading.
    let exact = unsafe { NO_REQUEST_RULES.get(exact) }.is_some();
    // SAFETY: as above.
    exact || unsafe { NO_REQUEST_RULES.get(any) }.is_some()
}

/// The record of a slot.
#[inline(always)]
pub fn record(slot: u32) -> Option<*mut PairRecord> {
    PAIRS.get_ptr_mut(slot)
}

#[inline(always)]
fn mark_in_use(slot: u32, record: *mut PairRecord) {
    // SAFETY: a field of a live map value; every writer writes the same.
    unsafe { write_volatile(addr_of_mut!((*record).touched), jiffies()) };
    // Last, so that the agent never sees a slot in use without its key.
    mark(slot, SLOT_IN_USE);
}

#[inline(always)]
fn mark(slot: u32, as_what: u64) {
    if let Some(mark) = IN_USE.get_ptr_mut(slot) {
        // SAFETY: a live map value; the slot is the caller's alone, or one of those for all, which are only ever marked in use.
        unsafe { write_volatile(mark, as_what) };
    }
}

#[inline(always)]
fn charge(bucket: u32) {
    if let Some(taken) = OWNERS.get_ptr_mut(bucket) {
        // SAFETY: a live map value.
        unsafe { add(taken, 1) };
    }
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).pairs), 1) };
    }
}

/// The rule of a table, 0 where there is none: a plain number, as the verifier takes no half of a pointer on the stack
/// for the empty place of an `Option`.
#[inline(always)]
fn rule(found: Option<&u32>) -> u32 {
    match found {
        Some(rule) => *rule,
        None => 0,
    }
}

#[inline(always)]
fn refused(rule: u32, only_included: bool) -> bool {
    if rule == 0 { only_included } else { rule == RULE_EXCLUDE }
}

/// Who is charged for a pair's slot: the user; for root, who runs containers too, the cgroup.
#[inline(always)]
fn owner(tcp: Tcp, cgroup: u64) -> u64 {
    match tcp.uid() {
        0 => cgroup | 1 << 63,
        uid => u64::from(uid),
    }
}

/// Spreads owners over the buckets (Fibonacci hashing).
#[inline(always)]
fn bucket(owner: u64) -> u32 {
    ((owner.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32) & (OWNER_BUCKETS - 1)
}
