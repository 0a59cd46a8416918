//! What a program did not see: the next takes it over. Ends that none saw: the walk finds them, they are closed in the books,
//! and counted as such.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    detach::{detach, is_preemptible, on_transitions},
    metrics::Scrape,
    netns,
    reference::{FRESH, Resident, assert_count, fresh, untraced_port},
    traffic::{listen, local, open_and_close, pair},
    until,
};

/// A missed end is looked for twice, half a minute apart, and not met by two walks: where nothing happens, one a minute.
const LONG: Duration = Duration::from_mins(5);
const OPEN: usize = 5;

/// Ends connections with RST: nothing is left of them.
fn reset(connections: Vec<(TcpStream, TcpStream)>) {
    for (proxy, upstream) in connections {
        SockRef::from(&proxy).set_linger(Some(Duration::ZERO)).expect("an option");
        drop((proxy, upstream));
    }
}

fn both_ends(scrape: &Scrape, family: &str, upstream: SocketAddr) -> f64 {
    scrape.sum(&format!("finwatch_{family}"), &[("upstream", &upstream.to_string())])
}

/// So many are tracked, and a few more have been closed while they were watched.
fn begin(listener: &TcpListener, scrape: impl FnOnce() -> Scrape) -> Vec<(TcpStream, TcpStream)> {
    let upstream = listener.local_addr().expect("bound");
    open_and_close(listener);
    let connections: Vec<_> = (0..OPEN).map(|_| pair(listener)).collect();
    let scrape = scrape();
    assert_count("opened", both_ends(&scrape, "connections_opened_total", upstream), 2 * (OPEN + 1));
    assert_count("tracked", scrape.sum("finwatch_tracked_connections", &[]), 2 * OPEN);
    connections
}

fn assert_missed(daemon: &Daemon, upstream: SocketAddr) {
    let end = Instant::now() + LONG;
    let scrape = loop {
        let scrape = fresh(daemon);
        if scrape.sum("finwatch_tracked_connections", &[]) < 0.5 {
            break scrape;
        }
        assert!(Instant::now() < end, "the missed ends are not found");
        thread::sleep(Duration::from_secs(1));
    };
    assert_count("missed", scrape.sum("finwatch_connections_missed_end_total", &[]), 2 * OPEN);
    assert_count("opened", both_ends(&scrape, "connections_opened_total", upstream), 2 * (OPEN + 1));
    assert_count("closed", both_ends(&scrape, "connections_closed_total", upstream), 2);
    assert_count("resets", both_ends(&scrape, "resets_received_total", upstream), 0);
    let labels = [("state", "established")];
    assert_count("level", scrape.sum("finwatch_sockets", &labels), 0);
}

/// Without the first program all that softirqs do is missed by it: connections that are accepted, and the peer's FINs. Where
/// other tasks run in the midst of programs, it is anything that is missed, also by two of them.
#[test]
fn the_next_program_takes_over() {
    if !can_run("the_next_program_takes_over") {
        return;
    }
    let programs = on_transitions();
    for gone in 1..programs.len() {
        netns::in_namespace(|| takes_over(&programs[..gone]));
    }
}

fn takes_over(gone: &[&str]) {
    let daemon = Daemon::isolated(&FRESH);
    let listener = listen(local(1, untraced_port()));
    let upstream = listener.local_addr().expect("bound").to_string();
    let before: Vec<_> = (0..OPEN).map(|_| pair(&listener)).collect();
    detach(daemon.pid, gone);
    let after: Vec<_> = (0..OPEN).map(|_| pair(&listener)).collect();
    for (proxy, upstream) in before {
        close_in_turn(upstream, proxy);
    }
    for (proxy, upstream) in after {
        close_in_turn(proxy, upstream);
    }
    let scrape = until("nothing is tracked", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
    });
    let count = |family: &str, side: &str, more: &[(&str, &str)]| {
        let labels = [&[("side", side), ("upstream", upstream.as_str())], more].concat();
        scrape.sum(&format!("finwatch_{family}"), &labels)
    };
    for (side, begun) in [("proxy", if is_preemptible() { 2 * OPEN } else { OPEN }), ("upstream", 2 * OPEN)] {
        assert_count(&format!("{side}'s beginnings"), count("connections_opened_total", side, &[]), begun);
        assert_count(&format!("{side}'s ends"), count("connections_closed_total", side, &[]), begun);
        let by_peer = count("connections_closed_total", side, &[("by", "peer")]);
        assert_count("closed by the other end", by_peer, OPEN);
        assert_count("after a time", count("peer_close_idle_seconds_count", side, &[]), OPEN);
    }
}

/// One end closes, then the other.
fn close_in_turn(first: TcpStream, mut second: TcpStream) {
    drop(first);
    assert_eq!(second.read(&mut [0]).expect("the end of the stream"), 0);
}

#[test]
fn missed_ends_are_closed_in_the_books() {
    if !can_run("missed_ends_are_closed_in_the_books") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&FRESH);
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound");
        let connections = begin(&listener, || fresh(&daemon));
        detach(daemon.pid, &on_transitions());
        reset(connections);
        assert_count("still in the books", fresh(&daemon).sum("finwatch_tracked_connections", &[]), 2 * OPEN);
        assert_missed(&daemon, upstream);
    });
}

#[test]
fn missed_ends_in_a_namespace_that_is_gone() {
    if !can_run("missed_ends_in_a_namespace_that_is_gone") {
        return;
    }
    let upstream = local(1, untraced_port());
    let port = upstream.port().to_string();
    let daemon = Daemon::start(&[&FRESH[..], &["--include-port", &port]].concat());
    netns::in_namespace(|| {
        let _resident = Resident::start();
        let listener = listen(upstream);
        let connections = begin(&listener, || netns::outside(|| fresh(&daemon)));
        detach(daemon.pid, &on_transitions());
        reset(connections);
    });
    assert_missed(&daemon, upstream);
}
