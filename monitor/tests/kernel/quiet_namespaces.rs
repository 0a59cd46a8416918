//! Namespaces: however they are held they are found, and where nothing happens they are not read again.

use std::{
    io::Write as _,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::harness::{
    PATIENCE, can_run,
    daemon::Daemon,
    lab::QUIET,
    metrics::Scrape,
    netns,
    reference::{FRESH, Resident, assert_count, fresh, netns_inode, netns_name, untraced_port},
    traffic::{listen, local, pair},
    until,
};

fn walks(scrape: &Scrape, netns: &str) -> f64 {
    scrape.sum("finwatch_namespace_walks_total", &[("netns", netns)])
}

#[test]
fn a_quiet_namespace_is_not_read_again() {
    if !can_run("a_quiet_namespace_is_not_read_again") {
        return;
    }
    // Outside: its own scrapes are no traffic there.
    let daemon = Daemon::start(&FRESH);
    let port = untraced_port();
    netns::in_namespace(|| {
        let _resident = Resident::start();
        let name = netns_inode().to_string();
        let listener = listen(local(1, port));
        let (mut proxy, upstream) = pair(&listener);
        let read = |wanted: &dyn Fn(f64) -> bool, what: &str| {
            until(what, || {
                let count = netns::outside(|| walks(&fresh(&daemon), &name));
                wanted(count).then_some(count)
            })
        };
        read(&|count| count >= 1.0, "it is found");
        // The connection is quiet by now, and the next reading notes that.
        thread::sleep(QUIET);
        let settled = netns::outside(|| walks(&fresh(&daemon), &name));
        for _ in 0..3 {
            let again = netns::outside(|| walks(&fresh(&daemon), &name));
            assert!((again - settled).abs() < f64::EPSILON, "read {again} times, {settled} before");
        }
        proxy.write_all(b"r").expect("room to write");
        read(&|count| count > settled, "it is read again once something has happened");
        drop((proxy, upstream));
    });
}

#[test]
fn readers_share_a_snapshot() {
    const READERS: usize = 8;
    if !can_run("readers_share_a_snapshot") {
        return;
    }
    netns::in_namespace(|| {
        let daemon = Daemon::isolated(&["--snapshot-age", "1h"]);
        // Each scrape is traffic here, and yet none but the first reading, that of the adoption, is made.
        let counts: Vec<f64> = thread::scope(|scope| {
            let readers: Vec<_> =
                (0..READERS).map(|_| scope.spawn(|| walks(&daemon.scrape(), &netns_name()))).collect();
            readers.into_iter().map(|reader| reader.join().expect("a scrape")).collect()
        });
        for count in counts {
            assert_count("readings", count, 1);
        }
    });
}

/// Two sockets of one established connection show.
fn assert_shown(daemon: &Daemon, netns: &str, upstream: &str) {
    let scrape = fresh(daemon);
    let limits = scrape.matching("finwatch_ephemeral_ports_limit", &[("netns", netns)]).count();
    assert_eq!(limits, 1, "the namespace {netns} is read:\n{}", daemon.output());
    let labels = [("upstream", upstream), ("state", "established")];
    assert_count("established", scrape.sum("finwatch_sockets", &labels), 2);
}

#[test]
fn a_namespace_of_a_thread_alone_is_found() {
    if !can_run("a_namespace_of_a_thread_alone_is_found") {
        return;
    }
    let daemon = Daemon::start(&FRESH);
    let upstream = local(1, untraced_port());
    let (tell, told) = mpsc::channel();
    let (end, goes_on) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            netns::in_namespace(move || {
                // No process of its own is in it.
                let listener = listen(upstream);
                let connection = pair(&listener);
                tell.send(netns_inode()).expect("the test waits");
                goes_on.recv().expect_err("nothing is said, the end just comes");
                drop(connection);
            });
        });
        let inode = told.recv_timeout(PATIENCE).expect("a namespace");
        assert_shown(&daemon, &inode.to_string(), &upstream.to_string());
        drop(end);
    });
}

/// `ip netns`: a namespace that is mounted, and in which nobody is.
#[test]
fn a_namespace_that_is_only_mounted_is_found() {
    if !can_run("a_namespace_that_is_only_mounted_is_found") {
        return;
    }
    let daemon = Daemon::start(&FRESH);
    let upstream = local(1, untraced_port());
    let named = Named::new(&format!("finwatch-test-{}", std::process::id()));
    let (inode, connection) = thread::scope(|scope| {
        let path = named.path();
        let thread = scope.spawn(move || {
            unshare(CloneFlags::CLONE_FILES).expect("a thread's own descriptors");
            let namespace = std::fs::File::open(path).expect("it is mounted");
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).expect("a way in");
            netns::ip("link set lo up\n");
            // Held by a process that is in another namespace.
            let listener = listen(upstream);
            let (proxy, accepted) = pair(&listener);
            (netns_inode(), [holding(proxy), holding(accepted)])
        });
        thread.join().expect("a connection there")
    });
    assert_shown(&daemon, &inode.to_string(), &upstream.to_string());
    drop(connection);
}

/// A process in the test's own namespace that holds a connection of another.
fn holding(stream: TcpStream) -> Held {
    let mut sleep = Command::new("nsenter");
    sleep.arg(format!("--net=/proc/{}/ns/net", std::process::id())).args(["sleep", "120"]);
    Held(sleep.stdin(Stdio::from(std::os::fd::OwnedFd::from(stream))).spawn().expect("`nsenter` starts"))
}

struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

/// What `ip netns add` makes.
struct Named(String);

impl Named {
    fn new(name: &str) -> Self {
        netns::ip(&format!("netns add {name}\n"));
        Self(name.to_owned())
    }

    fn path(&self) -> std::path::PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        netns::ip(&format!("netns del {}\n", self.0));
    }
}
