//! The daemon is killed again and again under load: each one counts what happens in its life, once, and nothing stays.

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use aya::{maps::loaded_maps, programs::loaded_links};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns,
    reference::{assert_count, untraced_port},
    traffic::{listen, local, open_and_close, pair},
    until,
};

const LIVES: usize = 20;
/// Connections that outlive every daemon.
const KEPT: usize = 20;
/// Connections that begin in one daemon's life and end in the next one's.
const HANDED_OVER: usize = 5;
/// Connections that the load makes at least in each life, and between two.
const LEAST: usize = 50;

/// Connections that come and go all the time: to one listener while a daemon counts, to another while none does.
struct Churn {
    counted: TcpListener,
    between: TcpListener,
    is_counting: AtomicBool,
    is_over: AtomicBool,
    counts: [AtomicUsize; 2],
}

impl Churn {
    fn new(ports: [u16; 2]) -> Self {
        let [counted, between] = ports.map(|port| listen(local(1, port)));
        let [is_counting, is_over] = [false; 2].map(AtomicBool::new);
        Self { counted, between, is_counting, is_over, counts: Default::default() }
    }

    fn run(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let counting = self.is_counting.load(Ordering::SeqCst);
            open_and_close(if counting { &self.counted } else { &self.between });
            self.counts[usize::from(counting)].fetch_add(1, Ordering::SeqCst);
            // Leaves the daemon that starts a processor.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Goes over to the other listener, and returns how many connections there were to `counted` by then.
    fn switch(&self, counting: bool) -> usize {
        let at = &self.counts[usize::from(counting)];
        let before = at.load(Ordering::SeqCst);
        self.is_counting.store(counting, Ordering::SeqCst);
        until("load", || (at.load(Ordering::SeqCst) >= before + LEAST).then_some(()));
        self.counts[1].load(Ordering::SeqCst)
    }
}

/// Says that the load is over, however the test ends.
struct Over<'a>(&'a Churn);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// What a process holds in the kernel: programs, links and maps.
fn held(pid: Pid) -> [BTreeSet<u32>; 3] {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten();
    let infos: Vec<String> = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
    ["prog_id:", "link_id:", "map_id:"].map(|name| {
        let ids = infos.iter().flat_map(|info| info.lines().filter_map(|line| line.strip_prefix(name)));
        ids.map(|id| id.trim().parse().expect("a number")).collect()
    })
}

/// What there is of that in the kernel, whoever holds it.
fn in_kernel() -> [BTreeSet<u32>; 3] {
    [
        aya::programs::loaded_programs().flatten().map(|program| program.id()).collect(),
        loaded_links().flatten().map(|link| link.id()).collect(),
        loaded_maps().flatten().map(|map| map.id()).collect(),
    ]
}

/// Kills it and returns once nothing of it is left.
fn kill(daemon: &Daemon) {
    let held = held(daemon.pid);
    assert!(held.iter().all(|ids| ids.len() >= 3), "programs, links and maps show in /proc: {held:?}");
    assert!(held.iter().zip(in_kernel()).all(|(held, all)| held.is_subset(&all)), "the kernel lists them");
    daemon.stop(Signal::SIGKILL).expect("it ends");
    until("nothing of it is in the kernel", || {
        held.iter().zip(in_kernel()).all(|(held, all)| held.is_disjoint(&all)).then_some(())
    });
}

fn of_pair(scrape: &Scrape, family: &str, side: &str, listener: &TcpListener) -> f64 {
    let upstream = listener.local_addr().expect("bound").to_string();
    scrape.sum(&format!("finwatch_{family}"), &[("side", side), ("upstream", &upstream)])
}

/// The daemon has counted this, and nothing but this.
fn assert_counted(daemon: &Daemon, churn: &Churn, churned: usize, kept: &TcpListener, changes: [usize; 2]) {
    let [opened, closed] = changes;
    let expected: Vec<_> = ["proxy", "upstream"]
        .into_iter()
        .flat_map(|side| {
            [
                ("connections_opened_total", side, &churn.counted, churned),
                ("connections_closed_total", side, &churn.counted, churned),
                ("connection_duration_seconds_count", side, &churn.counted, churned),
                ("connections_opened_total", side, kept, opened),
                ("connections_closed_total", side, kept, closed),
                ("connection_duration_seconds_count", side, kept, 0),
            ]
        })
        .collect();
    let scrape = until("all ends are counted", || {
        let scrape = daemon.scrape();
        let closed = |listener| of_pair(&scrape, "connections_closed_total", "upstream", listener);
        let all = closed(&churn.counted) + closed(kept);
        (all + 0.5 > (churned + changes[1]) as f64).then_some(scrape)
    });
    for (family, side, listener, count) in expected {
        let what = format!("{family} side={side} to {:?}", listener.local_addr());
        assert_count(&what, of_pair(&scrape, family, side, listener), count);
    }
    for family in ["untracked_connections", "connections_missed_end", "resets_received"] {
        assert_count(family, scrape.sum(&format!("finwatch_{family}_total"), &[]), 0);
    }
}

#[test]
fn killed_twenty_times_under_load() {
    if !can_run("killed_twenty_times_under_load") {
        return;
    }
    let ports = [untraced_port(), untraced_port(), untraced_port()];
    let included = ports.map(|port| port.to_string());
    let arguments: Vec<&str> = ["--netns", "host", "--max-connections", "1024", "--max-pairs", "64"]
        .into_iter()
        .chain(included.iter().flat_map(|port| ["--include-port", port]))
        .collect();
    netns::in_namespace(|| {
        // A machine of little memory has room for fewer than come together: their peers' FINs would be answered by resets.
        netns::sysctl("ipv4/tcp_max_tw_buckets", "65536");
        let churn = Churn::new([ports[0], ports[1]]);
        let kept = listen(local(1, ports[2]));
        let pool: Vec<_> = (0..KEPT).map(|_| pair(&kept)).collect();
        let mut young: Vec<(TcpStream, TcpStream)> = Vec::new();
        thread::scope(|scope| {
            let _over = Over(&churn);
            scope.spawn(|| churn.run());
            let mut daemon: Option<Daemon> = None;
            for life in 0..LIVES {
                let next = match &daemon {
                    Some(daemon) => {
                        kill(daemon);
                        daemon.successor(&arguments)
                    }
                    None => Daemon::start(&arguments),
                };
                let adopted = next.scrape().whole("finwatch_connections_adopted_total", &[]);
                let there = 2 * (KEPT + young.len());
                // The load's connection of that moment may have been taken in as well, by either end.
                assert!(adopted.abs_diff(there) <= 2, "life {life}: {adopted} adopted, {there} there");
                let before = churn.counts[1].load(Ordering::SeqCst);
                churn.switch(true);
                let ended = young.len();
                young = (0..HANDED_OVER).map(|_| pair(&kept)).collect();
                let churned = churn.switch(false) - before;
                assert_counted(&next, &churn, churned, &kept, [HANDED_OVER, ended]);
                daemon = Some(next);
            }
            let last = daemon.expect("it has lived");
            // Of those that were there before the first one, the last one counts the end.
            drop((pool, young));
            let ended = until("all are closed", || {
                let scrape = last.scrape();
                let closed = of_pair(&scrape, "connections_closed_total", "proxy", &kept);
                (closed + 0.5 > (KEPT + 2 * HANDED_OVER) as f64).then_some(closed)
            });
            assert_count("closed", ended, KEPT + 2 * HANDED_OVER);
            kill(&last);
        });
    });
}
