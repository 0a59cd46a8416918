//! A round: every network namespace in which something may have changed is walked, and one snapshot comes of it.

use std::{
    collections::HashMap as StdHashMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use finwatch_ebpf::{live, wire::PairKey};

use super::{
    error::KernelError,
    known::Known,
    loader::{Options, host_netns, own_netns, take_array, typed},
    mapped::Tables,
    missed::Missed,
    namespaces::{Facts, Home, scan},
    processes::Processes,
    reader::Reader,
    visit::Visit,
};
use crate::model::{
    levels::{PairLevel, Snapshot},
    source::PairSource as _,
};

/// After this long namespaces are looked for again, whether or not events announced one.
const SCAN_ANYWAY: Duration = Duration::from_mins(1);
/// Shortest time between two looks at all open files, and between two searches for missed ends.
const SELDOM: Duration = Duration::from_secs(30);

/// What rounds need, taken out of the eBPF object.
pub struct Parts {
    /// Reads one namespace.
    pub reader: Reader,
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
    /// Takes them out of `ebpf`.
    ///
    /// # Errors
    /// When the two halves were not built together.
    pub fn take(
        ebpf: &mut Ebpf,
        reader: Reader,
        tables: &Arc<Tables>,
        options: &Options,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            reader,
            tables: tables.clone(),
            announced: typed(ebpf, "NAMESPACES")?,
            processes: Processes::new(typed(ebpf, "PROCESSES")?),
            missed: Missed::new(
                take_array(ebpf, "CONNECTIONS")?,
                typed(ebpf, "ELSEWHERE")?,
                typed(ebpf, "EXCHANGES")?,
                live::places(options.max_connections),
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
    known: Known,
    scanned: Option<Instant>,
    searched: Option<Instant>,
    looked: Option<Instant>,
    touched: StdHashMap<u32, (u32, u16)>,
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
            known: Known::default(),
            scanned: None,
            searched: None,
            looked: None,
            touched: StdHashMap::new(),
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
        let holders = self.parts.reader.needs_holders();
        if holders {
            self.parts.processes.fill();
        }
        let untracked = self.walk_all(begun, false);
        if holders {
            self.parts.processes.empty();
        }
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
        let new = announced.iter().any(|inode| !self.known.contains(*inode));
        let due = self.scanned.is_none_or(|scanned| now.duration_since(scanned) >= SCAN_ANYWAY);
        if !new && !due {
            return;
        }
        self.scanned = Some(now);
        let found = if self.parts.own_only {
            StdHashMap::from([(own_netns(), PathBuf::from("/proc/self/ns/net"))])
        } else {
            scan(&announced, due)
        };
        self.known.found(found);
    }

    /// Walks where it is needed; returns the namespaces in which untracked connections were met.
    fn walk_all(&mut self, now: Instant, adopts: bool) -> Vec<u32> {
        self.known.inodes().into_iter().filter(|inode| self.visit(*inode, now, adopts)).collect()
    }

    /// Walks one namespace if it is needed; tells whether untracked connections were met.
    fn visit(&mut self, inode: u32, now: Instant, adopts: bool) -> bool {
        let Some((path, last)) = self.known.get(inode) else { return false };
        let walks = last.map_or(0, |last| last.level.walks) + 1;
        let Parts { reader, processes, .. } = &mut self.parts;
        let result = self.home.visit(inode, path, || {
            let facts = Facts::read()?;
            if !adopts && last.is_some_and(|last| last.still_holds(&facts, now)) {
                return Ok((facts, None));
            }
            let found = reader.read(inode, &facts.range, adopts, processes)?;
            Ok::<_, io::Error>((facts, Some(found)))
        });
        match result.flatten() {
            Ok((_, None)) => false,
            Ok((facts, Some(found))) => {
                let untracked = found.walk.untracked > 0;
                self.known.read(inode, Visit::new(now, facts, found, (name(inode, self.host), walks)));
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
        if error.kind() != io::ErrorKind::PermissionDenied {
            self.known.lost(inode);
            self.scanned = None;
        } else if self.known.refused(inode) {
            tracing::warn!(
                netns = inode,
                "a network namespace may not be entered (CAP_SYS_ADMIN and CAP_SYS_PTRACE are missing): its sockets \
                 are not shown"
            );
        }
        tracing::debug!(netns = inode, %error, "a network namespace was not walked");
    }

    fn search_missed(&mut self, now: Instant) {
        let met: u64 = self.known.visits().map(|last| last.tracked).sum();
        if !self.parts.reader.meets_connections() || self.parts.tables.totals().tracked <= met {
            self.known.clear_gone();
            return;
        }
        if !is_due(self.searched, now) {
            return;
        }
        self.searched = Some(now);
        // What is gone must be so now.
        self.scanned = None;
        self.discover(now);
        if let Err(error) = self.parts.missed.search(&self.parts.tables, |inode| self.known.last_walk(inode))
        {
            tracing::warn!(%error, "connections whose end was missed cannot be looked for");
        }
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
        for (slot, record) in self.known.visits().flat_map(|last| &last.levels) {
            pairs.entry(*slot).or_default().add(record);
        }
        for (slot, level) in &pairs {
            self.touched.insert(*slot, (tables.generation(*slot), level.touched));
        }
        Snapshot {
            taken: begun,
            duration: begun.elapsed(),
            pairs,
            namespaces: self.known.visits().map(|last| last.level.clone()).collect(),
        }
    }
}

fn is_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= SELDOM)
}

fn name(inode: u32, host: u32) -> String {
    if inode == host { "host".into() } else { inode.to_string() }
}
