//! The table of live connections, see `finwatch_ebpf::live`. A socket's lock keeps the events of its own connection apart; on
//! 5.10 a walk holds another lock, but finds a socket's state changed only after the program for that.

use core::ptr::{addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_NOEXIST;
use finwatch_ebpf::{
    live::{PROBES, home, probe},
    wire::{Connection, Totals, Tracked},
};

use crate::{
    count::add,
    maps::{CONNECTIONS, ELSEWHERE, setting, totals},
    socket::Common,
};

const MINUS_ONE: u64 = u64::MAX;
/// No place.
const NOWHERE: u32 = u32::MAX;

/// A socket's connection.
#[inline(always)]
pub fn connection(sk: Common) -> Option<*mut Connection> {
    let tracked = place(sk)?;
    // SAFETY: a field of a live map value.
    Some(unsafe { addr_of_mut!((*tracked).conn) })
}

#[inline(always)]
fn place(sk: Common) -> Option<*mut Tracked> {
    let tracked = CONNECTIONS.get_ptr_mut(home_of(sk))?;
    if is_of(tracked, sk) {
        return Some(tracked);
    }
    // SAFETY: a field of a live map value. A connection of this socket has been counted before.
    if unsafe { read_volatile(addr_of_mut!((*totals()?).displaced)) } == 0 {
        return None;
    }
    // SAFETY: copied at once.
    let index = *unsafe { ELSEWHERE.get(sk.address()) }?;
    CONNECTIONS.get_ptr_mut(index)
}

#[inline(always)]
fn home_of(sk: Common) -> u32 {
    home(sk.distance(), setting!(places_mask))
}

/// Takes a place for a socket's connection, which is not in the table; `None` when that is full.
#[inline(always)]
pub fn settle_down(sk: Common) -> Option<*mut Tracked> {
    let totals = totals()?;
    if !is_within(totals) {
        return None;
    }
    let home = home_of(sk);
    let index = if claim(home) { home } else { go_elsewhere(sk) };
    let Some(tracked) = CONNECTIONS.get_ptr_mut(index) else {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).tracked), MINUS_ONE) };
        return None;
    };
    // SAFETY: a live map value; volatile, since others look whether it is theirs.
    unsafe { write_volatile(addr_of_mut!((*tracked).socket), sk.address()) };
    Some(tracked)
}

/// Counts one more connection, where that is not one too many.
#[inline(always)]
fn is_within(totals: *mut Totals) -> bool {
    // SAFETY: a field of a live map value.
    let tracked = unsafe { addr_of_mut!((*totals).tracked) };
    // SAFETY: as above.
    unsafe { add(tracked, 1) };
    // SAFETY: as above.
    if unsafe { read_volatile(tracked) } <= u64::from(setting!(max_connections)) {
        return true;
    }
    // SAFETY: as above.
    unsafe { add(tracked, MINUS_ONE) };
    false
}

/// Gives the place of a socket's connection back; `false` when it had none.
#[inline(always)]
pub fn leave(sk: Common) -> bool {
    let Some(tracked) = CONNECTIONS.get_ptr_mut(home_of(sk)) else { return false };
    if is_of(tracked, sk) {
        clear(tracked);
    } else if come_back(sk) == NOWHERE {
        return false;
    }
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).tracked), MINUS_ONE) };
    }
    true
}

#[inline(always)]
fn is_of(tracked: *const Tracked, sk: Common) -> bool {
    // SAFETY: a field of a live map value; volatile, since others change it.
    (unsafe { read_volatile(&raw const (*tracked).socket) }) == sk.address()
}

/// Takes a place unless another has it, or wants it at the same time.
#[inline(always)]
fn claim(index: u32) -> bool {
    let Some(tracked) = CONNECTIONS.get_ptr_mut(index) else { return false };
    // SAFETY: a field of a live map value.
    let claims = unsafe { addr_of_mut!((*tracked).claims) };
    // SAFETY: as above.
    if unsafe { read_volatile(claims) } != 0 {
        return false;
    }
    // SAFETY: as above.
    unsafe { add(claims, 1) };
    // SAFETY: as above.
    if unsafe { read_volatile(claims) } == 1 {
        return true;
    }
    // SAFETY: as above.
    unsafe { add(claims, MINUS_ONE) };
    false
}

#[inline(always)]
fn clear(tracked: *mut Tracked) {
    // SAFETY: a field of a live map value; volatile, so that it comes before the place is free.
    unsafe { write_volatile(addr_of_mut!((*tracked).socket), 0) };
    // SAFETY: as above.
    unsafe { add(addr_of_mut!((*tracked).claims), MINUS_ONE) };
}

/// Takes a place that is not the home; [`NOWHERE`] when none is found.
#[inline(never)]
fn go_elsewhere(sk: Common) -> u32 {
    for number in 1..=PROBES {
        let index = probe(sk.distance(), number, setting!(places_mask));
        if claim(index) {
            count_displaced(1);
            if ELSEWHERE.insert(sk.address(), index, u64::from(BPF_NOEXIST)).is_ok() {
                return index;
            }
            count_displaced(MINUS_ONE);
            if let Some(tracked) = CONNECTIONS.get_ptr_mut(index) {
                clear(tracked);
            }
            return NOWHERE;
        }
    }
    NOWHERE
}

/// Gives a place that is not the home back; returns which, [`NOWHERE`] when there was none.
#[inline(never)]
fn come_back(sk: Common) -> u32 {
    // SAFETY: copied at once.
    let Some(index) = unsafe { ELSEWHERE.get(sk.address()) }.copied() else { return NOWHERE };
    // Should the agent be faster, it has given the place back.
    if ELSEWHERE.remove(sk.address()).is_err() {
        return NOWHERE;
    }
    count_displaced(MINUS_ONE);
    if let Some(tracked) = CONNECTIONS.get_ptr_mut(index) {
        clear(tracked);
    }
    index
}

#[inline(always)]
fn count_displaced(more: u64) {
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).displaced), more) };
    }
}
