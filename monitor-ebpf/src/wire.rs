//! The records both halves read and write, and the names of what they count.
//!
//! Every struct is `repr(C)`, integers only and without padding, so that any byte pattern is valid and both compilers
//! agree on the layout.

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

/// What a death counts as, flattened: in a map's value it is plain numbers to the verifier, which would otherwise follow each
/// of the hundreds of ways to a cause through all the counting.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// [`crate::cause::Cause`].
    pub cause: u8,
    /// [`Counter`]s to add to, [`NO_COUNTER`] for none: the end, the reset received, the one sent, the request.
    pub counters: [u8; 4],
    /// `VERDICT_*` bits.
    pub bits: u8,
    /// The [`crate::cause::Cause`] to report, [`NO_ANOMALY`] for none.
    pub anomaly: u8,
    /// Always 0.
    pub reserved: u8,
    /// Jiffies the connection was quiet before the lost request, [`crate::cause::UNKNOWN`] for none.
    pub lost_quiet: u32,
}

/// [`Verdict::counters`]: nothing to count.
pub const NO_COUNTER: u8 = u8::MAX;
/// [`Verdict::anomaly`]: nothing to report.
pub const NO_ANOMALY: u8 = u8::MAX;
/// [`Verdict::bits`]: the peer's FIN, then its reset.
pub const VERDICT_FIN_THEN_RST: u8 = 1;
/// [`Verdict::bits`]: a timewait mini-socket takes the socket's place.
pub const VERDICT_TIME_WAIT: u8 = 1 << 1;
/// [`Verdict::bits`]: a reset of ours may follow, or a late segment may meet the mini-socket.
pub const VERDICT_FOLLOWED: u8 = 1 << 2;

/// What is known of a live connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// When it became ESTABLISHED, in nanoseconds of CLOCK_MONOTONIC; 0 before.
    pub opened_ns: u64,
    /// The pair's slot in `PAIRS`.
    pub slot: u32,
    /// `CONN_*` bits.
    pub flags: u32,
    /// Before ESTABLISHED: `write_seq` at connect(). After the peer's FIN: `write_seq` at it.
    pub mark_seq: u32,
    /// `data_segs_in` when the application closed.
    pub segments_at_close: u32,
    /// Jiffies the connection was quiet before the data in flight at the peer's FIN.
    pub quiet_at_fin: u32,
    /// `inet_sport` at connect(), host byte order: what an earlier use of the socket left there, or what was bound.
    pub port_at_connect: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The last walk that met the socket, or the one before it appeared.
    pub seen: u32,
    /// The process that opened it, 0 when unknown and on the upstream side.
    pub pid: u32,
    /// When the first FIN came or went: low 32 bits of jiffies, 0 when none was seen.
    pub first_fin: u32,
}

/// A place in the table of live connections, see [`crate::live`]: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Who wants it: 0 when it is free, 1 when it is taken.
    pub claims: u64,
    /// The address of the socket whose connection stands here, 0 for none.
    pub socket: u64,
    /// The connection.
    pub conn: Connection,
}

const _: () = assert!(size_of::<Tracked>() == 64);

/// This host opened the connection (else it accepted it).
pub const CONN_PROXY: u32 = 1;
/// It reached ESTABLISHED while it was watched.
pub const CONN_OPENED: u32 = 1 << 1;
/// Our FIN was the first.
pub const CONN_LOCAL_FIN: u32 = 1 << 2;
/// The peer's FIN was the first.
pub const CONN_PEER_FIN: u32 = 1 << 3;
/// A reset reached the socket (or what looks like one, see [`crate::cause`]).
pub const CONN_RST: u32 = 1 << 4;
/// We sent a reset while the socket was alive.
pub const CONN_RST_SENT: u32 = 1 << 5;
/// At the peer's FIN a request was unanswered.
pub const CONN_UNANSWERED_AT_FIN: u32 = 1 << 6;
/// At the peer's FIN something sent was unacknowledged.
pub const CONN_IN_FLIGHT_AT_FIN: u32 = 1 << 7;
/// [`Connection::quiet_at_fin`] is exact (nothing was retransmitted).
pub const CONN_QUIET_KNOWN: u32 = 1 << 8;
/// The application has closed the socket: nobody can read what still comes.
pub const CONN_APP_CLOSED: u32 = 1 << 9;
/// The rules about requests do not apply to this connection's protocol.
pub const CONN_NO_REQUEST_RULES: u32 = 1 << 10;
/// The application had bound a local port before connect().
pub const CONN_PORT_BOUND: u32 = 1 << 11;
/// We gave up on an unanswered request that the peer had acknowledged; counted.
pub const CONN_GAVE_UP_ACKED: u32 = 1 << 12;
/// We gave up on an unanswered request that the peer never acknowledged; counted.
pub const CONN_GAVE_UP_UNACKED: u32 = 1 << 13;
/// It was there before the agent.
pub const CONN_ADOPTED: u32 = 1 << 14;

/// Names a connection after its socket is gone: what late segments and timewait mini-sockets still carry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClosedKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Local address; IPv4 as `::ffff:a.b.c.d`.
    pub local: [u8; 16],
    /// Remote address; IPv4 as `::ffff:a.b.c.d`.
    pub remote: [u8; 16],
}

/// What is kept of a closed connection that a late reset may still concern.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedConnection {
    /// Both ends.
    pub key: ClosedKey,
    /// The pair's slot in `PAIRS`.
    pub slot: u32,
    /// The slot's generation at the close.
    pub generation: u32,
    /// The connection's `CONN_*` bits.
    pub flags: u16,
    /// The death's [`crate::cause::Cause`].
    pub cause: u16,
    /// [`Connection::pid`].
    pub pid: u32,
    /// [`Connection::first_fin`].
    pub first_fin: u32,
    /// Digest of the rest: tells an entry that two CPUs wrote at once.
    pub check: u32,
}

const _: () = assert!(size_of::<ClosedConnection>() == 64);

/// Connections that may wait at once for the reset of ours that follows their end: each for some microseconds.
pub const RESETTING_SLOTS: u32 = 4_096;

/// Entries in one set of the table of closed connections.
pub const CLOSED_WAYS: usize = 8;

/// The closed connections whose keys hash alike: one value of the `CLOSED` array. See [`crate::closed`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSet {
    /// Part of each entry's hash, 0 where there is none.
    pub tags: [u32; CLOSED_WAYS],
    /// When each entry was written: low 32 bits of jiffies.
    pub times: [u32; CLOSED_WAYS],
    /// The entries.
    pub entries: [ClosedConnection; CLOSED_WAYS],
}

/// One anomaly, as it travels through the ring buffer. Times before it are ages in jiffies, [`crate::cause::UNKNOWN`]
/// for what never happened or is not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When, in nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// When the connection became ESTABLISHED on the same clock, 0 when it did not or that was not seen.
    pub opened_ns: u64,
    /// Data bytes sent, retransmissions left out.
    pub bytes_sent: u64,
    /// Data bytes received.
    pub bytes_received: u64,
    /// The pair.
    pub key: PairKey,
    /// Both ends.
    pub endpoints: ClosedKey,
    /// `CONN_*` bits.
    pub flags: u32,
    /// [`Connection::pid`].
    pub pid: u32,
    /// Age of the last data received.
    pub since_received: u32,
    /// Age of the last data sent.
    pub since_sent: u32,
    /// Age of the first FIN; `flags` tell whose it was.
    pub since_fin: u32,
    /// Jiffies the connection was quiet before the last request.
    pub quiet: u32,
    /// Data bytes written and not acknowledged.
    pub bytes_unacked: u32,
    /// Data bytes written after the peer's FIN.
    pub bytes_after_fin: u32,
    /// Data bytes that came after the end, where [`Self::late`] is 1.
    pub bytes_late: u32,
    /// Retransmitted segments, SYN included.
    pub retransmits: u32,
    /// Smoothed round trip time in microseconds.
    pub srtt_us: u32,
    /// `sk_err`, positive.
    pub err: u32,
    /// [`Verdict::counters`].
    pub counters: [u8; 4],
    /// [`Verdict::anomaly`].
    pub cause: u8,
    /// The death's [`crate::cause::Cause`].
    pub death: u8,
    /// The state that the socket left; where [`Self::late`] is 1, the one it was in.
    pub state: u8,
    /// 1 when the connection was over: a reset of ours met what came late, and only the ends, the process, the first
    /// FIN and the late bytes are known.
    pub late: u8,
}

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

/// [`Settings::filter`]: ports to include are named, all others are left out.
pub const FILTER_INCLUDE_PORTS: u32 = 1;
/// [`Settings::filter`]: ports to exclude are named.
pub const FILTER_EXCLUDE_PORTS: u32 = 1 << 1;
/// [`Settings::filter`]: networks to include are named, all others are left out.
pub const FILTER_INCLUDE_NETS: u32 = 1 << 2;
/// [`Settings::filter`]: networks to exclude are named.
pub const FILTER_EXCLUDE_NETS: u32 = 1 << 3;
/// [`Settings::filter`]: ports or pairs without request rules are named.
pub const FILTER_NO_REQUEST_RULES: u32 = 1 << 4;
/// [`Settings::filter`]: only the network namespace [`Settings::netns`].
pub const FILTER_NETNS: u32 = 1 << 5;

/// [`Settings::features`]: the kernel hands the current task to programs as a typed pointer (from 5.11 on).
pub const FEATURE_TYPED_TASK: u32 = 1;
/// [`Settings::features`]: a socket's cgroup is a typed pointer (from 5.15 on).
pub const FEATURE_TYPED_CGROUP: u32 = 1 << 1;
/// [`Settings::features`]: requests are followed.
pub const FEATURE_REQUESTS: u32 = 1 << 2;
/// Other tasks may run in the midst of a program on a tracepoint.
pub const FEATURE_PREEMPTIBLE: u32 = 1 << 3;

/// Value in `PORTS` and `NETS`: include.
pub const RULE_INCLUDE: u32 = 1;
/// Value in `PORTS` and `NETS`: exclude.
pub const RULE_EXCLUDE: u32 = 2;

/// A pair or port (address zero) to which the rules about requests do not apply.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// Address of the accepting end, or zero for every address.
    pub address: [u8; 16],
    /// Port of the accepting end, host byte order.
    pub port: u32,
}

/// What the agent tells the programs before they load; the verifier sees constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Jiffies in a second.
    pub hz: u32,
    /// Bytes after the peer's FIN up to which a protocol's goodbye is assumed.
    pub goodbye_bytes: u32,
    /// `FILTER_*` bits.
    pub filter: u32,
    /// `FEATURE_*` bits.
    pub features: u32,
    /// Number of sets in `CLOSED`, a power of two, less one.
    pub closed_mask: u32,
    /// Seed of the hash that spreads closed connections over the sets.
    pub closed_seed: u32,
    /// Slots of `PAIRS`.
    pub max_pairs: u32,
    /// Connections tracked at once.
    pub max_connections: u32,
    /// Number of places in `CONNECTIONS`, a power of two, less one.
    pub places_mask: u32,
    /// With [`FILTER_NETNS`]: the namespace's inode number.
    pub netns: u32,
    /// Incidents a pair may report per second.
    pub incidents_per_second: u32,
}
