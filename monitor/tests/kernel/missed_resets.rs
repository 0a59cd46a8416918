//! A reset that one program is skipped for is counted by the next.

use std::{
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    detach::{detach, programs_on},
    netns,
    reference::{FRESH, assert_count, untraced_port},
    trace::traces_all_resets,
    traffic::{listen, local, pair},
    until,
};

/// Resets of each kind.
const EACH: usize = 20;

#[test]
fn the_next_program_counts_resets() {
    if !can_run("the_next_program_counts_resets") {
        return;
    }
    let hooks = ["tcp_receive_reset", "tcp_send_reset"].map(programs_on);
    for gone in 0..hooks[0].len() {
        netns::in_namespace(|| {
            let gone: Vec<_> = hooks.iter().flat_map(|programs| &programs[..gone]).copied().collect();
            takes_over(&gone);
        });
    }
}

/// The upstream aborts a connection on which nothing was said.
fn aborted(listener: &TcpListener) {
    let (mut proxy, upstream) = pair(listener);
    SockRef::from(&upstream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(upstream);
    assert_eq!(proxy.read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}

fn takes_over(gone: &[&str]) {
    let daemon = Daemon::isolated(&FRESH);
    let listener = listen(local(1, untraced_port()));
    let absent = local(2, untraced_port());
    detach(daemon.pid, gone);
    for _ in 0..EACH {
        aborted(&listener);
        TcpStream::connect(absent).expect_err("nobody listens there");
    }
    let upstream = listener.local_addr().expect("bound").to_string();
    let scrape = until("nothing is tracked", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
    });
    for (family, side, label) in [
        ("resets_sent", "upstream", ("cause", "abort")),
        ("resets_received", "proxy", ("phase", "idle")),
        ("connections_closed", "proxy", ("by", "reset")),
    ] {
        let name = format!("finwatch_{family}_total");
        let pair = [("side", side), ("upstream", upstream.as_str())];
        assert_count(
            &format!("{family} {label:?} without {gone:?}"),
            scrape.sum(&name, &[&pair[..], &[label]].concat()),
            EACH,
        );
        assert_count(&format!("{family} without {gone:?}"), scrape.sum(&name, &pair), EACH);
    }
    let refusals = if traces_all_resets() { EACH } else { 0 };
    let labels = [("cause", "no_socket")];
    let counted = scrape.sum("finwatch_resets_sent_total", &labels);
    assert_count(&format!("refusals without {gone:?}"), counted, refusals);
}
