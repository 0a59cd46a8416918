//! Takes over the transitions that the kernel skipped [`crate::set_state::set_state`] for.
//!
//! A processor never runs a program in the midst of another run of the same:
//! `__bpf_trace_run` in <https://github.com/torvalds/linux/blob/v6.12/kernel/trace/bpf_trace.c>. A softirq lands in a run and brings a
//! transition of its own. Where tracepoints are guarded by SRCU ([`FEATURE_PREEMPTIBLE`]) another task may take the processor
//! besides, for milliseconds and with many transitions. Another program on the same hook is not skipped at the same time,
//! unless it was interrupted in its turn.

use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use finwatch_ebpf::{
    state::{CLOSE, CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, SYN_SENT},
    wire::{CONN_APP_CLOSED, CONN_LOCAL_FIN, CONN_OPENED, CONN_PEER_FIN, CONN_PROXY, FEATURE_PREEMPTIBLE},
};

use crate::{
    connections::find,
    maps::{LOOKED_AT, setting},
    set_state::{Program, transition},
    socket::Common,
};

/// Runs after `set_state`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn missed(ctx: BtfTracePointContext) -> i32 {
    let last = setting!(features) & FEATURE_PREEMPTIBLE == 0;
    take_over(&ctx, Program::Missed, last)
}

/// Runs after `missed`, where other tasks may run in the midst of it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn missed_2(ctx: BtfTracePointContext) -> i32 {
    take_over(&ctx, Program::Missed2, false)
}

/// Runs after `missed_2`, likewise.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn missed_3(ctx: BtfTracePointContext) -> i32 {
    take_over(&ctx, Program::Missed3, true)
}

/// `last` says whether no other looks at the transition after this one.
#[inline(always)]
fn take_over(ctx: &BtfTracePointContext, program: Program, last: bool) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if let (Some(sk), Ok(old), Ok(new)) = (Common::new(sk), u8::try_from(old), u8::try_from(new))
        && let Some(mark) = mark(old, new)
        && !has_looked_at(sk, new, last)
        && !shows(sk, mark)
    {
        transition(program, sk, old, new);
    }
    0
}

/// What a transition leaves in the connection's flags, 0 where that is nothing; `None` for those that nothing comes of, and for
/// the application's own doing where no other task may run in the midst of a program: it is never skipped there.
#[inline(always)]
fn mark(old: u8, new: u8) -> Option<u32> {
    match (old, new) {
        (_, ESTABLISHED) => Some(CONN_OPENED),
        (_, CLOSE_WAIT) => Some(CONN_PEER_FIN),
        (_, CLOSE) => Some(0),
        _ if setting!(features) & FEATURE_PREEMPTIBLE == 0 => None,
        (CLOSE, SYN_SENT) => Some(CONN_PROXY),
        (FIN_WAIT1, FIN_WAIT1) | (FIN_WAIT2, FIN_WAIT2) | (CLOSING, CLOSING) => Some(CONN_APP_CLOSED),
        (_, FIN_WAIT1) => Some(CONN_LOCAL_FIN),
        _ => None,
    }
}

/// Notes that `set_state` runs for this transition.
#[inline(always)]
pub fn note(address: u64, new: u8) {
    if let Some(last) = LOOKED_AT.get_ptr_mut(0) {
        // SAFETY: a value of this CPU's own; what lands in between leaves what no transition of ours is.
        unsafe { *last = [address, u64::from(new)] };
    }
}

/// Whether `set_state` has just run for this transition. What came between the two may have had its own last word here: then
/// the connection tells.
#[inline(always)]
fn has_looked_at(sk: Common, new: u8, last_look: bool) -> bool {
    let Some(last) = LOOKED_AT.get_ptr_mut(0) else { return false };
    // SAFETY: as in `note`. One by one: together the compiler would reckon with the pointer, which the verifier refuses.
    if unsafe { read_volatile(&raw const (*last)[0]) } != sk.address() {
        return false;
    }
    // SAFETY: as above.
    if unsafe { read_volatile(&raw const (*last)[1]) } != u64::from(new) {
        return false;
    }
    if last_look {
        // SAFETY: as in `note`. No socket has this address.
        unsafe { write_volatile(&raw mut (*last)[0], 0) };
    }
    true
}

/// Whether the connection shows what came of a transition that leaves this mark. An end that was seen has left no
/// connection; of a beginning that was seen and is not tracked nothing shows, and it is looked at once more to no other end.
#[inline(always)]
fn shows(sk: Common, mark: u32) -> bool {
    // SAFETY: a live map value.
    mark != 0 && find(sk).is_some_and(|(conn, _)| unsafe { (*conn).has(mark) })
}
