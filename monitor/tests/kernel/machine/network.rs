//! A network that delays and reorders: what meets on the way.

use std::{io::Write as _, process::Command, thread, time::Duration};

use super::is_here;
use crate::{
    harness::{
        daemon::Daemon,
        lab::Family,
        metrics::Side,
        netns,
        reference::assert_count,
        traffic::{listen, local, pair},
        until,
    },
    sequence::{self, End, Real, Run, Sequence},
    sequences::real::{exchange, loopback},
};

const PORT: u16 = 30_000;
/// How long a segment is on its way.
const DELAY: Duration = Duration::from_millis(50);

/// Has loopback of the calling thread's namespace be like this.
fn network(netem: &str) {
    let mut tc = Command::new("tc");
    tc.args(["qdisc", "replace", "dev", "lo", "root", "netem"]).args(netem.split(' '));
    assert!(tc.status().expect("`tc` of iproute2 starts").success(), "tc {netem}");
}

/// The upstream closes an idle connection while the next request is on its way to it, and they meet half way.
const CROSSING: Sequence = Sequence {
    name: "requests_cross_fins_on_the_way",
    what: "Two real stacks, 50 ms apart; the upstream's FIN and a request cross.",
    ends: &[
        End {
            side: Side::Proxy,
            path: "7->2 2->1 1->8 RST-in 8->7",
            counted: &[
                "opened",
                "closed:peer",
                "received:after_peer_fin",
                "lost:crossed_fin",
                "fin_then_rst:received",
                "lost_idle<1",
            ],
        },
        End {
            side: Side::Upstream,
            // The acknowledgment of the FIN finds no socket any more.
            path: "3->1 1->4 RST-in 4->7 RST-out RST-out?",
            counted: &[
                "opened",
                "closed:local",
                "sent:data_after_close",
                "fin_then_rst:sent",
                "local_close_idle<1",
            ],
        },
    ],
    near: "crossed_fin",
    run: Run::Real(cross),
};

fn cross(family: Family, port: u16) -> Real {
    network("delay 50ms");
    let (mut proxy, mut upstream, real) = loopback(family, port);
    exchange(&mut proxy, &mut upstream);
    drop(upstream);
    thread::sleep(DELAY / 10);
    proxy.write_all(&[b'r'; 200]).expect("room to write");
    thread::sleep(DELAY * 4);
    real
}

#[test]
fn requests_cross_fins_on_the_way() {
    if is_here("requests_cross_fins_on_the_way") {
        sequence::run(&CROSSING);
    }
}

/// Requests and the upstream's closing meet at every offset, over a network that reorders. Nobody answers, so each ends in
/// a reset and counts once: as lost where the FIN was there first, else as a request that met a reset.
#[test]
fn each_request_is_lost_once_on_a_network_that_reorders() {
    const CONNECTIONS: u64 = 40;
    if !is_here("each_request_is_lost_once_on_a_network_that_reorders") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let upstream = local(1, PORT);
        let listener = listen(upstream);
        network("delay 20ms 15ms");
        let closing = Duration::from_millis(CONNECTIONS / 2);
        for offset in (0..CONNECTIONS).map(Duration::from_millis) {
            let (mut proxy, mut upstream) = pair(&listener);
            exchange(&mut proxy, &mut upstream);
            let mut write = || proxy.write_all(&[b'r'; 200]).expect("room to write");
            thread::sleep(offset.min(closing));
            if offset < closing {
                write();
                thread::sleep(closing.saturating_sub(offset));
                drop(upstream);
            } else {
                drop(upstream);
                thread::sleep(offset.saturating_sub(closing));
                write();
            }
            thread::sleep(DELAY * 10);
        }
        let scrape = until("nothing is open", || {
            let scrape = daemon.scrape();
            (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
        });
        let upstream = upstream.to_string();
        let of = |side, name: &str| scrape.sum(name, &[("side", side), ("upstream", upstream.as_str())]);
        let all = usize::try_from(CONNECTIONS).expect("a few");
        for side in ["proxy", "upstream"] {
            assert_count("opened", of(side, "finwatch_connections_opened_total"), all);
            assert_count("closed", of(side, "finwatch_connections_closed_total"), all);
        }
        let lost = of("proxy", "finwatch_requests_on_peer_closed_socket_total");
        let resets = |labels: &[(&str, &str)]| scrape.sum("finwatch_resets_received_total", labels);
        assert_count("resets", resets(&[("side", "proxy")]), all);
        let early = resets(&[("side", "proxy"), ("phase", "reused_request")]);
        assert_count("lost or reset before the FIN", lost + early, all);
        let crossed = [("side", "proxy"), ("timing", "crossed_fin")];
        let crossed = scrape.sum("finwatch_requests_on_peer_closed_socket_total", &crossed);
        assert!(crossed > 0.5, "some have crossed the FIN");
        assert_count("missed", scrape.sum("finwatch_connections_missed_end_total", &[]), 0);
    });
}
