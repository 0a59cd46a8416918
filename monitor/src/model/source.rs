//! Where readers get pair records, names and the agent's own state from.

use std::sync::{Arc, RwLockReadGuard};

use super::{levels::Snapshot, names::Names};
use finwatch_ebpf::wire::{Counter, Histogram, PairKey, Totals};

/// Which histogram of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistogramId {
    /// Quiet time at the peer's FIN.
    PeerCloseIdle,
    /// Quiet time at our FIN.
    LocalCloseIdle,
    /// Quiet time before each lost request.
    LostRequestIdle,
    /// ESTABLISHED to CLOSE.
    ConnectionDuration,
    /// From a request's first byte to its answer's.
    TimeToFirstByte,
    /// Requests answered on each connection that has ended.
    RequestsPerConnection,
}

impl HistogramId {
    /// Every histogram.
    pub const ALL: [Self; 6] = [
        Self::PeerCloseIdle,
        Self::LocalCloseIdle,
        Self::LostRequestIdle,
        Self::ConnectionDuration,
        Self::TimeToFirstByte,
        Self::RequestsPerConnection,
    ];
}

/// The records of all pairs, one per slot. Reading one value costs one load; nothing is copied ahead of time.
pub trait PairSource: Send + Sync {
    /// How many slots there are, free ones included.
    fn slots(&self) -> u32;
    /// Whom the slot counts for; `None` while it is free.
    fn key(&self, slot: u32) -> Option<PairKey>;
    /// The process that opened the pair's first connection, 0 when unknown.
    fn pid(&self, slot: u32) -> u32;
    /// Which of the pairs that had the slot one after the other has it now.
    fn generation(&self, slot: u32) -> u32;
    /// One counter.
    fn counter(&self, slot: u32, counter: Counter) -> u64;
    /// One histogram.
    fn histogram(&self, slot: u32, id: HistogramId) -> Histogram;
    /// Whether requests are followed.
    fn follows_requests(&self) -> bool;
    /// The host-wide counts.
    fn totals(&self) -> Totals;
    /// While this is held no slot changes its pair, so that sums over slots neither miss nor double what one slot hands
    /// to another.
    fn steady(&self) -> Option<RwLockReadGuard<'_, ()>> {
        None
    }
}

/// Names what pairs print.
pub trait NameSource: Send + Sync {
    /// The systemd unit, container or pod; empty when unknown. Called for every pair during a scrape: must not block.
    fn workload(&self, key: &PairKey, pid: u32) -> Arc<str>;
    /// The names of addresses. Called once per scrape: must not block.
    fn addresses(&self) -> Arc<Names>;
}

/// Reads how things stand.
pub trait LevelSource: Send + Sync {
    /// A snapshot that is fresh enough, or the latest where a fresh one takes too long. May block.
    fn snapshot(&self) -> Option<Arc<Snapshot>>;
    /// The latest, however old. Does not block.
    fn latest(&self) -> Option<Arc<Snapshot>>;
}

/// What the agent knows about itself.
pub trait AgentSource: Send + Sync {
    /// The facts as they are now. Called once per scrape, from a thread that may block.
    fn state(&self) -> AgentState;
}

/// The agent's limits, programs and hooks.
#[derive(Clone, Debug, Default)]
pub struct AgentState {
    /// Pairs the map has room for.
    pub pairs_limit: u64,
    /// Pairs dropped because nothing happened for the time to live.
    pub pairs_expired: u64,
    /// Live connections the map has room for.
    pub tracked_connections_limit: u64,
    /// Closed connections the map has room for; it holds the newest.
    pub closed_connections_limit: u64,
    /// Incidents that could not be written to the incident file.
    pub incident_file_errors: u64,
    /// Requests for names that failed, by whom was asked.
    pub name_errors: [(&'static str, u64); 2],
    /// What became of questions to the kernel's connection tracking; nothing where it is not asked.
    pub lookups: Vec<(&'static str, u64)>,
    /// What the kernel says about each program.
    pub programs: Vec<ProgramStats>,
    /// Each hook, and how much of it works.
    pub hooks: Vec<HookState>,
    /// Whether the configuration was accepted when it was last read.
    pub config_ok: bool,
}

/// The kernel's statistics about one program.
#[derive(Clone, Debug)]
pub struct ProgramStats {
    /// Its name.
    pub program: String,
    /// How often it ran (counted by the kernel only while `kernel.bpf_stats_enabled` is 1).
    pub runs: u64,
    /// Time it ran for in seconds (likewise).
    pub run_seconds: f64,
    /// Runs skipped because it would have interrupted itself.
    pub missed: u64,
}

/// One hook.
#[derive(Clone, Debug)]
pub struct HookState {
    /// Its name.
    pub hook: String,
    /// How much of it works on this kernel.
    pub mode: HookMode,
}

/// How much of a hook works on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookMode {
    /// Everything.
    Full,
    /// Attached, but the kernel does not show all of it.
    Partial,
    /// Not attached.
    Off,
}

impl HookMode {
    /// Every mode, in the order of exposition.
    pub const ALL: [Self; 3] = [Self::Full, Self::Partial, Self::Off];

    /// The mode as label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Off => "off",
        }
    }
}
