//! Traces every transition of a TCP socket; produces opened and closed connections, each with one cause.
//!
//! `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`:
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sock.h#L142-L190>

use core::{
    ffi::c_void,
    hint::black_box,
    ptr::{addr_of_mut, read_volatile, write_volatile},
};

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use finwatch_ebpf::{
    cause::{UNKNOWN, judge},
    histogram::{DURATION_BOUNDS_MS, IDLE_BOUNDS_MS},
    state::{
        CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LISTEN, NEW_SYN_RECV, SYN_RECV,
        SYN_SENT,
    },
    wire::{
        CONN_OPENED, Connection, Counter, NO_ANOMALY, NO_COUNTER, PairRecord, VERDICT_FIN_THEN_RST,
        VERDICT_FOLLOWED, VERDICT_TIME_WAIT, Verdict,
    },
};

use crate::{
    connections::{find, forget, forget_missed, remember, track},
    count::{count, count_number, observe, observe_jiffies},
    incidents::report,
    maps::{VERDICTS, setting},
    missed::note,
    pairs::Pair,
    requests,
    socket::{Common, Tcp, now_ns},
};

const NS_PER_MS: u64 = 1_000_000;

/// The hook.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if let (Some(sk), Ok(old), Ok(new)) = (Common::new(sk), u8::try_from(old), u8::try_from(new)) {
        note(sk.address(), new);
        transition(Program::SetState, sk, old, new);
    }
    0
}

/// Whose run it is: one may land in a run of another, never in its own.
#[derive(Clone, Copy)]
pub enum Program {
    /// [`set_state`].
    SetState,
    /// [`crate::missed::missed`].
    Missed,
    /// [`crate::missed::missed_2`].
    Missed2,
    /// [`crate::missed::missed_3`].
    Missed3,
}

/// Looks at a transition.
#[inline(always)]
pub fn transition(program: Program, sk: Common, old: u8, new: u8) {
    match (old, new) {
        // Listeners; request sockets; and what changes nothing that is looked at later.
        (LISTEN | NEW_SYN_RECV, _) | (_, LISTEN) | (SYN_SENT, SYN_RECV) => {}
        (CLOSE, SYN_SENT) => with_tcp(sk, |sk, tcp| {
            black_box(connecting(sk, tcp));
        }),
        (SYN_SENT, ESTABLISHED) => established(sk),
        (SYN_RECV, ESTABLISHED | FIN_WAIT1 | CLOSE_WAIT) => with_tcp(sk, |sk, tcp| {
            black_box(shaken_hands(sk, tcp));
            match new {
                FIN_WAIT1 => local_fin(sk, tcp),
                CLOSE_WAIT => peer_fin(sk, tcp),
                _ => {}
            }
        }),
        (ESTABLISHED, CLOSE_WAIT) => with_tcp(sk, peer_fin),
        (ESTABLISHED, FIN_WAIT1) => with_tcp(sk, local_fin),
        (FIN_WAIT1, FIN_WAIT1) | (FIN_WAIT2, FIN_WAIT2) | (CLOSING, CLOSING) => {
            with_tcp(sk, closed_after_shutdown)
        }
        (_, CLOSE) => ended(program, sk, old),
        _ => {}
    }
}

#[inline(always)]
fn with_tcp(sk: Common, then: impl FnOnce(Common, Tcp)) {
    if let Some(tcp) = sk.tcp() {
        then(sk, tcp);
    }
}

/// What a function of its own returns that has nothing to tell: otherwise it leaves whatever it last used in the register of
/// the result, and the verifier refuses a pointer to the stack there. Through memory here and where it is called, or the
/// compiler would see that it tells nothing and leave the register alone again.
#[inline(always)]
fn nothing() -> u32 {
    black_box(0)
}

/// connect(), in the caller's context. Returns [`nothing`].
#[inline(never)]
fn connecting(sk: Common, tcp: Tcp) -> u32 {
    if !sk.is_inet() {
        return nothing();
    }
    let pair = Pair::opened(sk, tcp);
    if pair.wanted(sk) {
        let bound = sk.bound_port() != 0;
        track(sk, &pair, Connection::connecting(pair.slot(), bound, &tcp.evidence()));
    } else {
        forget_missed(sk);
    }
    nothing()
}

#[inline(always)]
fn established(sk: Common) {
    let Some((conn, record)) = find(sk) else { return };
    // SAFETY: a live map value; the socket's lock keeps others away.
    unsafe { (*conn).on_established(now_ns()) };
    count(record, Counter::Opened);
    requests::begin(sk);
}

/// A handshake in SYN_RECV is over: an accepted connection, or one of ours that was opened from both ends at once. Returns
/// [`nothing`].
#[inline(never)]
fn shaken_hands(sk: Common, tcp: Tcp) -> u32 {
    if !tcp.is_unaccepted() && find(sk).is_some() {
        established(sk);
        return nothing();
    }
    if !sk.is_inet() {
        return nothing();
    }
    let pair = Pair::accepted(sk, tcp);
    if !pair.wanted(sk) {
        forget_missed(sk);
        return nothing();
    }
    if let Some(record) = track(sk, &pair, Connection::accepted(pair.slot(), now_ns())) {
        count(record, Counter::Opened);
        requests::begin(sk);
    }
    nothing()
}

#[inline(always)]
fn peer_fin(sk: Common, tcp: Tcp) {
    let Some((conn, record)) = find(sk) else { return };
    // SAFETY: as in `established`.
    if let Some(idle) = unsafe { (*conn).on_peer_fin(&tcp.evidence()) } {
        // SAFETY: a field of a live map value.
        observe_jiffies(unsafe { addr_of_mut!((*record).peer_close_idle) }, &IDLE_BOUNDS_MS, idle);
    }
}

#[inline(always)]
fn local_fin(sk: Common, tcp: Tcp) {
    let Some((conn, record)) = find(sk) else { return };
    let ev = tcp.evidence_at_close();
    // SAFETY: as in `established`.
    if let Some(gave_up) = unsafe { (*conn).on_local_fin(&ev) } {
        count(record, gave_up);
    }
    // SAFETY: as in `established`.
    if let Some(idle) = unsafe { (*conn).idle_at_local_fin(&ev) } {
        // SAFETY: a field of a live map value.
        observe_jiffies(unsafe { addr_of_mut!((*record).local_close_idle) }, &IDLE_BOUNDS_MS, idle);
    }
}

/// The application had shut down its sending half and now closes the socket.
#[inline(always)]
fn closed_after_shutdown(sk: Common, tcp: Tcp) {
    let Some((conn, record)) = find(sk) else { return };
    // SAFETY: as in `established`.
    if let Some(gave_up) = unsafe { (*conn).on_application_close(&tcp.evidence_at_close(), true) } {
        count(record, gave_up);
    }
}

/// The end: judged, counted, remembered, reported and forgotten. Functions of their own, since together they would need
/// more stack than a program has.
#[inline(always)]
fn ended(program: Program, sk: Common, old: u8) {
    let Some((conn, record)) = find(sk) else { return };
    let Some(tcp) = sk.tcp() else { return };
    let Some(verdict) = VERDICTS.get_ptr_mut(program as u32) else { return };
    bury(tcp, old, conn, verdict);
    requests::end(sk, tcp, record);
    let [bits, anomaly, ..] = settle(conn, record, verdict).to_le_bytes();
    if anomaly != NO_ANOMALY {
        report(sk, conn, record, verdict, old);
    }
    if bits & VERDICT_FOLLOWED != 0 {
        remember(sk, tcp, conn, record, verdict);
    } else {
        forget(sk, record);
    }
}

/// Judges a death and notes the verdict.
#[inline(never)]
fn bury(tcp: Tcp, old: u8, conn: *mut Connection, verdict: *mut Verdict) {
    // SAFETY: a live map value; the socket's lock keeps others away.
    let conn = unsafe { &mut *conn };
    let death = judge(conn, old, &tcp.evidence(), setting!(goodbye_bytes));
    // SAFETY: a map value of this run's own. Volatile, so that the numbers go through the map.
    unsafe { write_volatile(verdict, death.verdict()) };
}

/// Counts what the verdict says. Returns the `VERDICT_*` bits and the anomaly, lowest bytes first.
#[inline(never)]
fn settle(conn: *const Connection, record: *mut PairRecord, verdict: *const Verdict) -> u32 {
    // SAFETY: a live map value; the socket's lock keeps others away.
    let conn = unsafe { &*conn };
    // SAFETY: a map value of this run's own. Volatile: see `bury`.
    let verdict = unsafe { read_volatile(verdict) };
    for counter in verdict.counters {
        if counter != NO_COUNTER {
            count_number(record, counter);
        }
    }
    if verdict.bits & VERDICT_FIN_THEN_RST != 0 {
        count(record, Counter::FinThenRstReceived);
    }
    if verdict.bits & VERDICT_TIME_WAIT != 0 {
        count(record, Counter::TimeWaitEntered);
    }
    if verdict.lost_quiet != UNKNOWN {
        // SAFETY: a field of a live map value.
        let histogram = unsafe { addr_of_mut!((*record).lost_request_idle) };
        observe_jiffies(histogram, &IDLE_BOUNDS_MS, verdict.lost_quiet);
    }
    if conn.has(CONN_OPENED) {
        let ms = now_ns().saturating_sub(conn.opened_ns) / NS_PER_MS;
        // SAFETY: a field of a live map value.
        observe(unsafe { addr_of_mut!((*record).connection_duration) }, &DURATION_BOUNDS_MS, ms);
    }
    u32::from_le_bytes([verdict.bits, verdict.anomaly, 0, 0])
}
