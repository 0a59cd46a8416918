//! Finds tracked connections whose socket is gone without an event, and takes them out of the books.
//!
//! The kernel skips a program that would interrupt itself, so an end may be missed. An entry whose namespace was walked
//! to its end without meeting the socket, or is gone, is suspect; one that is still the same after another walk is closed.

use std::collections::HashMap as StdHashMap;

use aya::maps::{HashMap, MapData};
use finwatch_ebpf::wire::Connection;

use super::mapped::Tables;

/// Suspects that are kept from one search to the next.
const MAX_SUSPECTS: usize = 16_384;

/// The search for missed ends.
pub struct Missed {
    connections: HashMap<MapData, u64, Connection>,
    max_connections: usize,
    /// With the walk that did not meet them.
    suspects: StdHashMap<u64, (Connection, u32)>,
}

impl Missed {
    /// Searches `connections`, which has room for `max_connections`.
    pub fn new(connections: HashMap<MapData, u64, Connection>, max_connections: u32) -> Self {
        Self { connections, max_connections: max_connections as usize, suspects: StdHashMap::new() }
    }

    /// One search. `last_walk` gives a namespace's last finished walk, or the last of all where the
    /// namespace is gone. Costs two system calls per tracked connection:
    /// to be called seldom, and only where the books hold more than the walks have met.
    pub fn search(&mut self, tables: &Tables, last_walk: impl Fn(u32) -> Option<u32>) {
        let before = std::mem::take(&mut self.suspects);
        let mut gone = Vec::new();
        // Entries that go while the table is read make the kernel begin anew: bounded all the same.
        for entry in self.connections.iter().take(2 * self.max_connections) {
            let Ok((socket, conn)) = entry else { continue };
            let Some(walk) = last_walk(conn.netns).filter(|walk| conn.seen < *walk) else { continue };
            let since = before.get(&socket).filter(|(known, _)| same(known, &conn)).map(|(_, since)| *since);
            if since.is_some_and(|since| since < walk) {
                gone.push((socket, conn.slot));
            } else if self.suspects.len() < MAX_SUSPECTS {
                self.suspects.insert(socket, (conn, since.unwrap_or(walk)));
            }
        }
        for (socket, slot) in gone {
            // Should a new socket have taken the address this very moment, the next walk takes it in again.
            if self.connections.remove(&socket).is_ok() {
                tables.close_missed(slot);
            }
        }
    }
}

fn same(known: &Connection, conn: &Connection) -> bool {
    (known.opened_ns, known.slot, known.netns, known.seen)
        == (conn.opened_ns, conn.slot, conn.netns, conn.seen)
}
