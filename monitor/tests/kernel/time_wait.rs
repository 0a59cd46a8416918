//! Entries into TIME_WAIT are counted, the level is walked, and the two agree.

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns, process_name,
    reference::{FRESH, assert_count, fresh, netns_name, ss, untraced_port},
    traffic::{listen, local, open_and_close},
};

const CLOSES: usize = 5_000;
const OTHERS: usize = 11;

#[test]
fn five_thousand_active_closes() {
    if can_run("five_thousand_active_closes") {
        active_closes(Daemon::isolated);
    }
}

pub(crate) fn active_closes(start: fn(&[&str]) -> Daemon) {
    netns::in_namespace(|| {
        // Otherwise a TIME_WAIT on loopback that is a second old gives its port away.
        netns::sysctl("ipv4/tcp_tw_reuse", "0");
        netns::sysctl_if_there("ipv4/tcp_max_tw_buckets", "20000");
        let daemon = start(&FRESH);
        let name = process_name();
        let port = untraced_port();
        let (listener, other) = (listen(local(7, port)), listen(local(8, port)));
        let upstream = local(7, port).to_string();
        let entered = |scrape: &Scrape, upstream: &str| {
            let labels = [("side", "proxy"), ("proxy", name.as_str()), ("upstream", upstream)];
            scrape.sum("finwatch_time_wait_entered_total", &labels)
        };
        open_and_close(&listener);
        let before = entered(&fresh(&daemon), &upstream);
        assert_count("entered before", before, 1);
        (0..CLOSES).for_each(|_| open_and_close(&listener));
        (0..OTHERS).for_each(|_| open_and_close(&other));
        let scrape = fresh(&daemon);
        assert_count("entered", entered(&scrape, &upstream) - before, CLOSES);
        assert_count(
            "entered, all pairs",
            scrape.sum("finwatch_time_wait_entered_total", &[]),
            CLOSES + OTHERS + 1,
        );
        let rows = ss(&[]);
        for (upstream, count) in [(local(7, port), CLOSES + 1), (local(8, port), OTHERS)] {
            let listed = rows.iter().filter(|row| row.remote == upstream && row.state == "TIME-WAIT").count();
            assert_eq!(listed, count, "ss, {upstream}");
            let upstream = upstream.to_string();
            let labels = [("upstream", upstream.as_str()), ("state", "time_wait")];
            let own = [&labels[..], &[("side", "proxy"), ("proxy", name.as_str())]].concat();
            assert_count("level of our process", scrape.sum("finwatch_sockets", &own), listed);
            assert_count("level of anybody", scrape.sum("finwatch_sockets", &labels), listed);
            let netns = netns_name();
            let ports = [("netns", netns.as_str()), ("src", "127.0.0.1"), ("upstream", upstream.as_str())];
            assert_count("ports held", scrape.sum("finwatch_ephemeral_ports_used", &ports), listed);
        }
        let overflow = scrape.sum("finwatch_time_wait_overflow_total", &[("netns", netns_name().as_str())]);
        assert_count("without room", overflow, 0);
    });
}

#[test]
fn no_room_in_time_wait() {
    if !can_run("no_room_in_time_wait") {
        return;
    }
    netns::in_namespace(|| {
        const ROOM: usize = 20;
        netns::sysctl("ipv4/tcp_tw_reuse", "0");
        netns::sysctl("ipv4/tcp_max_tw_buckets", &ROOM.to_string());
        let daemon = Daemon::isolated(&FRESH);
        let port = untraced_port();
        let listener = listen(local(9, port));
        (0..3 * ROOM).for_each(|_| open_and_close(&listener));
        let scrape = fresh(&daemon);
        let upstream = local(9, port);
        let listed = ss(&[]).iter().filter(|row| row.remote == upstream && row.state == "TIME-WAIT").count();
        let upstream = upstream.to_string();
        let labels = [("side", "proxy"), ("upstream", upstream.as_str()), ("state", "time_wait")];
        assert_count("level", scrape.sum("finwatch_sockets", &labels), listed);
        assert!(listed <= ROOM + 1, "no more than the namespace may hold: {listed}");
        let netns = netns_name();
        let own = [("netns", netns.as_str())];
        assert_count("limit", scrape.sum("finwatch_time_wait_limit", &own), ROOM);
        let overflow = scrape.sum("finwatch_time_wait_overflow_total", &own);
        assert!(overflow >= 1.0, "the kernel's own count is shown: {overflow}");
    });
}
