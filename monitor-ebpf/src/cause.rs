//! The one cause of a connection's death, and what it counts as.
//!
//! [`judge`] is total and deterministic: the state a socket leaves, what is remembered of the connection and one last
//! look at it give exactly one [`Cause`]. `tcp_reset()` also runs when data reaches a socket that the application has
//! closed, so a "received reset" is believed only after [`judge`] has looked at the segments counted since:
//! <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_input.c#L6893-L6909>.

use crate::{
    evidence::Evidence,
    state,
    wire::{
        CONN_ADOPTED, CONN_APP_CLOSED, CONN_GAVE_UP_ACKED, CONN_GAVE_UP_UNACKED, CONN_IN_FLIGHT_AT_FIN,
        CONN_LOCAL_FIN, CONN_NO_REQUEST_RULES, CONN_OPENED, CONN_PEER_FIN, CONN_PORT_BOUND, CONN_PROXY,
        CONN_QUIET_KNOWN, CONN_RST, CONN_RST_SENT, CONN_UNANSWERED_AT_FIN, Connection, Counter, NO_ANOMALY,
        NO_COUNTER, VERDICT_FIN_THEN_RST, VERDICT_FOLLOWED, VERDICT_TIME_WAIT, Verdict,
    },
};

/// Why a connection ended, or was never made.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Our FIN first, nothing amiss.
    ClosedByUs,
    /// The peer's FIN first, nothing amiss.
    ClosedByPeer,
    /// connect() was answered by a reset.
    Refused,
    /// connect() was answered by ICMP.
    Unreachable,
    /// connect() was given up after at least one SYN retransmission.
    ConnectTimeout,
    /// connect() was given up before any SYN retransmission.
    Abandoned,
    /// connect() found no free local port.
    NoLocalPort,
    /// connect() failed otherwise.
    ConnectFailed,
    /// A request crossed the peer's FIN and was answered by a reset.
    RequestCrossedFin,
    /// A request was written after the peer's FIN and was answered by a reset.
    RequestAfterFin,
    /// A request after a quiet time was answered by a reset, without any FIN.
    RequestWithoutFin,
    /// The peer's FIN came instead of an answer.
    PeerClosedBeforeResponse,
    /// We gave up on a request that the peer had acknowledged.
    GaveUpAcked,
    /// We gave up on a request that the peer never acknowledged.
    GaveUpUnacked,
    /// Reset received after our FIN.
    ResetAfterLocalClose,
    /// Reset received after the peer's FIN, nothing lost.
    ResetAfterPeerFin,
    /// Reset received upon the connection's first request.
    ResetFirstRequest,
    /// Reset received while waiting for an answer.
    ResetWaiting,
    /// Reset received upon a request on a connection that was in use.
    ResetReusedRequest,
    /// Reset received during a response or right after it.
    ResetResponse,
    /// Reset received on an idle connection.
    ResetIdle,
    /// Reset received by the upstream while it answers.
    ResetAnswering,
    /// Data came after we had closed; we answered with a reset.
    DataAfterClose,
    /// We closed with data unread, which sends a reset.
    UnreadDataAtClose,
    /// Linger 0, disconnect, abort, listener closed: a reset of ours.
    Aborted,
    /// Given up: the peer no longer answered.
    TimedOut,
}

impl Cause {
    /// Whether it is one by itself, whatever became of a request.
    #[inline]
    pub fn is_anomaly(self) -> bool {
        !matches!(
            self,
            Self::ClosedByUs | Self::ClosedByPeer | Self::Abandoned | Self::UnreadDataAtClose | Self::Aborted
        )
    }
}

/// No time: [`Death::lost_quiet`].
pub const UNKNOWN: u32 = u32::MAX;

/// What one death counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Its one cause.
    pub cause: Cause,
    /// Who closed it, or why it was never opened.
    pub end: Counter,
    /// The phase in which a real reset reached the socket.
    pub reset_received: Option<Counter>,
    /// The reset we had sent while the socket was alive.
    pub reset_sent: Option<Counter>,
    /// The request that was lost, closed upon or given up.
    pub request: Option<Counter>,
    /// Jiffies the connection was quiet before the lost request; [`UNKNOWN`] where no request was lost or a
    /// retransmission hides it. (An `Option` would leave the number unset, which the verifier does not accept.)
    pub lost_quiet: u32,
    /// The peer's FIN came before its reset.
    pub fin_then_rst: bool,
    /// A timewait mini-socket takes the socket's place.
    pub time_wait: bool,
    /// What an engineer may want to see it as. What became of a request says more than how the socket ended.
    pub anomaly: Option<Cause>,
}

impl Verdict {
    /// The verdict on a connection that lives.
    pub const NONE: Self = Self {
        cause: 0,
        counters: [NO_COUNTER; 4],
        bits: 0,
        anomaly: NO_ANOMALY,
        reserved: 0,
        lost_quiet: UNKNOWN,
    };
}

impl Death {
    /// What it counts as, flattened.
    #[inline]
    pub fn verdict(&self) -> Verdict {
        let number = |counter: Option<Counter>| counter.map_or(NO_COUNTER, |counter| counter as u8);
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        Verdict {
            cause: self.cause as u8,
            counters: [
                self.end as u8,
                number(self.reset_received),
                number(self.reset_sent),
                number(self.request),
            ],
            bits: bit(self.fin_then_rst, VERDICT_FIN_THEN_RST)
                | bit(self.time_wait, VERDICT_TIME_WAIT)
                | bit(self.may_be_followed(), VERDICT_FOLLOWED),
            anomaly: self.anomaly.map_or(NO_ANOMALY, |cause| cause as u8),
            reserved: 0,
            lost_quiet: self.lost_quiet,
        }
    }

    const fn of(cause: Cause, end: Counter) -> Self {
        Self {
            cause,
            end,
            reset_received: None,
            reset_sent: None,
            request: None,
            lost_quiet: UNKNOWN,
            fin_then_rst: false,
            time_wait: false,
            anomaly: None,
        }
    }

    /// Whether a reset of ours may follow, or a late segment may meet the connection's mini-socket.
    #[inline]
    pub fn may_be_followed(&self) -> bool {
        self.time_wait
            || matches!(self.cause, Cause::DataAfterClose | Cause::UnreadDataAtClose | Cause::Aborted)
    }
}

const ECONNABORTED: u32 = 103;
const ETIMEDOUT: u32 = 110;

/// Judges the death of a connection: the transition `old->7`, `conn` as remembered (giving up is noted in it),
/// `goodbye` the bytes after the peer's FIN up to which a protocol's goodbye is assumed.
#[inline]
pub fn judge(conn: &mut Connection, old: u8, ev: &Evidence, goodbye: u32) -> Death {
    let mut death = if conn.flags & (CONN_OPENED | CONN_ADOPTED) == 0 {
        failed_connect(conn, ev)
    } else {
        ended(conn, old, ev, goodbye)
    };
    death.anomaly = anomaly(conn, &death);
    death
}

#[inline]
fn anomaly(conn: &Connection, death: &Death) -> Option<Cause> {
    if let Some(cause) = gave_up(conn) {
        Some(cause)
    } else if death.request == Some(Counter::PeerClosedBeforeResponse) {
        Some(Cause::PeerClosedBeforeResponse)
    } else if death.cause.is_anomaly() {
        Some(death.cause)
    } else {
        None
    }
}

/// What was a connection ends.
#[inline]
fn ended(conn: &mut Connection, old: u8, ev: &Evidence, goodbye: u32) -> Death {
    let mut death = Death::of(Cause::ClosedByUs, ended_by(conn, ev));
    if conn.has(CONN_RST_SENT) {
        death.reset_sent = Some(reset_sent_alive(old, ev));
    }
    if conn.has(CONN_RST) && !met_closed_socket(conn, old, ev) {
        reset_received(conn, old, ev, goodbye, &mut death);
    } else {
        death.cause = ended_without_reset(conn, old, ev, &mut death);
    }
    death
}

/// connect() did not lead to a connection.
#[inline]
fn failed_connect(conn: &Connection, ev: &Evidence) -> Death {
    if conn.has(CONN_RST) {
        let mut death = Death::of(Cause::Refused, Counter::ConnectRefused);
        death.reset_received = Some(Counter::ResetHandshake);
        return death;
    }
    let syn_queued = ev.write_seq != conn.mark_seq;
    let port_taken = u32::from(ev.local_port) != conn.port_at_connect;
    let (cause, end) = if !syn_queued && !port_taken && !conn.has(CONN_PORT_BOUND) {
        (Cause::NoLocalPort, Counter::ConnectNoLocalPort)
    } else if !syn_queued {
        (Cause::ConnectFailed, Counter::ConnectOther)
    } else if is_icmp_error(ev.err) || (ev.err == 0 && ev.error_queued) {
        // The kernel queues the ICMP error and wakes the application before it sets `sk_err` and ends the socket, and it
        // leaves the socket open where the application is still in connect(): the error may have been read by now.
        // <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_ipv4.c#L600-L620>
        (Cause::Unreachable, Counter::ConnectUnreachable)
    } else if ev.err == ETIMEDOUT || (ev.err == 0 && ev.total_retrans > 0) {
        (Cause::ConnectTimeout, Counter::ConnectTimeout)
    } else if ev.err == 0 && ev.snd_nxt == ev.write_seq {
        (Cause::Abandoned, Counter::ConnectAbandoned)
    } else {
        (Cause::ConnectFailed, Counter::ConnectOther)
    };
    Death::of(cause, end)
}

/// The errors that ICMP and `ICMPv6` become:
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/icmp.c#L129-L195>,
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv6/icmp.c#L1089-L1120>.
#[inline]
fn is_icmp_error(err: u32) -> bool {
    const EACCES: u32 = 13;
    const ENONET: u32 = 64;
    const EPROTO: u32 = 71;
    const EMSGSIZE: u32 = 90;
    const ENOPROTOOPT: u32 = 92;
    const EOPNOTSUPP: u32 = 95;
    const ENETUNREACH: u32 = 101;
    const ECONNREFUSED: u32 = 111;
    const EHOSTDOWN: u32 = 112;
    const EHOSTUNREACH: u32 = 113;
    matches!(
        err,
        EACCES
            | ENONET
            | EPROTO
            | EMSGSIZE
            | ENOPROTOOPT
            | EOPNOTSUPP
            | ENETUNREACH
            | ECONNREFUSED
            | EHOSTDOWN
            | EHOSTUNREACH
    )
}

/// Who was first.
#[inline]
fn ended_by(conn: &Connection, ev: &Evidence) -> Counter {
    if conn.has(CONN_LOCAL_FIN) {
        Counter::ClosedLocal
    } else if conn.has(CONN_PEER_FIN) {
        Counter::ClosedPeer
    } else if !conn.has(CONN_RST) && gave_up_by_kernel(ev) {
        Counter::ClosedTimeout
    } else {
        Counter::ClosedReset
    }
}

/// Whether the error is that of a timer: the last ICMP seen before, else ETIMEDOUT.
#[inline]
fn gave_up_by_kernel(ev: &Evidence) -> bool {
    ev.err == ETIMEDOUT || is_icmp_error(ev.err)
}

/// Why we sent a reset before the socket's end: timers do (keep-alive, orphans), and `ss -K`.
#[inline]
fn reset_sent_alive(old: u8, ev: &Evidence) -> Counter {
    match (old, ev.err) {
        (_, ECONNABORTED) => Counter::SentAbort,
        (state::FIN_WAIT2, 0) => Counter::SentTimeout,
        (_, 0) => Counter::SentOther,
        _ => Counter::SentTimeout,
    }
}

/// Whether what looks like a received reset was data reaching a socket that the application had closed. A bare reset
/// brings no data, so it leaves the count of data segments as it was.
#[inline]
fn met_closed_socket(conn: &Connection, old: u8, ev: &Evidence) -> bool {
    matches!(old, state::FIN_WAIT1 | state::FIN_WAIT2)
        && ev.receive_shut()
        && ev.data_segs_in != conn.segments_at_close
}

#[inline]
fn reset_received(conn: &Connection, old: u8, ev: &Evidence, goodbye: u32, death: &mut Death) {
    death.fin_then_rst = conn.has(CONN_PEER_FIN) || old == state::CLOSING;
    if conn.has(CONN_LOCAL_FIN) {
        death.reset_received = Some(Counter::ResetAfterLocalClose);
        death.cause = gave_up(conn).unwrap_or(Cause::ResetAfterLocalClose);
    } else if conn.has(CONN_PEER_FIN) {
        death.reset_received = Some(Counter::ResetAfterPeerFin);
        death.cause = after_peer_fin(conn, old, ev, goodbye, death);
    } else if conn.has(CONN_PROXY) {
        let (phase, cause) = proxy_phase(conn, ev);
        death.reset_received = Some(phase);
        death.cause = cause;
        let quiet = ev.quiet_before();
        if conn.asks() && cause == Cause::ResetReusedRequest && quiet >= ev.hz.cast_signed() {
            death.cause = Cause::RequestWithoutFin;
            death.request = Some(Counter::LostNoFin);
            death.lost_quiet = if ev.retransmitted() { UNKNOWN } else { quiet.cast_unsigned() };
        }
    } else {
        let answering = ev.owes_answer(false) || ev.in_flight(false);
        let (phase, cause) = if answering {
            (Counter::ResetAnswering, Cause::ResetAnswering)
        } else {
            (Counter::ResetIdle, Cause::ResetIdle)
        };
        death.reset_received = Some(phase);
        death.cause = cause;
    }
}

/// A reset after the peer's FIN: what did it cost?
#[inline]
fn after_peer_fin(conn: &Connection, old: u8, ev: &Evidence, goodbye: u32, death: &mut Death) -> Cause {
    if !conn.asks() {
        return Cause::ResetAfterPeerFin;
    }
    let our_fin = u32::from(old == state::LAST_ACK);
    let written_since = ev.write_seq.wrapping_sub(conn.mark_seq).wrapping_sub(our_fin);
    if conn.has(CONN_IN_FLIGHT_AT_FIN) {
        death.request = Some(Counter::LostCrossedFin);
        death.lost_quiet = if conn.has(CONN_QUIET_KNOWN) { conn.quiet_at_fin } else { UNKNOWN };
        Cause::RequestCrossedFin
    } else if written_since > goodbye && written_since <= i32::MAX.cast_unsigned() {
        death.request = Some(Counter::LostAfterFin);
        death.lost_quiet =
            if ev.retransmitted() { UNKNOWN } else { ev.quiet_before().max(0).cast_unsigned() };
        Cause::RequestAfterFin
    } else if conn.has(CONN_UNANSWERED_AT_FIN) {
        death.request = Some(Counter::PeerClosedBeforeResponse);
        Cause::PeerClosedBeforeResponse
    } else {
        Cause::ResetAfterPeerFin
    }
}

/// The phase of a reset that reached an established connection of ours.
#[inline]
fn proxy_phase(conn: &Connection, ev: &Evidence) -> (Counter, Cause) {
    let rules = !conn.has(CONN_NO_REQUEST_RULES);
    let unanswered = rules && ev.unanswered(false, false);
    if rules && ev.bytes_sent > 0 && !ev.received_data(false) {
        (Counter::ResetFirstRequest, Cause::ResetFirstRequest)
    } else if unanswered && ev.all_acknowledged(false) && ev.unanswered_for() >= ev.hz {
        (Counter::ResetWaiting, Cause::ResetWaiting)
    } else if unanswered {
        (Counter::ResetReusedRequest, Cause::ResetReusedRequest)
    } else if ev.received_data(false) && ev.since_received() < ev.hz {
        (Counter::ResetResponse, Cause::ResetResponse)
    } else {
        (Counter::ResetIdle, Cause::ResetIdle)
    }
}

/// No reset reached the socket.
#[inline]
fn ended_without_reset(conn: &mut Connection, old: u8, ev: &Evidence, death: &mut Death) -> Cause {
    death.time_wait = enters_time_wait(conn, old, ev);
    let ours = ended_by_us(conn, old, ev, death.time_wait);
    if conn.has(CONN_PEER_FIN) {
        if conn.has(CONN_UNANSWERED_AT_FIN) {
            death.request = Some(Counter::PeerClosedBeforeResponse);
            return ours.unwrap_or(Cause::PeerClosedBeforeResponse);
        }
        return ours.unwrap_or(Cause::ClosedByPeer);
    }
    let we_ended_it = conn.has(CONN_LOCAL_FIN) || ev.err == 0 || ev.err == ECONNABORTED;
    if we_ended_it && !conn.has(CONN_APP_CLOSED) {
        death.request = conn.on_giving_up(ev, conn.has(CONN_LOCAL_FIN));
    }
    ours.or_else(|| gave_up(conn)).unwrap_or(Cause::ClosedByUs)
}

#[inline]
fn gave_up(conn: &Connection) -> Option<Cause> {
    if conn.has(CONN_GAVE_UP_ACKED) {
        Some(Cause::GaveUpAcked)
    } else if conn.has(CONN_GAVE_UP_UNACKED) {
        Some(Cause::GaveUpUnacked)
    } else {
        None
    }
}

/// The ends that send a reset of ours, and giving up.
#[inline]
fn ended_by_us(conn: &Connection, old: u8, ev: &Evidence, time_wait: bool) -> Option<Cause> {
    if time_wait {
        return None;
    }
    let unread = ev.rcv_nxt.wrapping_sub(ev.copied_seq) > u32::from(conn.has(CONN_PEER_FIN));
    match old {
        state::FIN_WAIT1 | state::FIN_WAIT2 if conn.has(CONN_RST) => Some(Cause::DataAfterClose),
        _ if ev.err == ECONNABORTED => Some(Cause::Aborted),
        _ if gave_up_by_kernel(ev) => Some(Cause::TimedOut),
        state::FIN_WAIT2 if conn.has(CONN_RST_SENT) => Some(Cause::TimedOut),
        state::FIN_WAIT2 if ev.dead && ev.data_segs_in != conn.segments_at_close => {
            Some(Cause::DataAfterClose)
        }
        state::ESTABLISHED | state::CLOSE_WAIT | state::FIN_WAIT1 | state::FIN_WAIT2
            if unread && !ev.dead && ev.shutdown == 3 =>
        {
            Some(Cause::UnreadDataAtClose)
        }
        state::ESTABLISHED | state::CLOSE_WAIT | state::FIN_WAIT1 | state::FIN_WAIT2 => Some(Cause::Aborted),
        state::LAST_ACK | state::CLOSING if ev.snd_nxt != ev.write_seq => Some(Cause::Aborted),
        _ => None,
    }
}

/// Whether `tcp_time_wait()` puts a mini-socket in the socket's place; it makes no transition of its own:
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_minisocks.c#L324-L410>.
#[inline]
fn enters_time_wait(conn: &Connection, old: u8, ev: &Evidence) -> bool {
    if conn.flags & (CONN_RST | CONN_RST_SENT) != 0 || ev.err != 0 {
        return false;
    }
    match old {
        state::FIN_WAIT2 => {
            ev.done || (ev.dead && ev.linger2 >= 0 && ev.data_segs_in == conn.segments_at_close)
        }
        state::CLOSING => ev.all_acknowledged(false),
        _ => false,
    }
}
