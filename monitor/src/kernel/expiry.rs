//! Drops pairs that have had no socket and no event for a while, and hands their slots out again.
//!
//! A slot is emptied in two steps, so that no event is lost: first its key leaves the index, then, a round later, the
//! slot is emptied if no connection came in between; if one did, the key goes back. Where another slot prints the same
//! labels (a service that was restarted has a new cgroup and the same name), that one inherits the counts: a sum that
//! fell would look like a restarted counter.

use std::{
    collections::HashMap as StdHashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData, Stack};
use finwatch_ebpf::wire::{FIRST_FREE_SLOT, PairKey};

use super::mapped::Tables;
use crate::model::{
    history::Slot,
    labels::{ProcessFilter, groups},
    source::{NameSource, PairSource as _},
};

/// Flag of a map update: only where the key is new.
const NOEXIST: u64 = 1;

/// The upkeep of the pair table.
pub struct Expiry {
    tables: Arc<Tables>,
    index: HashMap<MapData, PairKey, u32>,
    free: Stack<MapData, u32>,
    /// When each idle slot was first seen with its last touch.
    idle: StdHashMap<u32, (u64, Instant)>,
    leaving: Vec<(u32, PairKey, u64)>,
}

impl Expiry {
    /// Keeps `tables`, whose keys are in `index` and whose empty slots are in `free`.
    pub fn new(
        tables: Arc<Tables>,
        index: HashMap<MapData, PairKey, u32>,
        free: Stack<MapData, u32>,
    ) -> Self {
        Self { tables, index, free, idle: StdHashMap::new(), leaving: Vec::new() }
    }

    /// One round at `now`; returns how many pairs were dropped. To be called every second or so, whatever `ttl` is:
    /// the rounds' distance is what separates the two steps. `handed_over` is told whose counts went to whom,
    /// before any scrape can see it.
    pub fn round(
        &mut self,
        now: Instant,
        ttl: Duration,
        names: &dyn NameSource,
        handed_over: &dyn Fn(Slot, Slot),
    ) -> u64 {
        let dropped = self.empty_leaving(names, handed_over);
        for slot in FIRST_FREE_SLOT..self.tables.slots() {
            let Some(key) = self.tables.key(slot) else { continue };
            let touched = self.tables.touched(slot);
            if self.tables.tracked(slot) != 0 {
                self.idle.remove(&slot);
                continue;
            }
            let (seen, since) = *self.idle.entry(slot).or_insert((touched, now));
            if seen != touched {
                self.idle.insert(slot, (touched, now));
            } else if now.duration_since(since) >= ttl {
                self.leave(slot, key, touched);
            }
        }
        dropped
    }

    fn leave(&mut self, slot: u32, key: PairKey, touched: u64) {
        self.idle.remove(&slot);
        // A slot that lost its place in the index to a newer one of the same pair has nothing to take out.
        if self.index.get(&key, 0).is_ok_and(|indexed| indexed == slot) && self.index.remove(&key).is_err() {
            return;
        }
        self.leaving.push((slot, key, touched));
    }

    fn empty_leaving(&mut self, names: &dyn NameSource, handed_over: &dyn Fn(Slot, Slot)) -> u64 {
        if self.leaving.is_empty() {
            return 0;
        }
        // A scrape that goes on: the next round will do.
        let tables = Arc::clone(&self.tables);
        let Some(_alone) = tables.alone() else { return 0 };
        let mut dropped = 0;
        let mut shared = shared_labels(&self.tables, names);
        for (slot, key, touched) in std::mem::take(&mut self.leaving) {
            if self.tables.tracked(slot) == 0 && self.tables.touched(slot) == touched {
                let group = shared.iter_mut().find(|group| group.contains(&slot));
                if let Some(group) = group {
                    group.retain(|other| *other != slot);
                    if let Some(heir) = group.first() {
                        self.tables.hand_over(slot, *heir);
                        let with_generation = |slot| (slot, self.tables.generation(slot));
                        handed_over(with_generation(slot), with_generation(*heir));
                    }
                }
                self.tables.clear(slot);
                // The stack has room for every slot; should the kernel refuse, the slot is lost, not the count.
                if let Err(error) = self.free.push(slot, 0) {
                    tracing::warn!(slot, %error, "a slot of the pair table cannot be used again");
                }
                dropped += 1;
            } else if self.index.insert(key, slot, NOEXIST).is_err() {
                tracing::debug!(slot, "a pair came back twice; both records are merged when read");
            }
        }
        dropped
    }
}

/// The slots that print the same labels as another.
fn shared_labels(tables: &Tables, names: &dyn NameSource) -> Vec<Vec<u32>> {
    let groups = groups(tables, names, &ProcessFilter::default());
    groups.into_iter().map(|group| group.slots).filter(|slots| slots.len() > 1).collect()
}
