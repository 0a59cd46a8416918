//! Where readers get pair records from.

use finwatch_ebpf::wire::{Counter, Histogram, PairKey, Totals};

/// Which histogram of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistogramId {
    /// Quiet time at the peer's FIN.
    PeerCloseIdle,
    /// Quiet time before each lost request.
    LostRequestIdle,
    /// ESTABLISHED to CLOSE.
    ConnectionDuration,
}

/// The records of all pairs, one per slot. Reading one value costs one load; nothing is copied ahead of time.
pub trait PairSource: Send + Sync {
    /// How many slots there are, free ones included.
    fn slots(&self) -> u32;
    /// Whom the slot counts for; `None` while it is free.
    fn key(&self, slot: u32) -> Option<PairKey>;
    /// The process that opened the pair's first connection, 0 when unknown.
    fn pid(&self, slot: u32) -> u32;
    /// One counter.
    fn counter(&self, slot: u32, counter: Counter) -> u64;
    /// One histogram.
    fn histogram(&self, slot: u32, id: HistogramId) -> Histogram;
    /// The host-wide counts.
    fn totals(&self) -> Totals;
}
