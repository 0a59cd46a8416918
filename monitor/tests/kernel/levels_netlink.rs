//! Levels where the kernel refuses its iterator: listed by netlink, they are the same as walked ones.

use std::process::{Command, Stdio};

use crate::{
    harness::{
        can_run,
        daemon::Daemon,
        lab::Family,
        metrics::{Scrape, Side},
        netns,
        reference::{FRESH, assert_count, fresh, untraced_port},
        traffic::{listen, local, open_as, pair},
    },
    levels, ports, time_wait,
};

macro_rules! listed {
    ($($name:ident: $test:expr,)+) => {$(
        #[test]
        fn $name() {
            if can_run(stringify!($name)) {
                $test;
            }
        }
    )+};
}

listed! {
    netlink_every_state_of_a_proxy_v4:
        levels::every_state(Family::V4, Side::Proxy, Daemon::isolated_without_iterator),
    netlink_every_state_of_a_proxy_v6:
        levels::every_state(Family::V6, Side::Proxy, Daemon::isolated_without_iterator),
    netlink_every_state_of_a_proxy_mapped:
        levels::every_state(Family::Mapped, Side::Proxy, Daemon::isolated_without_iterator),
    netlink_every_state_of_an_upstream_v4:
        levels::every_state(Family::V4, Side::Upstream, Daemon::isolated_without_iterator),
    netlink_every_state_of_an_upstream_v6:
        levels::every_state(Family::V6, Side::Upstream, Daemon::isolated_without_iterator),
    netlink_every_state_of_an_upstream_mapped:
        levels::every_state(Family::Mapped, Side::Upstream, Daemon::isolated_without_iterator),
    netlink_both_ends_on_loopback: levels::both_ends(Daemon::isolated_without_iterator),
    netlink_idle_connections: levels::idle(Daemon::isolated_without_iterator),
    netlink_accept_queues: levels::queues(Daemon::isolated_without_iterator),
    netlink_wildcard_listeners: levels::wildcards(Daemon::isolated_without_iterator),
    netlink_run_out_of_100_ports: ports::run_out_of(100, Daemon::isolated_without_iterator),
    netlink_reserved_ports_and_a_changed_range: ports::reserved_ports(Daemon::isolated_without_iterator),
    netlink_five_thousand_active_closes: time_wait::active_closes(Daemon::isolated_without_iterator),
}

/// Established sockets of one side of a pair.
fn established(scrape: &Scrape, side: &str, proxy: &str, upstream: &str) -> f64 {
    let labels = [("side", side), ("proxy", proxy), ("upstream", upstream), ("state", "established")];
    scrape.sum("finwatch_sockets", &labels)
}

#[test]
fn netlink_processes_with_one_upstream() {
    if !can_run("netlink_processes_with_one_upstream") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated_without_iterator(&FRESH);
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound").to_string();
        let one: Vec<_> = (0..3).map(|_| open_as(b"envoy", &listener)).collect();
        assert_count("alone", established(&fresh(&daemon), "proxy", "envoy", &upstream), 3);
        let other: Vec<_> = (0..2).map(|_| open_as(b"haproxy", &listener)).collect();
        let scrape = fresh(&daemon);
        assert_count("the one", established(&scrape, "proxy", "envoy", &upstream), 3);
        assert_count("the other", established(&scrape, "proxy", "haproxy", &upstream), 2);
        assert_count("accepted", established(&scrape, "upstream", "127.0.0.1", &upstream), 5);
        drop((one, other));
        let scrape = fresh(&daemon);
        for (proxy, closed) in [("envoy", 3), ("haproxy", 2)] {
            let labels = [("proxy", proxy), ("upstream", upstream.as_str()), ("state", "time_wait")];
            assert_count("closed", scrape.sum("finwatch_sockets", &labels), closed);
        }
    });
}

#[test]
fn netlink_knows_no_older_connections() {
    if !can_run("netlink_knows_no_older_connections") {
        return;
    }
    netns::in_namespace(|| {
        let listener = listen(local(1, untraced_port()));
        let upstream = listener.local_addr().expect("bound").to_string();
        let old: Vec<_> = (0..4).map(|_| pair(&listener)).collect();
        let daemon = Daemon::isolated_without_iterator(&FRESH);
        let scrape = fresh(&daemon);
        for (mode, is) in [("partial", 1), ("full", 0), ("off", 0)] {
            let labels = [("hook", "iter/tcp"), ("mode", mode)];
            assert_count(mode, scrape.sum("finwatch_hook_attached", &labels), is);
        }
        assert!(daemon.output().contains("listed by netlink"), "{}", daemon.output());
        for side in ["proxy", "upstream"] {
            assert_count(side, established(&scrape, side, "other", "other"), 4);
        }
        assert_count("tracked", scrape.sum("finwatch_tracked_connections", &[]), 0);
        let ports = [("upstream", upstream.as_str()), ("src", "127.0.0.1")];
        assert_count("ports held", scrape.sum("finwatch_ephemeral_ports_used", &ports), 4);
        drop(old);
        let scrape = fresh(&daemon);
        assert_count("closed", scrape.sum("finwatch_connections_closed_total", &[]), 0);
        let gone = [("state", "established")];
        assert_count("still there", scrape.sum("finwatch_sockets", &gone), 0);
    });
}

#[test]
fn check_tells_of_netlink() {
    if !can_run("check_tells_of_netlink") {
        return;
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_finwatch"));
    check.args(["check", "--strict"]).stdin(Stdio::null());
    crate::harness::daemon::refuse_iterators(&mut check);
    let output = check.output().expect("the finwatch binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let row = text.lines().find(|line| line.contains("hook iter/tcp")).expect("a row for the hook");
    assert!(row.starts_with("degraded") && row.contains("netlink") && row.contains("other"), "{row}");
}
