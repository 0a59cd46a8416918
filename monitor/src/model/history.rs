//! What the counts were a while ago, so that one can ask what happened since: bounded, the finer the more recent.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use finwatch_ebpf::{
    histogram::SLOTS,
    wire::{Counter, Histogram},
};

use super::{
    families::COUNTER_FAMILIES,
    levels::Snapshot,
    source::{HistogramId, PairSource},
};

/// Marks that are kept at most.
const MAX_MARKS: usize = 48;
/// What all marks may hold together, in bytes: 4,096 pairs that are all busy take about 1 MiB a mark.
const MAX_BYTES: usize = 4 << 20;
/// Nothing older is kept, but the first mark.
const MAX_AGE: Duration = Duration::from_hours(24);
/// Destinations whose ports a mark holds.
const MAX_PORTS: usize = 256;

/// A record's numbers above 0, each with its [`Field`]'s index.
type Numbers = Arc<[(usize, u64)]>;

/// A slot's pair: the slot, and which of the pairs that had it.
pub type Slot = (u32, u32);

/// Ports held toward a destination, by namespace, source, destination and port.
pub type PortKey = (String, [u64; 2], [u64; 2], u32);

/// How things stood at one moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Instant,
    pairs: HashMap<Slot, Numbers>,
    /// When ports and overflows were read.
    pub levels_at: Instant,
    ports: HashMap<PortKey, u32>,
    overflows: HashMap<String, u64>,
}

impl Mark {
    /// How things stand now. Numbers that are still those of `last` are shared with it.
    pub fn new(at: Instant, source: &dyn PairSource, levels: Option<&Snapshot>, last: Option<&Self>) -> Self {
        let mut pairs = HashMap::new();
        for slot in 0..source.slots() {
            if source.key(slot).is_none() {
                continue;
            }
            let id = (slot, source.generation(slot));
            let numbers = numbers(source, slot);
            let known = last.and_then(|last| last.pairs.get(&id)).filter(|known| ***known == *numbers);
            pairs.insert(id, known.cloned().unwrap_or_else(|| numbers.into()));
        }
        let namespaces = levels.map(|levels| &*levels.namespaces).unwrap_or_default();
        let mut ports: Vec<_> = namespaces
            .iter()
            .flat_map(|namespace| namespace.ports.iter().map(|entry| (&namespace.name, entry)))
            .collect();
        ports.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.used));
        ports.truncate(MAX_PORTS);
        Self {
            at,
            pairs,
            levels_at: levels.map_or(at, |levels| levels.taken),
            ports: ports
                .into_iter()
                .map(|(name, entry)| {
                    ((name.clone(), entry.source, entry.destination, entry.port), entry.used)
                })
                .collect(),
            overflows: namespaces
                .iter()
                .map(|namespace| (namespace.name.clone(), namespace.time_wait_overflow))
                .collect(),
        }
    }

    /// What a slot had counted; 0 where the pair was not there yet.
    fn number(&self, slot: Slot, field: usize) -> u64 {
        let Some(numbers) = self.pairs.get(&slot) else { return 0 };
        numbers.binary_search_by_key(&field, |(field, _)| *field).map_or(0, |at| numbers[at].1)
    }

    fn hand_over(&mut self, from: Slot, to: Slot) {
        let Some(from) = self.pairs.remove(&from) else { return };
        let mut sum: Vec<_> = self.pairs.get(&to).map(|numbers| numbers.to_vec()).unwrap_or_default();
        for (field, more) in from.iter() {
            match sum.binary_search_by_key(field, |(field, _)| *field) {
                Ok(at) => sum[at].1 = sum[at].1.saturating_add(*more),
                Err(at) => sum.insert(at, (*field, *more)),
            }
        }
        self.pairs.insert(to, sum.into());
    }

    /// What a counter had come to.
    pub fn counter(&self, slot: u32, generation: u32, counter: Counter) -> u64 {
        self.number((slot, generation), counter as usize)
    }

    /// What a histogram had come to.
    pub fn histogram(&self, slot: u32, generation: u32, id: HistogramId) -> Histogram {
        let number = |index| self.number((slot, generation), histogram_field(id) + index);
        let mut slots = [0; SLOTS];
        for (index, count) in (1..).zip(&mut slots) {
            *count = number(index);
        }
        Histogram { sum: number(0), slots }
    }

    /// Ports that were held toward a destination; `None` where it was not among the largest.
    pub fn ports(&self, key: &PortKey) -> Option<u32> {
        self.ports.get(key).copied()
    }

    /// Connections that could not enter TIME_WAIT up to then; `None` where the namespace was not read yet.
    pub fn time_wait_overflow(&self, netns: &str) -> Option<u64> {
        self.overflows.get(netns).copied()
    }

    /// About how much memory it takes: of numbers that marks share, its part.
    fn bytes(&self) -> usize {
        let numbers: usize =
            self.pairs.values().map(|numbers| size_of_val(&**numbers) / Arc::strong_count(numbers)).sum();
        numbers
            + self.pairs.len() * size_of::<(Slot, Numbers)>()
            + self.ports.len() * size_of::<(PortKey, u32)>()
    }
}

/// Where a histogram's sum is among a record's numbers; its slots follow.
const fn histogram_field(id: HistogramId) -> usize {
    const FIRST: usize = finwatch_ebpf::wire::COUNTER_SLOTS;
    const EACH: usize = 1 + SLOTS;
    let place = match id {
        HistogramId::PeerCloseIdle => 0,
        HistogramId::LocalCloseIdle => 1,
        HistogramId::LostRequestIdle => 2,
        HistogramId::ConnectionDuration => 3,
        HistogramId::TimeToFirstByte => 4,
        HistogramId::RequestsPerConnection => 5,
    };
    FIRST + place * EACH
}

fn numbers(source: &dyn PairSource, slot: u32) -> Vec<(usize, u64)> {
    let counters = COUNTER_FAMILIES.iter().flat_map(|family| family.counters).map(|labelled| {
        let counter = labelled.counter;
        (counter as usize, source.counter(slot, counter))
    });
    let histograms = HistogramId::ALL.into_iter().flat_map(|id| {
        let histogram = source.histogram(slot, id);
        let slots =
            (1..).zip(histogram.slots).map(move |(index, count)| (histogram_field(id) + index, count));
        [(histogram_field(id), histogram.sum)].into_iter().chain(slots)
    });
    let mut numbers: Vec<_> = counters.chain(histograms).filter(|(_, number)| *number > 0).collect();
    numbers.sort_unstable();
    numbers
}

/// Marks, the first of which is the beginning.
#[derive(Debug, Default)]
pub struct History {
    marks: VecDeque<Arc<Mark>>,
}

impl History {
    /// The last mark.
    pub fn last(&self) -> Option<&Mark> {
        self.marks.back().map(|mark| &**mark)
    }

    /// Adds a mark that is younger than all others; where there is no more room, the one that is missed least goes.
    pub fn add(&mut self, mark: Mark) {
        let now = mark.at;
        self.marks.push_back(Arc::new(mark));
        while self.marks.len() > 2 && now.duration_since(self.marks[1].at) > MAX_AGE {
            self.marks.remove(1);
        }
        while self.marks.len() > MAX_MARKS || (self.marks.len() > 3 && self.bytes() > MAX_BYTES) {
            self.thin(now);
        }
    }

    fn bytes(&self) -> usize {
        self.marks.iter().map(|mark| mark.bytes()).sum()
    }

    /// Removes the mark between whose neighbours the gap would be smallest for their age.
    fn thin(&mut self, now: Instant) {
        let gap = |at: usize| {
            let (before, after) = (self.marks[at - 1].at, self.marks[at + 1].at);
            after.duration_since(before).as_secs_f64() / now.duration_since(before).as_secs_f64().max(1e-9)
        };
        let least = (1..self.marks.len() - 1).min_by(|a, b| gap(*a).total_cmp(&gap(*b)));
        if let Some(at) = least {
            self.marks.remove(at);
        }
    }

    /// One slot's numbers went to another; each with its generation. What is remembered follows them.
    pub fn hand_over(&mut self, from: Slot, to: Slot) {
        for mark in &mut self.marks {
            if mark.pairs.contains_key(&from) {
                Arc::make_mut(mark).hand_over(from, to);
            }
        }
    }

    /// The youngest mark that is at least of this `age`; the first where nothing is that old.
    pub fn at_least(&self, now: Instant, age: Duration) -> Option<Arc<Mark>> {
        let old_enough = |mark: &&Arc<Mark>| now.duration_since(mark.at) >= age;
        self.marks.iter().rev().find(old_enough).or_else(|| self.marks.front()).cloned()
    }

    /// A mark about in the middle of the last `age`; `None` where there is none between its quarters.
    pub fn middle(&self, now: Instant, age: Duration) -> Option<Arc<Mark>> {
        let mark = self.nearest(now, age / 2)?;
        (age / 4..=age * 3 / 4).contains(&now.duration_since(mark.at)).then_some(mark)
    }

    /// The mark nearest to `age` before `now`; the first where nothing is that old.
    pub fn nearest(&self, now: Instant, age: Duration) -> Option<Arc<Mark>> {
        let distance = |mark: &Arc<Mark>| now.duration_since(mark.at).abs_diff(age);
        self.marks.iter().min_by_key(|mark| distance(mark)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: Instant) -> Mark {
        Mark { at, pairs: HashMap::new(), levels_at: at, ports: HashMap::new(), overflows: HashMap::new() }
    }

    /// Marks every ten seconds for an hour and a half.
    fn long() -> (Instant, History) {
        let begun = Instant::now();
        let mut history = History::default();
        let mut now = begun;
        for tick in 0..540 {
            now = begun + Duration::from_secs(10 * tick);
            history.add(mark(now));
        }
        (now, history)
    }

    #[test]
    fn any_age_is_found_about_where_it_was() {
        let (now, history) = long();
        assert!(history.marks.len() <= MAX_MARKS);
        for seconds in [10_u64, 30, 60, 300, 900, 1_800, 3_600, 5_390] {
            let found = history.nearest(now, Duration::from_secs(seconds)).expect("there are marks");
            let age = now.duration_since(found.at).as_secs();
            let off = age.abs_diff(seconds);
            assert!(off * 5 <= seconds, "asked for {seconds} s, found {age} s");
        }
    }

    #[test]
    fn the_beginning_stays() {
        let (now, history) = long();
        let found = history.nearest(now, Duration::from_hours(30)).expect("there are marks");
        assert_eq!(now.duration_since(found.at).as_secs(), 5_390);
    }

    #[test]
    fn the_fields_do_not_overlap() {
        let mut all: Vec<usize> = HistogramId::ALL
            .into_iter()
            .flat_map(|id| (0..=SLOTS).map(move |index| histogram_field(id) + index))
            .collect();
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), before);
        assert!(all[0] >= finwatch_ebpf::wire::COUNTER_SLOTS);
    }
}
