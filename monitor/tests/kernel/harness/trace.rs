//! The kernel's own account of transitions and resets, from a tracefs instance of ours: what the daemon is judged
//! against is itself checked.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
};

use nix::unistd::gettid;

use super::{metrics::Side, tracefs::Instance};

/// The ports whose sockets are traced.
pub(crate) const PORTS: std::ops::Range<u16> = 20_000..24_000;

static TRACING: OnceLock<Option<Instance>> = OnceLock::new();

/// Per processor. Resets cannot be filtered by port: those of everything else on the host must fit in as well.
const BUFFER_KIB: &str = "4096";

const STATES: [&str; 12] = [
    "TCP_ESTABLISHED",
    "TCP_SYN_SENT",
    "TCP_SYN_RECV",
    "TCP_FIN_WAIT1",
    "TCP_FIN_WAIT2",
    "TCP_TIME_WAIT",
    "TCP_CLOSE",
    "TCP_CLOSE_WAIT",
    "TCP_LAST_ACK",
    "TCP_LISTEN",
    "TCP_CLOSING",
    "TCP_NEW_SYN_RECV",
];

/// All that has been traced; `None` where the kernel offers no tracefs, or events were lost.
pub(crate) fn text() -> Option<String> {
    let tracing = TRACING.get_or_init(|| {
        let tracing = tracing();
        if tracing.is_none() {
            eprintln!("no tracefs here: transitions are not compared");
        }
        tracing
    });
    tracing.as_ref()?.text()
}

/// The transitions and resets of the sockets of `side` whose upstream has this port, in order: `7->2 2->1 RST-in 1->7`.
pub(crate) fn path(trace: &str, side: Side, upstream: SocketAddr) -> String {
    let port = upstream.port().to_string();
    let lines = trace.lines().filter(|line| line.contains(&port));
    lines.filter_map(|line| step(line, side, upstream)).collect::<Vec<_>>().join(" ")
}

/// Whether this kernel traces resets it sends without a full socket, as for a closed port or a timewait mini-socket: from
/// 6.10 on. Where it does not, nobody can see them, and what the tables mark with `?` is not expected.
pub(crate) fn traces_all_resets() -> bool {
    version() >= (6, 10)
}

/// Whether it traces what is sent and received by each call: from 6.3 on.
pub(crate) fn traces_lengths() -> bool {
    version() >= (6, 3)
}

/// The running kernel's.
pub(crate) fn version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Starts tracing; must come before the first socket.
pub(crate) fn start() {
    drop(text());
}

/// What the calling thread does is not traced from now on, where tracing has been started: resets that are sent cannot be told by their ports, and a storm
/// of them would push the sequences' out of the trace.
pub(crate) fn leave_out_this_thread() {
    if let Some(Some(own)) = TRACING.get() {
        // Kernels before 5.8 have no such list; then transitions are not compared.
        let _ = own.set("set_event_notrace_pid", &gettid().to_string());
    }
}

fn tracing() -> Option<Instance> {
    let instance = Instance::new("test")?;
    instance.set("buffer_size_kb", BUFFER_KIB)?;
    let (first, last) = (PORTS.start, PORTS.end);
    let ports = |name: &str| format!("({name} >= {first} && {name} < {last})");
    let filter = format!("{} || {}", ports("sport"), ports("dport"));
    instance.set("events/sock/inet_sock_set_state/filter", &filter)?;
    instance.set("events/tcp/tcp_receive_reset/filter", &filter)?;
    for event in ["sock/inet_sock_set_state", "tcp/tcp_receive_reset", "tcp/tcp_send_reset"] {
        instance.set(&format!("events/{event}/enable"), "1")?;
    }
    Some(instance)
}

fn step(line: &str, side: Side, upstream: SocketAddr) -> Option<String> {
    let field = |name: &str| {
        let start = line.find(&format!(" {name}="))? + name.len() + 2;
        line[start..].split(' ').next()
    };
    // IPv4 is there as IPv6, too; up to 5.14 not every event names the family.
    let end = |port: &str, v6: &str, both: &str| -> Option<SocketAddr> {
        if let Some(both) = field(both) {
            return both.parse().ok();
        }
        let ip: IpAddr = field(v6)?.parse().ok()?;
        Some(SocketAddr::new(ip.to_canonical(), field(port)?.parse().ok()?))
    };
    let theirs = match side {
        Side::Upstream => end("sport", "saddrv6", "src")?,
        Side::Proxy => end("dport", "daddrv6", "dest")?,
    };
    // A listener's address is the wildcard.
    let ip: IpAddr = theirs.ip().to_canonical();
    if theirs.port() != upstream.port() || (ip != upstream.ip() && !ip.is_unspecified()) {
        return None;
    }
    if line.contains(" tcp_receive_reset: ") {
        return Some("RST-in".to_owned());
    }
    if line.contains(" tcp_send_reset: ") {
        return Some("RST-out".to_owned());
    }
    let number = |name: &str| {
        let state = field(name)?;
        STATES.iter().position(|known| *known == state).map(|at| at + 1)
    };
    let (old, new) = (number("oldstate")?, number("newstate")?);
    // Listeners and request sockets have no connection yet.
    (old != 10 && new != 10 && old != new).then(|| format!("{old}->{new}"))
}
