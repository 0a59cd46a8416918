//! Traces resets that reach a socket; produces a mark on the connection, judged at its end.
//!
//! `tcp_receive_reset(struct sock *sk)`:
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/tcp.h#L198-L203>
//!
//! The kernel skips a program that would interrupt itself, see [`crate::missed`]; the mark may be set by several.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use finwatch_ebpf::wire::CONN_RST;

use crate::{live::connection, socket::Common};

/// The hook.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn receive_reset(ctx: BtfTracePointContext) -> i32 {
    mark(&ctx)
}

/// Runs after `receive_reset`.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn receive_reset_2(ctx: BtfTracePointContext) -> i32 {
    mark(&ctx)
}

/// Runs after `receive_reset_2`, where other tasks may run in the midst of it.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn receive_reset_3(ctx: BtfTracePointContext) -> i32 {
    mark(&ctx)
}

#[inline(always)]
fn mark(ctx: &BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    if let Some(conn) = Common::new(sk).and_then(connection) {
        // SAFETY: a live map value; the socket's lock keeps others away.
        unsafe { (*conn).flags |= CONN_RST };
    }
    0
}
