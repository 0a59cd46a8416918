//! A set-associative table of closed connections: bounded, without locks, and as cheap as one array access.
//!
//! The kernel's LRU hash map was more than half of the cost of a state change. Here a key's hash names a set, the set's
//! tags name the entry, and the oldest entry makes room. Two CPUs that write the same entry at once leave one that
//! fails its digest, which counts as missing.

use core::hint::black_box;

use crate::wire::{CLOSED_WAYS, ClosedConnection, ClosedKey, ClosedSet, Connection};

/// Seconds after which nothing of a connection can still come: FIN_WAIT2 and TIME_WAIT, a minute each.
pub const LIFETIME: u32 = 120;

/// What happened to the entry that was written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// There was none.
    Nothing,
    /// It was of the same two ends, or past its [`LIFETIME`].
    Stale,
    /// It might still have been of use.
    Live,
}

/// A key's place: the set (to be masked) and the tag in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the set, before masking.
    pub set: u32,
    tag: u32,
}

impl ClosedKey {
    /// Where it belongs. The kernel hands out every other port, one after the other, to those who connect to the same end:
    /// their connections stand in sets one after the other, since a page of its own for each costs more than all the rest.
    #[inline]
    pub fn place(&self, seed: u32) -> Place {
        let (low, high) = if self.local_port < self.remote_port {
            (self.local_port, self.remote_port)
        } else {
            (self.remote_port, self.local_port)
        };
        let [a, b] = words(&self.local);
        let [c, d] = words(&self.remote);
        let ours = mix(u64::from(seed), u64::from(self.netns) << 32 | u64::from(low));
        let row = mix(mix(mix(mix(ours, a), b), c), d);
        let [first, _] = halves(row);
        let [tag, _] = halves(mix(row, u64::from(self.local_port) << 16 | u64::from(self.remote_port)));
        // 0 says that there is no entry.
        Place { set: first.wrapping_add(u32::from(high / 2)), tag: tag | 1 }
    }
}

impl ClosedConnection {
    /// The entry of `conn`, which has died of `cause`; `generation` is that of its slot.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer flags")]
    pub fn new(key: ClosedKey, conn: &Connection, cause: u8, generation: u32) -> Self {
        Self {
            key,
            slot: conn.slot,
            generation,
            flags: conn.flags as u16,
            cause: u16::from(cause),
            pid: conn.pid,
            first_fin: conn.first_fin,
            check: 0,
        }
    }

    /// The digest of what is no key, begun with the place, which is the digest of the key.
    #[inline]
    fn digest(&self, place: Place) -> u32 {
        let word = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let key = word(place.set, place.tag);
        let ours = mix(mix(key, word(self.slot, self.generation)), word(self.pid, self.first_fin));
        let [a, b] = halves(mix(ours, word(self.flags.into(), self.cause.into())));
        a ^ b
    }
}

impl ClosedSet {
    /// The entry of these two ends.
    #[inline]
    pub fn find(&self, key: &ClosedKey, place: Place) -> Option<ClosedConnection> {
        let mut way = 0;
        while way < CLOSED_WAYS {
            let entry = &self.entries[way];
            if self.tags[way] == place.tag && entry.key == *key {
                return (entry.check == entry.digest(place)).then_some(*entry);
            }
            way += 1;
        }
        None
    }

    /// Writes an entry, with its digest, over that of the same two ends, else over the oldest. `replaced` is told what was
    /// there before anything is written: nobody waits for the memory then.
    #[inline]
    pub fn put(
        &mut self,
        entry: &ClosedConnection,
        place: Place,
        (now, hz): (u32, u32),
        replaced: impl FnOnce(Replaced),
    ) {
        let mut chosen = 0_u8;
        let mut oldest = 0;
        let mut number = 0_u8;
        let mut same = false;
        while usize::from(number) < CLOSED_WAYS {
            let way = usize::from(number);
            let tag = self.tags[way];
            let age = if tag == 0 { u32::MAX } else { now.wrapping_sub(self.times[way]) };
            if tag == place.tag && self.entries[way].key == entry.key {
                chosen = number;
                same = true;
                break;
            }
            if age > oldest {
                oldest = age;
                chosen = number;
            }
            number += 1;
        }
        // Through memory, as bytes: otherwise the verifier follows the path of each entry to the program's end.
        let (chosen, same) = (black_box(chosen), black_box(same));
        let chosen = usize::from(chosen) & (CLOSED_WAYS - 1);
        replaced(if self.tags[chosen] == 0 {
            Replaced::Nothing
        } else if same || oldest >= LIFETIME * hz {
            Replaced::Stale
        } else {
            Replaced::Live
        });
        self.entries[chosen] = ClosedConnection { check: entry.digest(place), ..*entry };
        self.times[chosen] = now;
        self.tags[chosen] = place.tag;
    }
}

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = (hash ^ word).wrapping_mul(ODD);
    product ^ product >> 32
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
fn halves(hash: u64) -> [u32; 2] {
    [hash as u32, (hash >> 32) as u32]
}

#[inline]
fn words(address: &[u8; 16]) -> [u64; 2] {
    let number = u128::from_ne_bytes(*address);
    let [low, high] = [number, number >> 64];
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    [low as u64, high as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 250;

    fn key(port: u16) -> ClosedKey {
        ClosedKey { netns: 1, local_port: port, remote_port: 80, local: [1; 16], remote: [2; 16] }
    }

    fn entry(port: u16) -> ClosedConnection {
        let conn = Connection { flags: 3, ..Connection::accepted(7, 0) };
        ClosedConnection::new(key(port), &conn, 2, 1)
    }

    fn put(set: &mut ClosedSet, port: u16, now: u32) -> Replaced {
        let mut told = None;
        set.put(&entry(port), key(port).place(9), (now, HZ), |replaced| told = Some(replaced));
        told.expect("it was told")
    }

    /// Without its digest.
    fn found(set: &ClosedSet, port: u16) -> Option<ClosedConnection> {
        let found = set.find(&key(port), key(port).place(9))?;
        Some(ClosedConnection { check: 0, ..found })
    }

    fn empty() -> ClosedSet {
        let none = ClosedConnection { check: 0, slot: 0, generation: 0, flags: 0, cause: 0, ..entry(0) };
        ClosedSet { tags: [0; CLOSED_WAYS], times: [0; CLOSED_WAYS], entries: [none; CLOSED_WAYS] }
    }

    #[test]
    fn what_is_put_is_found_and_nothing_else() {
        let mut set = empty();
        for port in 1..=8 {
            assert_eq!(put(&mut set, port, 100), Replaced::Nothing);
        }
        for port in 1..=8 {
            assert_eq!(found(&set, port), Some(entry(port)));
        }
        assert_eq!(set.find(&key(9), key(9).place(9)), None);
    }

    #[test]
    fn the_same_ends_take_their_own_place_and_the_oldest_makes_room() {
        let mut set = empty();
        for port in 1..=8 {
            put(&mut set, port, 100 + u32::from(port));
        }
        assert_eq!(put(&mut set, 3, 120), Replaced::Stale);
        assert_eq!(put(&mut set, 9, 121), Replaced::Live);
        assert_eq!(set.find(&key(1), key(1).place(9)), None, "it was the oldest");
        assert_eq!(found(&set, 3), Some(entry(3)));
        let later = 122 + LIFETIME * HZ;
        assert_eq!(put(&mut set, 10, later), Replaced::Stale);
        assert_eq!(set.find(&key(2), key(2).place(9)), None, "it was the oldest by now");
    }

    #[test]
    fn times_wrap() {
        let mut set = empty();
        for port in 1..=8 {
            put(&mut set, port, u32::MAX - 20 + u32::from(port));
        }
        assert_eq!(put(&mut set, 9, 5), Replaced::Live);
        assert_eq!(set.find(&key(1), key(1).place(9)), None);
    }

    #[test]
    fn a_torn_entry_counts_as_missing() {
        let mut set = empty();
        put(&mut set, 1, 100);
        set.entries.iter_mut().for_each(|entry| entry.slot ^= 1);
        assert_eq!(set.find(&key(1), key(1).place(9)), None);
    }

    #[test]
    fn keys_spread_over_the_sets() {
        let sets = 1_024;
        let mut load = [0_u8; 1_024];
        for port in 0..4_096 {
            load[(key(port).place(77).set & (sets - 1)) as usize] += 1;
        }
        assert!(load.iter().all(|count| *count <= 16), "4 each on average");
    }
}
