//! Who answered behind a service's address: asked of connection tracking, upon real translations by nftables.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
};

use caps::Capability;
use finwatch::{
    kernel::rights::{Lasting, lasting},
    model::{
        behind::Behind,
        incident::{IncidentCause, IncidentRecord},
        labels::Side,
    },
};
use procfs::sys::kernel::Version;
use socket2::{Socket, Type};

use crate::{
    confined::assert_held,
    harness::{
        PATIENCE, can_run,
        confined::{confine, granted, granted_for_conntrack},
        daemon::Daemon,
        incidents::wrong,
        lab::{FAMILIES, Family, QUIET},
        netns,
        reference::netns_inode,
        traffic::listen,
        until,
    },
};

const PORT: u16 = 80;
const BACKEND_PORT: u16 = 8_080;

/// A namespace that translates a service's address, as the nodes of a cluster do. Each test that watches other namespaces
/// has a number of its own, since other tests have namespaces, too.
#[derive(Clone, Copy)]
struct Node(u8);

const NODE: Node = Node(1);
const NODE_OF_POD: Node = Node(2);

impl Node {
    /// Makes the calling thread's namespace the node: it has both backends, and a route to the service.
    fn here(self) -> Self {
        let node = self.0;
        netns::ip(&format!("route add 10.96.{node}.0/24 dev lo\nroute add fd00:96:{node}::/64 dev lo\n"));
        for family in [Family::V4, Family::V6] {
            for number in [1, 2] {
                netns::ip(&format!("addr add {} dev lo\n", self.backend(family, number).ip()));
            }
        }
        self
    }

    /// The service.
    fn service(self, family: Family) -> SocketAddr {
        let (node, v6) = (self.0, family == Family::V6);
        let ip = if v6 { format!("fd00:96:{node}::10") } else { format!("10.96.{node}.10") };
        (ip.parse::<IpAddr>().expect("an address"), PORT).into()
    }

    /// One of those that it stands for.
    fn backend(self, family: Family, number: u8) -> SocketAddr {
        let (node, v6) = (self.0, family == Family::V6);
        let ip = if v6 { format!("fd00:244:{node}::{number}") } else { format!("10.244.{node}.{number}") };
        (ip.parse::<IpAddr>().expect("an address"), BACKEND_PORT).into()
    }

    /// From now on this backend answers, the node's own connections and those of its pods.
    fn translate(self, number: u8) {
        let rule = |family: Family, name: &str| {
            let (service, backend) = (self.service(family), self.backend(family, number));
            format!("{name} daddr {} tcp dport {PORT} dnat {name} to {backend}", service.ip())
        };
        netns::nft(&format!(
            "table inet services\ndelete table inet services\ntable inet services {{\n\
             chain services {{\n{}\n{}\n}}\n\
             chain own {{\ntype nat hook output priority -100\njump services\n}}\n\
             chain pods {{\ntype nat hook prerouting priority -100\njump services\n}}\n}}\n",
            rule(Family::V4, "ip"),
            rule(Family::V6, "ip6"),
        ));
    }
}

fn connect(family: Family, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(family.domain(), Type::STREAM, None).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.connect(&family.socket_address((address.ip(), address.port()))).expect("a listener is there");
    socket.into()
}

/// A connection to this address, which this listener accepts.
fn open(family: Family, address: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let proxy = connect(family, address);
    (proxy, accept(listener))
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (upstream, _) = listener.accept().expect("a connection");
    upstream.set_read_timeout(Some(PATIENCE)).expect("an option");
    upstream
}

fn say(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"x").expect("room to write");
    to.read_exact(&mut [0]).expect("what was written");
}

/// Loses a request on each: it lies unread when the upstream closes.
fn lose(connections: Vec<(TcpStream, TcpStream)>) {
    let exchanged = connections.into_iter().map(|(mut proxy, mut upstream)| {
        say(&mut proxy, &mut upstream);
        say(&mut upstream, &mut proxy);
        (proxy, upstream)
    });
    let exchanged: Vec<_> = exchanged.collect();
    thread::sleep(QUIET);
    for (mut proxy, upstream) in exchanged {
        proxy.write_all(b"x").expect("room to write");
        upstream.peek(&mut [0]).expect("it has come");
        drop(upstream);
        proxy.read_exact(&mut [0]).expect_err("a reset");
    }
}

/// Those of connections that were opened, by their own end's address.
fn lost(daemon: &Daemon, count: usize) -> BTreeMap<String, IncidentRecord> {
    let lost = until("the incidents", || {
        let mut all = daemon.incidents();
        all.retain(|record| record.pair.side == Side::Proxy);
        (all.len() == count).then_some(all)
    });
    for record in &lost {
        assert_eq!(record.cause, IncidentCause::RequestNoFin, "{record:?}");
        assert_eq!(wrong(record), Vec::<String>::new(), "{record:?}");
    }
    lost.into_iter().map(|record| (record.local.clone(), record)).collect()
}

fn own_end(connection: &(TcpStream, TcpStream)) -> String {
    let end = connection.0.local_addr().expect("connected");
    SocketAddr::new(end.ip().to_canonical(), end.port()).to_string()
}

fn lookups(daemon: &Daemon) -> [usize; 4] {
    let scrape = daemon.scrape();
    ["translated", "untranslated", "untracked", "failed"]
        .map(|result| scrape.whole("finwatch_conntrack_lookups_total", &[("result", result)]))
}

#[test]
fn who_answers_behind_a_service_is_told() {
    if !can_run("who_answers_behind_a_service_is_told") {
        return;
    }
    netns::in_namespace(|| {
        let node = NODE.here();
        let daemon = Daemon::isolated(&["--conntrack"]);
        let mut connections = Vec::new();
        let mut expected = BTreeMap::new();
        for number in [1, 2] {
            node.translate(number);
            for family in FAMILIES {
                let address = node.backend(family, number);
                let listener = listen(address);
                let translated = open(family, node.service(family), &listener);
                expected.insert(own_end(&translated), (node.service(family), Some(address.to_string())));
                let direct = open(family, address, &listener);
                expected.insert(own_end(&direct), (address, None));
                connections.extend([translated, direct]);
            }
        }
        let count = connections.len();
        lose(connections);
        let told = lost(&daemon, count);
        let told: BTreeMap<_, _> = told
            .into_iter()
            .map(|(end, record)| (end, (record.remote.parse().expect("an address"), record.backend)))
            .collect();
        assert_eq!(told, expected);
        assert_eq!(lookups(&daemon), [count / 2, count / 2, 0, 0]);
        assert_told(&daemon);
    });
}

/// Who asks the daemon is told the same.
fn assert_told(daemon: &Daemon) {
    let v4 = NODE.service(Family::V4).to_string();
    let behind: Vec<_> = daemon.observe().pairs.into_iter().filter(|pair| !pair.behind.is_empty()).collect();
    let of_service = behind.iter().find(|pair| pair.labels.upstream == v4).expect("the service's pair");
    let recorded = |number| Behind {
        backend: Some(NODE.backend(Family::V4, number).to_string()),
        cause: IncidentCause::RequestNoFin,
        // Over IPv4, and by a socket of IPv6 that speaks it.
        incidents: 2,
    };
    assert_eq!(of_service.behind, [recorded(1), recorded(2)]);
    assert_eq!(behind.len(), 2, "{behind:?}");

    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finwatch"));
        command.args(arguments).arg("--run-dir").arg(daemon.directory.path());
        let output = command.output().expect("the finwatch binary starts");
        String::from_utf8(output.stdout).expect("text")
    };
    let told = ask(&["incidents", "--pair", &v4]);
    assert_eq!(told.matches("translated to 10.244.1.1:8080").count(), 2, "{told}");
    let told: serde_json::Value = serde_json::from_str(&ask(&["triage", "--json"])).expect("JSON");
    let line = "recorded behind 10.96.1.10:80: 10.244.1.1:8080 (2), 10.244.1.2:8080 (2)";
    let findings = told["findings"].as_array().expect("a list");
    let of_race = findings.iter().filter(|finding| finding["kind"] == "keep_alive_race");
    let evidence = of_race.flat_map(|finding| finding["evidence"].as_array().expect("a list"));
    assert_eq!(evidence.filter(|told| *told == line).count(), 1, "{findings:#?}");
}

/// Connections that a pod opens from a namespace of its own, through the calling thread's.
fn from_pod(addresses: &[(Family, SocketAddr)]) -> (Vec<TcpStream>, u64) {
    let (tell, told) = mpsc::channel();
    let (linked, link) = mpsc::channel();
    thread::scope(|scope| {
        let pod = scope.spawn(move || {
            netns::enter_new();
            tell.send(nix::unistd::gettid()).expect("the node waits");
            link.recv().expect("the link comes");
            netns::ip(
                "link set eth0 up\naddr add 10.244.9.5/24 dev eth0\nroute add default via 10.244.9.1\n\
                 addr add fd00:244:9::5/64 dev eth0 nodad\nroute add default via fd00:244:9::1\n",
            );
            let opened = addresses.iter().map(|(family, address)| connect(*family, *address)).collect();
            (opened, netns_inode())
        });
        let tid = told.recv().expect("the pod starts");
        netns::ip(&format!(
            "link add pod0 type veth peer name eth0 netns {tid}\nlink set pod0 up\n\
             addr add 10.244.9.1/24 dev pod0\naddr add fd00:244:9::1/64 dev pod0 nodad\n"
        ));
        linked.send(()).expect("the pod waits");
        pod.join().expect("the pod connects")
    })
}

#[test]
fn who_answers_a_pod_is_told_by_its_node() {
    if !can_run("who_answers_a_pod_is_told_by_its_node") {
        return;
    }
    netns::in_namespace(|| {
        let node = NODE_OF_POD.here();
        node.translate(1);
        let families = [Family::V4, Family::V6];
        let services = families.map(|family| node.service(family));
        let own = services.map(|service| service.ip().to_string());
        let include = own.each_ref().map(|service| ["--include-net", service.as_str()]);
        let daemon = Daemon::start(&[&["--conntrack"], include.as_flattened()].concat());
        let listeners = families.map(|family| listen(node.backend(family, 1)));
        let (opened, pod) = from_pod(&families.map(|family| (family, node.service(family))));
        let connections: Vec<_> =
            opened.into_iter().zip(&listeners).map(|(proxy, listener)| (proxy, accept(listener))).collect();
        lose(connections);
        let told = lost(&daemon, 2);
        let told: BTreeMap<_, _> =
            told.into_values().map(|record| (record.remote, (record.backend, record.netns))).collect();
        let expected = families.map(|family| {
            (node.service(family).to_string(), (Some(node.backend(family, 1).to_string()), pod.to_string()))
        });
        assert_eq!(told, expected.into());
        assert_eq!(lookups(&daemon), [2, 0, 0, 0]);
    });
}

/// A connection that cannot be asked about is recorded like any other.
#[test]
fn what_is_not_tracked_is_recorded_all_the_same() {
    if !can_run("what_is_not_tracked_is_recorded_all_the_same") {
        return;
    }
    netns::in_namespace(|| {
        let address = NODE.here().backend(Family::V4, 1);
        let daemon = Daemon::isolated(&["--conntrack"]);
        let listener = listen(address);
        lose(vec![open(Family::V4, address, &listener)]);
        assert!(lost(&daemon, 1).into_values().all(|record| record.backend.is_none()));
        assert_eq!(lookups(&daemon), [0, 0, 1, 0]);
        assert_eq!(warnings(&daemon), 0, "{}", daemon.output());
    });
}

fn warnings(daemon: &Daemon) -> usize {
    daemon.output().lines().filter(|line| line.contains("WARN")).count()
}

/// As the unit runs it: with the drop-in connection tracking is asked, without it that is said once.
#[test]
fn it_takes_the_drop_in_and_no_more() {
    if !can_run("it_takes_the_drop_in_and_no_more") {
        return;
    }
    let wanted = Lasting { other_namespaces: false, conntrack: true };
    let lasting = lasting(wanted, Version::current().ok());
    for (capabilities, answered) in [(granted_for_conntrack(), true), (granted(), false)] {
        let kept = lasting.iter().filter(|(capability, _)| capabilities.contains(&&*capability.to_string()));
        let held = kept.fold(0, |held, (capability, _)| held | capability.bitmask());
        assert_eq!(held & Capability::CAP_NET_ADMIN.bitmask() != 0, answered, "{capabilities:?}");
        netns::in_namespace(|| {
            let node = NODE.here();
            node.translate(1);
            let daemon = Daemon::isolated_with(&["--conntrack"], |command| confine(command, &capabilities));
            assert_held(&daemon, held);
            let (listener, family) = (listen(node.backend(Family::V4, 1)), Family::V4);
            lose((0..2).map(|_| open(family, node.service(family), &listener)).collect());
            let backend = answered.then(|| node.backend(family, 1).to_string());
            for record in lost(&daemon, 2).into_values() {
                assert_eq!(record.backend, backend);
            }
            assert_eq!(lookups(&daemon), if answered { [2, 0, 0, 0] } else { [0, 0, 0, 2] });
            let output = daemon.output();
            assert_eq!(warnings(&daemon), usize::from(!answered), "{output}");
            assert_eq!(output.contains("CAP_NET_ADMIN is missing"), !answered, "{output}");
        });
    }
}

#[test]
fn check_tells_whether_it_can_be_asked() {
    if !can_run("check_tells_whether_it_can_be_asked") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("finwatch.toml");
    let run_dir = directory.path().display();
    let rows = |wanted: bool, bounding: &str| {
        let config = format!("conntrack = {wanted}\nnetns = \"host\"\nrun-dir = \"{run_dir}\"\n");
        fs::write(&file, config).expect("a temporary file");
        let mut check = Command::new("setpriv");
        check.args(["--bounding-set", bounding, env!("CARGO_BIN_EXE_finwatch"), "check", "--config"]);
        let output = check.arg(&file).output().expect("`setpriv` of util-linux starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ["connection tracking", "once attached"].map(|name| {
            let row = text.lines().find(|line| line.contains(name));
            row.unwrap_or_else(|| panic!("no row {name}:\n{text}")).to_owned()
        })
    };
    let [tracking, held] = rows(true, "+net_admin");
    assert!(tracking.starts_with("ok") && tracking.contains("answers"), "{tracking}");
    assert!(held.contains("CAP_NET_ADMIN"), "{held}");
    let [tracking, held] = rows(false, "+net_admin");
    assert!(tracking.starts_with("ok") && tracking.contains("conntrack = false"), "{tracking}");
    assert!(!held.contains("CAP_NET_ADMIN"), "{held}");
    let [tracking, held] = rows(true, "-net_admin");
    assert!(tracking.starts_with("degraded") && tracking.contains("CAP_NET_ADMIN is missing"), "{tracking}");
    assert!(!held.contains("CAP_NET_ADMIN"), "{held}");
}
