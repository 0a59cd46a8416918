//! Requests lost, seen from the upstream's side: nginx is elsewhere, in a network namespace that the daemon does not watch.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    ACT,
    looked::{directives, listens, sure},
    unanswered::{LONG, keeping, settled},
};
use crate::{
    account::Account,
    daemon::Daemon,
    interrupt,
    traffic::{
        POOL,
        bursts::Bursts,
        clients::{post_at, until, upload_at},
        namespace::{HERE, Namespace, WITHIN},
        nginx::Nginx,
        node::{Node, Server},
    },
};

/// What the upstream is told; about twice as long is what it comes to.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How many bursts there are at least, and at most until so many requests are lost.
const LEAST: u32 = 8;
const MOST: u32 = 32;
const LOST: u64 = 3;
/// After every other burst all connections are left to Node.js. Where it closed none but with a request unread, no idle
/// time would show.
const LONGER: Duration = Duration::from_millis(200);
/// So many bytes lie unread in part when Node.js closes: it takes a few ten thousand before it asks for more.
const BODY: usize = 256 * 1024;
const PACE: Duration = Duration::from_millis(100);
/// One request in so many is such a one.
const EVERY: u64 = 10;

/// Node.js here closes connections that nginx elsewhere still uses.
pub(super) fn closes(binary: &Path, _: &Daemon, account: &mut Account) -> Result<()> {
    let daemon = beside(binary)?;
    let namespace = Namespace::beside_us()?;
    let node = Node::serve(&Server { address: HERE, ..Server::busy(TIMEOUT) })?;
    let upstream = node.address();
    let idle = node.measure_idle_timeout()?;
    let mut proxy = keeping(&upstream);
    proxy.upstream("keepalive_timeout 60s;");
    let nginx = Nginx::in_namespace(&namespace, &[proxy])?;
    let mut bursts = Bursts::at(nginx.socket(), POOL, idle);
    loop {
        bursts.next()?;
        let (done, lost) = (bursts.done(), nginx.seen()?.failures.all());
        if done >= MOST || done >= LEAST && lost >= LOST {
            break;
        }
        if done.is_multiple_of(2) {
            interrupt::pause(idle.longest + LONGER)?;
        }
        if done.is_multiple_of(LEAST) && lost == 0 {
            bursts.pace(node.measure_idle_timeout()?);
        }
    }
    let finding = told(&daemon, &node, &nginx, account)?;
    sure(&finding, "medium")?;
    ensure!(directives(&finding, "upstream", "Node.js")?.len() == 1);
    Ok(())
}

/// Node.js here closes connections without reading all of the request, which no timeout explains.
pub(super) fn closes_unread(binary: &Path, _: &Daemon, account: &mut Account) -> Result<()> {
    let daemon = beside(binary)?;
    let namespace = Namespace::beside_us()?;
    let node = Node::serve(&Server { address: HERE, ..Server::obeying(LONG) })?;
    let nginx = Nginx::in_namespace(&namespace, &[keeping(&node.address())])?;
    let (socket, mut number) = (nginx.socket(), 0);
    until(Instant::now() + ACT, PACE, || {
        number += 1;
        if number % EVERY == 0 { upload_at(&socket, "/refuse", BODY) } else { post_at(&socket, "/ok") }
    })?;
    let finding = told(&daemon, &node, &nginx, account)?;
    sure(&finding, "low")
}

/// A daemon that sees this host's side, and takes who is elsewhere for a proxy.
fn beside(binary: &Path) -> Result<Daemon> {
    Daemon::private_with(binary, &["--netns", "host", "--proxy-ranges", "198.18.0.0/24"])
}

/// The only finding: that Node.js lost as many requests as nginx says.
fn told(daemon: &Daemon, node: &Node, nginx: &Nginx, account: &mut Account) -> Result<Value> {
    let (seen, looked) = settled(daemon, nginx)?;
    let (upstream, logged) = (node.address(), seen.failures.all());
    ensure!(logged >= LOST, "nginx lost only {logged} requests");
    ensure!(looked.pair(&upstream).is_none(), "the daemon sees nginx's side as well");
    let addresses = [upstream.as_str()];
    let findings: Vec<&Value> = looked.troubles(&addresses).collect();
    let [finding] = findings[..] else {
        let pair = looked.upstreams_side(WITHIN, &upstream);
        bail!("not one finding, but {findings:#?} from {pair:#?}")
    };
    ensure!(finding["kind"] == "own_side_closes", "{finding:#?}");
    ensure!(
        finding["subject"]["side"] == "upstream" && finding["subject"]["proxy"] == WITHIN,
        "{finding:#?}"
    );
    println!("  own_side_closes: {} {}", finding["verdict"], finding["evidence"]);
    listens(finding, "node", node.pid())?;
    account.look(findings.iter().copied());
    let lost = finding["harm"]["requests_lost"].as_u64().context("requests lost")?;
    account.same("requests lost, and failures in nginx's error log", lost, logged)?;
    Ok(finding.clone())
}
