//! How many sockets stand in which state: what `ss` lists is the reference, at the same moment and for every state.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::harness::{
    can_run,
    daemon::Daemon,
    lab::{Connection, Family, Lab, QUIET, own_port},
    metrics::{Scrape, Side},
    netns,
    reference::{FRESH, Row, STATES, assert_count, fresh, netns_name, ss},
    traffic::{local, pair},
    until,
};

/// Sockets by state.
pub(crate) type Count = BTreeMap<&'static str, u32>;

/// How many `ss` lists for one side of `upstream`.
pub(crate) fn listed(rows: &[Row], side: Side, upstream: SocketAddr) -> Count {
    let mut count = Count::new();
    for row in rows {
        let end = if side == Side::Proxy { row.remote } else { row.local };
        let state = STATES.iter().find(|(_, printed)| *printed == row.state);
        if let Some((name, _)) = state.filter(|_| end == upstream) {
            *count.entry(name).or_default() += 1;
        }
    }
    count
}

/// How many the daemon shows; a state without sockets may be absent or 0.
pub(crate) fn shown(scrape: &Scrape, side: Side, upstream: SocketAddr) -> Count {
    let upstream = upstream.to_string();
    let in_state = |state| {
        let labels = [("side", side.label()), ("upstream", upstream.as_str()), ("state", state)];
        scrape.sum("finwatch_sockets", &labels)
    };
    let known = STATES.map(|(state, _)| (state, in_state(state)));
    let all = scrape.sum("finwatch_sockets", &[("side", side.label()), ("upstream", &upstream)]);
    assert!((known.iter().map(|(_, count)| count).sum::<f64>() - all).abs() < 0.5, "no other state");
    let whole = |count: f64| (0..1_000_000).find(|whole| f64::from(*whole) >= count).expect("not that many");
    known.map(|(state, count)| (state, whole(count))).into_iter().filter(|(_, count)| *count > 0).collect()
}

/// What the daemon shows, what `ss` lists before and after, and what was made, must be the same.
fn assert_as_listed(daemon: &Daemon, side: Side, upstream: SocketAddr, made: &[(&'static str, u32)]) {
    let made: Count = made.iter().copied().collect();
    let what = |who| format!("{who}, side={} of {upstream}", side.label());
    // An end may still wait for the delayed acknowledgment of its FIN.
    until(&what("ss lists what was made"), || (listed(&ss(&[]), side, upstream) == made).then_some(()));
    let scrape = fresh(daemon);
    assert_eq!(listed(&ss(&[]), side, upstream), made, "{}", what("ss after"));
    assert_eq!(shown(&scrape, side, upstream), made, "{}", what("finwatch"));
}

/// Another number of sockets in every state, so that none can be taken for another.
pub(crate) fn every_state(family: Family, side: Side, start: fn(&[&str]) -> Daemon) {
    let port = own_port();
    netns::in_namespace(|| {
        let daemon = start(&FRESH);
        let lab = Lab::new(family, side, port);
        let mut kept: Vec<Connection> = Vec::new();
        let mut add = |count: u32, shape: &dyn Fn(&mut Connection)| {
            for _ in 0..count {
                let mut connection = lab.used();
                shape(&mut connection);
                kept.push(connection);
            }
        };
        add(1, &|_| {});
        add(2, &Connection::close);
        // Shut down, but not closed: a full socket in FIN_WAIT2. Closed: a mini-socket in the same state.
        add(1, &|connection| {
            connection.shutdown_write();
            connection.peer.ack();
        });
        add(2, &|connection| {
            connection.close();
            connection.peer.receive_fin();
            connection.peer.ack();
        });
        add(4, &Connection::close_first);
        add(5, &|connection| connection.peer.fin());
        add(6, &|connection| {
            connection.peer.fin();
            connection.close();
        });
        add(7, &|connection| {
            connection.close();
            // Acknowledges what came before the FIN only: both have closed, neither knows that the other knows.
            connection.peer.fin();
        });
        let opening = match side {
            Side::Proxy => "syn_sent",
            Side::Upstream => "syn_recv",
        };
        let listener = (side == Side::Upstream).then(|| lab.listen());
        let dialled: Vec<_> = (0..8).filter(|_| side == Side::Proxy).map(|_| lab.dial()).collect();
        for _ in 0..8_u8 {
            if listener.is_some() {
                let mut peer = lab.peer();
                peer.syn_with(0);
                peer.await_syn_ack();
            }
        }
        let made = [
            ("established", 1),
            ("fin_wait1", 2),
            ("fin_wait2", 3),
            ("time_wait", 4),
            ("close_wait", 5),
            ("last_ack", 6),
            ("closing", 7),
            (opening, 8),
        ];
        assert_as_listed(&daemon, side, lab.upstream.into(), &made);
        drop((kept, listener, dialled));
    });
}

macro_rules! every_state {
    ($($name:ident: $family:ident $side:ident,)+) => {$(
        #[test]
        fn $name() {
            if can_run(stringify!($name)) {
                every_state(Family::$family, Side::$side, Daemon::isolated);
            }
        }
    )+};
}

every_state! {
    every_state_of_a_proxy_v4: V4 Proxy,
    every_state_of_a_proxy_v6: V6 Proxy,
    every_state_of_a_proxy_mapped: Mapped Proxy,
    every_state_of_an_upstream_v4: V4 Upstream,
    every_state_of_an_upstream_v6: V6 Upstream,
    every_state_of_an_upstream_mapped: Mapped Upstream,
}

fn listen_at(family: Family, backlog: i32) -> TcpListener {
    let domain = if family == Family::V6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(family.loopback(), own_port()).into()).expect("a free port");
    socket.listen(backlog).expect("a listener");
    socket.into()
}

#[test]
fn both_ends_on_loopback() {
    if can_run("both_ends_on_loopback") {
        both_ends(Daemon::isolated);
    }
}

pub(crate) fn both_ends(start: fn(&[&str]) -> Daemon) {
    netns::in_namespace(|| {
        let daemon = start(&FRESH);
        for family in [Family::V4, Family::V6] {
            let listener = listen_at(family, 64);
            let upstream = listener.local_addr().expect("bound");
            let open = |count: usize| (0..count).map(|_| pair(&listener)).collect::<Vec<_>>();
            let established = open(3);
            // The proxy closes: a mini-socket in FIN_WAIT2 that faces CLOSE_WAIT, until the upstream closes too.
            let half_closed: Vec<TcpStream> = open(4).into_iter().map(|(_, upstream)| upstream).collect();
            for (proxy, upstream) in open(5) {
                drop(proxy);
                until("the proxy's FIN", || (upstream.peek(&mut [0]).ok()? == 0).then_some(()));
                drop(upstream);
            }
            let proxy = [("established", 3), ("fin_wait2", 4), ("time_wait", 5)];
            assert_as_listed(&daemon, Side::Proxy, upstream, &proxy);
            let accepting = [("established", 3), ("close_wait", 4)];
            assert_as_listed(&daemon, Side::Upstream, upstream, &accepting);
            drop((established, half_closed));
        }
    });
}

#[test]
fn idle_connections() {
    if can_run("idle_connections") {
        idle(Daemon::isolated);
    }
}

pub(crate) fn idle(start: fn(&[&str]) -> Daemon) {
    netns::in_namespace(|| {
        let daemon = start(&FRESH);
        let listener = TcpListener::bind(local(1, own_port())).expect("a free port");
        let upstream = listener.local_addr().expect("bound").to_string();
        let mut connections: Vec<_> = (0..7).map(|_| pair(&listener)).collect();
        let level = |scrape: &Scrape, side: Side| {
            let labels = [("side", side.label()), ("upstream", upstream.as_str())];
            let established = [&labels[..], &[("state", "established")]].concat();
            (scrape.sum("finwatch_idle_sockets", &labels), scrape.sum("finwatch_sockets", &established))
        };
        let unanswered = |side: Side| {
            let labels = [("side", side.label()), ("upstream", upstream.as_str())];
            fresh(&daemon).sum("finwatch_unanswered_sockets", &labels)
        };
        let is = |(idle, established): (f64, f64), wanted: f64| {
            assert_count("established", established, 7);
            (idle - wanted).abs() < 0.5
        };
        thread::sleep(QUIET);
        let scrape = fresh(&daemon);
        for side in [Side::Proxy, Side::Upstream] {
            assert_count("idle, all quiet", level(&scrape, side).0, 7);
            assert_count("unanswered where nothing was asked", unanswered(side), 0);
        }
        let (busy, quiet) = connections.split_at_mut(3);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let talking = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (proxy, _) in &mut *busy {
                        proxy.write_all(b"r").expect("room to write");
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
            until("three are busy and four idle, on either side", || {
                let scrape = fresh(&daemon);
                let all = [Side::Proxy, Side::Upstream].map(|side| is(level(&scrape, side), 4.0));
                all.iter().all(|as_wanted| *as_wanted).then_some(())
            });
            stop.store(true, Ordering::Relaxed);
            talking.join().expect("it has written all the time");
        });
        thread::sleep(QUIET);
        assert!(is(level(&fresh(&daemon), Side::Proxy), 7.0), "quiet again");
        for side in [Side::Proxy, Side::Upstream] {
            assert_count("unanswered, three were asked upon", unanswered(side), 3);
        }
        // One is answered, and another end's data upon a connection where nothing was asked is no request.
        busy[0].1.write_all(b"answer").expect("room to write");
        quiet[0].1.write_all(b"greeting").expect("room to write");
        thread::sleep(QUIET);
        for side in [Side::Proxy, Side::Upstream] {
            assert_count("unanswered, one was answered", unanswered(side), 2);
        }
    });
}

#[test]
fn accept_queues() {
    if can_run("accept_queues") {
        queues(Daemon::isolated);
    }
}

pub(crate) fn queues(start: fn(&[&str]) -> Daemon) {
    netns::in_namespace(|| {
        let daemon = start(&FRESH);
        let listeners: Vec<_> = [(Family::V4, 3_u8), (Family::V6, 5)]
            .map(|(family, waiting)| (listen_at(family, 9), waiting))
            .into();
        let open = |(listener, waiting): &(TcpListener, u8)| {
            let address = listener.local_addr().expect("bound");
            (0..*waiting).map(|_| TcpStream::connect(address).expect("room to wait")).collect::<Vec<_>>()
        };
        let waiting: Vec<_> = listeners.iter().map(open).collect();
        let compare = |taken: u8| {
            let scrape = fresh(&daemon);
            let rows: Vec<Row> = ss(&[]).into_iter().filter(|row| row.state == "LISTEN").collect();
            for (listener, wait) in &listeners {
                let address = listener.local_addr().expect("bound");
                let row = rows.iter().find(|row| row.local == address).expect("ss lists the listener");
                assert_eq!((row.received, row.sent), (u32::from(wait - taken), 9), "ss, {address}");
                let upstream = address.to_string();
                let netns = netns_name();
                let labels = [("netns", netns.as_str()), ("upstream", upstream.as_str())];
                let value = |name: &str| {
                    assert_eq!(scrape.matching(name, &labels).count(), 1, "{name} of {upstream}");
                    scrape.sum(name, &labels)
                };
                assert_count("length", value("finwatch_accept_queue_length"), (wait - taken).into());
                assert_count("limit", value("finwatch_accept_queue_limit"), 9);
            }
        };
        compare(0);
        for (listener, _) in &listeners {
            drop(listener.accept().expect("one waits"));
        }
        compare(1);
        drop(waiting);
    });
}

/// Listening on every address: of IPv4, of IPv6, of both with one socket.
pub(crate) fn wildcards(start: fn(&[&str]) -> Daemon) {
    const WAITING: usize = 3;
    netns::in_namespace(|| {
        let listeners = [
            (Ipv4Addr::UNSPECIFIED.into(), true, vec![Ipv4Addr::LOCALHOST.into()]),
            (Ipv6Addr::UNSPECIFIED.into(), true, vec![Ipv6Addr::LOCALHOST.into()]),
            (
                Ipv6Addr::UNSPECIFIED.into(),
                false,
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            ),
        ]
        .map(|(any, only, reached): (IpAddr, bool, Vec<IpAddr>)| {
            let domain = if any.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
            if any.is_ipv6() {
                socket.set_only_v6(only).expect("an option");
            }
            socket.bind(&SocketAddr::new(any, own_port()).into()).expect("a free port");
            socket.listen(32).expect("a listener");
            (TcpListener::from(socket), reached)
        });
        // Older than the daemon: who has accepted is known from the listening sockets alone.
        let open = |(listener, reached): &(TcpListener, Vec<IpAddr>)| {
            let port = listener.local_addr().expect("bound").port();
            let connect = |ip: &IpAddr| {
                let connect = || TcpStream::connect((*ip, port)).expect("room to wait");
                (0..WAITING).map(|_| connect()).collect::<Vec<_>>()
            };
            reached.iter().flat_map(connect).collect::<Vec<_>>()
        };
        let old: Vec<_> = listeners.iter().map(open).collect();
        let daemon = start(&FRESH);
        let new: Vec<_> = listeners.iter().map(open).collect();
        let scrape = fresh(&daemon);
        let rows: Vec<Row> = ss(&[]).into_iter().filter(|row| row.state == "LISTEN").collect();
        for (listener, reached) in &listeners {
            let address = listener.local_addr().expect("bound");
            let waiting = 2 * WAITING * reached.len();
            let row = rows.iter().find(|row| row.local.port() == address.port()).expect("ss lists it");
            assert_eq!(usize::try_from(row.received), Ok(waiting), "ss, {address}");
            let upstream = address.to_string();
            let netns = netns_name();
            let labels = [("netns", netns.as_str()), ("upstream", upstream.as_str())];
            assert_count("length", scrape.sum("finwatch_accept_queue_length", &labels), waiting);
            assert_count("limit", scrape.sum("finwatch_accept_queue_limit", &labels), 32);
            for ip in reached {
                let upstream = SocketAddr::new(*ip, address.port()).to_string();
                for side in ["proxy", "upstream"] {
                    let labels = [("side", side), ("upstream", &upstream), ("state", "established")];
                    assert_count(side, scrape.sum("finwatch_sockets", &labels), 2 * WAITING);
                }
            }
        }
        assert_eq!(scrape.matching("finwatch_accept_queue_length", &[]).count(), rows.len());
        drop((old, new));
    });
}

#[test]
fn wildcard_listeners() {
    if can_run("wildcard_listeners") {
        wildcards(Daemon::isolated);
    }
}
