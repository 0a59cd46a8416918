//! A socket's address in the kernel is used again by another socket, after an end that was missed.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData, MapInfo};
use finwatch_ebpf::wire::Tracked;
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

/// The sockets' addresses under which the daemon has connections in its books.
fn addresses(daemon: &Daemon) -> BTreeSet<u64> {
    let files = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid)).expect("it runs").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let mut ids = texts
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok()));
    let is_named = |id: &u32| {
        let info = MapInfo::from_id(*id).expect("a map of the daemon");
        info.name_as_str().is_some_and(|name| name == "CONNECTIONS")
    };
    let data = MapData::from_id(ids.find(is_named).expect("it has the map")).expect("a map of the daemon");
    let map: Array<_, Tracked> = Map::Array(data).try_into().expect("its types");
    map.iter().map(|place| place.expect("a place").socket).filter(|socket| *socket != 0).collect()
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
