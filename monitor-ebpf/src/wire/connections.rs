//! Connections: live ones, what they die of, and those that have ended.

/// What a death counts as, flattened: in a map's value it is plain numbers to the verifier, which would otherwise follow each
/// of the hundreds of ways to a cause through all the counting.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// [`crate::cause::Cause`].
    pub cause: u8,
    /// [`super::Counter`]s to add to, [`NO_COUNTER`] for none: the end, the reset received, the one sent, the request.
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
