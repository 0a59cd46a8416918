//! Namespaces that come and go leave nothing behind in the daemon.

use std::{
    collections::BTreeSet, fs, net::SocketAddr, os::unix::fs::MetadataExt as _, path::PathBuf, sync::mpsc,
    thread,
};

use aya::maps::{Array, HashMap, Map, MapData, MapInfo, MapType};
use finwatch_ebpf::{
    levels::Process,
    wire::{PairKey, Tracked},
};

use crate::harness::{
    PATIENCE, can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns,
    reference::{FRESH, Resident, assert_count, fresh, netns_inode, untraced_port},
    traffic::{listen, local, pair},
    until,
};

const BATCHES: usize = 10;
const AT_ONCE: usize = 20;

fn entries(daemon: &Daemon, what: &str) -> usize {
    fs::read_dir(format!("/proc/{}/{what}", daemon.pid)).expect("it runs").count()
}

/// One of the daemon's maps.
fn map(daemon: &Daemon, name: &str) -> Map {
    let files = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid)).expect("it runs").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let ids = texts.filter_map(|text| {
        text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok())
    });
    let named = |id: &u32| {
        let info = MapInfo::from_id(*id).expect("a map of the daemon");
        info.name_as_str().is_some_and(|have| have == name)
    };
    let id = ids.into_iter().find(named).unwrap_or_else(|| panic!("the daemon has no map {name}"));
    let data = MapData::from_id(id).expect("a map of the daemon");
    match MapInfo::from_id(id).and_then(|info| info.map_type()) {
        Ok(MapType::LruHash) => Map::LruHashMap(data),
        Ok(MapType::Array) => Map::Array(data),
        _ => Map::HashMap(data),
    }
}

/// Entries of one of the daemon's hash maps.
fn map_entries<K: aya::Pod, V: aya::Pod>(daemon: &Daemon, name: &str) -> usize {
    let map: HashMap<_, K, V> = map(daemon, name).try_into().expect("its types");
    map.keys().filter_map(Result::ok).count()
}

/// Places of live connections that are not free.
fn taken_places(daemon: &Daemon) -> usize {
    let places: Array<_, Tracked> = map(daemon, "CONNECTIONS").try_into().expect("its types");
    let places = places.iter().map(|place| place.expect("a place"));
    places.filter(|place| (place.claims, place.socket) != (0, 0)).count()
}

/// The namespaces that any thread is in. The kernel gives a number anew as soon as a namespace is gone, and other tests make
/// namespaces all the time.
fn in_use() -> BTreeSet<String> {
    let directories = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let tasks = directories("/proc".into()).flat_map(|process| directories(process.path().join("task")));
    let inodes = tasks.filter_map(|task| fs::metadata(task.path().join("ns/net")).ok());
    inodes.map(|namespace| namespace.ino().to_string()).collect()
}

/// Namespaces that the daemon shows something of.
fn shown(scrape: &Scrape) -> BTreeSet<String> {
    let limits = scrape.matching("finwatch_ephemeral_ports_limit", &[]);
    limits.map(|(labels, _)| labels["netns"].clone()).collect()
}

/// Makes some namespaces, each with an open connection, lets the daemon see all of them, and ends them.
fn batch(daemon: &Daemon, upstream: SocketAddr) -> BTreeSet<String> {
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let mut ends = Vec::new();
        for _ in 0..AT_ONCE {
            let tell = tell.clone();
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            scope.spawn(move || {
                netns::in_namespace(move || {
                    let _resident = Resident::start();
                    let listener = listen(upstream);
                    let connection = pair(&listener);
                    tell.send(netns_inode().to_string()).expect("the test waits");
                    ended.recv().expect_err("nothing is said, the end just comes");
                    drop(connection);
                });
            });
        }
        let made: BTreeSet<String> =
            (0..AT_ONCE).map(|_| told.recv_timeout(PATIENCE).expect("a namespace")).collect();
        assert_eq!(made.len(), AT_ONCE, "each has an inode number of its own");
        let scrape = fresh(daemon);
        let missing: Vec<_> = made.difference(&shown(&scrape)).cloned().collect();
        assert!(missing.is_empty(), "found by their first connection: {missing:?}");
        let upstream = upstream.to_string();
        for side in ["proxy", "upstream"] {
            let labels = [("side", side), ("upstream", upstream.as_str()), ("state", "established")];
            assert_count("connections", scrape.sum("finwatch_sockets", &labels), AT_ONCE);
        }
        drop(ends);
        made
    })
}

#[test]
fn two_hundred_namespaces() {
    if !can_run("two_hundred_namespaces") {
        return;
    }
    let upstream = local(1, untraced_port());
    let port = upstream.port().to_string();
    // Only these connections are tracked; namespaces of other tests come and go too.
    let arguments = [&FRESH[..], &["--include-port", &port]].concat();
    let daemon = Daemon::start(&arguments);
    let mut made = batch(&daemon, upstream);
    let settled = |daemon: &Daemon| {
        until("no connection is tracked", || {
            (fresh(daemon).sum("finwatch_tracked_connections", &[]) < 0.5).then_some(())
        });
    };
    settled(&daemon);
    let descriptors = entries(&daemon, "fd");
    let threads = entries(&daemon, "task");
    for _ in 1..BATCHES {
        made.extend(batch(&daemon, upstream));
    }
    settled(&daemon);
    until("no descriptor is left", || (entries(&daemon, "fd") <= descriptors).then_some(()));
    // The runtime's helpers for blocking work stay ten seconds after their last; those are few whatever is walked.
    until("no thread is left", || (entries(&daemon, "task") <= threads + 1).then_some(()));
    until("nothing is shown of namespaces that are gone", || {
        let gone: BTreeSet<String> = made.difference(&in_use()).cloned().collect();
        let still_shown = shown(&fresh(&daemon));
        // Of those that are gone before and after.
        still_shown.intersection(&gone).all(|name| in_use().contains(name)).then_some(())
    });
    assert_eq!(taken_places(&daemon), 0, "live connections");
    assert_eq!(map_entries::<u64, u32>(&daemon, "ELSEWHERE"), 0, "live connections that are not at home");
    assert_eq!(map_entries::<PairKey, u32>(&daemon, "PAIR_INDEX"), 2, "pairs");
    assert_eq!(map_entries::<u32, u32>(&daemon, "NAMESPACES"), 0, "announced namespaces");
    assert_eq!(map_entries::<u64, Process>(&daemon, "PROCESSES"), 0, "holders of sockets");
    let scrape = daemon.scrape();
    let upstream = upstream.to_string();
    for family in ["connections_opened_total", "connections_closed_total"] {
        let labels = [("upstream", upstream.as_str())];
        assert_count(family, scrape.sum(&format!("finwatch_{family}"), &labels), 2 * BATCHES * AT_ONCE);
    }
    assert_count("pairs", scrape.sum("finwatch_pairs", &[]), 2);
    assert_count("missed", scrape.sum("finwatch_bpf_missed_runs_total", &[]), 0);
    let output = daemon.output();
    let complaints: Vec<&str> =
        output.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
