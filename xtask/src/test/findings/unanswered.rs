//! Requests that are not answered, and the neighbours that are no trouble: one crash, one restart.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    ACT,
    looked::{Looked, listens, sure},
};
use crate::{
    account::Account,
    daemon::Daemon,
    host, interrupt,
    traffic::{
        Seen,
        clients::{at_once, post, until},
        nginx::Nginx,
        node::{Node, Server},
        proxy::Proxy,
    },
};

/// Longer than any of this takes: the upstream closes no idle connection.
pub(super) const LONG: Duration = Duration::from_mins(2);
/// Kernel, logs and walks settle this long after the last answer.
const SETTLE: Duration = Duration::from_millis(500);
/// One request of these in so many is answered otherwise.
const EVERY: u64 = 10;
const PACE: Duration = Duration::from_millis(100);
/// Within this time Node.js's first process has handed connections to its workers, which then have them for as long again: one on
/// its way to a worker that crashes may be lost, neither answered nor closed.
const HANDED_OVER: Duration = Duration::from_millis(150);

/// nginx that keeps connections, in the right order with any server of [`LONG`].
pub(super) fn keeping(upstream: &str) -> Proxy {
    let mut proxy = Proxy::to(upstream);
    proxy.upstream("keepalive 32;");
    proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    proxy
}

/// nginx's logs and finwatch's view once all is over.
pub(super) fn settled(daemon: &Daemon, nginx: &Nginx) -> Result<(Seen, Looked)> {
    interrupt::pause(SETTLE)?;
    let seen = nginx.seen()?;
    ensure!(seen.failures.unknown.is_empty(), "other errors: {:#?}", seen.failures.unknown);
    Ok((seen, Looked::at(daemon)?))
}

/// Steady requests, every tenth of them to `path`.
fn now_and_then(port: u16, path: &str) -> Result<()> {
    let mut number = 0;
    until(Instant::now() + ACT, PACE, || {
        number += 1;
        post(port, if number % EVERY == 0 { path } else { "/ok" })
    })
}

/// The upstream closes connections instead of answering, again and again.
pub(super) fn closes(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let nginx = Nginx::in_front(&[keeping(&node.address())])?;
    now_and_then(nginx.port(), "/close")?;
    let (seen, looked) = settled(daemon, &nginx)?;
    let (upstream, logged) = (node.address(), seen.failures.all());
    let finding =
        looked.only(account, &["closes_before_answering"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "high")?;
    listens(finding, "node", node.pid())?;
    let counted = looked.count("finwatch_peer_closed_before_response_total", None, &upstream)?;
    ensure!(logged > 0, "nginx logged no failure");
    account.same("requests unanswered, and failures in nginx's error log", counted, logged)?;
    ensure!(finding["harm"]["requests_lost"] == logged, "{} of {logged}", finding["harm"]);
    Ok(())
}

/// The upstream resets connections in the middle of its answer, again and again.
pub(super) fn dies(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let nginx = Nginx::in_front(&[keeping(&node.address())])?;
    now_and_then(nginx.port(), "/half")?;
    let (seen, looked) = settled(daemon, &nginx)?;
    let (upstream, logged) = (node.address(), seen.failures.all());
    let finding = looked.only(
        account,
        &["upstream_dies_while_answering"],
        &upstream,
        &[&upstream, &nginx.address()],
    )?;
    sure(finding, "medium")?;
    listens(finding, "node", node.pid())?;
    let phase = Some(("phase", "response"));
    let counted = looked.count("finwatch_resets_received_total", phase, &upstream)?;
    ensure!(logged > 0, "nginx logged no failure");
    account.same("requests unanswered, and failures in nginx's error log", counted, logged)?;
    ensure!(finding["harm"]["requests_lost"] == logged, "{} of {logged}", finding["harm"]);
    Ok(())
}

/// One of two worker processes crashes once, with requests under way: counted, and no trouble.
pub(super) fn one_crash(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server { workers: 2, ..Server::obeying(LONG) })?;
    let nginx = Nginx::in_front(&[keeping(&node.address())])?;
    let (port, mut number) = (nginx.port(), 0);
    until(Instant::now() + ACT, 5 * PACE, || {
        number += 1;
        if number != 5 {
            return at_once(port, "/ok", 4);
        }
        thread::scope(|scope| {
            let others = scope.spawn(|| at_once(port, "/pause", 12));
            interrupt::pause(HANDED_OVER)?;
            post(port, "/crash")?;
            others.join().unwrap_or_else(|_| bail!("a client panicked"))
        })
    })?;
    let (seen, looked) = settled(daemon, &nginx)?;
    let (upstream, logged) = (node.address(), seen.failures.all());
    let counted =
        looked.lost(&upstream)? + looked.count("finwatch_resets_received_total", None, &upstream)?;
    ensure!(logged >= 3, "only {logged} requests were under way when the worker crashed");
    account.same("requests unanswered, and failures in nginx's error log", counted, logged)?;
    println!("  one crash: {logged} unanswered, no trouble");
    looked.nothing(account, &[&upstream, &nginx.address()])
}

/// nginx gives up on answers that take too long.
pub(super) fn too_late(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let mut proxy = keeping(&node.address());
    proxy.location("proxy_read_timeout 1s;");
    let nginx = Nginx::in_front(&[proxy])?;
    now_and_then(nginx.port(), "/slow")?;
    let (seen, looked) = settled(daemon, &nginx)?;
    let (upstream, logged) = (node.address(), seen.failures.all());
    ensure!(seen.failures.by_message.get("upstream timed out") == Some(&logged), "{:?}", seen.failures);
    let gateway_timeouts = nginx.access_log()?.lines().filter(|line| line.starts_with("504 ")).count() as u64;
    ensure!(gateway_timeouts == logged, "{logged} timeouts, {gateway_timeouts} answered 504");
    let finding = looked.only(account, &["answers_too_late"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "medium")?;
    listens(finding, "node", node.pid())?;
    let acked = Some(("acked", "true"));
    let counted = looked.count("finwatch_local_closed_before_response_total", acked, &upstream)?;
    account.same("requests unanswered, and failures in nginx's error log", counted, logged)?;
    ensure!(finding["harm"]["requests_lost"] == logged, "{} of {logged}", finding["harm"]);
    Ok(())
}

/// Nobody listens.
pub(super) fn refuses(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let upstream = format!("127.0.0.1:{}", host::free_port()?);
    let nginx = Nginx::in_front(&[keeping(&upstream)])?;
    until(Instant::now() + ACT, 5 * PACE, || post(nginx.port(), "/ok"))?;
    let (seen, looked) = settled(daemon, &nginx)?;
    let logged = seen.failures.all();
    ensure!(seen.failures.by_message.get("connect() failed") == Some(&logged), "{:?}", seen.failures);
    let finding = looked.only(account, &["refuses"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "high")?;
    ensure!(finding["candidates"] == serde_json::json!([]), "nobody listens: {}", finding["candidates"]);
    let reason = Some(("reason", "refused"));
    let counted = looked.count("finwatch_connect_failures_total", reason, &upstream)?;
    account.same("requests unanswered, and failures in nginx's error log", counted, logged)?;
    ensure!(finding["harm"]["connects_failed"] == logged, "{} of {logged}", finding["harm"]);
    Ok(())
}

/// A deploy that ends the server and starts it again under light load.
pub(super) fn one_restart(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let mut node = Some(Node::serve(&Server::obeying(LONG))?);
    let (port, upstream) =
        node.as_ref().map(|node| (node.port(), node.address())).expect("it was just put there");
    let nginx = Nginx::in_front(&[keeping(&upstream)])?;
    let mut number = 0;
    until(Instant::now() + ACT, PACE, || {
        number += 1;
        match number {
            40 => node = None,
            44 => node = Some(Node::serve(&Server { port, ..Server::obeying(LONG) })?),
            _ => {}
        }
        at_once(nginx.port(), "/ok", 2)
    })?;
    let (seen, looked) = settled(daemon, &nginx)?;
    let logged = seen.failures.all();
    let reason = Some(("reason", "refused"));
    let refused = looked.count("finwatch_connect_failures_total", reason, &upstream)?;
    ensure!(refused >= 3, "only {refused} connects were refused: too short a restart");
    let counted = refused + looked.lost(&upstream)?;
    account.same("requests unanswered, and failures in nginx's error log", counted, logged)?;
    println!("  one restart: {refused} refused, no trouble");
    looked.nothing(account, &[&upstream, &nginx.address()])
}
