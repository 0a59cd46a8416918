//! Traces what applications send and receive, where that was asked for; produces requests, the time to their answer's
//! first byte, and how many a connection has carried.
//!
//! `sock_send_length(struct sock *sk, int ret, int flags)` and `sock_recv_length` (likewise), from 6.3 on, fire after
//! every call that sends or receives through the socket layer (write, sendmsg, sendfile, io_uring), without the socket's
//! lock, failed calls and peeks included; behind a static key, so nothing is paid while nobody listens:
//! <https://github.com/gregkh/linux/blob/v6.18.38/net/socket.c#L725-L735>,
//! <https://github.com/gregkh/linux/blob/v6.18.38/net/socket.c#L1076-L1085>. A splice out of a TCP socket goes past them.
//!
//! `tcp_rcv_space_adjust(struct sock *sk)`, on every kernel, is the first thing that the function of its name does; it
//! runs whenever data has been copied to the application, under the socket's lock, for peeks too:
//! <https://github.com/gregkh/linux/blob/03bab42919c4406148ccebe69f7acbad0f34f68e/net/ipv4/tcp_input.c>. What was sent
//! shows when the next data is read.

use core::{ffi::c_void, ptr::addr_of_mut};

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use finwatch_ebpf::{
    requests::{Answer, Done, Exchanges, FIRST_BYTE_BOUNDS_US, PER_CONNECTION_BOUNDS},
    wire::{CONN_NO_REQUEST_RULES, CONN_OPENED, Counter, FEATURE_REQUESTS, PairRecord},
};

use crate::{
    count::{count, observe},
    live::connection,
    maps::{EXCHANGES, REQUESTS, setting},
    pairs::record,
    socket::{Common, Tcp, now_ns},
};

const NS_PER_US: u64 = 1_000;

/// After a send.
#[btf_tracepoint(function = "sock_send_length")]
pub fn send_length(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let sent: i32 = ctx.arg(1);
    if sent > 0 {
        look(sk, |exchanges, tcp| exchanges.on_call(Done::Sent, tcp.position().progress(), now_ns()));
    }
    0
}

/// After a receive.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn recv_length(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let received: i32 = ctx.arg(1);
    if received > 0 {
        look(sk, |exchanges, tcp| exchanges.on_call(Done::Received, tcp.position().progress(), now_ns()));
    }
    0
}

/// Within a receive, where the kernel has nothing better.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn data_read(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    look(sk, |exchanges, tcp| exchanges.on_read(tcp.position().progress(), now_ns(), tcp.last_sent_ns()));
    0
}

#[inline(always)]
fn look(sk: *const c_void, then: impl FnOnce(&mut Exchanges, Tcp) -> Answer) {
    let Some(sk) = Common::new(sk) else { return };
    let Some(exchanges) = EXCHANGES.get_ptr_mut(sk.address()) else { return };
    let Some(tcp) = sk.tcp() else { return };
    // SAFETY: a live map value. A send and a receive at the same moment write different fields of it.
    let exchanges = unsafe { &mut *exchanges };
    let answer = then(exchanges, tcp);
    if let Some(record) = record(exchanges.slot) {
        count_answer(record, exchanges.slot, answer);
    }
}

#[inline(always)]
fn count_answer(record: *mut PairRecord, slot: u32, answer: Answer) {
    if !answer.found {
        return;
    }
    count(record, Counter::Requests);
    if answer.after_ns == 0 {
        return;
    }
    if let Some(requests) = REQUESTS.get_ptr_mut(slot) {
        // SAFETY: a field of a live map value.
        let histogram = unsafe { addr_of_mut!((*requests).time_to_first_byte) };
        observe(histogram, &FIRST_BYTE_BOUNDS_US, answer.after_ns / NS_PER_US);
    }
}

/// Begins to follow a tracked connection's requests, unless nobody asked for that.
#[inline(always)]
pub fn begin(sk: Common) {
    if setting!(features) & FEATURE_REQUESTS != 0 {
        take_in(sk);
    }
}

#[inline(never)]
fn take_in(sk: Common) {
    let Some(tcp) = sk.tcp() else { return };
    let Some(conn) = connection(sk) else { return };
    // SAFETY: a live map value.
    let flags = unsafe { (*conn).flags };
    if flags & CONN_NO_REQUEST_RULES != 0 {
        return;
    }
    // SAFETY: as above.
    let slot = unsafe { (*conn).slot };
    let exchanges = Exchanges::new(slot, flags, tcp.position().progress());
    // The table has room for every tracked connection: an insertion does not fail.
    let _ = EXCHANGES.insert(sk.address(), exchanges, 0);
}

/// Counts what is left to count at a connection's end.
#[inline(always)]
pub fn end(sk: Common, tcp: Tcp, record: *mut PairRecord) {
    if setting!(features) & FEATURE_REQUESTS != 0 {
        settle(sk, tcp, record);
    }
}

#[inline(never)]
fn settle(sk: Common, tcp: Tcp, record: *mut PairRecord) {
    let Some(exchanges) = EXCHANGES.get_ptr_mut(sk.address()) else { return };
    // SAFETY: a live map value; as in `look`.
    let exchanges = unsafe { &mut *exchanges };
    let answer = exchanges.on_end(tcp.position().progress_at_end());
    count_answer(record, exchanges.slot, answer);
    if exchanges.flags & CONN_OPENED == 0 {
        return;
    }
    if let Some(requests) = REQUESTS.get_ptr_mut(exchanges.slot) {
        // SAFETY: a field of a live map value.
        let histogram = unsafe { addr_of_mut!((*requests).per_connection) };
        observe(histogram, &PER_CONNECTION_BOUNDS, u64::from(exchanges.answered));
    }
}

/// Ends the following of a connection's requests.
#[inline(always)]
pub fn forget(sk: Common) {
    if setting!(features) & FEATURE_REQUESTS != 0 {
        // It is not there where the rules about requests are switched off.
        let _ = EXCHANGES.remove(sk.address());
    }
}
