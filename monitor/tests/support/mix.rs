//! Pairs to which something stated has happened, for sizes and times that depend on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use finwatch::{
    export::exposition::Exporter,
    model::{
        labels::ProcessFilter,
        levels::{PairLevel, Snapshot},
        source::{AgentSource, AgentState, HistogramId, LevelSource, PairSource},
    },
};
use finwatch_ebpf::{
    histogram::SLOTS,
    levels::STATE_SLOTS,
    state::{ESTABLISHED, FIN_WAIT2, TIME_WAIT},
    wire::{Counter, Histogram, PairKey, Totals},
};

use crate::support::{Agent, Units, proxy_key, totals};

const HOUR: Duration = Duration::from_hours(1);
/// What everything has counted at the start.
const COUNTED: u64 = 123_456;

/// An agent as it is unless more is asked of it.
struct Usual;

impl AgentSource for Usual {
    fn state(&self) -> AgentState {
        AgentState { lookups: Vec::new(), ..Agent.state() }
    }
}

/// What has happened to a pair, and which states its sockets were ever in.
pub(crate) struct Mix {
    pub(crate) name: &'static str,
    counts: fn(Counter) -> bool,
    histograms: &'static [HistogramId],
    states: &'static [u8],
}

/// Next to nothing.
pub(crate) const KEPT: Mix = Mix {
    name: "one connection, kept",
    counts: |counter| counter == Counter::Opened,
    histograms: &[],
    states: &[ESTABLISHED],
};

/// What a proxy's pairs mostly are like.
pub(crate) const USUAL: Mix = Mix {
    name: "usual: two ways of closing, three states, two histograms",
    counts: |counter| {
        use Counter::{ClosedLocal, ClosedPeer, Opened, TimeWaitEntered};
        [Opened, ClosedLocal, ClosedPeer, TimeWaitEntered].contains(&counter)
    },
    histograms: &[HistogramId::PeerCloseIdle, HistogramId::ConnectionDuration],
    states: &[ESTABLISHED, FIN_WAIT2, TIME_WAIT],
};

/// All there can be.
pub(crate) const EVERYTHING: Mix = Mix {
    name: "everything that there is, requests followed",
    counts: |_| true,
    histograms: &HistogramId::ALL,
    states: &[1, 2, 3, 4, 5, 6, 8, 9, 11],
};

/// An exporter of so many pairs of one mix, whose counts rise by themselves from `begun` on: once a second, each by its
/// own number.
pub(crate) fn exporter(mix: &'static Mix, pairs: u32, begun: Instant) -> Exporter {
    let touched = mix.states.iter().fold(0, |bits, state| bits | 1 << state);
    let level = PairLevel { sockets: [12; STATE_SLOTS], idle: 9, touched, ..PairLevel::default() };
    let snapshot = Snapshot {
        // Still to come, so its age prints as 0.
        taken: Instant::now() + HOUR,
        duration: Duration::ZERO,
        pairs: (0..pairs).map(|slot| (slot, level)).collect(),
        namespaces: Vec::new(),
    };
    let source = Arc::new(Pairs { mix, count: pairs, begun });
    Exporter::new(source, Arc::new(Units), Arc::new(Usual), ProcessFilter::default())
        .with_levels(Arc::new(Levels(Arc::new(snapshot))), 0)
}

struct Pairs {
    mix: &'static Mix,
    count: u32,
    begun: Instant,
}

impl Pairs {
    fn counted(&self, number: u64) -> u64 {
        COUNTED + number * self.begun.elapsed().as_secs()
    }
}

impl PairSource for Pairs {
    fn slots(&self) -> u32 {
        self.count
    }

    fn key(&self, slot: u32) -> Option<PairKey> {
        let upstream = format!("10.0.{}.{}", slot >> 8, slot & 0xff);
        Some(PairKey { cgroup: u64::from(slot) + 1, ..proxy_key(b"nginx", &upstream, 8080) })
    }

    fn pid(&self, _slot: u32) -> u32 {
        1
    }

    fn generation(&self, _slot: u32) -> u32 {
        1
    }

    fn counter(&self, slot: u32, counter: Counter) -> u64 {
        if (self.mix.counts)(counter) { self.counted(u64::from(slot) + counter as u64) } else { 0 }
    }

    fn histogram(&self, slot: u32, id: HistogramId) -> Histogram {
        let touched = u64::from(self.mix.histograms.contains(&id));
        let each = self.counted(u64::from(slot)) / SLOTS as u64;
        Histogram { sum: each * 1_000 * touched, slots: [each * touched; SLOTS] }
    }

    fn follows_requests(&self) -> bool {
        self.mix.histograms.contains(&HistogramId::TimeToFirstByte)
    }

    fn totals(&self) -> Totals {
        totals()
    }
}

struct Levels(Arc<Snapshot>);

impl LevelSource for Levels {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }

    fn latest(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }
}
