//! What is shown: filters, ranges of proxies, rules switched off, names of any kind.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns, trace,
    traffic::{listen, local, open_and_close, open_and_close_as, pair},
    until,
};

const OPENED: &str = "finwatch_connections_opened_total";

/// Which sides of which upstreams are counted when each is connected to once.
fn counted(arguments: &[&str], upstreams: &[SocketAddr]) -> Vec<String> {
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(arguments);
        for upstream in upstreams {
            open_and_close(&listen(*upstream));
        }
        let scrape = settled(&daemon);
        let mut sides: Vec<String> = scrape
            .matching(OPENED, &[])
            .map(|(labels, count)| format!("{} {} {count}", labels["side"], labels["upstream"]))
            .collect();
        sides.sort();
        sides
    })
}

fn settled(daemon: &Daemon) -> Scrape {
    until("all connections are closed", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
    })
}

#[test]
fn ports_and_networks() {
    if !can_run("ports_and_networks") {
        return;
    }
    let upstreams = [local(1, 30_001), local(1, 30_002), local(2, 30_003)];
    let [one, two, three] = upstreams.map(|upstream| upstream.to_string());
    let both = |upstream: &str| [format!("proxy {upstream} 1"), format!("upstream {upstream} 1")];
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(counted(&["--include-port", "30001"], &upstreams), both(&one));
    assert_eq!(
        counted(&["--exclude-port", "30001"], &upstreams),
        sorted([both(&two), both(&three)].concat())
    );
    // The remote end of 127.0.0.2's connections is 127.0.0.1.
    assert_eq!(counted(&["--include-net", "127.0.0.2/32"], &upstreams), [format!("proxy {three} 1")]);
    let mut rest = [both(&one), both(&two)].concat();
    rest.push(format!("upstream {three} 1"));
    assert_eq!(counted(&["--exclude-net", "127.0.0.2/32"], &upstreams), sorted(rest));
    assert_eq!(
        counted(&["--exclude-net", "127.0.0.0/8", "--include-net", "127.0.0.2/32"], &upstreams),
        [format!("proxy {three} 1")],
        "the smallest network decides"
    );
}

#[test]
fn processes() {
    if !can_run("processes") {
        return;
    }
    let shown = |arguments: &[&str]| {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(arguments);
            let listener = listen(local(1, 30_000));
            for name in ["envoy", "haproxy"] {
                open_and_close_as(name.as_bytes(), &listener);
            }
            let scrape = settled(&daemon);
            let upstream = scrape.sum(OPENED, &[("side", "upstream")]);
            assert!((upstream - 2.0).abs() < 0.5, "what is accepted is no process's: {upstream}");
            scrape
                .matching(OPENED, &[("side", "proxy")])
                .map(|(labels, count)| format!("{} {count}", labels["proxy"]))
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(shown(&[]), ["envoy 1", "haproxy 1"]);
    assert_eq!(shown(&["--include-process", "envoy"]), ["envoy 1"]);
    assert_eq!(shown(&["--exclude-process", "envoy"]), ["haproxy 1"]);
}

#[test]
fn remote_proxies_outside_the_ranges() {
    if !can_run("remote_proxies_outside_the_ranges") {
        return;
    }
    netns::in_namespace(|| {
        netns::ip("addr add 203.0.113.7/32 dev lo\n");
        let daemon = Daemon::isolated(&["--proxy-ranges", "127.0.0.0/8"]);
        open_and_close(&listen(local(1, 30_000)));
        let outside: SocketAddr = "203.0.113.7:30001".parse().expect("an address");
        open_and_close(&listen(outside));
        let scrape = settled(&daemon);
        let proxies = |upstream: &str| {
            scrape
                .matching(OPENED, &[("side", "upstream"), ("upstream", upstream)])
                .map(|(labels, _)| labels["proxy"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(proxies("127.0.0.1:30000"), ["127.0.0.1"]);
        assert_eq!(proxies("203.0.113.7:30001"), ["external"]);
        let local_side = scrape.sum(OPENED, &[("side", "proxy"), ("upstream", "203.0.113.7:30001")]);
        assert!((local_side - 1.0).abs() < 0.5, "our own process is never external");
    });
}

#[test]
fn ports_without_request_rules() {
    if !can_run("ports_without_request_rules") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--no-request-rules", "30001"]);
        for port in [30_001, 30_002] {
            let listener = listen(local(1, port));
            let (mut proxy, mut upstream) = pair(&listener);
            proxy.write_all(&[b'r'; 200]).expect("room to write");
            upstream.read_exact(&mut [0; 200]).expect("the request");
            // Longer than a delayed acknowledgment.
            thread::sleep(Duration::from_millis(200));
            drop(upstream);
            assert_eq!(proxy.read(&mut [0]).expect("the end of the stream"), 0);
        }
        let scrape = settled(&daemon);
        let unanswered = |upstream| {
            scrape.sum(
                "finwatch_peer_closed_before_response_total",
                &[("side", "proxy"), ("upstream", upstream)],
            )
        };
        assert!((unanswered("127.0.0.1:30002") - 1.0).abs() < 0.5, "the rule is on");
        assert!(unanswered("127.0.0.1:30001") < 0.5, "the rule is off");
    });
}

#[test]
fn goodbyes_of_another_length() {
    if !can_run("goodbyes_of_another_length") {
        return;
    }
    let lost = |arguments: &[&str]| {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(arguments);
            let (mut proxy, upstream) = pair(&listen(local(1, 30_000)));
            drop(upstream);
            assert_eq!(proxy.read(&mut [0]).expect("the end of the stream"), 0);
            proxy.write_all(&[b'g'; 31]).expect("room to write");
            let scrape = settled_after_reset(&daemon);
            drop(proxy);
            scrape.sum("finwatch_requests_on_peer_closed_socket_total", &[("timing", "after_fin")])
        })
    };
    assert!(lost(&[]) < 0.5, "31 bytes are a goodbye");
    assert!(lost(&["--goodbye-bytes", "31"]) < 0.5, "up to 31 bytes are a goodbye");
    assert!((lost(&["--goodbye-bytes", "30"]) - 1.0).abs() < 0.5, "31 bytes are a request");
}

fn settled_after_reset(daemon: &Daemon) -> Scrape {
    until("the reset has come", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_resets_received_total", &[]) > 0.5).then_some(scrape)
    })
}

#[test]
fn resets_without_a_connection() {
    if !can_run("resets_without_a_connection") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        for _ in 0..3 {
            TcpStream::connect(local(1, 30_000)).expect_err("nobody listens");
        }
        let labels =
            [("side", "none"), ("cause", "no_socket"), ("proxy", ""), ("upstream", ""), ("workload", "")];
        let scrape = daemon.scrape();
        let all: Vec<_> = scrape.matching("finwatch_resets_sent_total", &[]).collect();
        let wanted = if trace::traces_all_resets() { 3.0 } else { 0.0 };
        let count: f64 = all.iter().map(|(_, count)| count).sum();
        assert!((count - wanted).abs() < 0.5, "{all:?}");
        for (have, _) in all {
            for (name, value) in labels {
                assert_eq!(have.get(name).map_or("", String::as_str), value, "{have:?}");
            }
        }
        assert_eq!(scrape.matching(OPENED, &[("side", "upstream")]).count(), 0, "no pair is made of it");
    });
}

#[test]
fn every_hook_is_attached_whatever_is_filtered() {
    if !can_run("every_hook_is_attached_whatever_is_filtered") {
        return;
    }
    for requests in ["--requests=off", "--requests", "--requests=coarse"] {
        netns::in_namespace(|| {
            let daemon = Daemon::isolated(&[
                "--include-net",
                "10.0.0.0/8",
                "--exclude-net",
                "10.1.0.0/16",
                "--exclude-port",
                "22",
                "--no-request-rules",
                "443",
                "--no-request-rules",
                "[::1]:80",
                "--log-level",
                "debug",
                requests,
            ]);
            let off: f64 = daemon.scrape().sum("finwatch_hook_attached", &[("mode", "off")]);
            assert!(off < 0.5, "{requests}: {}", daemon.output());
        });
    }
}

#[test]
fn resets_of_filtered_connections() {
    if !can_run("resets_of_filtered_connections") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--exclude-port", "30000"]);
        let (proxy, mut upstream) = pair(&listen(local(1, 30_000)));
        let proxy = socket2::Socket::from(proxy);
        proxy.set_linger(Some(Duration::ZERO)).expect("an option");
        drop(proxy);
        upstream.read(&mut [0]).expect_err("the reset has come");
        let sent: Vec<_> =
            daemon.scrape().matching("finwatch_resets_sent_total", &[]).map(|(_, sent)| sent).collect();
        assert!(sent.iter().all(|sent| *sent < 0.5), "neither the pair's nor without a connection: {sent:?}");
    });
}

#[test]
fn names_of_any_kind() {
    if !can_run("names_of_any_kind") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let listener = listen(local(1, 30_000));
        let names: [&[u8]; 7] = [
            b"quo\"back\\slash",
            b"new\nline",
            b"bad \xff",
            b"bad \xfe",
            b"{brace=\"}",
            b" spaces ",
            b"\x01\x7f\t",
        ];
        for name in names {
            open_and_close_as(name, &listener);
        }
        settled(&daemon);
        let text = daemon.text();
        let (rest, families) = nom_openmetrics::parser::prometheus(&text).expect("the exposition parses");
        assert!(rest.trim().is_empty() && families.len() > 10, "it parses to its end: {rest}");
        // Refuses what comes twice.
        let scrape = Scrape::parse(&text);
        let opened = scrape.sum(OPENED, &[("side", "proxy"), ("upstream", "127.0.0.1:30000")]);
        assert!((opened - 7.0).abs() < 0.5, "every connection counts under some name: {opened}");
        let proxies = scrape.matching(OPENED, &[("side", "proxy")]).count();
        assert_eq!(proxies, 6, "two names print alike and are merged");
        let exact = scrape.matching(OPENED, &[("proxy", "quo\"back\\slash")]).count();
        assert_eq!(exact, 1, "a name with a quote and a backslash comes through as it is");
    });
}
