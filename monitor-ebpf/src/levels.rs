//! What a walk over the kernel's socket tables is told, and what it leaves behind.
//!
//! A walk covers one network namespace. Every record carries the number of the walk that wrote it: what bears an older
//! number is empty, so nothing has to be cleared between walks.

use crate::wire::COMM_LEN;

/// Slots of [`LevelRecord::sockets`]: a power of two, so that the verifier sees a masked state stay inside.
pub const STATE_SLOTS: usize = 16;
/// Slots of the table of [`PortEntry`]; a power of two.
pub const PORT_SLOTS: u32 = 16_384;
/// Slots of the table of [`ListenerEntry`]; a power of two.
pub const LISTENER_SLOTS: u32 = 4_096;
/// Ports there are: bits in the table of reserved ones.
pub const PORTS: u32 = 65_536;
/// Network namespaces that are looked after.
pub const MAX_NAMESPACES: u32 = 4_096;
/// The name of a process that could not be found.
pub const UNKNOWN_PROCESS: [u8; COMM_LEN] = *b"unknown\0\0\0\0\0\0\0\0\0";

/// [`Walk::mode`]: connections that are not tracked yet are taken in.
pub const WALK_ADOPTS: u32 = 1;
/// [`Walk::mode`]: some ports of the range are reserved.
pub const WALK_RESERVED: u32 = 1 << 1;

/// One walk: the agent fills in the upper half and zeroes the rest, the program counts in the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The walk's number, from 1; it only grows.
    pub id: u32,
    /// `WALK_*` bits.
    pub mode: u32,
    /// First port of the namespace's ephemeral range.
    pub port_low: u32,
    /// Last port of the namespace's ephemeral range.
    pub port_high: u32,
    /// Sockets met, listening ones included.
    pub sockets: u64,
    /// Full sockets met that are tracked, those just taken in included.
    pub tracked: u64,
    /// Full sockets met that should be tracked and are not.
    pub untracked: u64,
    /// Sockets in a state that ends by itself: all but listening and established ones.
    pub passing: u64,
    /// Connections that wait for accept().
    pub waiting: u64,
    /// Sockets whose destination found no room in the table of ports.
    pub ports_lost: u64,
    /// Listening sockets that found no room in their table.
    pub listeners_lost: u64,
    /// 1 once the walk has seen everything.
    pub finished: u64,
}

/// The sockets of one pair in the walked namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelRecord {
    /// The walk that wrote it.
    pub walk: u32,
    /// Established and quiet for at least a second.
    pub idle: u32,
    /// For how many seconds the oldest of those in CLOSE_WAIT has been in it, as far as its peer's FIN was seen.
    pub oldest_close_wait: u32,
    /// Of the idle ones, those upon which a request waits for its answer: ours, or one that this host has accepted.
    pub unanswered: u32,
    /// How many are in each state, by the state's number; mini-sockets by the state they stand for.
    pub sockets: [u32; STATE_SLOTS],
}

/// The ephemeral ports that one source address holds toward one destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The walk that wrote it.
    pub walk: u32,
    /// Ports of the range in use.
    pub used: u32,
    /// Local address, in memory order; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u64; 2],
    /// Remote address, likewise.
    pub destination: [u64; 2],
    /// Remote port, host byte order.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The listening sockets of one address, port and control group.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerEntry {
    /// The walk that wrote it.
    pub walk: u32,
    /// Local port, host byte order.
    pub port: u32,
    /// Local address, in memory order; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u64; 2],
    /// Id of the control group in which the socket was made, 0 when unknown.
    pub cgroup: u64,
    /// Connections that wait for accept().
    pub length: u32,
    /// How many may wait.
    pub limit: u32,
}

/// Names a listening socket's port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host byte order.
    pub port: u32,
}

/// The process that holds a socket, as found in `/proc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The thread group leader's name, NUL-padded.
    pub name: [u8; COMM_LEN],
    /// The process.
    pub pid: u32,
}
