//! How things stand: sockets by pair and state, accept queues and ephemeral ports, all as of one moment.

use std::{
    collections::HashMap,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use finwatch_ebpf::{
    levels::{LevelRecord, ListenerEntry, PortEntry, STATE_SLOTS, Walk},
    state,
    wire::{KEY_EXTERNAL, PairKey, SIDE_UPSTREAM},
};

/// Every state that a socket may stand in, with its label value, in the order of exposition.
pub const STATES: [(u8, &str); 9] = [
    (state::ESTABLISHED, "established"),
    (state::SYN_SENT, "syn_sent"),
    (state::SYN_RECV, "syn_recv"),
    (state::FIN_WAIT1, "fin_wait1"),
    (state::FIN_WAIT2, "fin_wait2"),
    (state::TIME_WAIT, "time_wait"),
    (state::CLOSE_WAIT, "close_wait"),
    (state::LAST_ACK, "last_ack"),
    (state::CLOSING, "closing"),
];

/// What one reading of one network namespace found.
#[derive(Debug, Default)]
pub struct Walked {
    /// The walk's own counts.
    pub walk: Walk,
    /// Sockets by the pair's slot.
    pub levels: Vec<(u32, LevelRecord)>,
    /// Ephemeral ports held.
    pub ports: Vec<PortEntry>,
    /// Accept queues.
    pub queues: Vec<ListenerEntry>,
}

/// One reading of the kernel's tables, of every network namespace.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the reading began.
    pub taken: Instant,
    /// How long it took.
    pub duration: Duration,
    /// Sockets by the pair's slot.
    pub pairs: HashMap<u32, PairLevel>,
    /// What belongs to a namespace rather than to a pair.
    pub namespaces: Vec<NamespaceLevel>,
}

/// The sockets of one pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairLevel {
    /// How many are in each state, by the state's number.
    pub sockets: [u32; STATE_SLOTS],
    /// Established and quiet for at least a second.
    pub idle: u32,
    /// Of these, those upon which a request waits for its answer.
    pub unanswered: u32,
    /// For how many seconds the oldest of those in CLOSE_WAIT has been in it; 0 where that is not known.
    pub oldest_close_wait: u32,
    /// The states in which the pair ever had a socket, a bit each.
    pub touched: u16,
}

impl PairLevel {
    /// Adds the pair's sockets in one namespace.
    pub fn add(&mut self, record: &LevelRecord) {
        for (number, (total, more)) in self.sockets.iter_mut().zip(record.sockets).enumerate() {
            *total = total.saturating_add(more);
            self.touched |= u16::from(more > 0) << number;
        }
        self.idle = self.idle.saturating_add(record.idle);
        self.unanswered = self.unanswered.saturating_add(record.unanswered);
        self.oldest_close_wait = self.oldest_close_wait.max(record.oldest_close_wait);
    }

    /// Adds the sockets of another pair that prints alike.
    pub fn merge(&mut self, other: &Self) {
        for (total, more) in self.sockets.iter_mut().zip(other.sockets) {
            *total = total.saturating_add(more);
        }
        self.idle = self.idle.saturating_add(other.idle);
        self.unanswered = self.unanswered.saturating_add(other.unanswered);
        self.oldest_close_wait = self.oldest_close_wait.max(other.oldest_close_wait);
        self.touched |= other.touched;
    }

    /// How many are in a state; `None` where the pair never had one.
    pub fn in_state(&self, state: u8) -> Option<u32> {
        let touched = self.touched >> state & 1 != 0;
        touched.then(|| self.sockets[usize::from(state)])
    }
}

/// What belongs to one network namespace.
#[derive(Clone, Debug)]
pub struct NamespaceLevel {
    /// `host`, or its inode number.
    pub name: String,
    /// How often it was read.
    pub walks: u64,
    /// How many ephemeral ports there are for one source and destination.
    pub port_limit: u32,
    /// Timewait sockets it may hold, 0 when unknown.
    pub time_wait_limit: u64,
    /// Connections that could not enter TIME_WAIT.
    pub time_wait_overflow: u64,
    /// Sockets whose destination found no room in the table of ports.
    pub ports_lost: u64,
    /// Listening sockets that found no room in their table.
    pub listeners_lost: u64,
    /// Ephemeral ports held, by source and destination.
    pub ports: Arc<[PortEntry]>,
    /// Accept queues.
    pub queues: Arc<[ListenerEntry]>,
}

impl Snapshot {
    /// What names the workloads of all listening sockets.
    pub fn listeners(&self) -> Vec<PairKey> {
        self.namespaces.iter().flat_map(|namespace| &*namespace.queues).map(listener_key).collect()
    }
}

/// What names the workload of a listening socket: its control group.
pub fn listener_key(entry: &ListenerEntry) -> PairKey {
    PairKey {
        side: SIDE_UPSTREAM,
        flags: KEY_EXTERNAL,
        port: u16::try_from(entry.port).unwrap_or_default(),
        reserved: 0,
        upstream: address(entry.address).octets(),
        proxy: [0; 16],
        cgroup: entry.cgroup,
    }
}

/// The entries that hold the most ports, at most `keep` over all namespaces, each with its namespace. Among equals the
/// order is that of the addresses, so that series do not come and go.
pub fn largest(namespaces: &[NamespaceLevel], keep: usize) -> Vec<(&NamespaceLevel, &PortEntry)> {
    let mut all: Vec<_> = namespaces
        .iter()
        .flat_map(|namespace| namespace.ports.iter().map(move |entry| (namespace, entry)))
        .collect();
    all.sort_unstable_by(|(a_namespace, a), (b_namespace, b)| {
        let rest = |namespace: &NamespaceLevel, entry: &PortEntry| {
            (namespace.name.clone(), address(entry.source), address(entry.destination), entry.port)
        };
        b.used.cmp(&a.used).then_with(|| rest(a_namespace, a).cmp(&rest(b_namespace, b)))
    });
    all.truncate(keep);
    all
}

/// An address as the programs hand it over.
pub fn address(words: [u64; 2]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (eight, word) in octets.chunks_exact_mut(8).zip(words) {
        eight.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}

/// The reverse of [`address`].
pub fn words(address: Ipv6Addr) -> [u64; 2] {
    let octets = address.octets();
    let (high, low) = octets.split_at(8);
    [high, low].map(|eight| u64::from_ne_bytes(eight.try_into().expect("half of sixteen")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, used: &[(u32, u32)]) -> NamespaceLevel {
        let entry = |&(port, used): &(u32, u32)| PortEntry {
            walk: 1,
            used,
            source: [0; 2],
            destination: [0; 2],
            port,
            reserved: 0,
        };
        NamespaceLevel {
            name: name.into(),
            walks: 1,
            port_limit: 10,
            time_wait_limit: 0,
            time_wait_overflow: 0,
            ports_lost: 0,
            listeners_lost: 0,
            ports: used.iter().map(entry).collect(),
            queues: [].into(),
        }
    }

    #[test]
    fn the_largest_are_kept_over_all_namespaces() {
        let namespaces = [namespace("host", &[(1, 5), (2, 7)]), namespace("7", &[(1, 6), (3, 5)])];
        let kept: Vec<_> = largest(&namespaces, 3)
            .into_iter()
            .map(|(namespace, entry)| (namespace.name.as_str(), entry.port, entry.used))
            .collect();
        assert_eq!(kept, [("host", 2, 7), ("7", 1, 6), ("7", 3, 5)]);
        assert_eq!(largest(&namespaces, 9).len(), 4);
    }

    #[test]
    fn a_state_stays_once_it_was_touched() {
        let mut record =
            LevelRecord { walk: 1, idle: 2, oldest_close_wait: 7, unanswered: 1, sockets: [0; STATE_SLOTS] };
        record.sockets[usize::from(state::ESTABLISHED)] = 2;
        let mut level = PairLevel::default();
        level.add(&record);
        level.add(&record);
        assert_eq!(
            (level.in_state(state::ESTABLISHED), level.idle, level.unanswered, level.oldest_close_wait),
            (Some(4), 4, 2, 7)
        );
        assert_eq!(level.in_state(state::TIME_WAIT), None);
        let mut later = PairLevel { touched: level.touched, ..PairLevel::default() };
        later.merge(&PairLevel::default());
        assert_eq!(later.in_state(state::ESTABLISHED), Some(0));
    }

    #[test]
    fn addresses_are_in_memory_order() {
        let v6: Ipv6Addr = "2001:db8::1".parse().expect("an address");
        assert_eq!(address(words(v6)), v6);
        assert_eq!(words(v6)[0].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0]);
    }
}
