//! What is kept of the last reading of a namespace, and whether it still holds.

use std::time::{Duration, Instant};

use finwatch_ebpf::{levels::LevelRecord, state};

use super::namespaces::Facts;
use crate::model::levels::{NamespaceLevel, Walked};

/// After this long a namespace is walked again whatever it says: listening sockets come and go without a segment.
const WALK_ANYWAY: Duration = Duration::from_mins(1);

/// The last walk in a namespace.
pub(super) struct Visit {
    at: Instant,
    facts: Facts,
    /// The walk's number.
    pub(super) id: u32,
    /// Tracked connections that it met.
    pub(super) tracked: u64,
    /// Nothing in it changes without a segment.
    settled: bool,
    /// Sockets by the pair's slot.
    pub(super) levels: Vec<(u32, LevelRecord)>,
    /// What belongs to the namespace rather than to a pair.
    pub(super) level: NamespaceLevel,
}

impl Visit {
    /// Of a walk just made.
    pub(super) fn new(at: Instant, facts: Facts, walked: Walked, (name, walks): (String, u64)) -> Self {
        let Walked { walk, levels, ports, queues } = walked;
        let established = usize::from(state::ESTABLISHED);
        let busy = levels.iter().any(|(_, record)| record.sockets[established] != record.idle);
        let level = NamespaceLevel {
            name,
            walks,
            port_limit: facts.range.limit(),
            time_wait_limit: facts.time_wait_limit,
            time_wait_overflow: facts.time_wait_overflow,
            ports_lost: walk.ports_lost,
            listeners_lost: walk.listeners_lost,
            ports: ports.into(),
            queues: queues.into(),
        };
        let settled = walk.passing == 0 && walk.waiting == 0 && walk.untracked == 0 && !busy;
        Self { at, facts, id: walk.id, tracked: walk.tracked, settled, levels, level }
    }

    /// Whether nothing can have changed since.
    pub(super) fn still_holds(&self, facts: &Facts, now: Instant) -> bool {
        self.settled && self.facts == *facts && now.duration_since(self.at) < WALK_ANYWAY
    }
}
