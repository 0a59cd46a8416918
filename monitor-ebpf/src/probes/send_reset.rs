//! Traces resets that this host sends; produces `resets_sent` by cause, FIN-then-RST, and incidents of late data.
//!
//! `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb[, const enum sk_rst_reason reason])`; `sk` may be
//! null, a mini-socket or a listener, `skb` is null for a reset that no segment provoked. The reason, which kernels
//! up to 6.9 do not have, is not needed: the connection's own story tells.
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/tcp.h#L77-L152>
//!
//! What the kernel skips a program for, the next one takes over, as [`crate::missed`] does with transitions. A reset
//! leaves nothing that would show whether it was counted, so it is noted.

use core::{ffi::c_void, ptr::addr_of_mut};

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use finwatch_ebpf::{
    cause::Cause,
    state::{CLOSE, LISTEN, NEW_SYN_RECV, TIME_WAIT},
    wire::{CONN_LOCAL_FIN, CONN_RST_SENT, ClosedConnection, Counter, FEATURE_PREEMPTIBLE, FILTER_NETNS},
};

use crate::{
    connections::{find, recall, recall_ended, record_of},
    count::{add, count},
    incidents::report_late,
    maps::{RESETS_NOTED, offset, setting, totals},
    socket::{Common, Tcp, length, load},
};

/// The flag in a segment; its FIN counts one in its length.
const FIN: u8 = 1;

/// The hook.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset(ctx: BtfTracePointContext) -> i32 {
    let reset = Reset::of(&ctx);
    reset.note();
    reset.look();
    0
}

/// Runs after `send_reset`.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset_2(ctx: BtfTracePointContext) -> i32 {
    take_over(&ctx, setting!(features) & FEATURE_PREEMPTIBLE == 0)
}

/// Runs after `send_reset_2`, where other tasks may run in the midst of it.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset_3(ctx: BtfTracePointContext) -> i32 {
    take_over(&ctx, true)
}

/// `last` says whether no other looks at the reset after this one.
#[inline(always)]
fn take_over(ctx: &BtfTracePointContext, last: bool) -> i32 {
    let reset = Reset::of(ctx);
    if reset.is_noted() {
        if last {
            reset.forget();
        }
        return 0;
    }
    if !last {
        reset.note();
    }
    reset.look();
    0
}

/// One reset, told from all others that are being sent by its addresses. Its note stays where the last program was skipped,
/// and must not be taken for that of a later one: sockets and segments come and go at the same addresses.
#[derive(Clone, Copy)]
struct Reset {
    sk: *const c_void,
    skb: *const c_void,
}

impl Reset {
    #[inline(always)]
    fn of(ctx: &BtfTracePointContext) -> Self {
        Self { sk: ctx.arg(0), skb: ctx.arg(1) }
    }

    #[inline(always)]
    fn key(self) -> [u64; 2] {
        [self.sk as u64, self.skb as u64]
    }

    /// What another about the same two addresses does not have: the number of the segment that is answered, or the
    /// connection's ports.
    #[inline(always)]
    fn about(self) -> u32 {
        if !self.skb.is_null() {
            return load(self.skb, offset!(skb_cb) + offset!(segment_seq));
        }
        let Some(sk) = Common::new(self.sk) else { return 0 };
        let local = sk.tcp().map_or(0, Tcp::local_port);
        u32::from(sk.remote_port()) << 16 | u32::from(local)
    }

    /// Notes that it is looked at.
    #[inline(always)]
    fn note(self) {
        // The oldest make room in a full table: an insertion does not fail.
        let _ = RESETS_NOTED.insert(self.key(), self.about(), 0);
    }

    #[inline(always)]
    fn is_noted(self) -> bool {
        // SAFETY: a value of the map, which outlives the program's run; read in one go.
        RESETS_NOTED.get_ptr(self.key()).is_some_and(|about| unsafe { *about } == self.about())
    }

    #[inline(always)]
    fn forget(self) {
        // It is there, or another has made it go.
        let _ = RESETS_NOTED.remove(self.key());
    }

    #[inline(always)]
    fn look(self) {
        match Common::new(self.sk) {
            Some(sk) => of_socket(sk, self.skb),
            None => no_socket(|| namespace_of(self.skb)),
        }
    }
}

#[inline(always)]
fn of_socket(sk: Common, skb: *const c_void) {
    match sk.state() {
        LISTEN | NEW_SYN_RECV => no_socket(|| sk.netns()),
        TIME_WAIT => late(sk, skb, recall(&sk.endpoints(sk.bound_port()))),
        CLOSE => match sk.tcp() {
            Some(tcp) => late(sk, skb, recall_ended(sk, &sk.endpoints(tcp.local_port()))),
            None => untracked(sk),
        },
        _ => alive(sk, skb.is_null()),
    }
}

/// The connection is over: its story says what the reset is about.
#[inline(always)]
fn late(sk: Common, skb: *const c_void, closed: Option<ClosedConnection>) {
    let Some(closed) = closed else { return untracked(sk) };
    let Some(record) = record_of(&closed) else { return untracked(sk) };
    let cause = cause_after_end(&closed);
    count(record, cause);
    if cause != Counter::SentDataAfterClose {
        return;
    }
    if u32::from(closed.flags) & CONN_LOCAL_FIN != 0 {
        count(record, Counter::FinThenRstSent);
    }
    // Where the end itself was due to late data, it has been reported.
    if closed.cause != Cause::DataAfterClose as u16 {
        report_late(&closed, record, sk.substate().unwrap_or(CLOSE), data_in(skb));
    }
}

/// Data bytes in the segment that a reset answers.
#[inline(always)]
fn data_in(skb: *const c_void) -> u32 {
    if skb.is_null() {
        return 0;
    }
    let flags: u8 = load(skb, offset!(skb_cb) + offset!(segment_flags));
    length(skb).saturating_sub(u32::from(flags & FIN))
}

#[inline(always)]
fn cause_after_end(closed: &ClosedConnection) -> Counter {
    const UNREAD_DATA: u16 = Cause::UnreadDataAtClose as u16;
    const ABORTED: u16 = Cause::Aborted as u16;
    match closed.cause {
        UNREAD_DATA => Counter::SentUnreadDataAtClose,
        ABORTED => Counter::SentAbort,
        _ => Counter::SentDataAfterClose,
    }
}

/// The socket lives: a timer or an abort is about to end it (its end tells which), or a stray segment is answered.
#[inline(always)]
fn alive(sk: Common, unprovoked: bool) {
    let Some((conn, record)) = find(sk) else { return untracked(sk) };
    if unprovoked {
        // SAFETY: a live map value; the socket's lock keeps others away.
        unsafe { (*conn).flags |= CONN_RST_SENT };
    } else {
        count(record, Counter::SentOther);
    }
}

/// A closed port or a stray segment.
#[inline(always)]
fn no_socket(netns: impl FnOnce() -> u32) {
    if is_elsewhere(netns) {
        return;
    }
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).resets_no_socket), 1) };
    }
}

/// Whether this is another namespace than the only one that is watched.
#[inline(always)]
fn is_elsewhere(netns: impl FnOnce() -> u32) -> bool {
    setting!(filter) & FILTER_NETNS != 0 && netns() != setting!(netns)
}

/// A connection that nobody wanted to be tracked, or for which there was no room.
#[inline(always)]
fn untracked(sk: Common) {
    if is_elsewhere(|| sk.netns()) {
        return;
    }
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).resets_untracked), 1) };
    }
}

/// The namespace of the device that a segment came in on, 0 without a segment.
#[inline(always)]
fn namespace_of(skb: *const c_void) -> u32 {
    if skb.is_null() {
        return 0;
    }
    let device: *const c_void = load(skb, offset!(skb_dev));
    let net: *const c_void = load(device, offset!(dev_net));
    load(net, offset!(net_inum))
}
