//! A socket's address in the kernel is used again by another socket, after an end that was missed.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapInfo},
};
use finwatch_ebpf::wire::{PairRecord, Totals, Tracked};
use socket2::SockRef;

use crate::harness::{
    can_run,
    daemon::Daemon,
    detach::{detach, on_transitions},
    metrics::Scrape,
    netns,
    reference::{FRESH, assert_count, fresh, untraced_port},
    traffic::{listen, local, open_and_close, pair},
};

/// A missed end is looked for twice, half a minute apart.
const LONG: Duration = Duration::from_secs(150);
const OLD: usize = 10;
/// More than the addresses that the old ones leave.
const NEW: usize = 100;
/// How often it is tried.
const ATTEMPTS: usize = 5;

fn open(listener: &TcpListener, count: usize) -> Vec<(TcpStream, TcpStream)> {
    (0..count).map(|_| pair(listener)).collect()
}

/// Ends them with RST, so that their addresses are free at once.
fn reset(connections: Vec<(TcpStream, TcpStream)>) {
    for (proxy, upstream) in connections {
        SockRef::from(&proxy).set_linger(Some(Duration::ZERO)).expect("an option");
        drop((proxy, upstream));
    }
}

/// One of the daemon's tables, that of this name.
fn table<V: Pod>(daemon: &Daemon, name: &str) -> Array<MapData, V> {
    let files = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid)).expect("it runs").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let mut ids = texts
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok()));
    let is_named = |id: &u32| {
        let info = MapInfo::from_id(*id).expect("a map of the daemon");
        info.name_as_str().is_some_and(|found| found == name)
    };
    let data = MapData::from_id(ids.find(is_named).expect("it has the map")).expect("a map of the daemon");
    Map::Array(data).try_into().expect("its types")
}

/// The daemon's books: the places of the table of live connections that are taken, by index.
fn books(daemon: &Daemon) -> Vec<(u32, Tracked)> {
    let table = table::<Tracked>(daemon, "CONNECTIONS");
    let places = (0..).zip(table.iter().map(|place| place.expect("a place")));
    places.filter(|(_, place)| place.socket != 0).collect()
}

/// The sockets' addresses under which the daemon has connections in its books.
fn addresses(daemon: &Daemon) -> BTreeSet<u64> {
    books(daemon).into_iter().map(|(_, place)| place.socket).collect()
}

fn established(scrape: &Scrape, upstream: SocketAddr, side: &str) -> f64 {
    let upstream = upstream.to_string();
    let labels = [("state", "established"), ("upstream", upstream.as_str()), ("side", side)];
    scrape.sum("finwatch_sockets", &labels)
}

/// The old ones' ends are missed, and nothing tells of the new ones' beginnings: the walk alone sees who is there.
#[test]
fn a_socket_is_not_taken_for_the_one_before_it() {
    if !can_run("a_socket_is_not_taken_for_the_one_before_it") {
        return;
    }
    // Whatever else happens on this host may take the addresses first.
    let reused = (0..ATTEMPTS).map(|_| netns::in_namespace(reuse)).find(|reused| *reused > 0);
    let reused = reused.expect("an address that is used again");
    eprintln!("{reused} of {} addresses were used again", 2 * OLD);
}

/// Returns how many of the old ones' addresses were used again.
fn reuse() -> usize {
    let daemon = Daemon::isolated(&FRESH);
    let [before, after] = [untraced_port(), untraced_port()].map(|port| listen(local(1, port)));
    let [old_upstream, new_upstream] =
        [&before, &after].map(|listener| listener.local_addr().expect("bound"));
    open_and_close(&before);
    let old = open(&before, OLD);
    let books = addresses(&daemon);
    assert_eq!(books.len(), 2 * OLD);
    detach(daemon.pid, &on_transitions());
    reset(old);
    let new = open(&after, NEW);
    let end = Instant::now() + LONG;
    let scrape = loop {
        let scrape = fresh(&daemon);
        for side in ["proxy", "upstream"] {
            assert_count(&format!("new, side={side}"), established(&scrape, new_upstream, side), NEW);
            assert_count(&format!("old, side={side}"), established(&scrape, old_upstream, side), 0);
        }
        if scrape.sum("finwatch_tracked_connections", &[]) < 0.5 + (2 * NEW) as f64
            && scrape.sum("finwatch_connections_missed_end_total", &[]) + 0.5 > (2 * OLD) as f64
        {
            break scrape;
        }
        assert!(Instant::now() < end, "the missed ends are not found");
        thread::sleep(Duration::from_secs(1));
    };
    assert_count("missed", scrape.sum("finwatch_connections_missed_end_total", &[]), 2 * OLD);
    assert_count("tracked", scrape.sum("finwatch_tracked_connections", &[]), 2 * NEW);
    let upstream = old_upstream.to_string();
    assert_count("closed", scrape.sum("finwatch_connections_closed_total", &[("upstream", &upstream)]), 2);
    let reused = addresses(&daemon).intersection(&books).count();
    drop(new);
    reused
}

/// Puts connections that have ended back into the books, as though their ends had been missed.
fn put_back(daemon: &Daemon, ended: &[(u32, Tracked)]) {
    let mut places = table::<Tracked>(daemon, "CONNECTIONS");
    let mut records = table::<PairRecord>(daemon, "PAIRS");
    let mut totals = table::<Totals>(daemon, "TOTALS");
    for (index, place) in ended {
        places.set(*index, place, 0).expect("a place");
        let mut record = records.get(&place.conn.slot, 0).expect("its pair's record");
        record.tracked += 1;
        records.set(place.conn.slot, record, 0).expect("its pair's record");
        let mut sums = totals.get(&0, 0).expect("the totals");
        sums.tracked += 1;
        totals.set(0, sums, 0).expect("the totals");
    }
}

fn missed(daemon: &Daemon) -> usize {
    daemon.scrape().whole("finwatch_connections_missed_end_total", &[])
}

/// What opens next at the address of a missed end may be of no interest to the daemon.
#[test]
fn a_socket_that_is_not_watched_is_not_taken_for_one_that_was() {
    if !can_run("a_socket_that_is_not_watched_is_not_taken_for_one_that_was") {
        return;
    }
    let reused = (0..ATTEMPTS).map(|_| netns::in_namespace(reuse_unwatched)).find(|reused| *reused > 0);
    reused.expect("an address that is used again");
}

/// Returns how many of the old ones' addresses were used again.
fn reuse_unwatched() -> usize {
    let [watched, other] = [untraced_port(), untraced_port()].map(|port| listen(local(1, port)));
    let upstream = watched.local_addr().expect("bound").to_string();
    let port = watched.local_addr().expect("bound").port().to_string();
    let daemon = Daemon::isolated(&["--include-port", &port]);
    let old = open(&watched, OLD);
    let ended = books(&daemon);
    assert_eq!(ended.len(), 2 * OLD);
    reset(old);
    assert_eq!(books(&daemon), []);
    put_back(&daemon, &ended);
    let new = open(&other, NEW);
    let reused = missed(&daemon);
    let left = books(&daemon).len();
    reset(new);
    let scrape = daemon.scrape();
    for family in ["opened", "closed"] {
        let name = format!("finwatch_connections_{family}_total");
        assert_count(family, scrape.sum(&name, &[("upstream", &upstream)]), 2 * OLD);
    }
    if missed(&daemon) != reused {
        eprintln!("a socket of another namespace has taken one of the addresses meanwhile");
        return 0;
    }
    assert_eq!(left, 2 * OLD - reused, "an entry goes when another has its address");
    reused
}
