//! What happens per second: differences of two sums over the time between them, and the last minutes of these.

use std::collections::{BTreeMap, VecDeque};

use finwatch_ebpf::wire::Counter;

use crate::model::{counts::Counts, families::COUNTER_FAMILIES, labels::Labels, sums::Sums};

/// Points that a graph remembers: five minutes of two seconds each.
const POINTS: usize = 150;

/// What happens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Connections opened.
    pub opened: f64,
    /// Requests lost to closed connections.
    pub lost: f64,
    /// Resets, received and sent.
    pub resets: f64,
}

impl Rate {
    fn new(counts: &Counts, seconds: f64) -> Self {
        let per_second = |count: u64| count as f64 / seconds;
        Self {
            opened: per_second(counts.get(Counter::Opened)),
            lost: per_second(lost(counts)),
            resets: per_second(family(counts, "resets_received_total") + family(counts, "resets_sent_total")),
        }
    }
}

/// The sum of a family's counters.
fn family(counts: &Counts, name: &str) -> u64 {
    let family = COUNTER_FAMILIES.iter().filter(|family| family.name == name);
    family.flat_map(|family| family.counters).map(|labelled| counts.get(labelled.counter)).sum()
}

/// Requests lost to closed connections.
pub fn lost(counts: &Counts) -> u64 {
    family(counts, "requests_on_peer_closed_socket_total")
}

/// The last rates, oldest first.
pub type Series = VecDeque<Rate>;

/// The rates of every pair and of the host.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    last: Option<Sums>,
    pairs: BTreeMap<Labels, Series>,
    host: Series,
}

impl Rates {
    /// Takes in a sum; the first one, and the first of another run of the agent, only begin.
    pub fn add(&mut self, sums: Sums) {
        let growth = self.last.as_ref().and_then(|last| sums.since(last));
        self.last = Some(sums);
        let Some(growth) = growth else {
            self.pairs.clear();
            self.host.clear();
            return;
        };
        let mut all = Counts::default();
        let mut pairs = std::mem::take(&mut self.pairs);
        for (labels, counts) in growth.pairs {
            all.add_all(&counts);
            let mut series = pairs.remove(&labels).unwrap_or_default();
            push(&mut series, Rate::new(&counts, growth.seconds));
            self.pairs.insert(labels, series);
        }
        push(&mut self.host, Rate::new(&all, growth.seconds));
    }

    /// The daemon is gone: what comes next is of another run.
    pub fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// A pair's rates; empty before there are any.
    pub fn of(&self, labels: &Labels) -> Series {
        self.pairs.get(labels).cloned().unwrap_or_default()
    }

    /// Those of all pairs together.
    pub const fn host(&self) -> &Series {
        &self.host
    }
}

fn push(series: &mut Series, rate: Rate) {
    if series.len() == POINTS {
        series.pop_front();
    }
    series.push_back(rate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{labels::Side, sums::PairSum};

    fn labels() -> Labels {
        Labels {
            side: Side::Proxy,
            proxy: "nginx".into(),
            upstream: "10.0.0.5:80".into(),
            workload: String::new(),
        }
    }

    fn sums(watched_seconds: f64, opened: u64, resets: u64) -> Sums {
        let mut counts = Counts::default();
        counts.add(Counter::Opened, opened);
        counts.add(Counter::ResetIdle, resets);
        counts.add(Counter::SentAbort, resets);
        let sums = vec![PairSum { slot: 1, generation: 0, labels: labels(), counts }];
        Sums { watched_seconds, sums }
    }

    #[test]
    fn a_rate_is_the_difference_over_the_measured_time() {
        let mut rates = Rates::default();
        rates.add(sums(100.0, 1_000, 7));
        assert_eq!(rates.of(&labels()), Series::new(), "one sum tells no rate");
        rates.add(sums(102.5, 1_010, 12));
        let rate = Rate { opened: 4.0, lost: 0.0, resets: 4.0 };
        assert_eq!((rates.of(&labels()), rates.host().clone()), ([rate].into(), [rate].into()));
    }

    #[test]
    fn another_run_begins_anew_and_graphs_are_bounded() {
        let mut rates = Rates::default();
        for tick in 0..400_u32 {
            rates.add(sums(f64::from(tick), 0, 0));
        }
        assert_eq!((rates.of(&labels()).len(), rates.host().len()), (POINTS, POINTS));
        rates.add(sums(1.0, 5, 0));
        assert!(rates.host().is_empty());
    }
}
