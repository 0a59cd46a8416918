//! Anomalies on their way to the agent, so many per pair and second.

use core::ptr::addr_of_mut;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use finwatch_ebpf::wire::{Connection, Incident, PairRecord};

use crate::{
    count::{add, jiffies_to_ms},
    maps::{INCIDENTS, setting, totals},
    socket::{Common, Tcp},
};

/// Reports an anomaly, unless the pair has reported enough in this second.
#[inline(never)]
pub fn report(sk: Common, tcp: Tcp, conn: *const Connection, record: *mut PairRecord, cause: u8) {
    let Some(totals) = totals() else { return };
    let ev = tcp.evidence();
    if limited(record, ev.now) {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).incidents_limited), 1) };
        return;
    }
    let Some(mut entry) = INCIDENTS.reserve::<Incident>(0) else {
        // SAFETY: a field of a live map value.
        unsafe { add(addr_of_mut!((*totals).incidents_lost), 1) };
        return;
    };
    let quiet = ev.quiet_before().max(0).cast_unsigned();
    entry.write(Incident {
        // SAFETY: no arguments, no side effects.
        time_ns: unsafe { bpf_ktime_get_ns() },
        // SAFETY: a live map value.
        opened_ns: unsafe { (*conn).opened_ns },
        bytes_sent: ev.bytes_sent,
        bytes_received: ev.bytes_received,
        // SAFETY: a live map value.
        key: unsafe { (*record).key },
        endpoints: sk.endpoints(ev.local_port),
        cause: u32::from(cause),
        // SAFETY: a live map value.
        flags: unsafe { (*conn).flags },
        quiet_ms: u32::try_from(jiffies_to_ms(quiet)).unwrap_or(u32::MAX),
        reserved: 0,
    });
    entry.submit(0);
    // SAFETY: a field of a live map value.
    unsafe { add(addr_of_mut!((*totals).incidents), 1) };
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
