//! A network card between both ends: its interrupts land in whatever runs, also in the programs. The kernel skips a program
//! inside itself, and what it did not see is counted all the same.

use std::{fs, net::TcpListener, sync::mpsc, thread};

use nix::sched::{CloneFlags, setns, unshare};

use super::is_here;
use crate::harness::{daemon::Daemon, netns, reference::assert_count, trace, traffic::open_and_close, until};

const PROXY: &str = "192.0.2.1";
const UPSTREAM: &str = "192.0.2.2";
const PORTS: std::ops::Range<u16> = 30_000..30_016;
const EACH: usize = 100;
/// In how many rounds a run is skipped at the latest.
const ROUNDS: usize = 10;

/// A namespace with one of the cards in it, and a thread that keeps it.
struct Host {
    namespace: fs::File,
    /// Dropped, it ends the thread.
    _stop: mpsc::Sender<()>,
}

impl Host {
    fn with(card: &str, address: &str) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_FILES).expect("a thread's own descriptors");
            netns::enter_new();
            netns::sysctl("ipv4/tcp_max_tw_buckets", "65536");
            ready.send(nix::unistd::gettid()).expect("the test waits for it");
            stopped.recv().expect_err("the test is over");
        });
        let thread = is_ready.recv().expect("a namespace");
        netns::ip(&format!("link set {card} netns {thread}"));
        let namespace = fs::File::open(format!("/proc/self/task/{thread}/ns/net")).expect("it is there");
        let host = Self { namespace, _stop: stop };
        host.run(|| netns::ip(&format!("addr add {address}/24 dev {card}\nlink set {card} up\n")));
        host
    }

    fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("the host's namespace");
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// What both ends count of all listeners' connections.
fn counted(daemon: &Daemon, listeners: &[TcpListener], family: &str) -> [f64; 2] {
    let scrape = daemon.scrape();
    ["proxy", "upstream"].map(|side| {
        let of = |listener: &TcpListener| {
            let upstream = listener.local_addr().expect("bound").to_string();
            scrape.sum(family, &[("side", side), ("upstream", &upstream)])
        };
        listeners.iter().map(of).sum()
    })
}

#[test]
fn interrupts_land_in_programs() {
    const CLOSED: &str = "finwatch_connections_closed_total";
    if !is_here("interrupts_land_in_programs") {
        return;
    }
    let daemon = Daemon::start(&[]);
    let (proxy, upstream) = (Host::with("eth0", PROXY), Host::with("eth1", UPSTREAM));
    let listeners: Vec<_> = upstream
        .run(|| PORTS.map(|port| TcpListener::bind((UPSTREAM, port)).expect("a free port")).collect());
    // Kernels before 5.12 skip runs, too, and do not say so.
    let rounds = if trace::version() < (5, 12) { 1 } else { ROUNDS };
    for round in 1..=rounds {
        proxy.run(|| {
            thread::scope(|scope| {
                for listener in &listeners {
                    scope.spawn(|| (0..EACH).for_each(|_| open_and_close(listener)));
                }
            });
        });
        let all = round * listeners.len() * EACH;
        let whole = f64::from(u32::try_from(all).expect("few")) - 0.5;
        until("every end is counted", || {
            counted(&daemon, &listeners, CLOSED).iter().all(|count| *count > whole).then_some(())
        });
        for family in [CLOSED, "finwatch_connections_opened_total", "finwatch_time_wait_entered_total"] {
            let [proxy, upstream] = counted(&daemon, &listeners, family);
            assert_count(&format!("{family} side=proxy"), proxy, all);
            // The end that closes first keeps the TIME_WAIT.
            let of_upstream = if family.contains("time_wait") { 0 } else { all };
            assert_count(&format!("{family} side=upstream"), upstream, of_upstream);
        }
        let scrape = daemon.scrape();
        assert_count("missed", scrape.sum("finwatch_connections_missed_end_total", &[]), 0);
        if scrape.sum("finwatch_bpf_missed_runs_total", &[("program", "set_state")]) > 0.5 {
            return;
        }
    }
    assert_eq!(rounds, 1, "no run was skipped");
}
