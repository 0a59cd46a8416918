//! Connections that were there before the daemon: the same counts as for new ones, but neither opened nor timed.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::harness::{
    can_run,
    daemon::{Daemon, free_address, get},
    gate::{self, Gate},
    lab::{Connection, FAMILIES, Family, Lab, own_port, tick},
    metrics::{Scrape, Side},
    netns,
    reference::{Resident, assert_count, untraced_port},
    traffic::{listen, local, open_and_close, pair},
    until,
};

/// What happens to an old connection, and what must be counted.
type Case = (&'static [&'static str], fn(&Lab, &mut Connection));

const PROXY: [Case; 7] = [
    (&["ended:peer", "peer_close_idle>1"], |_, connection| {
        connection.peer.fin();
        connection.close_last();
    }),
    (&["ended:reset", "received:idle"], |_, connection| {
        connection.peer.rst();
        connection.close();
    }),
    (&["ended:local", "time_wait", "local_close_idle>1"], |_, connection| connection.close_first()),
    // Stale reuse: written after the peer's FIN.
    (
        &[
            "ended:peer",
            "received:after_peer_fin",
            "lost:after_fin",
            "fin_then_rst:received",
            "peer_close_idle>1",
            "lost_idle>1",
        ],
        |_, connection| {
            connection.peer.fin();
            connection.request(200);
            connection.peer.rst();
            connection.close();
        },
    ),
    // Stale reuse without any FIN.
    (&["ended:reset", "received:reused_request", "lost:no_fin", "lost_idle>1"], |_, connection| {
        connection.request(200);
        connection.peer.rst();
        connection.close();
    }),
    (&["ended:peer", "peer_closed_before_response"], |_, connection| {
        connection.request(200);
        connection.peer.ack();
        connection.peer.fin();
        connection.close_last();
    }),
    (&["ended:reset", "sent:abort"], |_, connection| connection.abort()),
];

const UPSTREAM: [Case; 3] = [
    (&["ended:peer", "peer_close_idle>1"], |_, connection| {
        connection.peer.fin();
        connection.close_last();
    }),
    (&["ended:local", "time_wait", "local_close_idle>1"], |_, connection| connection.close_first()),
    (&["ended:reset", "received:idle"], |_, connection| {
        connection.peer.rst();
        connection.close();
    }),
];

/// Connections are there, then comes the daemon, then they end.
fn old_connections(family: Family, side: Side, cases: &[Case], listeners_stay: bool) {
    let ports: Vec<u16> = cases.iter().map(|_| own_port()).collect();
    netns::in_namespace(|| {
        let mut lab = Lab::new(family, side, ports[0]);
        let mut old = Vec::new();
        for port in ports {
            lab.upstream.1 = port;
            let mut connection = lab.open();
            match side {
                Side::Proxy => connection.exchange(),
                Side::Upstream => connection.serve(),
            }
            let listener = (side == Side::Upstream && listeners_stay).then(|| lab.listen());
            old.push((lab.upstream, connection, listener));
        }
        lab.quiet();
        let holders: Vec<_> =
            old.iter().map(|(_, connection, _)| Resident::holding(connection.socket())).collect();
        let daemon = Daemon::isolated(&[]);
        drop(holders);
        assert_count("adopted by when it is ready", tracked(&daemon.scrape()), cases.len());
        for ((_, connection, _), (_, end)) in old.iter_mut().zip(cases) {
            end(&lab, connection);
        }
        tick();
        let proxy = match side {
            Side::Proxy => "sleep".to_owned(),
            Side::Upstream => lab.remote().to_string(),
        };
        let scrape = settled(&daemon);
        let mut wrong = Vec::new();
        for ((upstream, ..), (expected, _)) in old.iter().zip(cases) {
            let upstream = SocketAddr::from(*upstream).to_string();
            let found = scrape.differences(side, &upstream, &proxy, expected);
            wrong.extend(found.into_iter().map(|what| format!("{family:?} {expected:?}: {what}")));
            let other = if side == Side::Proxy { "upstream" } else { "proxy" };
            for family in ["connections_closed_total", "connections_opened_total"] {
                let labels = [("side", other), ("upstream", upstream.as_str())];
                assert_count("the other role", scrape.sum(&format!("finwatch_{family}"), &labels), 0);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

fn tracked(scrape: &Scrape) -> f64 {
    scrape.sum("finwatch_tracked_connections", &[])
}

fn settled(daemon: &Daemon) -> Scrape {
    until("all connections are closed", || {
        let scrape = daemon.scrape();
        (tracked(&scrape) < 0.5).then_some(scrape)
    })
}

fn in_all_families(side: Side, cases: &[Case], listeners_stay: bool) {
    thread::scope(|scope| {
        let runs =
            FAMILIES.map(|family| scope.spawn(move || old_connections(family, side, cases, listeners_stay)));
        for run in runs {
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[test]
fn old_connections_of_a_proxy() {
    if can_run("old_connections_of_a_proxy") {
        in_all_families(Side::Proxy, &PROXY, false);
    }
}

#[test]
fn old_connections_of_an_upstream() {
    if can_run("old_connections_of_an_upstream") {
        in_all_families(Side::Upstream, &UPSTREAM, true);
    }
}

#[test]
fn old_connections_of_a_listener_that_is_gone() {
    if can_run("old_connections_of_a_listener_that_is_gone") {
        in_all_families(Side::Upstream, &UPSTREAM, false);
    }
}

/// Ready only when all are taken in: the first answer shows every one.
#[test]
fn ready_after_adoption() {
    const POOL: usize = 400;
    if !can_run("ready_after_adoption") {
        return;
    }
    netns::in_namespace(|| {
        let listener = listen(local(1, untraced_port()));
        let pool: Vec<_> = (0..POOL).map(|_| pair(&listener)).collect();
        let daemon = Daemon::isolated(&[]);
        let scrape = daemon.scrape();
        assert_count("tracked", tracked(&scrape), 2 * POOL);
        let opened = scrape.sum("finwatch_connections_opened_total", &[]);
        assert_count("opened", opened, 0);
        drop(pool);
        let scrape = settled(&daemon);
        assert_count("closed", scrape.sum("finwatch_connections_closed_total", &[]), 2 * POOL);
        let lived = scrape.sum("finwatch_connection_duration_seconds_count", &[]);
        assert_count("timed", lived, 0);
    });
}

/// While connections are taken in, nothing is shown, and that is told.
#[test]
fn not_ready_during_adoption() {
    const POOL: usize = 10;
    if !can_run("not_ready_during_adoption") {
        return;
    }
    netns::in_namespace(|| {
        let listener = listen(local(1, untraced_port()));
        let pool: Vec<_> = (0..POOL).map(|_| pair(&listener)).collect();
        let daemon = Daemon::starting(free_address(), &["--netns", "host"], gate::set);
        let gate = Gate::of(daemon.pid);
        // The first time it only tries whether it may.
        gate.next().expect("it starts").go_on();
        let adoption = gate.next().expect("it takes in what is there");
        let status = |path| until("an answer", || get(daemon.address, path)).0;
        for path in ["/readyz", "/metrics"] {
            let (status, text) = until("an answer", || get(daemon.address, path));
            assert_eq!(status, 503, "{path}: {text}");
            assert!(text.contains("being taken in"), "{path}: {text}");
        }
        assert_eq!(status("/healthz"), 200);
        adoption.go_on();
        thread::scope(|scope| {
            let later = scope.spawn(|| {
                while let Some(call) = gate.next() {
                    call.go_on();
                }
            });
            daemon.wait_ready();
            assert_eq!((status("/readyz"), status("/metrics")), (200, 200));
            assert_count("adopted", daemon.scrape().sum("finwatch_connections_adopted_total", &[]), 2 * POOL);
            daemon.stop(Signal::SIGTERM).expect("it ends");
            later.join().expect("no more calls");
        });
        drop(pool);
    });
}

/// A daemon dies under load and another takes over: what begins after it is ready is counted exactly.
fn restart(signal: Signal) {
    const KEPT: usize = 50;
    let ports = [untraced_port(), untraced_port(), untraced_port()];
    netns::in_namespace(|| {
        let [before, after, kept] = ports.map(|port| listen(local(1, port)));
        let addresses =
            [&before, &after, &kept].map(|listener| listener.local_addr().expect("bound").to_string());
        let daemon = Daemon::isolated(&[]);
        let pool: Vec<_> = (0..KEPT).map(|_| pair(&kept)).collect();
        let (is_ready, ends) = (AtomicBool::new(false), AtomicBool::new(false));
        let (early, late) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let second = thread::scope(|scope| {
            // However the test ends, the load does.
            let _ends = Raise(&ends);
            scope.spawn(|| {
                while !ends.load(Ordering::SeqCst) {
                    let (listener, count) =
                        if is_ready.load(Ordering::SeqCst) { (&after, &late) } else { (&before, &early) };
                    open_and_close(listener);
                    count.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            until("some load", || (early.load(Ordering::SeqCst) > 100).then_some(()));
            daemon.stop(signal).expect("it ends");
            let started = early.load(Ordering::SeqCst);
            let second = Daemon::isolated(&[]);
            is_ready.store(true, Ordering::SeqCst);
            until("more load", || (late.load(Ordering::SeqCst) > 500).then_some(()));
            (second, started)
        });
        let (second, started) = second;
        drop(pool);
        let scrape = settled(&second);
        let count = |family: &str, upstream: &str, side: &str| {
            scrape.sum(&format!("finwatch_{family}"), &[("side", side), ("upstream", upstream)])
        };
        let (early, late) = (early.into_inner(), late.into_inner());
        for side in ["proxy", "upstream"] {
            for family in
                ["connections_opened_total", "connections_closed_total", "connection_duration_seconds_count"]
            {
                assert_count(family, count(family, &addresses[1], side), late);
            }
            assert_count("kept", count("connections_closed_total", &addresses[2], side), KEPT);
            assert_count("kept", count("connections_opened_total", &addresses[2], side), 0);
            let [opened, closed] = ["connections_opened_total", "connections_closed_total"]
                .map(|family| count(family, &addresses[0], side));
            let most = f64::from(u32::try_from(early - started + 2).expect("not that many"));
            assert!(closed <= most && opened <= closed, "opened {opened}, closed {closed} of at most {most}");
        }
        for family in ["resets_received_total", "resets_sent_total", "connect_failures_total"] {
            let sum: f64 = addresses
                .iter()
                .map(|upstream| scrape.sum(&format!("finwatch_{family}"), &[("upstream", upstream)]))
                .sum();
            assert_count(family, sum, 0);
        }
        assert_count("untracked", scrape.sum("finwatch_untracked_connections_total", &[]), 0);
    });
}

/// Set when it is dropped.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn restart_after_sigterm() {
    if can_run("restart_after_sigterm") {
        restart(Signal::SIGTERM);
    }
}

#[test]
fn restart_after_sigkill() {
    if can_run("restart_after_sigkill") {
        restart(Signal::SIGKILL);
    }
}
