//! Connections as fast as the machine makes them: none is missed, none counted twice, nothing is left behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use finwatch::model::protocol_counters::counter;

use crate::harness::{
    can_run,
    daemon::Daemon,
    detach::on_transitions,
    judge, netns,
    reference::{FRESH, fresh, untraced_port},
    trace::traces_all_resets,
    traffic::{listen, local, open_and_close, pair},
    until,
};

const HOSTS: u8 = 8;
const PER_HOST: u32 = 2_500;
const PORT: u16 = 30_000;

/// Connections that stand still meanwhile, both ends of which are watched.
const HELD: usize = 400;
/// With so many the table of live connections has 2,048 places.
const SMALL_TABLE: [&str; 2] = ["--max-connections", "1024"];

#[test]
fn twenty_thousand_connections() {
    if can_run("twenty_thousand_connections") {
        judge(|| twenty_thousand(&[], false));
    }
}

/// Where two places in five are taken, as many connections stand elsewhere than at home.
#[test]
fn twenty_thousand_connections_in_a_crowded_table() {
    if can_run("twenty_thousand_connections_in_a_crowded_table") {
        judge(|| twenty_thousand(&SMALL_TABLE, false));
    }
}

/// Walks that meet sockets on their way from one state to the next take nothing from events, and add nothing.
#[test]
fn twenty_thousand_connections_while_sockets_are_walked() {
    if can_run("twenty_thousand_connections_while_sockets_are_walked") {
        judge(|| twenty_thousand(&[], true));
    }
}

/// What is wrong, and with the sockets of which port.
fn twenty_thousand(table: &[&str], walked: bool) -> Option<(String, Vec<u16>)> {
    netns::in_namespace(|| {
        netns::sysctl("ipv4/ip_local_port_range", "25000 65535");
        netns::sysctl("ipv4/ip_local_reserved_ports", &PORT.to_string());
        let daemon = Daemon::isolated(&[&FRESH, table].concat());
        let still = listen(local(1, untraced_port()));
        let _held: Vec<_> = (0..if table.is_empty() { 0 } else { HELD }).map(|_| pair(&still)).collect();
        let before = daemon.scrape().sum("finwatch_tracked_connections", &[]);
        let over = AtomicBool::new(false);
        let listeners: Vec<_> = (1..=HOSTS).map(|host| listen(local(host, PORT))).collect();
        thread::scope(|scope| {
            let traffic = listeners.chunks(usize::from(HOSTS / 2)).map(|half| {
                scope.spawn(move || {
                    for listener in half {
                        (0..PER_HOST).for_each(|_| open_and_close(listener));
                    }
                })
            });
            let traffic: Vec<_> = traffic.collect();
            if walked {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        fresh(&daemon);
                    }
                });
            }
            for thread in traffic {
                thread.join().expect("all are opened and closed");
            }
            over.store(true, Ordering::Relaxed);
        });
        until("the table of live connections is as before", || {
            let now = daemon.scrape().sum("finwatch_tracked_connections", &[]);
            ((now - before).abs() < 0.5).then_some(())
        });
        let scrape = daemon.scrape();
        let mut wrong = Vec::new();
        for (host, side) in (1..=HOSTS).flat_map(|host| ["proxy", "upstream"].map(|side| (host, side))) {
            let upstream = local(host, PORT).to_string();
            for family in
                ["connections_opened_total", "connections_closed_total", "connection_duration_seconds_count"]
            {
                let count =
                    scrape.sum(&format!("finwatch_{family}"), &[("side", side), ("upstream", &upstream)]);
                if (count - f64::from(PER_HOST)).abs() > 0.0 {
                    wrong.push(format!(
                        "{family} side={side} upstream={upstream}: {count}, should be {PER_HOST}"
                    ));
                }
            }
        }
        for total in ["untracked_connections_total", "pairs_folded_total", "connections_missed_end_total"] {
            let count = scrape.sum(&format!("finwatch_{total}"), &[]);
            if count > 0.0 {
                wrong.push(format!("{total}: {count}, should be 0"));
            }
        }
        let skipped = |program| scrape.sum("finwatch_bpf_missed_runs_total", &[("program", program)]);
        let skipped: Vec<_> = on_transitions().into_iter().map(skipped).collect();
        let wrong = wrong.join("\n");
        (!wrong.is_empty()).then(|| (format!("{wrong}\nruns skipped by the kernel: {skipped:?}"), vec![PORT]))
    })
}

const CROSSINGS: u32 = 20_000;
const CROSSING_HOSTS: [u8; 2] = [1, 2];

/// Requests that arrive while the upstream closes wait in the socket's backlog: our reset answers them, the proxy never
/// sends one. A request that comes after the proxy's end has acknowledged the FIN meets a TIME_WAIT socket instead.
#[test]
fn requests_that_arrive_during_close() {
    if !can_run("requests_that_arrive_during_close") {
        return;
    }
    netns::in_namespace(|| {
        netns::sysctl("ipv4/ip_local_port_range", "25000 65535");
        netns::sysctl("ipv4/ip_local_reserved_ports", &PORT.to_string());
        let daemon = Daemon::isolated(&[]);
        let listeners = CROSSING_HOSTS.map(|host| listen(local(host, PORT)));
        thread::scope(|scope| {
            for listener in &listeners {
                scope.spawn(|| (0..CROSSINGS).for_each(|_| answer_and_close(listener)));
                scope.spawn(|| (0..CROSSINGS).for_each(|_| ask_twice(listener)));
            }
        });
        let scrape = daemon.scrape();
        let [mut received_by_all, mut sent_by_all] = [0.0; 2];
        for host in CROSSING_HOSTS {
            let upstream = local(host, PORT).to_string();
            let sum = |family: &str, side: &str| {
                scrape.sum(&format!("finwatch_{family}"), &[("side", side), ("upstream", &upstream)])
            };
            let (received, sent) =
                (sum("resets_received_total", "proxy"), sum("resets_sent_total", "upstream"));
            assert!(sent < received + 0.5, "{upstream}: {received} received, {sent} sent");
            let never = sum("resets_received_total", "upstream");
            assert!(never < 0.5, "{upstream}: the proxy sent no reset, but {never} are counted as received");
            received_by_all += received;
            sent_by_all += sent;
        }
        let shown = if traces_all_resets() { received_by_all } else { sent_by_full_sockets() };
        assert!(
            (sent_by_all - shown).abs() < 0.5,
            "{received_by_all} received, {sent_by_all} of {shown} sent"
        );
        let untracked = scrape.sum("finwatch_untracked_resets_total", &[]);
        assert!(untracked < 0.5, "{untracked} resets were taken for those of untracked connections");
    });
}

/// The resets that this thread's namespace has sent on data after close() and on close() with data unread, by the kernel's
/// own counters: all that a full socket sends here (`tcp_rcv_state_process()` and `__tcp_close()`).
fn sent_by_full_sockets() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("counters");
    let count = |name| counter(&text, "TcpExt", name).expect("a counter of the kernel's");
    let sent = count("TCPAbortOnData") + count("TCPAbortOnClose");
    f64::from(u32::try_from(sent).expect("not that many"))
}

fn answer_and_close(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.read_exact(&mut [0]).expect("a request");
    stream.write_all(b"x").expect("answered");
}

fn ask_twice(listener: &TcpListener) {
    let upstream = listener.local_addr().expect("an address");
    let mut stream = TcpStream::connect(upstream).expect("connected");
    stream.set_nodelay(true).expect("an open socket");
    stream.write_all(b"x").expect("sent");
    stream.read_exact(&mut [0]).expect("an answer");
    // The second request crosses the close: how it fails does not matter.
    let _sent = stream.write(&[b'x'; 200]);
    let _end = stream.read(&mut [0]);
}
