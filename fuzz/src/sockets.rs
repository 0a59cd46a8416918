//! What the kernel lists of its sockets, by the walk's tables or by netlink.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use finwatch::{
    api::observer::{Observer, Sources},
    kernel::{
        conntrack::message::{self, Answer, Ends},
        listeners::Listeners,
        sock_diag::{self, Kind},
    },
    model::{
        labels::ProcessFilter,
        levels::{NamespaceLevel, PairLevel, Snapshot, Walked},
        port_range::PortRange,
        selection::Selection,
        source::LevelSource,
        tally::{PairIndex, Tally},
    },
    recorder::Recorder,
    triage::{
        findings,
        report::{Style, report},
    },
};
use finwatch_ebpf::{
    levels::{LevelRecord, ListenerEntry, PortEntry, Walk},
    wire::PairKey,
};

use crate::{
    input::Input,
    names::Group,
    parsed,
    printed::{check_error, check_text},
    support::{Agent, Pairs, Record, proxy_key, upstream_key},
};

/// Records of each kind in one walk.
const RECORDS: u8 = 6;

/// Levels as a walk found them.
struct Levels(Arc<Snapshot>);

impl LevelSource for Levels {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }

    fn latest(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }
}

/// The tables that a walk leaves behind: they are shown, observed and judged.
pub fn snapshots(data: &[u8]) {
    let mut input = Input::new(data);
    let keys: Vec<PairKey> = input.records(RECORDS);
    let walked = Walked {
        walk: input.record::<Walk>(),
        levels: (0..).zip(input.records::<LevelRecord>(RECORDS)).collect(),
        ports: distinct(input.records::<PortEntry>(RECORDS), |entry| {
            (entry.source, entry.destination, entry.port & 0xffff)
        }),
        queues: input.records::<ListenerEntry>(RECORDS),
    };
    show(keys, walked, input.text().into());
}

/// An answer of netlink: sockets are added up and shown, a tracked connection is told, or it is refused.
pub fn netlink(data: &[u8]) {
    tracked(data);
    let range = PortRange::parse("32768\t60999", "40000-40010").expect("a range");
    let selection = Selection::new([&[], &[]], [&[], &[]], &[]);
    let keys = vec![proxy_key(b"nginx", "127.0.0.1", 8080), upstream_key("127.0.0.1", "127.0.0.1", 8080)];
    let pairs = pairs(keys.clone());
    let index = PairIndex::of(&pairs);
    let mut tally = Tally::new(1, &range, &selection, &index);
    let mut sockets = 0_u64;
    let taken = sock_diag::take(data, &mut |kind, socket| {
        sockets += 1;
        match kind {
            Kind::Listening => tally.listening(socket),
            Kind::Request => tally.request(socket),
            Kind::TimeWait => tally.time_wait(socket, None),
            Kind::Full => tally.full(socket, || None),
        }
    });
    if let Err(error) = taken {
        check_error(&error);
    }
    let walked = tally.finish();
    assert_eq!(walked.walk.sockets, sockets);
    show(keys, walked, "".into());
}

/// Read as the answer to a question of its own number, about the connection that the corpus has.
fn tracked(data: &[u8]) {
    let asked = Ends { source: ([10, 244, 1, 7], 59_134).into(), destination: ([10, 96, 0, 10], 80).into() };
    let sequence =
        data.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    match message::read(data, &asked, sequence) {
        Ok(Answer::Translated(backend)) => assert_ne!(backend, asked.destination),
        Ok(Answer::Untranslated | Answer::Untracked) => {}
        Err(error) => check_error(&error),
    }
}

fn pairs(keys: Vec<PairKey>) -> Pairs {
    Pairs(keys.into_iter().map(|key| Some(Record::new(key).touched_everywhere())).collect())
}

/// The kernel's table has no two entries of one key, whose port has 16 bits.
fn distinct<K: Eq + std::hash::Hash>(
    entries: Vec<PortEntry>,
    key: impl Fn(&PortEntry) -> K,
) -> Vec<PortEntry> {
    let by_key: HashMap<K, PortEntry> = entries
        .into_iter()
        .map(|entry| (key(&entry), PortEntry { port: entry.port & 0xffff, ..entry }))
        .collect();
    by_key.into_values().collect()
}

fn show(keys: Vec<PairKey>, walked: Walked, workload: Arc<str>) {
    static LISTENERS: LazyLock<Arc<Listeners>> = LazyLock::new(Arc::default);
    let mut by_slot: HashMap<u32, PairLevel> = HashMap::new();
    for (slot, record) in &walked.levels {
        by_slot.entry(*slot).or_default().add(record);
    }
    let namespace = NamespaceLevel {
        name: "host".into(),
        walks: 1,
        port_limit: walked.walk.port_high.saturating_sub(walked.walk.port_low),
        time_wait_limit: walked.walk.passing,
        time_wait_overflow: walked.walk.waiting,
        ports_lost: walked.walk.ports_lost,
        listeners_lost: walked.walk.listeners_lost,
        ports: walked.ports.into(),
        queues: walked.queues.into(),
    };
    let levels = Levels(Arc::new(Snapshot {
        taken: Instant::now(),
        duration: Duration::ZERO,
        pairs: by_slot,
        namespaces: vec![namespace],
    }));
    let (pairs, names, levels) = (Arc::new(pairs(keys)), Arc::new(Group(workload)), Arc::new(levels));
    let exporter = finwatch::export::exposition::Exporter::new(
        pairs.clone(),
        names.clone(),
        Arc::new(Agent),
        ProcessFilter::default(),
    );
    parsed::parse(&parsed::text(&exporter.with_levels(levels.clone(), 4)));
    let observer = Observer::new(Sources {
        pairs,
        names,
        agent: Arc::new(Agent),
        levels: Some(levels),
        filter: ProcessFilter::default(),
        listeners: LISTENERS.clone(),
        recorder: Arc::new(Recorder::new(1)),
    });
    let observation = observer.observe(Duration::from_mins(1));
    observer.sums();
    check_text(&report(&observation, &findings(&observation), Style { width: 80, color: false }));
}
