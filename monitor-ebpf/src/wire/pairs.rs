//! Pairs: their keys, their records, and the host's totals.

use crate::histogram::SLOTS;

/// Length of a process name in the kernel (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// [`PairKey::side`]: this host opened the connection.
pub const SIDE_PROXY: u8 = 0;
/// [`PairKey::side`]: this host accepted the connection.
pub const SIDE_UPSTREAM: u8 = 1;

/// [`PairKey::flags`]: the remote proxy's address lies outside the configured ranges and is left out.
pub const KEY_EXTERNAL: u8 = 1;
/// [`PairKey::flags`]: the record that takes all pairs for which there was no room.
pub const KEY_FOLDED: u8 = 2;

/// The slot of `PAIRS` that takes connections this host opened when there is no room for their pair.
pub const SLOT_FOLDED_PROXY: u32 = 0;
/// The slot of `PAIRS` that takes connections this host accepted when there is no room for their pair.
pub const SLOT_FOLDED_UPSTREAM: u32 = 1;
/// A slot of `IN_USE`: belongs to no pair.
pub const SLOT_FREE: u64 = 0;
/// A slot of `IN_USE`: belongs to a pair.
pub const SLOT_IN_USE: u64 = 1;

/// The first slot that is handed out.
pub const FIRST_FREE_SLOT: u32 = 2;

/// Who talks to whom, from this host's side. Names are given to it only when it is exposed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// [`SIDE_PROXY`] or [`SIDE_UPSTREAM`].
    pub side: u8,
    /// `KEY_*` bits.
    pub flags: u8,
    /// Port of the accepting end, host byte order.
    pub port: u16,
    /// Always 0.
    pub reserved: u32,
    /// Address of the accepting end; IPv4 as `::ffff:a.b.c.d`.
    pub upstream: [u8; 16],
    /// Proxy side: the process's name, NUL-padded. Upstream side: the remote address, or zero when external.
    pub proxy: [u8; 16],
    /// Id of the cgroup (version 2) in which the socket was made, 0 when unknown.
    pub cgroup: u64,
}

/// Counts and sum of one histogram.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Sum of the samples, in the unit of the bounds: milliseconds unless its owner says otherwise.
    pub sum: u64,
    /// Samples per slot, not cumulative.
    pub slots: [u64; SLOTS],
}

impl Histogram {
    /// No samples.
    pub const EMPTY: Self = Self { sum: 0, slots: [0; SLOTS] };
}

/// What a pair's record counts; the discriminant is the index into [`PairRecord::counters`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counter {
    /// Reached ESTABLISHED.
    Opened,
    /// Our FIN was first.
    ClosedLocal,
    /// The peer's FIN was first.
    ClosedPeer,
    /// A reset, either way, before any FIN.
    ClosedReset,
    /// Given up before any FIN.
    ClosedTimeout,
    /// connect() was answered by a reset.
    ConnectRefused,
    /// connect() was answered by ICMP.
    ConnectUnreachable,
    /// connect() was given up after at least one SYN retransmission.
    ConnectTimeout,
    /// connect() was given up before any SYN retransmission.
    ConnectAbandoned,
    /// connect() found no free local port.
    ConnectNoLocalPort,
    /// connect() failed otherwise.
    ConnectOther,
    /// Reset received during the handshake.
    ResetHandshake,
    /// Reset received after our FIN.
    ResetAfterLocalClose,
    /// Reset received after the peer's FIN.
    ResetAfterPeerFin,
    /// Reset received upon the connection's first request.
    ResetFirstRequest,
    /// Reset received while waiting for an answer.
    ResetWaiting,
    /// Reset received upon a request on a used connection.
    ResetReusedRequest,
    /// Reset received during a response or right after it.
    ResetResponse,
    /// Reset received on an idle connection.
    ResetIdle,
    /// Reset received by the upstream while it answers.
    ResetAnswering,
    /// Request lost: it crossed the peer's FIN.
    LostCrossedFin,
    /// Request lost: written after the peer's FIN.
    LostAfterFin,
    /// Request lost: reset without any FIN.
    LostNoFin,
    /// The peer's FIN came with a request unanswered.
    PeerClosedBeforeResponse,
    /// We gave up on a request that the peer had acknowledged.
    LocalClosedBeforeResponseAcked,
    /// We gave up on a request that the peer never acknowledged.
    LocalClosedBeforeResponseUnacked,
    /// Our reset answered data that came after our close.
    SentDataAfterClose,
    /// Our reset: closed with data unread.
    SentUnreadDataAtClose,
    /// Our reset: linger 0, disconnect, abort, listener closed.
    SentAbort,
    /// Our reset: keep-alive or orphan timer.
    SentTimeout,
    /// Our reset, otherwise.
    SentOther,
    /// The peer's FIN, then its reset.
    FinThenRstReceived,
    /// Our FIN, then our reset for late data.
    FinThenRstSent,
    /// Handed to a timewait mini-socket.
    TimeWaitEntered,
    /// Requests answered; counted only where that was asked for.
    Requests,
}

/// How many counters a pair has.
pub const COUNTERS: usize = Counter::Requests as usize + 1;
/// Slots of [`PairRecord::counters`]: a power of two, so that the verifier sees a masked index stay inside.
pub const COUNTER_SLOTS: usize = 64;
const _: () = assert!(COUNTERS <= COUNTER_SLOTS);

/// One pair's counters and histograms: one slot of the `PAIRS` array, which the agent maps into its memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PairRecord {
    /// Whom it counts for.
    pub key: PairKey,
    /// Raised when the slot is given to another pair, so that a late event knows that its pair is gone.
    pub generation: u32,
    /// The process that opened the pair's first connection, 0 on the upstream side.
    pub pid: u32,
    /// The bucket of `OWNERS` that the slot is charged to.
    pub owner: u32,
    /// Inode number of the network namespace of the connection that was tracked last.
    pub netns: u32,
    /// Connections tracked now.
    pub tracked: u64,
    /// Jiffies (64 bits) of the last event.
    pub touched: u64,
    /// The second (of jiffies) in which the pair last reported incidents.
    pub incident_second: u32,
    /// How many it reported in that second.
    pub incident_count: u32,
    /// One per [`Counter`].
    pub counters: [u64; COUNTER_SLOTS],
    /// Quiet time at the peer's FIN.
    pub peer_close_idle: Histogram,
    /// Quiet time at our FIN.
    pub local_close_idle: Histogram,
    /// Quiet time before each lost request.
    pub lost_request_idle: Histogram,
    /// ESTABLISHED to CLOSE.
    pub connection_duration: Histogram,
    /// Always 0: a record begins with a cache line, and what each connection counts lies in few of them.
    pub reserved: u64,
}

const _: () = assert!(size_of::<PairRecord>().is_multiple_of(64));

/// Host-wide counts: the single slot of the `TOTALS` array, which the agent maps into its memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Connections tracked now.
    pub tracked: u64,
    /// Those of them that stand elsewhere than at home, see [`crate::live`].
    pub displaced: u64,
    /// Connections that found the table full.
    pub untracked: u64,
    /// Slots of `PAIRS` in use.
    pub pairs: u64,
    /// Connections whose pair found no room and was folded.
    pub folded: u64,
    /// Entries in the table of closed connections.
    pub closed: u64,
    /// Entries of that table that made room for others before their time.
    pub closed_evicted: u64,
    /// Resets sent that concern no connection.
    pub resets_no_socket: u64,
    /// Resets sent of connections that are not tracked.
    pub resets_untracked: u64,
    /// Incidents handed to the agent.
    pub incidents: u64,
    /// Incidents lost because the ring buffer was full.
    pub incidents_lost: u64,
    /// Incidents held back by the limit per pair.
    pub incidents_limited: u64,
    /// Connections that a walk found untracked and took in: older than the agent, or their beginning was missed.
    pub adopted: u64,
    /// Tracked connections whose socket was found gone: their end was missed.
    pub missed_end: u64,
}

/// How many owners' shares of the pair table are told apart; owners that hash alike share one.
pub const OWNER_BUCKETS: u32 = 1024;
