//! Windows of time are exact: what is observed since a mark is what was counted since then.

#[expect(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use finwatch::{
    api::observer::{Observer, Sources},
    model::{labels::ProcessFilter, observation::Observation},
    recorder::Recorder,
};
use finwatch_ebpf::wire::{Counter, PairKey};
use support::{Agent, Pairs, Record, Units, levels, proxy_key};

const START: Duration = Duration::from_hours(24);
const NOW: Duration = Duration::ZERO;

fn key(name: &str, cgroup: u64) -> PairKey {
    PairKey { cgroup, ..proxy_key(name.as_bytes(), "127.0.0.1", 80) }
}

fn observer(records: Vec<Record>) -> (Arc<Pairs>, Observer) {
    let pairs = Arc::new(Pairs(records.into_iter().map(Some).collect()));
    let sources = Sources {
        pairs: pairs.clone(),
        names: Arc::new(Units),
        agent: Arc::new(Agent),
        levels: Some(Arc::new(levels(1))),
        filter: ProcessFilter::default(),
        listeners: Arc::default(),
        recorder: Arc::new(Recorder::new(8)),
    };
    (pairs, Observer::new(sources))
}

fn count(pairs: &Pairs, slot: usize, counter: Counter, more: u64) {
    let record = pairs.0[slot].as_ref().expect("in use");
    record.counters[counter as usize].fetch_add(more, Ordering::Relaxed);
}

fn opened(observation: &Observation, proxy: &str) -> u64 {
    let of_proxy = observation.pairs.iter().filter(|pair| pair.labels.proxy == proxy);
    of_proxy.map(|pair| pair.counts.get(Counter::Opened)).sum()
}

#[test]
fn a_window_begins_at_its_mark() {
    let (pairs, observer) = observer(vec![Record::new(key("a", 0)).count(Counter::Opened, 100)]);
    assert_eq!(opened(&observer.observe(START), "a"), 0, "older than the observer");
    count(&pairs, 0, Counter::Opened, 7);
    observer.mark();
    count(&pairs, 0, Counter::Opened, 3);
    assert_eq!(opened(&observer.observe(START), "a"), 10);
    assert_eq!(opened(&observer.observe(NOW), "a"), 3);
}

/// A pair's slot is emptied and another that prints the same inherits: nothing happened.
#[test]
fn an_inheritance_is_no_event() {
    let first = Record::new(key("a", 100)).count(Counter::Opened, 40);
    let second = Record::new(key("a", 200)).count(Counter::Opened, 2);
    let (pairs, observer) = observer(vec![first, second]);
    count(&pairs, 0, Counter::Opened, 1);
    // What the upkeep does to the records, and tells.
    count(&pairs, 1, Counter::Opened, 41);
    pairs.0[0].as_ref().expect("in use").counters[Counter::Opened as usize].store(0, Ordering::Relaxed);
    observer.handed_over((0, 1), (1, 1));
    assert_eq!(opened(&observer.observe(START), "a"), 1);
}

#[test]
fn an_observation_survives_being_written() {
    let (pairs, observer) = observer(vec![Record::new(key("a\"\n", 0)), Record::new(key("b", 1))]);
    count(&pairs, 0, Counter::LostNoFin, 3);
    let observation = observer.observe(START);
    let json = serde_json::to_string(&observation).expect("plain data");
    let read: Observation = serde_json::from_str(&json).expect("what was written");
    assert_eq!(read.pairs, observation.pairs);
    assert_eq!(read.pairs[0].counts.get(Counter::LostNoFin), 3);
    assert!(!observation.ports.is_empty() && !observation.queues.is_empty());
}
