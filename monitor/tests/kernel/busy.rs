//! A busy host: what stands still is shown exactly while connections come and go around it, and at every pause in between
//! so is what came and went.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::{
    harness::{
        can_run,
        daemon::Daemon,
        metrics::{Scrape, Side},
        netns,
        reference::{FRESH, assert_count, fresh, netns_name, ss, untraced_port},
        traffic::{listen, local, open_and_close, pair},
        until,
    },
    levels::{listed, shown},
};

const CHURNERS: usize = 3;
const LOOKS: usize = 5;
const BURSTS: usize = 4;
const BURST: usize = 150;
const KEPT: usize = 20;

/// Says that the churn is over, however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What stands still, in every state that loopback allows.
fn made() -> [(Side, BTreeMap<&'static str, u32>); 2] {
    let proxy = BTreeMap::from([("established", 30), ("fin_wait2", 4), ("time_wait", 5)]);
    let upstream = BTreeMap::from([("established", 30), ("close_wait", 4)]);
    [(Side::Proxy, proxy), (Side::Upstream, upstream)]
}

/// One's connections stand still while those to `churned` come and go.
fn assert_still(daemon: &Daemon, still: SocketAddr, churned: &AtomicUsize) {
    let sides = made();
    for _ in 0..LOOKS {
        let before = churned.load(Ordering::SeqCst);
        let (rows_before, scrape, rows_after) = (ss(&[]), fresh(daemon), ss(&[]));
        assert!(churned.load(Ordering::SeqCst) > before, "it was busy all the while");
        for (side, made) in &sides {
            for (who, count) in [
                ("ss before", listed(&rows_before, *side, still)),
                ("finwatch", shown(&scrape, *side, still)),
                ("ss after", listed(&rows_after, *side, still)),
            ] {
                assert_eq!(count, *made, "{who}, side={}", side.label());
            }
        }
        let address = still.to_string();
        let netns = netns_name();
        let held = [("netns", netns.as_str()), ("upstream", address.as_str())];
        assert_count("ports held", scrape.sum("finwatch_ephemeral_ports_used", &held), 39);
    }
}

#[test]
fn what_stands_still_on_a_busy_host() {
    if !can_run("what_stands_still_on_a_busy_host") {
        return;
    }
    let ports = [untraced_port(), untraced_port()];
    netns::in_namespace(|| {
        netns::sysctl("ipv4/tcp_tw_reuse", "0");
        let daemon = Daemon::isolated(&FRESH);
        let still = listen(local(1, ports[0]));
        let established: Vec<_> = (0..30).map(|_| pair(&still)).collect();
        let half_closed: Vec<TcpStream> = (0..4).map(|_| pair(&still).1).collect();
        (0..5).for_each(|_| open_and_close(&still));
        for upstream in &half_closed {
            until("the proxy's FIN", || (upstream.peek(&mut [0]).ok()? == 0).then_some(()));
        }
        let address = still.local_addr().expect("bound");
        // A FIN that was received may not have been acknowledged yet.
        until("every FIN is acknowledged", || {
            let rows = ss(&[]);
            made().iter().all(|(side, made)| listed(&rows, *side, address) == *made).then_some(())
        });
        let stop = AtomicBool::new(false);
        let churned = AtomicUsize::new(0);
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            for host in 0..CHURNERS {
                let listener = listen(local(10 + u8::try_from(host).expect("few"), ports[1]));
                let (stop, churned) = (&stop, &churned);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        open_and_close(&listener);
                        churned.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                    }
                });
            }
            assert_still(&daemon, address, &churned);
        });
        drop((established, half_closed));
    });
}

fn of_pair(scrape: &Scrape, side: &str, family: &str, upstream: &str) -> f64 {
    scrape.sum(&format!("finwatch_{family}"), &[("side", side), ("upstream", upstream)])
}

/// Opens and closes a burst, and keeps some open.
fn burst(listener: &TcpListener) -> Vec<(TcpStream, TcpStream)> {
    let kept = (0..KEPT).map(|_| pair(listener)).collect();
    (0..BURST).for_each(|_| open_and_close(listener));
    kept
}

#[test]
fn what_came_and_went_at_every_pause() {
    if !can_run("what_came_and_went_at_every_pause") {
        return;
    }
    let port = untraced_port();
    netns::in_namespace(|| {
        netns::sysctl("ipv4/tcp_tw_reuse", "0");
        let daemon = Daemon::isolated(&FRESH);
        let address = local(1, port);
        let upstream = address.to_string();
        let listener = listen(address);
        let mut kept = Vec::new();
        for round in 1..=BURSTS {
            kept.extend(burst(&listener));
            let scrape = until("every end is counted", || {
                let scrape = fresh(&daemon);
                let closed = of_pair(&scrape, "upstream", "connections_closed_total", &upstream);
                (closed + 0.5 > f64::from(u32::try_from(round * BURST).expect("few"))).then_some(scrape)
            });
            let rows = ss(&[]);
            for (side, name) in [(Side::Proxy, "proxy"), (Side::Upstream, "upstream")] {
                let count = |family| of_pair(&scrape, name, family, &upstream);
                let (opened, closed) = (count("connections_opened_total"), count("connections_closed_total"));
                assert_count("opened", opened, round * (BURST + KEPT));
                assert_count("closed", closed, round * BURST);
                let level = shown(&scrape, side, address);
                assert_eq!(level, listed(&rows, side, address), "ss, side={name}");
                let established = level.get("established").copied().unwrap_or(0);
                assert_count("opened less closed", opened - closed, established as usize);
                let entered = count("time_wait_entered_total");
                let waiting = level.get("time_wait").copied().unwrap_or(0);
                assert_count("entered", entered, waiting as usize);
            }
        }
        drop(kept);
    });
}
