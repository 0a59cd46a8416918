//! A storm of resets: the ring buffer overruns, every counter stays exact, and each incident is recorded, held back or lost.

use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    netns, trace,
    traffic::{listen, local, pair},
    until,
};

/// Resets of established connections, by each thread.
const RESETS: usize = 10_000;
/// Refused connections, by each thread.
const REFUSALS: usize = 15_000;
const THREADS: u8 = 2;
const PORT: u16 = 30_000;
/// Nobody listens there.
const CLOSED_PORT: u16 = 30_001;

/// The upstream resets connections: nothing was ever said on them.
fn reset(listener: &TcpListener, count: usize) {
    for _ in 0..count {
        let (proxy, upstream) = pair(listener);
        SockRef::from(&upstream).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(upstream);
        let error = proxy.peek(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// Half of the storm: an upstream that resets, and one that is not there.
fn storm(hosts: [u8; 2], part: usize) -> Duration {
    let since = Instant::now();
    thread::scope(|scope| {
        for host in hosts {
            scope.spawn(move || {
                trace::leave_out_this_thread();
                let listener = listen(local(host, PORT));
                reset(&listener, RESETS / part);
                for _ in 0..REFUSALS / part {
                    TcpStream::connect(local(host, CLOSED_PORT)).expect_err("nobody listens there");
                }
            });
        }
    });
    since.elapsed()
}

#[test]
fn a_storm_of_resets_is_counted_to_the_last() {
    if !can_run("a_storm_of_resets_is_counted_to_the_last") {
        return;
    }
    trace::start();
    netns::in_namespace(|| {
        // More a second than a pair has while it is awake: however fast the storm, each has some left for when it is not.
        let daemon = Daemon::isolated(&["--incidents-per-second", "10000", "--incident-file-size", "1GiB"]);
        let hosts = [1, THREADS];
        // First it does what it can; then it does not get to run at all, so that the buffer must overrun.
        let awake = storm(hosts, 2);
        kill(daemon.pid, Signal::SIGSTOP).expect("a process of ours");
        let asleep = storm(hosts, 2);
        kill(daemon.pid, Signal::SIGCONT).expect("a process of ours");

        let each = RESETS + REFUSALS;
        let anomalies = usize::from(THREADS) * each;
        let rate = anomalies as f64 / (awake + asleep).as_secs_f64();
        eprintln!("{anomalies} anomalies, {rate:.0}/s");
        let sum = |family: &str, labels: &[(&str, &str)]| {
            daemon.scrape().whole(&format!("finwatch_{family}_total"), labels)
        };
        until("every end is counted", || {
            (daemon.scrape().sum("finwatch_tracked_connections", &[]) < 0.5).then_some(())
        });
        for host in hosts {
            let upstream = local(host, PORT).to_string();
            for (family, side, label) in [
                ("connections_opened", "proxy", None),
                ("connections_opened", "upstream", None),
                ("connections_closed", "proxy", Some(("by", "reset"))),
                ("connections_closed", "upstream", Some(("by", "reset"))),
                ("resets_received", "proxy", Some(("phase", "idle"))),
                ("resets_sent", "upstream", Some(("cause", "abort"))),
            ] {
                let pair = [("side", side), ("upstream", upstream.as_str())];
                let labels: Vec<_> = pair.into_iter().chain(label).collect();
                assert_eq!(sum(family, &labels), RESETS, "{family} {labels:?}");
                assert_eq!(sum(family, &pair), RESETS, "{family} side={side}, all");
            }
            let absent = local(host, CLOSED_PORT).to_string();
            let refused = [("upstream", absent.as_str()), ("reason", "refused")];
            assert_eq!(sum("connect_failures", &refused), REFUSALS);
        }
        let [recorded, limited, lost] =
            ["incidents", "incidents_limited", "incidents_lost"].map(|family| sum(family, &[]));
        assert_eq!(recorded + limited + lost, anomalies, "recorded, held back and lost");
        assert!(recorded > 0 && lost > 0, "recorded {recorded}, held back {limited}, lost {lost}");
        eprintln!("recorded {recorded}, held back {limited}, lost {lost}");
        let numbers = || daemon.incidents().iter().map(|record| record.id).collect::<BTreeSet<u64>>();
        until("all that was recorded is in the file", || {
            numbers().into_iter().eq(1..=recorded as u64).then_some(())
        });

        // It is over: what comes now is recorded.
        TcpStream::connect(local(9, CLOSED_PORT)).expect_err("nobody listens there");
        until("one more", || numbers().into_iter().eq(1..=recorded as u64 + 1).then_some(()));
        assert_eq!(sum("incidents_lost", &[]), lost);
    });
}
