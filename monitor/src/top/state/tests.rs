//! Two pairs, and what keys make of them.

use crossterm::event::{KeyEvent, KeyModifiers};
use finwatch_ebpf::wire::Counter;

use super::*;
use crate::model::{
    counts::{Counts, Samples},
    labels::Side,
    observation::{Pair, PortUse, Window},
    sums::PairSum,
};

fn labels(proxy: &str, upstream: &str, workload: &str) -> Labels {
    Labels { side: Side::Proxy, proxy: proxy.into(), upstream: upstream.into(), workload: workload.into() }
}

fn nginx() -> Labels {
    labels("nginx", "10.0.0.5:8080", "shop.service")
}

fn envoy() -> Labels {
    labels("envoy", "10.0.0.6:9090", "")
}

fn counts(numbers: &[(Counter, u64)]) -> Counts {
    let mut counts = Counts::default();
    for (counter, number) in numbers {
        counts.add(*counter, *number);
    }
    counts
}

fn pair(labels: Labels, counts: &Counts, sockets: [u32; 2], idle: u32) -> Pair {
    let [established, time_wait] = sockets;
    let sockets = [("established".to_owned(), established), ("time_wait".to_owned(), time_wait)];
    let buckets = vec![(Some(4.5), 2), (Some(5.5), 75)];
    Pair {
        addresses: Vec::new(),
        labels,
        pids: vec![4_242],
        listener: None,
        counts: *counts,
        first_half: None,
        requests: None,
        peer_close_idle: Samples { count: 77, sum_seconds: 385.0, buckets },
        local_close_idle: Samples::default(),
        lost_request_idle: Samples::default(),
        connection_duration: Samples::default(),
        sockets: sockets.into(),
        idle,
        unanswered: 0,
        oldest_close_wait_seconds: None,
        behind: Vec::new(),
    }
}

pub(crate) fn observation() -> Observation {
    let nginx_counts = counts(&[
        (Counter::Opened, 120),
        (Counter::ClosedPeer, 90),
        (Counter::ClosedLocal, 10),
        (Counter::LostNoFin, 6),
        (Counter::LostAfterFin, 2),
        (Counter::ResetReusedRequest, 6),
        (Counter::ResetAfterPeerFin, 2),
    ]);
    let envoy_counts = counts(&[(Counter::Opened, 9), (Counter::ClosedLocal, 1)]);
    let mut envoy = pair(envoy(), &envoy_counts, [9, 31], 6);
    envoy.peer_close_idle = Samples::default();
    let port_use = PortUse {
        name: None,
        netns: "host".into(),
        src: "10.0.0.1".into(),
        upstream: "10.0.0.5:8080".into(),
        used: 7_058,
        limit: 28_232,
        earlier: None,
    };
    Observation {
        window: Window { seconds: 900.0, asked_seconds: 900.0, watched_seconds: 5_000.0 },
        pairs: vec![envoy, pair(nginx(), &nginx_counts, [7, 30], 5)],
        ports: vec![port_use],
        ..Observation::default()
    }
}

fn sums(watched_seconds: f64, opened: u64, resets: u64) -> Sums {
    let counts = counts(&[(Counter::Opened, opened), (Counter::ResetReusedRequest, resets)]);
    let sum = |slot, labels, counts| PairSum { slot, generation: 0, labels, counts };
    let sums = vec![sum(1, nginx(), counts), sum(2, envoy(), Counts::default())];
    Sums { watched_seconds, sums }
}

pub(crate) fn rates() -> Rates {
    let mut rates = Rates::default();
    rates.add(sums(10.0, 100, 1));
    rates.add(sums(12.0, 108, 7));
    rates
}

/// A screen that has seen five readings.
pub(crate) fn screen() -> State {
    let mut state = State::new("daemon, every 2s".into());
    for (watched, opened, resets) in
        [(2.0, 100, 0), (4.0, 104, 0), (6.0, 130, 2), (8.0, 132, 8), (10.0, 140, 8)]
    {
        let sums = sums(watched, opened, resets);
        state.read(reading(observation(), sums));
    }
    state
}

fn reading(observation: Observation, sums: Sums) -> Reading {
    Reading { observation, sums, incidents: Vec::new() }
}

pub(crate) fn press(state: &mut State, codes: &[KeyCode]) -> bool {
    codes.iter().all(|code| state.press(&KeyEvent::new(*code, KeyModifiers::NONE)))
}

fn proxies(state: &State) -> Vec<&str> {
    let rows = &state.shown.as_ref().expect("readings came").rows;
    rows.iter().map(|row| row.pair.labels.proxy.as_str()).collect()
}

#[test]
fn the_selection_follows_its_pair() {
    let mut state = screen();
    assert_eq!((proxies(&state), state.selected()), (vec!["nginx", "envoy"], Some(0)));
    press(&mut state, &[KeyCode::Char('r')]);
    assert_eq!((proxies(&state), state.selected()), (vec!["envoy", "nginx"], Some(1)));
    press(&mut state, &[KeyCode::Down, KeyCode::PageDown]);
    assert_eq!(state.selected(), Some(1), "there is nothing below the last");
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut state = screen();
    press(&mut state, &[KeyCode::Char('/'), KeyCode::Char('e'), KeyCode::Char('n'), KeyCode::Char('q')]);
    assert!(proxies(&state).is_empty(), "letters that are keys elsewhere are text here");
    press(&mut state, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!((proxies(&state), state.view(), state.selected()), (vec!["envoy"], View::Table, Some(0)));
    press(&mut state, &[KeyCode::Char('/'), KeyCode::Esc]);
    assert_eq!(proxies(&state).len(), 2);
}

#[test]
fn escape_goes_back_and_then_out() {
    let mut state = screen();
    assert!(press(&mut state, &[KeyCode::Enter]));
    assert_eq!(state.view(), View::Detail(0));
    assert!(press(&mut state, &[KeyCode::Esc, KeyCode::Char('?'), KeyCode::Esc]));
    assert!(!press(&mut state, &[KeyCode::Esc]));
    press(&mut state, &[KeyCode::Char('/')]);
    assert!(!state.press(&KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
}

#[test]
fn a_pause_holds_the_screen_but_not_the_counting() {
    let mut state = screen();
    press(&mut state, &[KeyCode::Char('p')]);
    state.read(reading(Observation::default(), sums(12.0, 150, 8)));
    assert_eq!(proxies(&state).len(), 2, "what was shown stays");
    press(&mut state, &[KeyCode::Char(' ')]);
    state.read(reading(observation(), sums(14.0, 152, 8)));
    let rows = &state.shown.as_ref().expect("readings came").rows;
    let opened: Vec<f64> = rows[0].rates.iter().map(|rate| rate.opened).collect();
    assert_eq!(opened, [2.0, 13.0, 1.0, 4.0, 5.0, 1.0]);
}

#[test]
fn a_daemon_that_is_gone_leaves_the_last_reading_in_sight() {
    let mut state = screen();
    state.fail("daemon gone".into(), true);
    assert_eq!(proxies(&state).len(), 2);
    // Another run that has counted more in less time than the last: no difference of two runs is shown.
    state.read(reading(observation(), sums(60.0, 9_999, 9)));
    assert!(state.problem.is_none());
    assert!(state.shown.as_ref().expect("readings came").rows[0].rates.is_empty());
}
