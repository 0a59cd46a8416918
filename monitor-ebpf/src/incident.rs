//! What an incident tells of its connection: the evidence, made readable without the socket.

use crate::{
    cause::{Cause, UNKNOWN},
    evidence::Evidence,
    state,
    wire::{
        CONN_ADOPTED, CONN_IN_FLIGHT_AT_FIN, CONN_OPENED, CONN_PEER_FIN, CONN_QUIET_KNOWN, ClosedConnection,
        ClosedKey, Connection, Incident, NO_COUNTER, PairKey, Verdict,
    },
};

impl Incident {
    /// The death of `conn` with its verdict, out of the state `left`. The round trip time is not part of `ev`.
    #[inline]
    pub fn of_death(
        time_ns: u64,
        key: PairKey,
        endpoints: ClosedKey,
        conn: &Connection,
        verdict: &Verdict,
        left: u8,
        ev: &Evidence,
    ) -> Self {
        let local_fin = u32::from(has_sent_fin(left));
        let existed = conn.flags & (CONN_OPENED | CONN_ADOPTED) != 0;
        let written = |since: u32| positive(ev.write_seq.wrapping_sub(since).wrapping_sub(local_fin));
        Self {
            time_ns,
            opened_ns: conn.opened_ns,
            bytes_sent: ev.bytes_sent.saturating_sub(ev.bytes_retrans),
            bytes_received: ev.bytes_received.saturating_sub(u64::from(ev.done)),
            key,
            endpoints,
            flags: conn.flags,
            pid: conn.pid,
            since_received: if ev.received_data(ev.done) { ev.since_received() } else { UNKNOWN },
            since_sent: if ev.bytes_sent > 0 { ev.now.wrapping_sub(ev.lsndtime) } else { UNKNOWN },
            since_fin: since(conn.first_fin, ev.now),
            quiet: quiet(conn, ev),
            // Before the handshake only the SYN is unacknowledged.
            bytes_unacked: if existed { written(ev.snd_una) } else { 0 },
            bytes_after_fin: if conn.has(CONN_PEER_FIN) { written(conn.mark_seq) } else { 0 },
            bytes_late: 0,
            retransmits: ev.total_retrans,
            srtt_us: 0,
            err: ev.err,
            counters: verdict.counters,
            cause: verdict.anomaly,
            death: verdict.cause,
            state: left,
            late: 0,
        }
    }

    /// A reset of ours that answers data which came after the end of a connection; `now` in jiffies.
    #[inline]
    pub fn after_end(
        time_ns: u64,
        key: PairKey,
        closed: &ClosedConnection,
        state: u8,
        bytes_late: u32,
        now: u32,
    ) -> Self {
        Self {
            time_ns,
            opened_ns: 0,
            bytes_sent: 0,
            bytes_received: 0,
            key,
            endpoints: closed.key,
            flags: closed.flags.into(),
            pid: closed.pid,
            since_received: UNKNOWN,
            since_sent: UNKNOWN,
            since_fin: since(closed.first_fin, now),
            quiet: UNKNOWN,
            bytes_unacked: 0,
            bytes_after_fin: 0,
            bytes_late,
            retransmits: 0,
            srtt_us: 0,
            err: 0,
            counters: [NO_COUNTER; 4],
            cause: Cause::DataAfterClose as u8,
            death: Cause::DataAfterClose as u8,
            state,
            late: 1,
        }
    }
}

/// Whether our FIN is counted in what was written.
#[inline]
fn has_sent_fin(left: u8) -> bool {
    matches!(left, state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::LAST_ACK)
}

/// A difference of sequence numbers that cannot be negative.
#[inline]
fn positive(difference: u32) -> u32 {
    if difference > i32::MAX.cast_unsigned() { 0 } else { difference }
}

#[inline]
fn since(fin: u32, now: u32) -> u32 {
    if fin == 0 { UNKNOWN } else { now.wrapping_sub(fin) }
}

/// Jiffies of quiet before the last request, where there was one after data had come.
#[inline]
fn quiet(conn: &Connection, ev: &Evidence) -> u32 {
    if conn.has(CONN_IN_FLIGHT_AT_FIN) {
        return if conn.has(CONN_QUIET_KNOWN) { conn.quiet_at_fin } else { UNKNOWN };
    }
    let quiet = ev.quiet_before();
    if ev.retransmitted() || ev.bytes_sent == 0 || !ev.received_data(ev.done) || quiet < 0 {
        return UNKNOWN;
    }
    quiet.cast_unsigned()
}
