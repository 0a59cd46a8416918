//! Finds tracked connections whose socket is gone without an event, and takes them out of the books.
//!
//! The kernel skips a program that would interrupt itself, so an end may be missed. An entry whose namespace was walked
//! to its end without meeting the socket, or is gone, is suspect; one that is still the same after another walk is closed.

use std::{
    collections::HashMap as StdHashMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{HashMap, MapData};
use finwatch_ebpf::{
    requests::Exchanges,
    wire::{Connection, Tracked},
};

use super::{array::Array, mapped::Tables};

/// Suspects that are kept from one search to the next.
const MAX_SUSPECTS: usize = 16_384;

/// The search for missed ends.
pub struct Missed {
    connections: MapData,
    elsewhere: HashMap<MapData, u64, u32>,
    exchanges: HashMap<MapData, u64, Exchanges>,
    places: u32,
    /// With the walk that did not meet them.
    suspects: StdHashMap<u64, (Connection, u32)>,
}

impl Missed {
    /// Searches `connections`, which has so many places; `elsewhere` names those that are not at home, and their `exchanges`
    /// go with them.
    pub fn new(
        connections: MapData,
        elsewhere: HashMap<MapData, u64, u32>,
        exchanges: HashMap<MapData, u64, Exchanges>,
        places: u32,
    ) -> Self {
        Self { connections, elsewhere, exchanges, places, suspects: StdHashMap::new() }
    }

    /// One search. `last_walk` gives a namespace's last finished walk, or the last of all where the
    /// namespace is gone. Looks at every place there is: to be called seldom, and only where the books hold more than the
    /// walks have met.
    ///
    /// # Errors
    /// When the kernel refuses to map the table.
    pub fn search(&mut self, tables: &Tables, last_walk: impl Fn(u32) -> Option<u32>) -> io::Result<()> {
        let before = std::mem::take(&mut self.suspects);
        Array::<Tracked>::look_through(&self.connections, self.places, |place| {
            // SAFETY: a valid, aligned pointer to plain old data; what the programs write meanwhile may be in it or not.
            let Tracked { socket, conn, .. } = unsafe { place.read_volatile() };
            if socket == 0 {
                return;
            }
            let Some(walk) = last_walk(conn.netns).filter(|walk| conn.seen < *walk) else { return };
            let since = before.get(&socket).filter(|(known, _)| same(known, &conn)).map(|(_, since)| *since);
            if since.is_some_and(|since| since < walk) {
                // Should a new socket have taken the address this very moment, the next walk takes it in again.
                if take_out(place, socket) {
                    let displaced = self.elsewhere.remove(&socket).is_ok();
                    tables.close_missed(conn.slot, displaced);
                    // It is not there where requests are not followed.
                    drop(self.exchanges.remove(&socket));
                }
            } else if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.insert(socket, (conn, since.unwrap_or(walk)));
            }
        })
    }
}

fn same(known: &Connection, conn: &Connection) -> bool {
    (known.opened_ns, known.slot, known.netns, known.seen)
        == (conn.opened_ns, conn.slot, conn.netns, conn.seen)
}

/// Gives a place free unless its connection has left it meanwhile.
fn take_out(place: *mut Tracked, socket: u64) -> bool {
    // SAFETY: a valid pointer; only an address is taken.
    let claims = unsafe { &raw mut (*place).claims };
    // SAFETY: as above.
    let address = unsafe { &raw mut (*place).socket };
    // SAFETY: an aligned number of a mapped value; every access to it is atomic or the kernel's.
    let claims = unsafe { AtomicU64::from_ptr(claims) };
    // SAFETY: as above.
    let address = unsafe { AtomicU64::from_ptr(address) };
    // Nobody takes it as long as there is another claim.
    claims.fetch_add(1, Ordering::AcqRel);
    let taken = address.compare_exchange(socket, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    claims.fetch_sub(if taken { 2 } else { 1 }, Ordering::AcqRel);
    taken
}
