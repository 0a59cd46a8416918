//! What every record has counted in all: who asks twice has what happened in between, to the unit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{counts::Counts, labels::Labels};

/// All records at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// For how long the agent had watched then.
    pub watched_seconds: f64,
    /// One per record.
    pub sums: Vec<PairSum>,
}

/// One record. Several may print the same labels, and labels may change while a record stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairSum {
    /// Where the record is.
    pub slot: u32,
    /// Which of the pairs that had the slot one after the other.
    pub generation: u32,
    /// What it prints.
    #[serde(flatten)]
    pub labels: Labels,
    /// What it has counted in all.
    pub counts: Counts,
}

impl PairSum {
    const fn record(&self) -> (u32, u32) {
        (self.slot, self.generation)
    }
}

/// What happened between two moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// How long that was.
    pub seconds: f64,
    /// By pair, zeros included.
    pub pairs: BTreeMap<Labels, Counts>,
}

impl Sums {
    /// What happened since `earlier`; `None` where that is of another run of the agent, or of the same moment.
    pub fn since(&self, earlier: &Self) -> Option<Growth> {
        let seconds = self.watched_seconds - earlier.watched_seconds;
        if seconds <= 0.0 {
            return None;
        }
        let before: BTreeMap<_, _> = earlier.sums.iter().map(|sum| (sum.record(), sum)).collect();
        let mut pairs = BTreeMap::<Labels, (Counts, Counts)>::new();
        let mut lasting = BTreeSet::new();
        for sum in &self.sums {
            let (now, then) = pairs.entry(sum.labels.clone()).or_default();
            now.add_all(&sum.counts);
            if let Some(before) = before.get(&sum.record()) {
                then.add_all(&before.counts);
                lasting.insert(sum.labels.clone());
            }
        }
        // An expired record hands its counts to another of its labels, where there is one; else they are gone with it.
        let there: BTreeSet<_> = self.sums.iter().map(PairSum::record).collect();
        for gone in earlier.sums.iter().filter(|sum| !there.contains(&sum.record())) {
            if let Some((_, then)) = pairs.get_mut(&gone.labels).filter(|_| lasting.contains(&gone.labels)) {
                then.add_all(&gone.counts);
            }
        }
        let pairs = pairs.into_iter().map(|(labels, (now, then))| (labels, now.minus(&then))).collect();
        Some(Growth { seconds, pairs })
    }
}

#[cfg(test)]
mod tests {
    use finwatch_ebpf::wire::Counter;

    use super::*;
    use crate::model::labels::Side;

    fn labels(workload: &str) -> Labels {
        Labels {
            side: Side::Proxy,
            proxy: "nginx".into(),
            upstream: "10.0.0.5:8080".into(),
            workload: workload.into(),
        }
    }

    fn sums(watched_seconds: f64, records: &[(u32, u32, &str, u64)]) -> Sums {
        let sum = |&(slot, generation, workload, opened): &(u32, u32, &str, u64)| {
            let mut counts = Counts::default();
            counts.add(Counter::Opened, opened);
            PairSum { slot, generation, labels: labels(workload), counts }
        };
        Sums { watched_seconds, sums: records.iter().map(sum).collect() }
    }

    fn opened(earlier: &[(u32, u32, &str, u64)], now: &[(u32, u32, &str, u64)]) -> Vec<(String, u64)> {
        let growth = sums(12.5, now).since(&sums(10.0, earlier)).expect("the same run");
        assert!((growth.seconds - 2.5).abs() < 1e-9);
        let named = growth.pairs.into_iter();
        named.map(|(labels, counts)| (labels.workload, counts.get(Counter::Opened))).collect()
    }

    fn one(workload: &str, opened: u64) -> Vec<(String, u64)> {
        vec![(workload.to_owned(), opened)]
    }

    #[test]
    fn a_pair_grows_by_all_its_records() {
        assert_eq!(opened(&[(1, 0, "a", 5), (2, 0, "a", 7)], &[(1, 0, "a", 6), (2, 0, "a", 9)]), one("a", 3));
    }

    #[test]
    fn a_new_record_counts_in_full() {
        assert_eq!(opened(&[], &[(1, 0, "a", 5)]), one("a", 5));
    }

    #[test]
    fn a_new_name_is_no_new_pair() {
        assert_eq!(opened(&[(1, 0, "", 5)], &[(1, 0, "a", 6)]), one("a", 1));
    }

    #[test]
    fn counts_that_were_handed_over_did_not_happen_again() {
        assert_eq!(opened(&[(1, 0, "a", 5), (2, 0, "a", 7)], &[(2, 0, "a", 13)]), one("a", 1));
    }

    #[test]
    fn a_pair_that_expired_and_came_back_counts_anew() {
        assert_eq!(opened(&[(1, 0, "a", 5)], &[(1, 1, "a", 5)]), one("a", 5));
    }

    #[test]
    fn another_run_tells_nothing() {
        let (earlier, now) = (sums(10.0, &[(1, 0, "a", 5)]), sums(3.0, &[(1, 0, "a", 9)]));
        assert_eq!(now.since(&earlier), None);
    }
}
