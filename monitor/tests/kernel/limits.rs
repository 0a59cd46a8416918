//! Bounds: what does not fit is counted elsewhere, and nothing else is lost.

use std::{thread, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns,
    traffic::{as_user, listen, local, open_and_close, pair},
    until,
};

const OPENED: &str = "finwatch_connections_opened_total";

/// Exact counts of whole things, as floating point.
fn assert_same(what: &str, have: f64, wanted: f64) {
    assert!((have - wanted).abs() < 0.5, "{what}: {have}, should be {wanted}");
}

fn opened(scrape: &Scrape, side: &str) -> f64 {
    scrape.sum(OPENED, &[("side", side)])
}

#[test]
fn more_pairs_than_room() {
    if !can_run("more_pairs_than_room") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--max-pairs", "32"]);
        let listeners: Vec<_> = (30_000..30_100).map(|port| listen(local(1, port))).collect();
        listeners.iter().for_each(open_and_close);
        let scrape = until("all connections are closed", || {
            let scrape = daemon.scrape();
            (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
        });
        assert_same("opened by proxies", opened(&scrape, "proxy"), 100.0);
        assert_same("accepted by upstreams", opened(&scrape, "upstream"), 100.0);
        let other = |side| scrape.sum(OPENED, &[("side", side), ("proxy", "other"), ("upstream", "other")]);
        assert!(other("proxy") > 0.0 && other("upstream") > 0.0, "both sides are folded");
        assert_same(
            "folded",
            scrape.sum("finwatch_pairs_folded_total", &[]),
            other("proxy") + other("upstream"),
        );
        let closed = scrape.sum("finwatch_connections_closed_total", &[]);
        assert_same("closed", closed, 200.0);
        let limit = scrape.sum("finwatch_pairs_limit", &[]);
        assert!(scrape.sum("finwatch_pairs", &[]) <= limit, "no more pairs than the limit");

        // root's connections have filled its share; another user's still get a pair of their own.
        let listener = listen(local(1, 30_200));
        as_user(65_534, || open_and_close(&listener));
        until("the other user's pair", || {
            let scrape = daemon.scrape();
            let own = scrape.sum(OPENED, &[("side", "proxy"), ("upstream", "127.0.0.1:30200")]);
            (own > 0.5).then_some(())
        });
    });
}

#[test]
fn more_connections_than_room() {
    if !can_run("more_connections_than_room") {
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536).max(soft), hard).expect("up to the hard limit");
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--max-connections", "1024"]);
        let listener = listen(local(1, 30_000));
        let connections: Vec<_> = (0..700).map(|_| pair(&listener)).collect();
        let scrape = daemon.scrape();
        let untracked = scrape.sum("finwatch_untracked_connections_total", &[]);
        let tracked = scrape.sum("finwatch_tracked_connections", &[]);
        assert!(untracked > 0.0 && tracked <= 1024.0, "tracked {tracked}, untracked {untracked}");
        let opened = opened(&scrape, "proxy") + opened(&scrape, "upstream");
        assert_same("opened and untracked", opened + untracked, 1_400.0);
        assert_same("opened and still there", tracked, opened);
        drop(connections);
        let scrape = until("all connections are closed", || {
            let scrape = daemon.scrape();
            (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
        });
        assert_same("closed", scrape.sum("finwatch_connections_closed_total", &[]), opened);
        assert_same("untracked", scrape.sum("finwatch_untracked_connections_total", &[]), untracked);
    });
}

#[test]
fn pairs_expire_and_make_room() {
    if !can_run("pairs_expire_and_make_room") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--max-pairs", "16", "--pair-ttl", "1s"]);
        for round in 0..3_u16 {
            // Five pairs on either side: within one owner's share, but not three times over.
            for port in 30_000 + 10 * round..30_005 + 10 * round {
                open_and_close(&listen(local(1, port)));
            }
            let scrape = daemon.scrape();
            assert_same("pairs folded", scrape.sum("finwatch_pairs_folded_total", &[]), 0.0);
            until("the pairs are gone", || {
                let scrape = daemon.scrape();
                let gone = scrape.matching(OPENED, &[]).count() == 0;
                (gone && scrape.sum("finwatch_pairs", &[]) < 0.5).then_some(())
            });
            let expired = daemon.scrape().sum("finwatch_pairs_expired_total", &[]);
            assert_same("pairs expired", expired, f64::from(10 * (round + 1)));
        }
    });
}

#[test]
fn pairs_with_connections_do_not_expire() {
    if !can_run("pairs_with_connections_do_not_expire") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--pair-ttl", "1s"]);
        let listener = listen(local(1, 30_000));
        let connection = pair(&listener);
        open_and_close(&listen(local(1, 30_001)));
        until("the pair without connections is gone", || {
            (daemon.scrape().sum("finwatch_pairs_expired_total", &[]) > 1.5).then_some(())
        });
        thread::sleep(Duration::from_secs(1));
        let scrape = daemon.scrape();
        let kept = scrape.sum(OPENED, &[("upstream", "127.0.0.1:30000")]);
        assert_same("opened, either side", kept, 2.0);
        drop(connection);
    });
}
