//! What `ss` lists in the calling thread's namespace: the reference for levels.

use std::{
    fs::metadata,
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, linux::fs::MetadataExt as _, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{daemon::Daemon, metrics::Scrape, trace::PORTS, until};

/// Lets a daemon read the sockets as often as it may.
pub(crate) const FRESH: [&str; 2] = ["--snapshot-age", "1s"];

/// Every state: as the metric names it, and as `ss` prints it.
pub(crate) const STATES: [(&str, &str); 9] = [
    ("established", "ESTAB"),
    ("syn_sent", "SYN-SENT"),
    ("syn_recv", "SYN-RECV"),
    ("fin_wait1", "FIN-WAIT-1"),
    ("fin_wait2", "FIN-WAIT-2"),
    ("time_wait", "TIME-WAIT"),
    ("close_wait", "CLOSE-WAIT"),
    ("last_ack", "LAST-ACK"),
    ("closing", "CLOSING"),
];

/// A line of `ss`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// As `ss` prints it.
    pub(crate) state: String,
    /// Of a listening socket: how many wait for accept().
    pub(crate) received: u32,
    /// Of a listening socket: how many may wait.
    pub(crate) sent: u32,
    /// This end.
    pub(crate) local: SocketAddr,
    /// The far end.
    pub(crate) remote: SocketAddr,
}

/// A port of the test's own that is not traced: what opens connections by the thousand would push the sequences' few out
/// of the trace.
pub(crate) fn untraced_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.end);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < PORTS.end + 1_000, "below the ports of volume tests");
    port
}

/// What `ss -tan` lists, with these arguments more.
pub(crate) fn ss(arguments: &[&str]) -> Vec<Row> {
    let output = Command::new("ss").arg("-Htan").args(arguments).output().expect("`ss` of iproute2 starts");
    assert!(output.status.success(), "ss: {}", output.status);
    let text = String::from_utf8(output.stdout).expect("`ss` prints ASCII");
    text.lines().map(|line| row(line).unwrap_or_else(|| panic!("no line of `ss`: {line}"))).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace();
    Some(Row {
        state: fields.next()?.to_owned(),
        received: fields.next()?.parse().ok()?,
        sent: fields.next()?.parse().ok()?,
        local: end(fields.next()?)?,
        remote: end(fields.next()?)?,
    })
}

/// An address as `ss` prints it: `*` for both wildcards, `[]` around IPv6.
fn end(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip: IpAddr = match ip {
        "*" => std::net::Ipv6Addr::UNSPECIFIED.into(),
        ip => ip.trim_start_matches('[').trim_end_matches(']').parse().ok()?,
    };
    Some(SocketAddr::new(ip.to_canonical(), if port == "*" { 0 } else { port.parse().ok()? }))
}

/// A scrape whose levels were read after this call began.
pub(crate) fn fresh(daemon: &Daemon) -> Scrape {
    let since = Instant::now();
    until("a snapshot younger than this moment", || {
        let asked = Instant::now();
        let scrape = daemon.scrape();
        let age = scrape.sum("finwatch_snapshot_age_seconds", &[]);
        let levels = scrape.matching("finwatch_snapshot_age_seconds", &[]).count();
        assert_eq!(levels, 1, "levels are shown:\n{}", daemon.output());
        asked.checked_sub(Duration::from_secs_f64(age)).is_some_and(|taken| taken >= since).then_some(scrape)
    })
}

/// The inode number of the calling thread's network namespace.
pub(crate) fn netns_inode() -> u64 {
    metadata("/proc/thread-self/ns/net").expect("/proc is mounted").st_ino()
}

/// What the daemon calls that namespace: the host's is that of the first process or, where this cannot be read, its own.
pub(crate) fn netns_name() -> String {
    let own = netns_inode();
    let host = metadata("/proc/1/ns/net").map_or(own, |host| host.st_ino());
    if own == host { "host".to_owned() } else { own.to_string() }
}

const NOBODY: u32 = 65_534;

/// A process in the calling thread's namespace: by it everybody finds the namespace, as they find a container.
pub(crate) struct Resident(Child);

impl Resident {
    /// Starts it.
    pub(crate) fn start() -> Self {
        Self(Command::new("sleep").arg("120").stdin(Stdio::null()).spawn().expect("`sleep` starts"))
    }
}

impl Resident {
    /// Starts one of another user, as proxies' workers are, that holds `socket` too. The tests' own threads have descriptors of their own, which `/proc` shows with
    /// the thread but not with the process.
    pub(crate) fn holding(socket: &Socket) -> Self {
        let held = OwnedFd::from(socket.try_clone().expect("a second descriptor"));
        let child = Command::new("sleep").arg("120").uid(NOBODY).gid(NOBODY).stdin(Stdio::from(held)).spawn();
        Self(child.expect("`sleep` starts"))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

/// Exact counts of whole things, as floating point.
pub(crate) fn assert_count(what: &str, have: f64, wanted: usize) {
    let wanted = u32::try_from(wanted).expect("not that many");
    assert!((have - f64::from(wanted)).abs() < f64::EPSILON, "{what}: {have}, should be {wanted}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ss() {
        let wanted = |local: &str, remote: &str| Row {
            state: "ESTAB".into(),
            received: 1,
            sent: 2,
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
        };
        let both = row("ESTAB  1 2  127.0.0.1:80   [::ffff:10.0.0.1]:5 ").expect("a line");
        assert_eq!(both, wanted("127.0.0.1:80", "10.0.0.1:5"));
        assert_eq!(row("ESTAB 1 2 [::1]:80 *:*").expect("a line"), wanted("[::1]:80", "[::]:0"));
        assert_eq!(row("ESTAB 1 2"), None);
    }
}
