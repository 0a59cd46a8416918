//! Traffic for every change: requests lost, connections that are not kept, connects that are refused, ports that get few.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{
    host, interrupt,
    traffic::{
        self, Seen, Stage,
        clients::{at_once, post, post_at, until},
        namespace::Namespace,
        nginx::Nginx,
        node::{Node, Server},
        proxy::Proxy,
    },
};

/// How long it goes on, and the longest until enough requests are lost.
const TIME: Duration = Duration::from_secs(24);
const LIMIT: Duration = Duration::from_mins(1);
const ENOUGH_LOST: u64 = 3;
const PACE: Duration = Duration::from_millis(200);
/// Longer than this takes: the upstream closes no idle connection.
const LONG: Duration = Duration::from_mins(2);
/// Local ports of the namespace where they get few.
const PORTS: u16 = 28;
const PORT: u16 = 8080;

/// Whom the traffic was between.
pub(super) struct Played {
    /// The upstream that closed first, and the requests that nginx lost by it.
    pub(super) lossy: String,
    pub(super) lost: u64,
    /// One that nobody listens at.
    pub(super) dead: String,
    /// One whose connections are not kept.
    pub(super) unkept: String,
}

/// Plays all of it at one time.
pub(super) fn play() -> Result<Played> {
    let end = Instant::now() + TIME;
    let unkept = Node::serve(&Server::obeying(LONG))?;
    let dead = format!("127.0.0.1:{}", host::free_port()?);
    let front = Nginx::in_front(&[Proxy::to(unkept.address()), Proxy::to(&dead)])?;
    let port = front.port();
    let (lossy, seen) = thread::scope(|scope| {
        let unkept = scope.spawn(move || until(end, PACE, || at_once(port, "/0/ok", 2)));
        let refused = scope.spawn(move || until(end, PACE, || post(port, "/1/ok")));
        let few = scope.spawn(move || few_ports(end));
        let lossy = lossy(end);
        for thread in [unkept, refused, few] {
            thread.join().unwrap_or_else(|_| bail!("a client panicked"))?;
        }
        lossy
    })?;
    ensure!(seen.failures.unknown.is_empty(), "other errors: {:#?}", seen.failures.unknown);
    Ok(Played { lossy, lost: seen.failures.all(), dead, unkept: unkept.address() })
}

/// Timeouts in the wrong order.
fn lossy(end: Instant) -> Result<(String, Seen)> {
    let (node, idle) = traffic::short_upstream()?;
    let mut stage = Stage::set(node, idle, traffic::mismatched_pool())?;
    let seen = stage.play_until_lost(
        LIMIT,
        |_, seen| seen.failures.all() >= ENOUGH_LOST && Instant::now() >= end,
        |_, _| (),
    )?;
    Ok((stage.upstream(), seen))
}

/// As many connections as there are local ports, one after the other.
fn few_ports(end: Instant) -> Result<()> {
    let namespace = Namespace::with_ports(PORTS)?;
    let (_node, nginx) = namespace.unkept(PORT)?;
    let socket = nginx.socket();
    until(end, 2 * PACE, || post_at(&socket, "/ok"))?;
    // The last reading of the namespace is not from before all of it.
    interrupt::pause(traffic::SETTLE)
}
