//! Requests, where they are followed: counts, times to the first byte, and how many each connection has carried.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use finwatch_ebpf::wire::Counter;

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns, trace,
    traffic::{listen, local, pair},
    until,
};

const PORT: u16 = 30_000;
const REQUESTS: &str = "finwatch_requests_total";
const FIRST_BYTE: &str = "finwatch_time_to_first_byte_seconds_count";
const PER_CONNECTION: &str = "finwatch_requests_per_connection";
/// Both ways of following, and whether the accepting end's times are told: not where the kernel traces no lengths.
fn ways() -> [(&'static str, bool); 2] {
    [("--requests", trace::traces_lengths()), ("--requests=coarse", false)]
}

/// Exchanges of two threads.
const EXCHANGES: u32 = 500;
/// Longer than any jiffy.
const PAUSE: Duration = Duration::from_millis(20);

fn send(stream: &mut TcpStream, pieces: u8) {
    for piece in 0..pieces {
        stream.write_all(&[piece; 100]).expect("room to write");
    }
}

/// Reads what `pieces` were sent, a piece at a time.
fn receive(stream: &mut TcpStream, pieces: u8) {
    for _ in 0..pieces {
        stream.read_exact(&mut [0; 100]).expect("a piece");
    }
}

/// A request and its answer.
fn exchange(proxy: &mut TcpStream, upstream: &mut TcpStream) {
    send(proxy, 1);
    receive(upstream, 1);
    send(upstream, 1);
    receive(proxy, 1);
}

/// A connection that carries so many requests.
fn connection(listener: &TcpListener, requests: u32) {
    let (mut proxy, mut upstream) = pair(listener);
    for _ in 0..requests {
        exchange(&mut proxy, &mut upstream);
    }
    drop(proxy);
    assert_eq!(upstream.read(&mut [0]).expect("the end of the stream"), 0);
}

fn settled(daemon: &Daemon) -> Scrape {
    until("all connections are closed", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
    })
}

#[track_caller]
fn assert_same(what: &str, have: f64, wanted: f64) {
    assert!((have - wanted).abs() < 0.5, "{what}: {have}, should be {wanted}");
}

/// One side's requests, times and connections.
#[track_caller]
fn assert_counted(scrape: &Scrape, side: &str, upstream: &str, requests: f64, times: f64, connections: f64) {
    let labels = [("side", side), ("upstream", upstream)];
    assert_same(&format!("{side}: requests"), scrape.sum(REQUESTS, &labels), requests);
    assert_same(&format!("{side}: times"), scrape.sum(FIRST_BYTE, &labels), times);
    let count = format!("{PER_CONNECTION}_count");
    assert_same(&format!("{side}: connections"), scrape.sum(&count, &labels), connections);
    let sum = format!("{PER_CONNECTION}_sum");
    assert_same(&format!("{side}: requests on them"), scrape.sum(&sum, &labels), requests);
}

/// Connections in the bucket that ends at a bound, and in none below it.
fn in_bucket(scrape: &Scrape, side: &str, below: &str, bound: &str) -> f64 {
    let up_to = |bound| scrape.sum(&format!("{PER_CONNECTION}_bucket"), &[("side", side), ("le", bound)]);
    up_to(bound) - up_to(below)
}

#[test]
fn requests_are_counted_exactly() {
    if !can_run("requests_are_counted_exactly") {
        return;
    }
    for (flag, both_ends) in ways() {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(&[flag]);
            let listener = listen(local(1, PORT));
            let carried = [0, 1, 1, 1, 2, 10, 10, 100];
            for requests in carried {
                connection(&listener, requests);
            }
            let requests: f64 = carried.iter().map(|requests| f64::from(*requests)).sum();
            let scrape = settled(&daemon);
            let upstream = local(1, PORT).to_string();
            assert_counted(&scrape, "proxy", &upstream, requests, requests, 8.0);
            let observation = daemon.observe();
            let observed: Vec<_> = observation
                .pairs
                .iter()
                .filter(|pair| pair.labels.upstream == upstream)
                .map(|pair| (pair.counts.get(Counter::Requests), pair.requests.clone().expect("followed")))
                .collect();
            assert_eq!(observed.len(), 2, "either side");
            for (answered, requests) in observed {
                let of = &requests.per_connection;
                assert_eq!((answered, of.requests, of.connections), (125, 125, 8));
                assert_eq!([0, 1, 2, 10, 100].map(|number| of.exactly(number)), [1, 3, 1, 2, 1]);
            }
            let times = if both_ends { requests } else { 0.0 };
            assert_counted(&scrape, "upstream", &upstream, requests, times, 8.0);
            for side in ["proxy", "upstream"] {
                for (below, bound, connections) in
                    [("0", "1", 3.0), ("1", "2", 1.0), ("9", "10", 2.0), ("99", "100", 1.0)]
                {
                    assert_same(bound, in_bucket(&scrape, side, below, bound), connections);
                }
            }
        });
    }
}

/// Each of these is one request on either side, in spite of what goes on around it.
#[test]
fn a_request_is_one_however_it_is_sent_and_read() {
    if !can_run("a_request_is_one_however_it_is_sent_and_read") {
        return;
    }
    let shapes: [fn(&mut TcpStream, &mut TcpStream); 5] = [
        |proxy, upstream| {
            send(proxy, 3);
            receive(upstream, 3);
            send(upstream, 4);
            receive(proxy, 4);
        },
        |proxy, upstream| {
            send(proxy, 1);
            upstream.peek(&mut [0; 10]).expect("the request has come");
            receive(upstream, 1);
            send(upstream, 1);
            for _ in 0..3 {
                proxy.peek(&mut [0; 10]).expect("the answer has come");
            }
            receive(proxy, 1);
        },
        // Neither end has anything to read, or to say.
        |proxy, upstream| {
            for stream in [&mut *proxy, &mut *upstream] {
                stream.set_nonblocking(true).expect("an option");
                stream.read(&mut [0]).expect_err("nothing has come");
                stream.set_nonblocking(false).expect("an option");
            }
            exchange(proxy, upstream);
        },
        // The answer comes in two parts with a pause, and the second is read by its half.
        |proxy, upstream| {
            send(proxy, 1);
            receive(upstream, 1);
            send(upstream, 1);
            receive(proxy, 1);
            thread::sleep(PAUSE);
            send(upstream, 1);
            proxy.read_exact(&mut [0; 50]).expect("half a piece");
            proxy.read_exact(&mut [0; 50]).expect("the other half");
        },
        // Half-closed by the one that asks, in the middle of the answer: a FIN is no request.
        |proxy, upstream| {
            send(proxy, 1);
            receive(upstream, 1);
            send(upstream, 1);
            receive(proxy, 1);
            proxy.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(upstream.read(&mut [0]).expect("the end of the stream"), 0);
            send(upstream, 1);
            receive(proxy, 1);
        },
    ];
    for (flag, both_ends) in ways() {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(&[flag]);
            let mut upstreams = Vec::new();
            for (port, shape) in (PORT..).zip(shapes) {
                for address in [local(1, port), (Ipv6Addr::LOCALHOST, port).into()] {
                    let (mut proxy, mut upstream) = pair(&listen(address));
                    shape(&mut proxy, &mut upstream);
                    upstreams.push(address.to_string());
                }
            }
            let scrape = settled(&daemon);
            for upstream in upstreams {
                assert_counted(&scrape, "proxy", &upstream, 1.0, 1.0, 1.0);
                let times = if both_ends { 1.0 } else { 0.0 };
                assert_counted(&scrape, "upstream", &upstream, 1.0, times, 1.0);
            }
        });
    }
}

/// The answer and the FIN have come before the one that asked, and half-closed, reads: its connection is over by then.
#[test]
fn an_answer_that_is_read_after_the_end_counts() {
    if !can_run("an_answer_that_is_read_after_the_end_counts") {
        return;
    }
    for (flag, _) in ways() {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(&[flag]);
            let (mut proxy, mut upstream) = pair(&listen(local(1, PORT)));
            send(&mut proxy, 1);
            proxy.shutdown(Shutdown::Write).expect("connected");
            receive(&mut upstream, 1);
            send(&mut upstream, 1);
            drop(upstream);
            let scrape = settled(&daemon);
            receive(&mut proxy, 1);
            for side in ["proxy", "upstream"] {
                assert_same(side, scrape.sum(REQUESTS, &[("side", side)]), 1.0);
            }
        });
    }
}

#[test]
fn what_is_not_answered_is_no_request() {
    if !can_run("what_is_not_answered_is_no_request") {
        return;
    }
    for (flag, _) in ways() {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(&[flag]);
            let (mut proxy, mut upstream) = pair(&listen(local(1, PORT)));
            // A greeting, an exchange, and a goodbye that nobody answers.
            send(&mut upstream, 1);
            receive(&mut proxy, 1);
            exchange(&mut proxy, &mut upstream);
            send(&mut proxy, 1);
            receive(&mut upstream, 1);
            drop((proxy, upstream));
            let scrape = settled(&daemon);
            for side in ["proxy", "upstream"] {
                assert_same(side, scrape.sum(REQUESTS, &[("side", side)]), 1.0);
            }
        });
    }
}

/// Sends and receives of two threads overtake each other; every answer is read before the next request is sent.
#[test]
fn threads_that_share_a_connection() {
    if !can_run("threads_that_share_a_connection") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--requests"]);
        let (mut proxy, mut upstream) = pair(&listen(local(1, PORT)));
        let mut reading = proxy.try_clone().expect("a second descriptor");
        let (answered, next) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..EXCHANGES {
                    receive(&mut reading, 1);
                    answered.send(()).expect("the sender waits");
                }
            });
            scope.spawn(move || {
                for _ in 0..EXCHANGES {
                    receive(&mut upstream, 1);
                    send(&mut upstream, 1);
                }
                assert_eq!(upstream.read(&mut [0]).expect("the end of the stream"), 0);
            });
            for _ in 0..EXCHANGES {
                send(&mut proxy, 1);
                next.recv().expect("an answer");
            }
            proxy.shutdown(Shutdown::Both).expect("connected");
        });
        drop(proxy);
        let scrape = settled(&daemon);
        let requests = scrape.sum(REQUESTS, &[("side", "upstream")]);
        assert_same("upstream, one thread", requests, f64::from(EXCHANGES));
        let requests = scrape.sum(REQUESTS, &[("side", "proxy")]);
        assert_same("proxy, two threads", requests, f64::from(EXCHANGES));
    });
}

#[test]
fn connections_older_than_the_daemon_and_pairs_without_rules() {
    if !can_run("connections_older_than_the_daemon_and_pairs_without_rules") {
        return;
    }
    for (flag, _) in ways() {
        netns::in_namespace(|| {
            let (mut proxy, mut upstream) = pair(&listen(local(1, PORT)));
            exchange(&mut proxy, &mut upstream);
            let without = (PORT + 1).to_string();
            let daemon = Daemon::isolated(&[flag, "--no-request-rules", &without]);
            exchange(&mut proxy, &mut upstream);
            exchange(&mut proxy, &mut upstream);
            drop((proxy, upstream));
            connection(&listen(local(1, PORT + 1)), 3);
            let scrape = settled(&daemon);
            let old = local(1, PORT).to_string();
            for side in ["proxy", "upstream"] {
                let labels = [("side", side), ("upstream", old.as_str())];
                assert_same(side, scrape.sum(REQUESTS, &labels), 2.0);
            }
            let all = scrape.sum(REQUESTS, &[]);
            assert_same("none where the rules are off", all, 4.0);
            let count = format!("{PER_CONNECTION}_count");
            assert_eq!(
                scrape.matching(&count, &[]).count(),
                0,
                "what an old one carried in all is not known"
            );
        });
    }
}

#[test]
fn off_unless_asked_for() {
    if !can_run("off_unless_asked_for") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        connection(&listen(local(1, PORT)), 3);
        let scrape = settled(&daemon);
        for name in [REQUESTS, FIRST_BYTE, "finwatch_requests_per_connection_count"] {
            assert_eq!(scrape.matching(name, &[]).count(), 0, "{name}");
        }
        for (family, label, names) in [
            ("finwatch_bpf_runs_total", "program", ["send_length", "recv_length", "data_read"]),
            (
                "finwatch_hook_attached",
                "hook",
                ["sock_send_length", "sock_recv_length", "tcp_rcv_space_adjust"],
            ),
        ] {
            assert!(scrape.matching(family, &[]).count() > 0, "{family}");
            for name in names {
                assert_eq!(scrape.matching(family, &[(label, name)]).count(), 0, "{name}");
            }
        }
    });
}

#[test]
fn hooks_that_were_asked_for() {
    if !can_run("hooks_that_were_asked_for") {
        return;
    }
    let attached = |flag| {
        netns::in_namespace(|| {
            let scrape = Daemon::isolated(&[flag]).scrape();
            let mode = |hook: &str| {
                let labels = [("hook", hook)];
                let all = scrape.matching("finwatch_hook_attached", &labels);
                let one = all.filter(|(_, value)| *value > 0.5).map(|(labels, _)| labels["mode"].clone());
                one.collect::<String>()
            };
            ["sock_send_length", "sock_recv_length", "tcp_rcv_space_adjust"].map(mode)
        })
    };
    assert_eq!(attached("--requests=coarse"), ["", "", "partial"]);
    let finest = if trace::traces_lengths() { ["full", "full", ""] } else { ["", "", "partial"] };
    assert_eq!(attached("--requests"), finest);
}
