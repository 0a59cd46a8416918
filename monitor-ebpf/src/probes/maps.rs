//! The maps, and the constants that the agent sets before loading.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, Stack},
};
use finwatch_ebpf::{
    levels::{
        LISTENER_SLOTS, LevelRecord, ListenerEntry, ListenerKey, MAX_NAMESPACES, PORT_SLOTS,
        PORTS as ALL_PORTS, PortEntry, Process, Walk,
    },
    offsets::Offsets,
    requests::{Exchanges, RequestRecord},
    wire::{
        ClosedConnection, ClosedSet, EndpointKey, OWNER_BUCKETS, PairKey, PairRecord, RESETTING_SLOTS,
        Settings, Totals, Tracked, Verdict,
    },
};

/// Sizes marked so are set by the agent; the programs never see them.
const SET_BY_AGENT: u32 = 1;

/// Where the kernel's fields are.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = zeroed_offsets();

/// What the user asked for.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    hz: 0,
    goodbye_bytes: 0,
    filter: 0,
    features: 0,
    closed_mask: 0,
    closed_seed: 0,
    max_pairs: 0,
    max_connections: 0,
    places_mask: 0,
    netns: 0,
    incidents_per_second: 0,
};

/// Live connections, each at its socket's home or, where that was taken, elsewhere; the agent maps it into its memory.
#[map]
pub static CONNECTIONS: Array<Tracked> = Array::with_max_entries(SET_BY_AGENT, BPF_F_MMAPABLE);

/// Where those are that are not at home, by socket address.
#[map]
pub static ELSEWHERE: HashMap<u64, u32> = HashMap::with_max_entries(SET_BY_AGENT, BPF_F_NO_PREALLOC);

/// What the connection that ends just now has died of: one for each program that may be under way at once on a CPU.
#[map]
pub static VERDICTS: PerCpuArray<Verdict> = PerCpuArray::with_max_entries(4, 0);

/// The transition that a CPU has looked at last: the socket's address, 0 once that is known to the last look, and the new
/// state.
#[map]
pub static LOOKED_AT: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Requests on live connections by socket address, where they are followed: room for each of [`CONNECTIONS`].
#[map]
pub static EXCHANGES: HashMap<u64, Exchanges> = HashMap::with_max_entries(SET_BY_AGENT, 0);

/// What the pairs' requests come to, by the slot of [`PAIRS`], where they are followed; the agent maps it into its
/// memory.
#[map]
pub static REQUESTS: Array<RequestRecord> = Array::with_max_entries(SET_BY_AGENT, BPF_F_MMAPABLE);

/// Connections that late segments may still concern; the oldest make room. Nobody maps it, but what can be mapped begins with
/// a page, and a set and its entries with a cache line.
#[map]
pub static CLOSED: Array<ClosedSet> = Array::with_max_entries(SET_BY_AGENT, BPF_F_MMAPABLE);

/// Connections that have ended so that a reset of ours follows at once, by socket address, until it does; the oldest make
/// room.
#[map]
pub static RESETTING: LruHashMap<u64, ClosedConnection> = LruHashMap::with_max_entries(RESETTING_SLOTS, 0);

/// Resets that are being looked at, by socket and segment as the kernel passes them, and what tells them from others about the
/// same two addresses; the oldest make room.
#[map]
pub static RESETS_NOTED: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(1_024, 0);

/// Which slots of [`PAIRS`] belong to a pair: apart from the records, so that the agent finds those in use without looking
/// at any other. It maps both into its memory.
#[map]
pub static IN_USE: Array<u64> = Array::with_max_entries(SET_BY_AGENT, BPF_F_MMAPABLE);

/// The pairs' records.
#[map]
pub static PAIRS: Array<PairRecord> = Array::with_max_entries(SET_BY_AGENT, BPF_F_MMAPABLE);

/// Which slot of [`PAIRS`] a pair has.
#[map]
pub static PAIR_INDEX: HashMap<PairKey, u32> = HashMap::with_max_entries(SET_BY_AGENT, 0);

/// Slots of [`PAIRS`] to hand out. The last that came back goes first: its record is in memory already.
#[map]
pub static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(SET_BY_AGENT, 0);

/// How many slots each owner has taken; the agent maps it into its memory.
#[map]
pub static OWNERS: Array<u64> = Array::with_max_entries(OWNER_BUCKETS, BPF_F_MMAPABLE);

/// Host-wide counts; the agent maps it into its memory.
#[map]
pub static TOTALS: Array<Totals> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Remote proxies told apart by address; all others are `external`.
#[map]
pub static PROXY_RANGES: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(SET_BY_AGENT, BPF_F_NO_PREALLOC);

/// Networks of the remote end to include or exclude.
#[map]
pub static NETS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(SET_BY_AGENT, BPF_F_NO_PREALLOC);

/// Ports of the accepting end to include or exclude.
#[map]
pub static PORTS: HashMap<u32, u32> = HashMap::with_max_entries(SET_BY_AGENT, 0);

/// Pairs and ports to which the rules about requests do not apply.
#[map]
pub static NO_REQUEST_RULES: HashMap<EndpointKey, u32> = HashMap::with_max_entries(SET_BY_AGENT, 0);

/// Anomalies on their way to the agent.
#[map]
pub static INCIDENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// The walk that is under way, or the last one; the agent maps it into its memory.
#[map]
pub static WALK: Array<Walk> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Sockets of each pair, by its slot, as of the last walk; the agent maps it into its memory.
#[map]
pub static LEVELS: Array<LevelRecord> = Array::with_max_entries(SET_BY_AGENT, BPF_F_MMAPABLE);

/// Ephemeral ports by source and destination, as of the last walk; the agent maps it into its memory.
#[map]
pub static PORTS_HELD: Array<PortEntry> = Array::with_max_entries(PORT_SLOTS, BPF_F_MMAPABLE);

/// Listening sockets, as of the last walk; the agent maps it into its memory.
#[map]
pub static QUEUES: Array<ListenerEntry> = Array::with_max_entries(LISTENER_SLOTS, BPF_F_MMAPABLE);

/// Reserved ports of the walked namespace, a bit each; the agent maps it into its memory.
#[map]
pub static RESERVED_PORTS: Array<u64> = Array::with_max_entries(ALL_PORTS / u64::BITS, BPF_F_MMAPABLE);

/// The last walk that met a listening socket on a port.
#[map]
pub static LISTENERS: LruHashMap<ListenerKey, u32> = LruHashMap::with_max_entries(LISTENER_SLOTS, 0);

/// Network namespaces in which connections were tracked since the agent last looked.
#[map]
pub static NAMESPACES: LruHashMap<u32, u32> = LruHashMap::with_max_entries(MAX_NAMESPACES, 0);

/// Who holds a socket, by the socket's inode number; filled only while connections are taken in.
#[map]
pub static PROCESSES: HashMap<u64, Process> = HashMap::with_max_entries(SET_BY_AGENT, BPF_F_NO_PREALLOC);

/// Reads one offset. The verifier sees a constant.
macro_rules! offset {
    ($field:ident) => {
        $crate::maps::replaced(&$crate::maps::OFFSETS).$field
    };
}

/// Reads one setting. The verifier sees a constant.
macro_rules! setting {
    ($field:ident) => {
        $crate::maps::replaced(&$crate::maps::SETTINGS).$field
    };
}

pub(crate) use {offset, setting};

/// What the agent replaces before loading: the compiler must not know it, but may leave out what nobody uses.
#[inline(always)]
pub fn replaced<T>(constants: &'static T) -> &'static T {
    let mut place = core::ptr::from_ref(constants);
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inlateout(reg) place, options(pure, nomem, nostack, preserves_flags)) };
    // SAFETY: the very reference.
    unsafe { &*place }
}

/// The host-wide counts.
#[inline(always)]
pub fn totals() -> Option<*mut Totals> {
    TOTALS.get_ptr_mut(0)
}

const fn zeroed_offsets() -> Offsets {
    // SAFETY: integers only; all zero is valid.
    unsafe { core::mem::zeroed() }
}
