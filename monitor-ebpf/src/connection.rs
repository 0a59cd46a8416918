//! What is remembered of a connection between two looks at it.

use crate::{
    evidence::Evidence,
    wire::{
        CONN_APP_CLOSED, CONN_BACKLOG_DATA, CONN_GAVE_UP_ACKED, CONN_GAVE_UP_UNACKED, CONN_IN_FLIGHT_AT_FIN,
        CONN_LOCAL_FIN, CONN_NO_REQUEST_RULES, CONN_OPENED, CONN_PEER_FIN, CONN_PORT_BOUND, CONN_PROXY,
        CONN_QUIET_KNOWN, CONN_UNANSWERED_AT_FIN, Connection, Counter, Verdict,
    },
};

impl Connection {
    /// A connection that is being opened by connect() (`7->2`).
    #[inline]
    pub fn connecting(slot: u32, bound: bool, ev: &Evidence) -> Self {
        let bound = if bound { CONN_PORT_BOUND } else { 0 };
        Self {
            opened_ns: 0,
            slot,
            flags: CONN_PROXY | bound,
            mark_seq: ev.write_seq,
            segments_at_close: 0,
            quiet_at_fin: 0,
            port_at_connect: u32::from(ev.local_port),
            verdict: Verdict::NONE,
            reserved: 0,
        }
    }

    /// A connection that this host has accepted (`3->1`, and what Fast Open makes of it).
    #[inline]
    pub fn accepted(slot: u32, opened_ns: u64) -> Self {
        Self {
            opened_ns,
            slot,
            flags: CONN_OPENED,
            mark_seq: 0,
            segments_at_close: 0,
            quiet_at_fin: 0,
            port_at_connect: 0,
            verdict: Verdict::NONE,
            reserved: 0,
        }
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// Whether the rules about requests apply: this host is the one that asks.
    #[inline]
    pub fn asks(&self) -> bool {
        self.flags & (CONN_PROXY | CONN_NO_REQUEST_RULES) == CONN_PROXY
    }

    /// Whether any FIN has been seen.
    #[inline]
    pub fn any_fin(&self) -> bool {
        self.flags & (CONN_LOCAL_FIN | CONN_PEER_FIN) != 0
    }

    /// The handshake is over (`2->1`, `3->1`).
    #[inline]
    pub fn on_established(&mut self, now_ns: u64) {
        self.flags |= CONN_OPENED;
        self.opened_ns = now_ns;
    }

    /// The peer's FIN is the first (`1->8`). Returns for how many jiffies the connection was idle when nothing was
    /// unanswered.
    #[inline]
    pub fn on_peer_fin(&mut self, ev: &Evidence) -> Option<u32> {
        self.flags |= CONN_PEER_FIN;
        self.mark_seq = ev.write_seq;
        if ev.in_flight(false) {
            self.flags |= CONN_IN_FLIGHT_AT_FIN;
            self.quiet_at_fin = ev.quiet_before().max(0).cast_unsigned();
            if !ev.retransmitted() {
                self.flags |= CONN_QUIET_KNOWN;
            }
        }
        let outstanding = if self.has(CONN_PROXY) {
            let unanswered = self.asks() && ev.unanswered(true, false);
            if unanswered {
                self.flags |= CONN_UNANSWERED_AT_FIN;
            }
            unanswered
        } else {
            ev.owes_answer(true)
        };
        (!outstanding).then(|| ev.idle_at_fin())
    }

    /// Our FIN is the first (`1->4`): the application closed the socket or its sending half.
    #[inline]
    pub fn on_local_fin(&mut self, ev: &Evidence) -> Option<Counter> {
        self.flags |= CONN_LOCAL_FIN;
        self.on_application_close(ev, false)
    }

    /// The application may have closed the socket: after our FIN, or with it (`fin` says whether the FIN has been
    /// queued). Returns what to count when it gave up on a request.
    #[inline]
    pub fn on_application_close(&mut self, ev: &Evidence, fin: bool) -> Option<Counter> {
        self.segments_at_close = ev.data_segs_in;
        if ev.backlog_data {
            self.flags |= CONN_BACKLOG_DATA;
        }
        if self.has(CONN_APP_CLOSED) || !ev.closed_by_application() {
            return None;
        }
        self.flags |= CONN_APP_CLOSED;
        self.on_giving_up(ev, fin)
    }

    /// Nobody waits for an answer any more: what to count when a request had been unanswered for long.
    #[inline]
    pub fn on_giving_up(&mut self, ev: &Evidence, fin: bool) -> Option<Counter> {
        if !self.asks() || !ev.unanswered(false, fin) || ev.unanswered_for() < ev.hz {
            return None;
        }
        if ev.all_acknowledged(fin) {
            self.flags |= CONN_GAVE_UP_ACKED;
            Some(Counter::LocalClosedBeforeResponseAcked)
        } else {
            self.flags |= CONN_GAVE_UP_UNACKED;
            Some(Counter::LocalClosedBeforeResponseUnacked)
        }
    }
}
