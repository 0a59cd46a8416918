//! Anomalies on their way to the agent, so many per pair and second.

use core::ptr::{addr_of_mut, read_volatile};

use finwatch_ebpf::wire::{ClosedConnection, Connection, Incident, PairRecord, Verdict};

use crate::{
    count::add,
    maps::{INCIDENTS, setting, totals},
    socket::{Common, now, now_ns},
};

/// Reports the death of a connection with its verdict, out of the state `left`, unless the pair has reported enough in this
/// second.
#[inline(never)]
pub fn report(
    sk: Common,
    conn: *const Connection,
    record: *mut PairRecord,
    verdict: *const Verdict,
    left: u8,
) {
    let Some(tcp) = sk.tcp() else { return };
    let ev = tcp.evidence();
    hand_over(record, ev.now, || {
        // SAFETY: a live map value; the socket's lock keeps others away.
        let conn = unsafe { &*conn };
        // SAFETY: a live map value of this run's own. Volatile, since it was written so.
        let verdict = unsafe { read_volatile(verdict) };
        // SAFETY: a live map value.
        let key = unsafe { (*record).key };
        let ends = sk.endpoints(ev.local_port);
        let incident = Incident::of_death(now_ns(), key, ends, conn, &verdict, left, &ev);
        Incident { srtt_us: tcp.srtt_us(), ..incident }
    });
}

/// Reports a reset of ours that answers data which came after a connection's end, under the same limit.
#[inline(always)]
pub fn report_late(closed: &ClosedConnection, record: *mut PairRecord, state: u8, bytes: u32) {
    let now = now();
    hand_over(record, now, || {
        // SAFETY: a live map value.
        let key = unsafe { (*record).key };
        Incident::after_end(now_ns(), key, closed, state, bytes, now)
    });
}

#[inline(always)]
fn hand_over(record: *mut PairRecord, now: u32, incident: impl FnOnce() -> Incident) {
    let Some(totals) = totals() else { return };
    let counted = if limited(record, now) {
        // SAFETY: a field of a live map value.
        unsafe { addr_of_mut!((*totals).incidents_limited) }
    } else if let Some(mut entry) = INCIDENTS.reserve::<Incident>(0) {
        entry.write(incident());
        entry.submit(0);
        // SAFETY: as above.
        unsafe { addr_of_mut!((*totals).incidents) }
    } else {
        // SAFETY: as above.
        unsafe { addr_of_mut!((*totals).incidents_lost) }
    };
    // SAFETY: a field of a live map value.
    unsafe { add(counted, 1) };
}

/// Counts the report against the pair's limit. Two CPUs at once may let one more through; nothing rests on it.
#[inline(always)]
fn limited(record: *mut PairRecord, now: u32) -> bool {
    let second = now / setting!(hz).max(1);
    // SAFETY: a live map value.
    if unsafe { (*record).incident_second } != second {
        // SAFETY: a live map value.
        unsafe { (*record).incident_second = second };
        // SAFETY: a live map value.
        unsafe { (*record).incident_count = 0 };
    }
    // SAFETY: a live map value.
    let count = unsafe { (*record).incident_count };
    // SAFETY: a live map value.
    unsafe { (*record).incident_count = count.saturating_add(1) };
    count >= setting!(incidents_per_second)
}
