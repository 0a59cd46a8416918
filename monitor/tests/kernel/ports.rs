//! Ephemeral ports: held toward each destination, the namespace's own limit, and running out of them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{
    PATIENCE, can_run,
    daemon::Daemon,
    lab::set_option,
    metrics::Scrape,
    netns, process_name,
    reference::{FRESH, Resident, assert_count, fresh, netns_inode, netns_name, untraced_port},
    traffic::{listen, local},
};

/// First port of every range: none of the daemon's own, none that a test listens on.
const FIRST: u16 = 10_000;
/// Attempts that must fail once all ports are held.
const TOO_MANY: usize = 7;

fn set_range(ports: u16) {
    netns::sysctl("ipv4/ip_local_port_range", &format!("{FIRST} {}", FIRST + ports - 1));
}

/// An upstream that takes every connection at once.
struct Destination {
    listener: TcpListener,
    address: SocketAddr,
    /// Both ends of each connection.
    held: Vec<(TcpStream, TcpStream)>,
    refused: usize,
}

impl Destination {
    fn new(address: SocketAddr) -> Self {
        Self { listener: listen(address), address, held: Vec::new(), refused: 0 }
    }

    /// Connects from a free port, if the kernel finds one.
    fn connect(&mut self, source: Option<Ipv4Addr>) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        if let Some(source) = source {
            // The port is chosen when the destination is known, as for a connection without bind().
            set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.connect(&self.address.into())?;
        let (upstream, _) = self.listener.accept()?;
        self.held.push((socket.into(), upstream));
        Ok(())
    }

    /// Takes all ports there are, and tries some times more.
    fn exhaust(&mut self, source: Option<Ipv4Addr>) {
        let mut failed = 0;
        while failed < TOO_MANY {
            match self.connect(source) {
                Ok(()) => assert_eq!(failed, 0, "a port after there was none"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
                    failed += 1;
                }
            }
        }
        self.refused += failed;
    }

    /// Closes all with RST, which leaves no port behind.
    fn reset(&mut self) {
        for (proxy, upstream) in self.held.drain(..) {
            SockRef::from(&proxy).set_linger(Some(Duration::ZERO)).expect("an option");
            drop(proxy);
            drop(upstream);
        }
    }
}

/// What the daemon shows for one namespace and source.
fn assert_used(
    upstream: SocketAddr,
    scrape: &Scrape,
    (netns, source): (&str, &str),
    used: usize,
    limit: u16,
) {
    let upstream = upstream.to_string();
    let labels = [("netns", netns), ("src", source), ("upstream", upstream.as_str())];
    let what = format!("from {source} in {netns} to {upstream}");
    let have = scrape.sum("finwatch_ephemeral_ports_used", &labels);
    assert_count(&format!("ports held {what}"), have, used);
    let have = scrape.sum("finwatch_ephemeral_ports_limit", &[("netns", netns)]);
    assert_count(&format!("limit in {netns}"), have, limit.into());
    let ratio = scrape.sum("finwatch_ephemeral_ports_used_ratio", &labels);
    let wanted = f64::from(u32::try_from(used).expect("few")) / f64::from(limit);
    assert!((ratio - wanted).abs() < f64::EPSILON, "ratio {what}: {ratio}, should be {wanted}");
}

/// So many attempts have found no port, and none has failed otherwise.
fn assert_refused(upstream: SocketAddr, scrape: &Scrape, refused: usize) {
    let (name, upstream) = (process_name(), upstream.to_string());
    let pair = [("side", "proxy"), ("proxy", name.as_str()), ("upstream", upstream.as_str())];
    let labels = [&pair[..], &[("reason", "no_local_port")]].concat();
    let failures = "finwatch_connect_failures_total";
    assert_count("no_local_port", scrape.sum(failures, &labels), refused);
    assert_count("all failures", scrape.sum(failures, &pair), refused);
}

/// Runs out of a range of so many ports, twice.
pub(crate) fn run_out_of(ports: u16, start: fn(&[&str]) -> Daemon) {
    run_out_toward(Ipv4Addr::LOCALHOST.into(), ports, start);
}

fn run_out_toward(host: IpAddr, ports: u16, start: fn(&[&str]) -> Daemon) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536).max(soft), hard).expect("up to the hard limit");
    let port = untraced_port();
    netns::in_namespace(|| {
        let daemon = start(&FRESH);
        set_range(ports);
        let mut upstream = Destination::new((host, port).into());
        for round in 1..=2 {
            upstream.exhaust(None);
            assert_eq!(upstream.held.len(), usize::from(ports), "every port is taken");
            let scrape = fresh(&daemon);
            assert_used(upstream.address, &scrape, (&netns_name(), &host.to_string()), ports.into(), ports);
            assert_refused(upstream.address, &scrape, round * TOO_MANY);
            assert_eq!(upstream.refused, round * TOO_MANY);
            upstream.reset();
            let scrape = fresh(&daemon);
            assert_used(upstream.address, &scrape, (&netns_name(), &host.to_string()), 0, ports);
            assert_refused(upstream.address, &scrape, round * TOO_MANY);
        }
    });
}

#[test]
fn run_out_of_10_ports() {
    if can_run("run_out_of_10_ports") {
        run_out_of(10, Daemon::isolated);
    }
}

#[test]
fn run_out_of_10_ports_of_ipv6() {
    if can_run("run_out_of_10_ports_of_ipv6") {
        run_out_toward(Ipv6Addr::LOCALHOST.into(), 10, Daemon::isolated);
    }
}

#[test]
fn run_out_of_100_ports() {
    if can_run("run_out_of_100_ports") {
        run_out_of(100, Daemon::isolated);
    }
}

#[test]
fn run_out_of_1000_ports() {
    if can_run("run_out_of_1000_ports") {
        run_out_of(1_000, Daemon::isolated);
    }
}

#[test]
fn reserved_ports_and_a_changed_range() {
    if can_run("reserved_ports_and_a_changed_range") {
        reserved_ports(Daemon::isolated);
    }
}

pub(crate) fn reserved_ports(start: fn(&[&str]) -> Daemon) {
    let port = untraced_port();
    netns::in_namespace(|| {
        let daemon = start(&FRESH);
        set_range(20);
        let reserved = format!("{FIRST}-{},{}", FIRST + 4, FIRST + 11);
        netns::sysctl("ipv4/ip_local_reserved_ports", &reserved);
        let mut upstream = Destination::new(local(1, port));
        upstream.exhaust(None);
        assert_eq!(upstream.held.len(), 14);
        // Bound to a reserved port, and to one outside the range: neither is an ephemeral one.
        let mut bound = Vec::new();
        for port in [FIRST + 2, FIRST - 5] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&local(1, port).into()).expect("a free port");
            socket.connect(&upstream.address.into()).expect("a listener is there");
            bound.push((socket, upstream.listener.accept().expect("a connection")));
        }
        let scrape = fresh(&daemon);
        assert_used(upstream.address, &scrape, (&netns_name(), "127.0.0.1"), 14, 14);
        assert_refused(upstream.address, &scrape, TOO_MANY);
        let address = upstream.address.to_string();
        let labels = [("side", "proxy"), ("upstream", address.as_str()), ("state", "established")];
        assert_count("all sockets", scrape.sum("finwatch_sockets", &labels), 16);
        set_range(40);
        assert_used(upstream.address, &fresh(&daemon), (&netns_name(), "127.0.0.1"), 14, 34);
        netns::sysctl("ipv4/ip_local_reserved_ports", "\n");
        // The bound one inside the range now counts.
        assert_used(upstream.address, &fresh(&daemon), (&netns_name(), "127.0.0.1"), 15, 40);
        drop(bound);
    });
}

#[test]
fn sources_and_destinations_share_ports() {
    if !can_run("sources_and_destinations_share_ports") {
        return;
    }
    let ports = [untraced_port(), untraced_port()];
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&FRESH);
        set_range(10);
        let sources = [Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4)];
        let mut destinations = ports.map(|port| Destination::new(local(1, port)));
        for destination in &mut destinations {
            for source in sources {
                destination.exhaust(Some(source));
            }
            assert_eq!(destination.held.len(), 20);
        }
        let scrape = fresh(&daemon);
        for destination in &destinations {
            for source in sources {
                assert_used(destination.address, &scrape, (&netns_name(), &source.to_string()), 10, 10);
            }
            assert_refused(destination.address, &scrape, 2 * TOO_MANY);
        }
        destinations[0].reset();
        let scrape = fresh(&daemon);
        for (destination, used) in destinations.iter().zip([0, 10]) {
            for source in sources {
                assert_used(destination.address, &scrape, (&netns_name(), &source.to_string()), used, 10);
            }
        }
    });
}

#[test]
fn the_same_addresses_in_three_namespaces() {
    const LIMITS: [u16; 3] = [10, 20, 30];
    if !can_run("the_same_addresses_in_three_namespaces") {
        return;
    }
    let daemon = Daemon::start(&FRESH);
    let address = local(1, untraced_port());
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        // Dropped with this closure, whatever its outcome: then the namespaces end.
        let mut ends = Vec::new();
        for limit in LIMITS {
            let tell = tell.clone();
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            scope.spawn(move || {
                netns::in_namespace(move || {
                    let _resident = Resident::start();
                    set_range(limit);
                    let mut upstream = Destination::new(address);
                    upstream.exhaust(None);
                    let held = upstream.held.len();
                    tell.send((netns_inode().to_string(), limit, held)).expect("the test waits");
                    ended.recv().expect_err("nothing is said, the end just comes");
                });
            });
        }
        let namespaces = LIMITS.map(|_| told.recv_timeout(PATIENCE).expect("a namespace without free ports"));
        let scrape = fresh(&daemon);
        for (netns, limit, held) in namespaces {
            assert_eq!(held, usize::from(limit), "every port is taken");
            assert_used(address, &scrape, (&netns, "127.0.0.1"), held, limit);
        }
        assert_refused(address, &scrape, LIMITS.len() * TOO_MANY);
        let address = address.to_string();
        let labels = [("upstream", address.as_str()), ("state", "established")];
        assert_count("both ends of all", scrape.sum("finwatch_sockets", &labels), 2 * 60);
        drop(ends);
    });
}
