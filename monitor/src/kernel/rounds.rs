//! A round: every network namespace in which something may have changed is walked, and one snapshot comes of it.

use std::{
    collections::{BTreeMap, HashMap as StdHashMap, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use finwatch_ebpf::{state, wire::PairKey};

use super::{
    loader::{KernelError, Options, host_netns, own_netns, typed},
    mapped::Tables,
    missed::Missed,
    namespaces::{Facts, Home, scan},
    processes::Processes,
    walker::{Walked, Walker},
};
use crate::model::{
    levels::{NamespaceLevel, PairLevel, Snapshot},
    source::PairSource as _,
};

/// After this long a namespace is walked again whatever it says: listening sockets come and go without a segment.
const WALK_ANYWAY: Duration = Duration::from_mins(1);
/// After this long namespaces are looked for again, whether or not events announced one.
const SCAN_ANYWAY: Duration = Duration::from_mins(1);
/// Shortest time between two looks at all open files, and between two searches for missed ends.
const SELDOM: Duration = Duration::from_secs(30);

/// What rounds need, taken out of the eBPF object.
pub struct Parts {
    /// The iterator and its tables.
    pub walker: Walker,
    /// The pairs' records.
    pub tables: Arc<Tables>,
    /// Namespaces that events announce.
    pub announced: HashMap<MapData, u32, u32>,
    /// Who holds which socket.
    pub processes: Processes,
    /// Finds missed ends.
    pub missed: Missed,
    /// Only the namespace that the agent runs in.
    pub own_only: bool,
}

impl Parts {
    /// Takes them out of `ebpf`, whose iterator is loaded.
    ///
    /// # Errors
    /// When the kernel refuses to attach the iterator or to map its tables.
    pub fn take(ebpf: &mut Ebpf, tables: &Arc<Tables>, options: &Options) -> Result<Self, KernelError> {
        Ok(Self {
            walker: Walker::new(ebpf, tables.clone())?,
            tables: tables.clone(),
            announced: typed(ebpf, "NAMESPACES")?,
            processes: Processes::new(typed(ebpf, "PROCESSES")?),
            missed: Missed::new(
                typed(ebpf, "CONNECTIONS")?,
                typed(ebpf, "EXCHANGES")?,
                options.max_connections,
            ),
            own_only: options.own_netns_only,
        })
    }
}

/// Makes rounds, one at a time, on a thread of their own.
pub struct Rounds {
    parts: Parts,
    home: Home,
    host: u32,
    known: BTreeMap<u32, Namespace>,
    scanned: Option<Instant>,
    searched: Option<Instant>,
    looked: Option<Instant>,
    touched: StdHashMap<u32, (u32, u16)>,
    refused: HashSet<u32>,
}

struct Namespace {
    path: PathBuf,
    last: Option<Visit>,
}

/// The last walk in a namespace.
struct Visit {
    at: Instant,
    facts: Facts,
    id: u32,
    tracked: u64,
    /// Nothing in it changes without a segment.
    settled: bool,
    levels: Vec<(u32, finwatch_ebpf::levels::LevelRecord)>,
    level: NamespaceLevel,
}

impl Rounds {
    /// To be called on the thread that makes the rounds.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn new(parts: Parts) -> io::Result<Self> {
        Ok(Self {
            parts,
            home: Home::new()?,
            host: host_netns(),
            known: BTreeMap::new(),
            scanned: None,
            searched: None,
            looked: None,
            touched: StdHashMap::new(),
            refused: HashSet::new(),
        })
    }

    /// The first round: connections that were there before are taken in.
    pub fn adopt(&mut self) -> Snapshot {
        let begun = Instant::now();
        self.parts.processes.fill();
        self.discover(begun);
        self.walk_all(begun, true);
        self.parts.processes.empty();
        self.looked = Some(begun);
        self.snapshot(begun)
    }

    /// Any later round.
    pub fn round(&mut self) -> Snapshot {
        let begun = Instant::now();
        self.discover(begun);
        let untracked = self.walk_all(begun, false);
        if !untracked.is_empty() && is_due(self.looked, begun) {
            self.looked = Some(begun);
            self.parts.processes.fill();
            for inode in untracked {
                self.visit(inode, begun, true);
            }
            self.parts.processes.empty();
        }
        self.search_missed(begun);
        self.snapshot(begun)
    }

    fn discover(&mut self, now: Instant) {
        let announced: Vec<u32> = self.parts.announced.keys().filter_map(Result::ok).collect();
        for inode in &announced {
            // Gone already when the table was full: nothing is lost by it.
            if let Err(error) = self.parts.announced.remove(inode) {
                tracing::trace!(%error, inode, "an announcement is gone");
            }
        }
        let new = announced.iter().any(|inode| !self.known.contains_key(inode));
        let due = self.scanned.is_none_or(|scanned| now.duration_since(scanned) >= SCAN_ANYWAY);
        if !new && !due {
            return;
        }
        self.scanned = Some(now);
        let found = if self.parts.own_only {
            StdHashMap::from([(own_netns(), PathBuf::from("/proc/self/ns/net"))])
        } else {
            scan()
        };
        self.refused.retain(|inode| found.contains_key(inode));
        self.known.retain(|inode, _| found.contains_key(inode));
        for (inode, path) in found {
            let namespace = self.known.entry(inode).or_insert(Namespace { path: PathBuf::new(), last: None });
            namespace.path = path;
        }
    }

    /// Walks where it is needed; returns the namespaces in which untracked connections were met.
    fn walk_all(&mut self, now: Instant, adopts: bool) -> Vec<u32> {
        let all: Vec<u32> = self.known.keys().copied().collect();
        all.into_iter().filter(|inode| self.visit(*inode, now, adopts)).collect()
    }

    /// Walks one namespace if it is needed; tells whether untracked connections were met.
    fn visit(&mut self, inode: u32, now: Instant, adopts: bool) -> bool {
        let Some(namespace) = self.known.get_mut(&inode) else { return false };
        let last = namespace.last.as_ref();
        let walker = &mut self.parts.walker;
        let result = self.home.visit(inode, &namespace.path, || {
            let facts = Facts::read()?;
            if !adopts && last.is_some_and(|last| last.still_holds(&facts, now)) {
                return Ok((facts, None));
            }
            let found = walker.walk(&facts.range, adopts)?;
            Ok::<_, io::Error>((facts, Some(found)))
        });
        match result.flatten() {
            Ok((_, None)) => false,
            Ok((facts, Some(found))) => {
                let untracked = found.walk.untracked > 0;
                namespace.last = Some(Visit::new(now, facts, found, name(inode, self.host)));
                untracked
            }
            Err(error) => {
                self.lost(inode, &error);
                false
            }
        }
    }

    /// A namespace that cannot be entered: gone, most often. The next round finds it again if there is another way to
    /// it.
    fn lost(&mut self, inode: u32, error: &io::Error) {
        self.known.remove(&inode);
        if error.kind() != io::ErrorKind::PermissionDenied {
            self.scanned = None;
        } else if self.refused.insert(inode) {
            tracing::warn!(
                netns = inode,
                "a network namespace may not be entered (CAP_SYS_ADMIN and CAP_SYS_PTRACE are missing): its sockets \
                 are not shown"
            );
        }
        tracing::debug!(netns = inode, %error, "a network namespace was not walked");
    }

    fn search_missed(&mut self, now: Instant) {
        let met: u64 =
            self.known.values().filter_map(|known| known.last.as_ref()).map(|last| last.tracked).sum();
        if self.parts.tables.totals().tracked <= met || !is_due(self.searched, now) {
            return;
        }
        self.searched = Some(now);
        let known = &self.known;
        let last_walk = |inode| known.get(&inode)?.last.as_ref().map(|last| last.id);
        self.parts.missed.search(&self.parts.tables, last_walk);
    }

    fn snapshot(&mut self, begun: Instant) -> Snapshot {
        let tables = &self.parts.tables;
        self.touched.retain(|slot, (generation, _)| {
            tables.key(*slot).is_some_and(|_key: PairKey| tables.generation(*slot) == *generation)
        });
        let mut pairs: StdHashMap<u32, PairLevel> = self
            .touched
            .iter()
            .map(|(slot, (_, touched))| (*slot, PairLevel { touched: *touched, ..PairLevel::default() }))
            .collect();
        let visits = || self.known.values().filter_map(|known| known.last.as_ref());
        for (slot, record) in visits().flat_map(|last| &last.levels) {
            pairs.entry(*slot).or_default().add(record);
        }
        for (slot, level) in &pairs {
            self.touched.insert(*slot, (tables.generation(*slot), level.touched));
        }
        Snapshot {
            taken: begun,
            duration: begun.elapsed(),
            pairs,
            namespaces: visits().map(|last| last.level.clone()).collect(),
        }
    }
}

impl Visit {
    fn new(at: Instant, facts: Facts, walked: Walked, name: String) -> Self {
        let Walked { walk, levels, ports, queues } = walked;
        let established = usize::from(state::ESTABLISHED);
        let busy = levels.iter().any(|(_, record)| record.sockets[established] != record.idle);
        let level = NamespaceLevel {
            name,
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

    fn still_holds(&self, facts: &Facts, now: Instant) -> bool {
        self.settled && self.facts == *facts && now.duration_since(self.at) < WALK_ANYWAY
    }
}

fn is_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= SELDOM)
}

fn name(inode: u32, host: u32) -> String {
    if inode == host { "host".into() } else { inode.to_string() }
}
