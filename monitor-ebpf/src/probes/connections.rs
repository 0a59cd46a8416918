//! The table of live connections and that of closed ones.

use core::ptr::{addr_of_mut, read_volatile};

use finwatch_ebpf::{
    closed::Replaced,
    wire::{
        CONN_NO_REQUEST_RULES, CONN_PROXY, ClosedConnection, ClosedKey, Connection, FIRST_FREE_SLOT,
        PairRecord, VERDICT_TIME_WAIT, Verdict,
    },
};

use crate::{
    count::add,
    live::{connection, leave, settle_down},
    maps::{CLOSED, NAMESPACES, RESETTING, WALK, setting, totals},
    pairs::{Pair, record},
    requests,
    socket::{Common, Tcp, jiffies, now},
};

const MINUS_ONE: u64 = u64::MAX;

/// Starts to track a connection of `pair`; returns its pair's record, `None` when the table is full.
#[inline(always)]
pub fn track(sk: Common, pair: &Pair, conn: Connection) -> Option<*mut PairRecord> {
    forget_missed(sk);
    begin(sk, placed(sk, pair, conn))
}

/// Starts to track a connection of `pair` that a walk has found, unless its own event has just done so. Says whether it
/// did.
#[inline(always)]
pub fn adopt(sk: Common, pair: &Pair, conn: Connection) -> bool {
    if own(sk).is_some() {
        return false;
    }
    forget_missed(sk);
    if begin(sk, placed(sk, pair, conn)).is_none() {
        return false;
    }
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).adopted), 1) };
    }
    true
}

#[inline(always)]
fn placed(sk: Common, pair: &Pair, mut conn: Connection) -> Connection {
    if pair.without_request_rules() {
        conn.flags |= CONN_NO_REQUEST_RULES;
    }
    conn.netns = sk.netns();
    conn.pid = pair.pid;
    conn.seen = WALK.get(0).map_or(0, |walk| walk.id);
    conn
}

#[inline(always)]
fn count_untracked() {
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).untracked), 1) };
    }
}

#[inline(always)]
fn begin(sk: Common, conn: Connection) -> Option<*mut PairRecord> {
    let Some(tracked) = settle_down(sk) else {
        count_untracked();
        return None;
    };
    // SAFETY: a live map value, claimed by this socket.
    unsafe { (*tracked).conn = conn };
    if conn.slot < FIRST_FREE_SLOT {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals()?).folded), 1) };
    }
    let record = record(conn.slot)?;
    // SAFETY: a field of a live map value.
    unsafe { add(addr_of_mut!((*record).tracked), 1) };
    touch(record);
    announce(conn.netns, record);
    Some(record)
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

/// An entry that is already there where a connection begins belonged to a socket whose end was missed. Also one that is not
/// watched would be taken for it.
#[inline(always)]
pub fn forget_missed(sk: Common) {
    let Some((_, record)) = find(sk) else { return };
    forget(sk, record);
    if let Some(totals) = totals() {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).missed_end), 1) };
    }
}

/// The connection of a socket and its pair's record.
#[inline(always)]
pub fn find(sk: Common) -> Option<(*mut Connection, *mut PairRecord)> {
    let conn = connection(sk)?;
    // SAFETY: a live map value.
    let slot = unsafe { (*conn).slot };
    Some((conn, record(slot)?))
}

/// The connection at a socket's address, where it is this socket's own. An entry whose end was missed may stand where
/// another socket has its address by now, of which no event was looked at: that one is at another port.
#[inline(always)]
pub fn own(sk: Common) -> Option<*mut Connection> {
    connection(sk).filter(|conn| is_of(*conn, sk))
}

#[inline(always)]
fn is_of(conn: *const Connection, sk: Common) -> bool {
    // SAFETY: a live map value.
    let slot = unsafe { (*conn).slot };
    // SAFETY: as above.
    let flags = unsafe { (*conn).flags };
    if slot < FIRST_FREE_SLOT {
        return true;
    }
    let Some(record) = record(slot) else { return true };
    // SAFETY: a live map value.
    let port = unsafe { (*record).key.port };
    port == if flags & CONN_PROXY != 0 { sk.remote_port() } else { sk.bound_port() }
}

/// Marks a pair as in use now.
#[inline(always)]
fn touch(record: *mut PairRecord) {
    // SAFETY: a live map value; every writer writes the same moment.
    unsafe { (*record).touched = jiffies() };
}

/// Ends the tracking of a connection.
#[inline(always)]
pub fn forget(sk: Common, record: *mut PairRecord) {
    if !leave(sk) {
        return;
    }
    requests::forget(sk);
    touch(record);
    // SAFETY: a field of a live map value.
    unsafe { add(addr_of_mut!((*record).tracked), MINUS_ONE) };
}

/// Ends the tracking of a connection, and keeps what a late reset or a mini-socket needs of it. A reset of ours that follows
/// at once is certain to find it; the table for what comes later is bounded in another way: two CPUs that write one entry at
/// once leave none.
#[inline(never)]
pub fn remember(
    sk: Common,
    tcp: Tcp,
    conn: *const Connection,
    record: *mut PairRecord,
    verdict: *const Verdict,
) {
    // SAFETY: a live map value.
    let generation = unsafe { (*record).generation };
    let key = sk.endpoints(tcp.local_port());
    // SAFETY: a live map value. Volatile, since it was written so.
    let verdict = unsafe { read_volatile(verdict) };
    // SAFETY: a live map value; the socket's lock keeps others away.
    let entry = ClosedConnection::new(key, unsafe { &*conn }, verdict.cause, generation);
    if verdict.bits & VERDICT_TIME_WAIT == 0 {
        // The oldest make room in a full table: an insertion does not fail.
        let _ = RESETTING.insert(sk.address(), entry, 0);
        forget(sk, record);
        return;
    }
    forget(sk, record);
    let place = key.place(setting!(closed_seed));
    let Some(set) = CLOSED.get_ptr_mut(place.set & setting!(closed_mask)) else { return };
    // SAFETY: a live map value; other CPUs may write it at the same time, which the entry's digest tells.
    unsafe { &mut *set }.put(&entry, place, (now(), setting!(hz)), count_closed);
}

#[inline(always)]
fn count_closed(replaced: Replaced) {
    let Some(totals) = totals() else { return };
    match replaced {
        Replaced::Stale => {}
        // SAFETY: a field of a live map value.
        Replaced::Nothing => unsafe { add(addr_of_mut!((*totals).closed), 1) },
        // SAFETY: as above.
        Replaced::Live => unsafe { add(addr_of_mut!((*totals).closed_evicted), 1) },
    }
}

/// The connection of a socket that has ended this very moment, for the one reset of ours that follows.
#[inline(always)]
pub fn recall_ended(sk: Common, key: &ClosedKey) -> Option<ClosedConnection> {
    let entry = RESETTING.get_ptr(sk.address())?;
    // SAFETY: a live map value; only the socket's own end has written it.
    let closed = unsafe { *entry };
    if closed.key != *key {
        return None;
    }
    // It is there.
    let _ = RESETTING.remove(sk.address());
    Some(closed)
}

/// The closed connection between two ends.
#[inline(always)]
pub fn recall(key: &ClosedKey) -> Option<ClosedConnection> {
    let place = key.place(setting!(closed_seed));
    let set = CLOSED.get_ptr(place.set & setting!(closed_mask))?;
    // SAFETY: a live map value; an entry that changes meanwhile fails its digest.
    unsafe { &*set }.find(key, place)
}

/// The record of a closed connection's pair, while it is still the same; marks it as touched.
#[inline(always)]
pub fn record_of(closed: &ClosedConnection) -> Option<*mut PairRecord> {
    let record = record(closed.slot)?;
    // SAFETY: a live map value.
    let generation = unsafe { (*record).generation };
    if generation != closed.generation {
        return None;
    }
    touch(record);
    Some(record)
}
