//! Sources with made-up contents.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use finwatch::{
    export::exposition::Exporter,
    model::{
        labels::ProcessFilter,
        levels::{NamespaceLevel, PairLevel, Snapshot},
        names::Names,
        source::{
            AgentSource, AgentState, HistogramId, HookMode, HookState, LevelSource, NameSource, PairSource,
            ProgramStats,
        },
    },
};
use finwatch_ebpf::{
    histogram::SLOTS,
    levels::{ListenerEntry, PortEntry, STATE_SLOTS},
    wire::{COUNTERS, Counter, Histogram, PairKey, SIDE_PROXY, SIDE_UPSTREAM, Totals},
};

/// One pair's record.
pub(crate) struct Record {
    pub(crate) key: PairKey,
    pub(crate) counters: [AtomicU64; COUNTERS],
    pub(crate) histogram: Histogram,
}

impl Record {
    pub(crate) fn new(key: PairKey) -> Self {
        Self { key, counters: [const { AtomicU64::new(0) }; COUNTERS], histogram: empty() }
    }

    pub(crate) fn count(self, counter: Counter, count: u64) -> Self {
        self.counters[counter as usize].store(count, Ordering::Relaxed);
        self
    }

    /// Every counter and every slot of every histogram above 0.
    pub(crate) fn touched_everywhere(mut self) -> Self {
        for (n, counter) in (1_234_567..).zip(&self.counters) {
            counter.store(n, Ordering::Relaxed);
        }
        self.histogram = Histogram { sum: 123_456_789, slots: [98_765; SLOTS] };
        self
    }
}

fn empty() -> Histogram {
    Histogram { sum: 0, slots: [0; SLOTS] }
}

pub(crate) fn totals() -> Totals {
    Totals {
        tracked: 11,
        displaced: 0,
        untracked: 12,
        pairs: 13,
        folded: 14,
        closed: 15,
        closed_evicted: 20,
        resets_no_socket: 16,
        resets_untracked: 21,
        incidents: 17,
        incidents_lost: 18,
        incidents_limited: 19,
        adopted: 20,
        missed_end: 21,
    }
}

/// Slots, some of them free.
#[derive(Default)]
pub(crate) struct Pairs(pub(crate) Vec<Option<Record>>);

impl Pairs {
    fn at(&self, slot: u32) -> Option<&Record> {
        self.0[slot as usize].as_ref()
    }
}

impl PairSource for Pairs {
    fn slots(&self) -> u32 {
        u32::try_from(self.0.len()).expect("few slots")
    }

    fn key(&self, slot: u32) -> Option<PairKey> {
        self.at(slot).map(|record| record.key)
    }

    fn pid(&self, _slot: u32) -> u32 {
        1
    }

    fn generation(&self, _slot: u32) -> u32 {
        1
    }

    fn counter(&self, slot: u32, counter: Counter) -> u64 {
        self.at(slot).map_or(0, |record| record.counters[counter as usize].load(Ordering::Relaxed))
    }

    fn histogram(&self, slot: u32, _id: HistogramId) -> Histogram {
        self.at(slot).map_or(empty(), |record| record.histogram)
    }

    fn follows_requests(&self) -> bool {
        true
    }

    fn totals(&self) -> Totals {
        totals()
    }
}

/// Every pair belongs to the unit of its control group's number; number 0 to none.
pub(crate) struct Units;

impl NameSource for Units {
    fn workload(&self, key: &PairKey, _pid: u32) -> Arc<str> {
        if key.cgroup == 0 { "".into() } else { format!("unit-{}.service", key.cgroup % 100).into() }
    }

    fn addresses(&self) -> Arc<Names> {
        Arc::default()
    }
}

pub(crate) struct Agent;

impl AgentSource for Agent {
    fn state(&self) -> AgentState {
        let program =
            |program: &str| ProgramStats { program: program.into(), runs: 5, run_seconds: 0.25, missed: 1 };
        let hook = |hook: &str, mode| HookState { hook: hook.into(), mode };
        AgentState {
            pairs_limit: 4096,
            pairs_expired: 2,
            tracked_connections_limit: 131_072,
            closed_connections_limit: 65_536,
            incident_file_errors: 22,
            name_errors: [("docker", 1), ("kubernetes", 2)],
            lookups: vec![("translated", 3), ("untranslated", 4), ("untracked", 5), ("failed", 6)],
            programs: vec![program("inet_sock_set_state"), program("tcp_receive_reset")],
            hooks: vec![
                hook("inet_sock_set_state", HookMode::Full),
                hook("tcp_send_reset", HookMode::Partial),
            ],
            config_ok: true,
        }
    }
}

pub(crate) fn proxy_key(process: &[u8], upstream: &str, port: u16) -> PairKey {
    let mut proxy = [0; 16];
    proxy[..process.len()].copy_from_slice(process);
    PairKey { side: SIDE_PROXY, flags: 0, port, reserved: 0, upstream: address(upstream), proxy, cgroup: 0 }
}

pub(crate) fn upstream_key(remote: &str, upstream: &str, port: u16) -> PairKey {
    let (upstream, proxy) = (address(upstream), address(remote));
    PairKey { side: SIDE_UPSTREAM, flags: 0, port, reserved: 0, upstream, proxy, cgroup: 0 }
}

fn address(text: &str) -> [u8; 16] {
    match text.parse().expect("an address") {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// As many pairs as told, each on its own upstream, every counter and histogram touched.
pub(crate) fn busy_pairs(count: u16) -> Pairs {
    let record = |n: u16| {
        let mut key = proxy_key(b"nginx", &format!("10.0.{}.{}", n >> 8, n & 0xff), 8080);
        key.cgroup = u64::from(n) + 1;
        Some(Record::new(key).touched_everywhere())
    };
    Pairs((0..count).map(record).collect())
}

pub(crate) fn exporter(pairs: Pairs) -> Exporter {
    filtered(pairs, ProcessFilter::default())
}

pub(crate) fn filtered(pairs: Pairs, filter: ProcessFilter) -> Exporter {
    Exporter::new(Arc::new(pairs), Arc::new(Units), Arc::new(Agent), filter)
}

/// A snapshot that never ages.
pub(crate) struct Levels(Arc<Snapshot>);

impl LevelSource for Levels {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }

    fn latest(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }
}

/// Levels of the first so many slots: each pair has as many sockets in a state as the state's number, and one idle.
/// Port 443 of 10.0.0.1 has 5 of 10 ports, port 80 has 7; one listening socket has two sockets, each 1 of 128.
pub(crate) fn levels(slots: u32) -> Levels {
    let mut sockets = [0; STATE_SLOTS];
    for (state, count) in (0..12_u32).zip(&mut sockets) {
        *count = state;
    }
    let level = PairLevel { sockets, idle: 1, touched: 0x0ffe, ..PairLevel::default() };
    let words = |text: &str| {
        let octets = address(text);
        [0, 8].map(|from| u64::from_ne_bytes(octets[from..from + 8].try_into().expect("eight bytes")))
    };
    let port = |port, used| PortEntry {
        walk: 1,
        used,
        source: words("10.0.0.9"),
        destination: words("10.0.0.1"),
        port,
        reserved: 0,
    };
    let queue = ListenerEntry { walk: 1, port: 443, address: words("::"), cgroup: 3, length: 1, limit: 128 };
    let namespace = NamespaceLevel {
        name: "host".into(),
        walks: 3,
        port_limit: 10,
        time_wait_limit: 4096,
        time_wait_overflow: 2,
        ports_lost: 3,
        listeners_lost: 4,
        ports: [port(443, 5), port(80, 7)].into(),
        queues: [queue, ListenerEntry { cgroup: 103, ..queue }].into(),
    };
    Levels(Arc::new(Snapshot {
        taken: Instant::now(),
        duration: Duration::from_millis(5),
        pairs: (0..slots).map(|slot| (slot, level)).collect(),
        namespaces: vec![namespace],
    }))
}
