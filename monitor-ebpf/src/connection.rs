//! What is remembered of a connection between two looks at it.

use crate::{
    evidence::Evidence,
    state,
    wire::{
        CONN_ADOPTED, CONN_APP_CLOSED, CONN_GAVE_UP_ACKED, CONN_GAVE_UP_UNACKED, CONN_IN_FLIGHT_AT_FIN,
        CONN_LOCAL_FIN, CONN_NO_REQUEST_RULES, CONN_OPENED, CONN_PEER_FIN, CONN_PORT_BOUND, CONN_PROXY,
        CONN_QUIET_KNOWN, CONN_UNANSWERED_AT_FIN, Connection, Counter,
    },
};

impl Connection {
    /// Nothing is known yet.
    const BLANK: Self = Self {
        opened_ns: 0,
        slot: 0,
        flags: 0,
        mark_seq: 0,
        segments_at_close: 0,
        quiet_at_fin: 0,
        port_at_connect: 0,
        netns: 0,
        seen: 0,
        pid: 0,
        first_fin: 0,
    };

    /// A connection that is being opened by connect() (`7->2`).
    #[inline]
    pub fn connecting(slot: u32, bound: bool, ev: &Evidence) -> Self {
        let bound = if bound { CONN_PORT_BOUND } else { 0 };
        Self {
            slot,
            flags: CONN_PROXY | bound,
            mark_seq: ev.write_seq,
            port_at_connect: u32::from(ev.local_port),
            ..Self::BLANK
        }
    }

    /// A connection that this host has accepted (`3->1`, and what Fast Open makes of it).
    #[inline]
    pub fn accepted(slot: u32, opened_ns: u64) -> Self {
        Self { opened_ns, slot, flags: CONN_OPENED, ..Self::BLANK }
    }

    /// A connection that is found in `state` without its beginning having been seen; `None` where it has none yet.
    #[inline]
    pub fn adopted(slot: u32, opened_here: bool, state: u8, ev: &Evidence) -> Option<Self> {
        // Our SYN and our FIN count one each in `write_seq`.
        let (flags, mark_seq) = match state {
            state::SYN_SENT if opened_here => (0, ev.write_seq.wrapping_sub(1)),
            state::ESTABLISHED => (CONN_ADOPTED, 0),
            state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING => (CONN_ADOPTED | CONN_LOCAL_FIN, 0),
            state::CLOSE_WAIT => (CONN_ADOPTED | CONN_PEER_FIN, ev.write_seq),
            state::LAST_ACK => (CONN_ADOPTED | CONN_PEER_FIN, ev.write_seq.wrapping_sub(1)),
            _ => return None,
        };
        let role = if opened_here { CONN_PROXY } else { 0 };
        let closed = if ev.closed_by_application() { CONN_APP_CLOSED } else { 0 };
        Some(Self {
            slot,
            flags: flags | role | closed,
            mark_seq,
            segments_at_close: ev.data_segs_in,
            ..Self::BLANK
        })
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
        self.first_fin = ev.now;
        self.mark_seq = ev.write_seq;
        if ev.in_flight(false) {
            self.flags |= CONN_IN_FLIGHT_AT_FIN;
            self.quiet_at_fin = ev.quiet_before().max(0).cast_unsigned();
            if !ev.retransmitted() {
                self.flags |= CONN_QUIET_KNOWN;
            }
        }
        let outstanding = self.outstanding(ev, true);
        if outstanding && self.has(CONN_PROXY) {
            self.flags |= CONN_UNANSWERED_AT_FIN;
        }
        (!outstanding).then(|| ev.idle_at_fin())
    }

    /// Whether an answer is due, to us or from us; `peer_fin` says whether that FIN has been counted.
    #[inline]
    fn outstanding(&self, ev: &Evidence, peer_fin: bool) -> bool {
        if self.has(CONN_PROXY) {
            self.asks() && ev.unanswered(peer_fin, false)
        } else {
            ev.owes_answer(peer_fin)
        }
    }

    /// For how many jiffies the connection was idle when our FIN, the first, was sent (`1->4`) with nothing unanswered.
    #[inline]
    pub fn idle_at_local_fin(&self, ev: &Evidence) -> Option<u32> {
        (!self.outstanding(ev, false)).then(|| ev.idle())
    }

    /// Our FIN is the first (`1->4`): the application closed the socket or its sending half.
    #[inline]
    pub fn on_local_fin(&mut self, ev: &Evidence) -> Option<Counter> {
        self.flags |= CONN_LOCAL_FIN;
        self.first_fin = ev.now;
        self.on_application_close(ev, false)
    }

    /// The application may have closed the socket: after our FIN, or with it (`fin` says whether the FIN has been
    /// queued). Returns what to count when it gave up on a request.
    #[inline]
    pub fn on_application_close(&mut self, ev: &Evidence, fin: bool) -> Option<Counter> {
        self.segments_at_close = ev.data_segs_in;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adopted_connection_carries_what_its_state_tells() {
        let ev = Evidence { write_seq: 100, data_segs_in: 7, ..Evidence::default() };
        let flags = |opened_here, state| {
            Connection::adopted(3, opened_here, state, &ev).map(|conn| (conn.flags, conn.mark_seq))
        };
        assert_eq!(flags(true, state::ESTABLISHED), Some((CONN_ADOPTED | CONN_PROXY, 0)));
        assert_eq!(flags(false, state::ESTABLISHED), Some((CONN_ADOPTED, 0)));
        assert_eq!(flags(false, state::CLOSE_WAIT), Some((CONN_ADOPTED | CONN_PEER_FIN, 100)));
        assert_eq!(flags(false, state::LAST_ACK), Some((CONN_ADOPTED | CONN_PEER_FIN, 99)));
        for state in [state::FIN_WAIT1, state::FIN_WAIT2, state::CLOSING] {
            assert_eq!(flags(false, state), Some((CONN_ADOPTED | CONN_LOCAL_FIN, 0)));
        }
        // Still connecting: its end will be judged like that of any attempt.
        assert_eq!(flags(true, state::SYN_SENT), Some((CONN_PROXY, 99)));
        for state in [state::SYN_RECV, state::LISTEN, state::CLOSE, state::TIME_WAIT] {
            assert_eq!(flags(false, state), None);
        }
    }

    #[test]
    fn an_adopted_orphan_is_closed_by_its_application() {
        let ev = Evidence { dead: true, data_segs_in: 7, ..Evidence::default() };
        let conn = Connection::adopted(3, true, state::FIN_WAIT2, &ev).expect("a connection");
        assert!(conn.has(CONN_APP_CLOSED));
        assert_eq!(conn.segments_at_close, 7);
    }
}
