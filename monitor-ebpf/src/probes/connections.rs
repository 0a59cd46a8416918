//! The table of live connections and that of closed ones.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::BPF_NOEXIST;
use finwatch_ebpf::{
    cause::Death,
    wire::{CONN_NO_REQUEST_RULES, ClosedConnection, ClosedKey, Connection, PairRecord},
};

use crate::{
    count::add,
    maps::{CLOSED, CONNECTIONS, NAMESPACES, WALK, totals},
    pairs::{Pair, record},
    socket::{Common, jiffies},
};

const MINUS_ONE: u64 = u64::MAX;

/// Starts to track a connection of `pair`.
#[inline(always)]
pub fn track(sk: Common, pair: &Pair, conn: Connection) {
    replace_missed(sk);
    insert(sk, pair, conn, 0);
}

/// Starts to track a connection of `pair` that a walk has found, unless its own event has just done so. Says whether it
/// is tracked now.
#[inline(always)]
pub fn adopt(sk: Common, pair: &Pair, conn: Connection) -> bool {
    let inserted = insert(sk, pair, conn, u64::from(BPF_NOEXIST));
    if inserted {
        if let Some(totals) = totals() {
            // SAFETY: a field of a live map value.
            unsafe { add(addr_of_mut!((*totals).adopted), 1) };
        }
    }
    inserted
}

#[inline(always)]
fn insert(sk: Common, pair: &Pair, mut conn: Connection, flags: u64) -> bool {
    if pair.without_request_rules() {
        conn.flags |= CONN_NO_REQUEST_RULES;
    }
    conn.netns = sk.netns();
    conn.seen = WALK.get(0).map_or(0, |walk| walk.id);
    let Some(totals) = totals() else { return false };
    if CONNECTIONS.insert(sk.address(), conn, flags).is_err() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).untracked), 1) };
        return false;
    }
    // SAFETY: a field of a live map value.
    unsafe { add(addr_of_mut!((*totals).tracked), 1) };
    if let Some(record) = record(conn.slot) {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*record).tracked), 1) };
        announce(conn.netns, record);
    }
    true
}

/// Tells the agent about a network namespace; a pair that stays in its namespace does so once.
#[inline(always)]
fn announce(netns: u32, record: *mut PairRecord) {
    // SAFETY: a live map value.
    if unsafe { (*record).netns } == netns {
        return;
    }
    // SAFETY: as above; whichever CPU writes last, the namespace has been announced.
    unsafe { (*record).netns = netns };
    // The oldest make room in a full table: an insertion does not fail.
    let _ = NAMESPACES.insert(netns, 1, 0);
}

/// An entry that is already there belonged to a socket whose end was missed.
#[inline(always)]
fn replace_missed(sk: Common) {
    let Some(missed) = CONNECTIONS.get_ptr(sk.address()) else { return };
    // SAFETY: a live map value.
    if let Some(record) = record(unsafe { (*missed).slot }) {
        forget(sk, record);
        if let Some(totals) = totals() {
            // SAFETY: a field of a live map value.
            unsafe { add(addr_of_mut!((*totals).missed_end), 1) };
        }
    }
}

/// The connection of a socket and its pair's record; marks the pair as touched.
#[inline(always)]
pub fn find(sk: Common) -> Option<(*mut Connection, *mut PairRecord)> {
    let conn = CONNECTIONS.get_ptr_mut(sk.address())?;
    // SAFETY: a live map value.
    let slot = unsafe { (*conn).slot };
    let record = record(slot)?;
    // SAFETY: a live map value; every writer writes the same moment.
    unsafe { (*record).touched = jiffies() };
    Some((conn, record))
}

/// Ends the tracking of a connection.
#[inline(always)]
pub fn forget(sk: Common, record: *mut PairRecord) {
    if CONNECTIONS.remove(sk.address()).is_err() {
        return;
    }
    // SAFETY: a field of a live map value.
    unsafe { add(addr_of_mut!((*record).tracked), MINUS_ONE) };
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).tracked), MINUS_ONE) };
    }
}

/// Keeps what a late reset or a mini-socket needs.
#[inline(always)]
pub fn remember(key: &ClosedKey, conn: &Connection, record: *mut PairRecord, death: &Death) {
    // SAFETY: a live map value.
    let generation = unsafe { (*record).generation };
    let closed =
        ClosedConnection { slot: conn.slot, generation, flags: conn.flags, cause: death.cause as u32 };
    let known = CLOSED.get_ptr(key).is_some();
    if CLOSED.insert(key, closed, 0).is_ok() && !known {
        if let Some(totals) = totals() {
            // SAFETY: a field of a live map value.
            unsafe { add(addr_of_mut!((*totals).closed_added), 1) };
        }
    }
}

/// The closed connection between two ends and its pair's record, while the pair is still the same.
#[inline(always)]
pub fn recall(key: &ClosedKey) -> Option<(ClosedConnection, *mut PairRecord)> {
    // SAFETY: copied at once.
    let closed = *unsafe { CLOSED.get(key) }?;
    let record = record(closed.slot)?;
    // SAFETY: a live map value.
    let generation = unsafe { (*record).generation };
    (generation == closed.generation).then_some((closed, record))
}
