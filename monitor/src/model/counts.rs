//! What was counted for a pair over a stretch of time, and how it is written: by metric and label value.

use std::collections::BTreeMap;

use finwatch_ebpf::{
    histogram::SLOTS,
    wire::{COUNTERS, Counter, Histogram},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::families::{COUNTER_FAMILIES, CounterFamily};

/// A number per [`Counter`]. Written as `{"connections_closed_total": {"peer": 3}}`, without zeros; a family without a
/// label of its own as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; COUNTERS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Counts {
    /// One of them.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Several of them together.
    pub fn sum(&self, counters: &[Counter]) -> u64 {
        counters.iter().map(|counter| self.get(*counter)).fold(0, u64::saturating_add)
    }

    /// Adds to one of them.
    pub const fn add(&mut self, counter: Counter, more: u64) {
        let number = &mut self.0[counter as usize];
        *number = number.saturating_add(more);
    }

    /// Adds another pair's, or another stretch's.
    pub fn add_all(&mut self, other: &Self) {
        for (number, more) in self.0.iter_mut().zip(other.0) {
            *number = number.saturating_add(more);
        }
    }

    /// What was counted since there were only `earlier`.
    #[must_use]
    pub fn minus(&self, earlier: &Self) -> Self {
        let mut difference = *self;
        for (number, earlier) in difference.0.iter_mut().zip(earlier.0) {
            *number = number.saturating_sub(earlier);
        }
        difference
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|number| *number == 0)
    }
}

/// A family's numbers as they are written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    ByLabel(BTreeMap<String, u64>),
}

fn written(counts: &Counts, family: &CounterFamily) -> Option<Written> {
    let numbers = || family.counters.iter().map(|labelled| (labelled.value, counts.get(labelled.counter)));
    if numbers().all(|(_, number)| number == 0) {
        return None;
    }
    if family.label.is_none() {
        return Some(Written::Number(numbers().map(|(_, number)| number).sum()));
    }
    let some = numbers().filter(|(_, number)| *number > 0);
    Some(Written::ByLabel(some.map(|(value, number)| (value.to_owned(), number)).collect()))
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let families = COUNTER_FAMILIES.iter();
        serializer.collect_map(families.filter_map(|family| Some((family.name, written(self, family)?))))
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let families = BTreeMap::<String, Written>::deserialize(deserializer)?;
        let mut counts = Self::default();
        for (name, written) in families {
            let family = COUNTER_FAMILIES.iter().find(|family| family.name == name);
            let family =
                family.ok_or_else(|| D::Error::custom(format_args!("no counter is called {name}")))?;
            let mut add = |value: &str, number| {
                let labelled = family.counters.iter().find(|labelled| labelled.value == value);
                let labelled =
                    labelled.ok_or_else(|| D::Error::custom(format_args!("{name} has no {value}")))?;
                counts.add(labelled.counter, number);
                Ok(())
            };
            match written {
                Written::Number(number) => add("", number)?,
                Written::ByLabel(values) => {
                    values.into_iter().try_for_each(|(value, number)| add(&value, number))?;
                }
            }
        }
        Ok(counts)
    }
}

/// One histogram's samples. Written as `{"count": 3, "sum_seconds": 15.0, "buckets": [[6.5, 3]]}`: the upper bounds in
/// seconds (`null` for none) of those buckets that hold any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub sum_seconds: f64,
    /// Upper bound of each bucket that holds any, and how many it holds (not cumulative); rising.
    pub buckets: Vec<(Option<f64>, u64)>,
}

/// The bucket that holds the most samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    /// Its lower bound in seconds: exclusive, but for the first.
    pub low: f64,
    /// Its upper bound in seconds, inclusive; `None` for the last.
    pub high: Option<f64>,
    /// How many samples it holds.
    pub count: u64,
}

impl Samples {
    /// A histogram whose bounds are `bounds_ms`.
    pub fn new(histogram: &Histogram, bounds_ms: &[u32; SLOTS - 1]) -> Self {
        Self::in_unit(histogram, bounds_ms, 1e3)
    }

    /// A histogram of which so many units make a second.
    pub fn in_unit(histogram: &Histogram, bounds: &[u32; SLOTS - 1], per_second: f64) -> Self {
        let bounds = bounds.iter().map(|bound| Some(f64::from(*bound) / per_second)).chain([None]);
        Self {
            count: histogram.slots.iter().fold(0, |sum, count| sum.saturating_add(*count)),
            sum_seconds: histogram.sum as f64 / per_second,
            buckets: bounds.zip(histogram.slots).filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// The mean in seconds; `None` without samples.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_seconds / self.count as f64)
    }

    /// How many lie at or below a bound; exact where `seconds` is one of the histogram's bounds.
    pub fn at_most(&self, seconds: f64) -> u64 {
        let below = |bound: &Option<f64>| bound.is_some_and(|bound| bound <= seconds);
        self.buckets.iter().filter(|(bound, _)| below(bound)).map(|(_, count)| count).sum()
    }

    /// The fullest bucket, of equals the lowest. `bounds_ms` are the histogram's.
    pub fn mode(&self, bounds_ms: &[u32; SLOTS - 1]) -> Option<Mode> {
        let most = self.buckets.iter().map(|(_, count)| *count).max()?;
        let (high, count) = *self.buckets.iter().find(|(_, count)| *count == most)?;
        let below = bounds_ms.iter().map(|bound| f64::from(*bound) / 1e3);
        let low = below.take_while(|bound| high.is_none_or(|high| *bound < high)).last().unwrap_or(0.0);
        Some(Mode { low, high, count })
    }
}

/// How many connections carried how many requests. Written as `{"connections": 3, "requests": 30, "buckets": [[10, 3]]}`:
/// the upper bounds (`null` for none) of those buckets that hold any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerConnection {
    /// Connections that have ended.
    pub connections: u64,
    /// Requests answered on them.
    pub requests: u64,
    /// Upper bound of each bucket that holds any, and how many connections it holds (not cumulative); rising.
    pub buckets: Vec<(Option<u32>, u64)>,
}

impl PerConnection {
    /// A histogram with these bounds.
    pub fn new(histogram: &Histogram, bounds: &[u32; SLOTS - 1]) -> Self {
        let bounds = bounds.iter().copied().map(Some).chain([None]);
        Self {
            connections: histogram.slots.iter().fold(0, |sum, count| sum.saturating_add(*count)),
            requests: histogram.sum,
            buckets: bounds.zip(histogram.slots).filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Connections that carried exactly so many requests, where the histogram has a bucket for that number alone.
    pub fn exactly(&self, requests: u32) -> u64 {
        let bucket = self.buckets.iter().find(|(bound, _)| *bound == Some(requests));
        bucket.map_or(0, |(_, connections)| *connections)
    }
}

#[cfg(test)]
mod tests {
    use finwatch_ebpf::histogram::IDLE_BOUNDS_MS;

    use super::*;

    #[test]
    fn every_counter_survives_being_written() {
        let mut counts = Counts::default();
        for (labelled, number) in COUNTER_FAMILIES.iter().flat_map(|family| family.counters).zip(1..) {
            counts.add(labelled.counter, number);
        }
        assert!(counts.0.iter().all(|number| *number > 0), "a counter belongs to no family: {counts:?}");
        let json = serde_json::to_string(&counts).expect("plain numbers");
        assert_eq!(serde_json::from_str::<Counts>(&json).expect("what was written"), counts);
    }

    #[test]
    fn zeros_are_left_out_and_unknown_names_refused() {
        let mut counts = Counts::default();
        counts.add(Counter::ClosedPeer, 3);
        counts.add(Counter::TimeWaitEntered, 2);
        let json = serde_json::to_string(&counts).expect("plain numbers");
        assert_eq!(json, r#"{"connections_closed_total":{"peer":3},"time_wait_entered_total":2}"#);
        for wrong in [r#"{"no_such_total":1}"#, r#"{"connections_closed_total":{"nobody":1}}"#] {
            assert!(serde_json::from_str::<Counts>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_mode_tells_timeouts_apart() {
        let mut histogram = Histogram { sum: 0, slots: [0; SLOTS] };
        for ms in [5_004, 5_001, 6_003, 20_000] {
            histogram.slots[finwatch_ebpf::histogram::slot(&IDLE_BOUNDS_MS, ms)] += 1;
            histogram.sum += u64::from(ms);
        }
        let samples = Samples::new(&histogram, &IDLE_BOUNDS_MS);
        assert_eq!(samples.count, 4);
        assert_eq!(samples.mode(&IDLE_BOUNDS_MS), Some(Mode { low: 4.5, high: Some(5.5), count: 2 }));
        assert_eq!((samples.at_most(5.5), samples.at_most(6.5)), (2, 3));
        assert_eq!(samples.mean(), Some(9.002));
        assert_eq!(Samples::default().mode(&IDLE_BOUNDS_MS), None);
    }
}
