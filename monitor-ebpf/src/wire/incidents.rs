//! Anomalies on their way to the agent.

use super::{ClosedKey, PairKey};

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
    /// [`super::Connection::pid`].
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
    /// [`super::Verdict::counters`].
    pub counters: [u8; 4],
    /// [`super::Verdict::anomaly`].
    pub cause: u8,
    /// The death's [`crate::cause::Cause`].
    pub death: u8,
    /// The state that the socket left; where [`Self::late`] is 1, the one it was in.
    pub state: u8,
    /// 1 when the connection was over: a reset of ours met what came late, and only the ends, the process, the first
    /// FIN and the late bytes are known.
    pub late: u8,
}
