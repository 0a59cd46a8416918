//! How connections are kept, or not.

use finwatch_ebpf::wire::Counter;

use super::scene::{Happened as _, directives, innocent, kinds, observation, only, proxy};
use crate::{
    model::{
        labels::Side,
        observation::{Pair, Process},
    },
    triage::{
        finding::{Level, Subject},
        kinds::Kind,
    },
};

fn short(upstream: &str) -> Pair {
    proxy("nginx", upstream)
        .always(Counter::Opened, 18_000)
        .always(Counter::TimeWaitEntered, 18_000)
        .local_closes(&[(0.001, 18_000)])
        .lived(&[(0.02, 18_000)])
        .sockets("time_wait", 1_200)
}

fn kept(upstream: &str) -> Pair {
    proxy("nginx", upstream)
        .always(Counter::Opened, 12)
        .local_closes(&[(60.0, 12)])
        .lived(&[(300.0, 12)])
        .sockets("established", 16)
        .idle(9)
}

#[test]
fn one_exchange_a_connection() {
    let finding = only(&observation(vec![short("10.0.0.7:80")]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::KeepAliveNotInEffect, Level::High));
    assert!(finding.verdict.contains("20 connections a second"), "{}", finding.verdict);
    let lines: Vec<&str> =
        directives(&finding, "nginx").iter().flat_map(|change| change.directives.lines()).collect();
    assert_eq!(lines, ["keepalive 32;", "proxy_http_version 1.1;", "proxy_set_header Connection \"\";"]);
    assert!(finding.changes[0].what.contains("1.29.7"));
}

#[test]
fn where_the_upstream_closes_both_readings_are_given() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .always(Counter::Opened, 18_000)
        .peer_closes(&[(0.001, 18_000)])
        .lived(&[(0.02, 18_000)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::KeepAliveNotInEffect, Level::Medium));
    assert!(
        finding.confidence.reason.contains("Connection: close")
            && finding.confidence.reason.contains("1.29.6")
    );
}

#[test]
fn only_the_upstream_without_keep_alive_is_flagged() {
    let finding = only(&observation(vec![kept("10.0.0.6:80"), short("10.0.0.7:80"), kept("10.0.0.8:80")]));
    assert_eq!(finding.kind, Kind::OneUpstreamWithoutKeepAlive);
    assert!(matches!(&finding.subject, Subject::Pair(labels) if labels.upstream == "10.0.0.7:80"));
    // Another proxy's connections say nothing about this one's.
    let mut other = kept("10.0.0.6:80");
    other.labels.proxy = "haproxy".into();
    assert_eq!(only(&observation(vec![other, short("10.0.0.7:80")])).kind, Kind::KeepAliveNotInEffect);
}

#[test]
fn a_pool_that_is_too_small() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .always(Counter::Opened, 9_000)
        .local_closes(&[(0.01, 8_800), (60.0, 4)])
        .lived(&[(0.2, 8_700), (40.0, 104)])
        .sockets("established", 40)
        .idle(2);
    let finding = only(&observation(vec![pair]));
    assert_eq!(finding.kind, Kind::PoolTooSmall);
    assert_eq!(directives(&finding, "nginx")[0].directives, "keepalive 64;");
}

#[test]
fn what_opens_connections_for_good_reasons() {
    // A proxy whose own timeout closes idle connections, and TIME_WAIT of an hour of it.
    innocent(kept("10.0.0.7:80").always(Counter::TimeWaitEntered, 300).sockets("time_wait", 20));
    // Health checks: one exchange each, every five seconds.
    innocent(
        proxy("haproxy", "10.0.0.7:80")
            .always(Counter::Opened, 180)
            .local_closes(&[(0.001, 180)])
            .lived(&[(0.002, 180)]),
    );
    // Some answers with Connection: close, on a pool that is kept.
    innocent(
        kept("10.0.0.7:80")
            .always(Counter::Opened, 1_800)
            .peer_closes(&[(0.01, 1_800)])
            .lived(&[(0.1, 1_800), (90.0, 600)]),
    );
    // A limit of requests per connection: closed right after an answer, but after a life.
    innocent(
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 1_800)
            .local_closes(&[(0.001, 1_800)])
            .lived(&[(8.0, 1_800)]),
    );
}

#[test]
fn an_exhausted_pool() {
    let busy = |opened| {
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, opened)
            .local_closes(&[(0.5, 20)])
            .lived(&[(9.0, 20)])
            .sockets("established", 200)
    };
    let finding = only(&observation(vec![busy(240)]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::Pool, Level::Low));
    assert!(finding.evidence[0].contains("200 busy"), "{:?}", finding.evidence);
    assert!(finding.verdict.starts_with("All 200 connections of nginx"), "{}", finding.verdict);
    innocent(busy(30));
    innocent(busy(240).idle(50));
    // Quiet, and waiting for an upstream that is slow: no less busy.
    let finding = only(&observation(vec![busy(240).waiting(150)]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::Pool, Level::Medium));
    let first = &finding.evidence[0];
    assert!(first.contains("200 busy, 0 idle; upon 150 a request has waited"), "{first}");
    let mut some = busy(240).waiting(150);
    some.idle += 20;
    assert!(only(&observation(vec![some.clone()])).verdict.starts_with("180 of 200 connections of nginx"));
    some.idle += 1;
    innocent(some);
    // Filled after a start, and steady since.
    let mut filled = busy(0).once(Counter::Opened, 200);
    filled.first_half.as_mut().expect("made by halves").add(Counter::Opened, 200);
    innocent(filled);
    // Being filled by a burst after a start; unless its requests wait.
    let young = busy(0).once(Counter::Opened, 200);
    innocent(young.clone());
    assert_eq!(only(&observation(vec![young.waiting(150)])).kind, Kind::Pool);
    // Bursts, and closes of idle connections between them; the last burst is just over.
    let bursts = || {
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 264)
            .local_closes(&[(3.0, 200)])
            .lived(&[(3.1, 200)])
            .sockets("established", 32)
    };
    innocent(bursts());
    // The same, until no connection was given up any more.
    let mut stuck = bursts();
    stuck.first_half.as_mut().expect("made by halves").add(Counter::ClosedLocal, 100);
    assert_eq!(only(&observation(vec![stuck])).kind, Kind::Pool);
}

#[test]
fn sockets_that_are_never_closed() {
    let leaking = |count, age| {
        let mut pair = proxy("node", "10.0.0.7:80").sockets("close_wait", count);
        pair.oldest_close_wait_seconds = Some(age);
        pair
    };
    let finding = only(&observation(vec![leaking(48, 8_000.0)]));
    assert_eq!(finding.kind, Kind::CloseWaitLeak);
    assert!(finding.verdict.starts_with("node does not close 48 connections"), "{}", finding.verdict);
    assert!(finding.evidence.contains(&"process: 812".to_owned()));
    // Of what this host accepted, who listens is known.
    let mut accepted = leaking(48, 8_000.0);
    accepted.labels.side = Side::Upstream;
    accepted.pids.clear();
    accepted.listener = Some(Process { name: "gunicorn".into(), pid: 77 });
    let finding = only(&observation(vec![accepted]));
    assert!(finding.verdict.starts_with("gunicorn does not close 48 connections"), "{}", finding.verdict);
    assert!(finding.evidence.contains(&"process: 77".to_owned()), "{:?}", finding.evidence);
    // Half-closes that last, and sockets that pass through.
    innocent(leaking(2, 8_000.0));
    innocent(leaking(48, 0.4));
}

#[test]
fn folded_pairs_are_a_mixture_that_tells_no_habit() {
    let mut folded = short("other");
    folded.labels.proxy = "other".into();
    assert_eq!(kinds(&observation(vec![folded])), [Kind::NothingWrong]);
}
