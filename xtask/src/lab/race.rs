//! Requests through nginx at the very moment at which its upstream closes idle connections, or would.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use super::{Times, losses, seconds};
use crate::{
    account::Account,
    daemon::watch::Watch,
    interrupt,
    setup::lab,
    traffic::{
        POOL, Stage,
        nginx::{Nginx, Pool},
        node::{IdleTimeout, Node, Server},
    },
};

/// Enough, and the longest that bursts go on.
const ENOUGH_BURSTS: u32 = 6;
const ENOUGH_LOST: u64 = 4;
const LIMIT: Duration = Duration::from_mins(1);
/// The same with real times: minutes of them.
const REAL_BURSTS: u32 = 40;
const REAL_LIMIT: Duration = Duration::from_mins(10);
/// How long real times are compared with what they are scaled to: a pool of 60 s with an upstream of 5 s.
const POOL_TO_UPSTREAM: u32 = 12;

/// Node.js as it comes.
pub(super) fn node_default(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    let keep_alive = Duration::from_secs(if times == Times::Real { 5 } else { 1 });
    lossy(binary, times, account, &Server::busy(keep_alive), kept(POOL_TO_UPSTREAM * keep_alive))
}

/// An older line, which adds nothing to its timeout.
pub(super) fn older_node(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    let keep_alive = Duration::from_secs(if times == Times::Real { 5 } else { 2 });
    let node = lab::older_node();
    let server = Server { program: Some(&node), ..Server::busy(keep_alive) };
    lossy(binary, times, account, &server, kept(POOL_TO_UPSTREAM * keep_alive))
}

/// A pool of 120 s before a Node.js of 5 s, both divided by five.
pub(super) fn two_minutes(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    lossy(binary, times, account, &Server::busy(Duration::from_secs(1)), kept(Duration::from_secs(24)))
}

/// Express, which is Node.js's own server.
pub(super) fn express(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    lossy(binary, times, account, &Server::express(Duration::from_secs(1)), kept(Duration::from_secs(12)))
}

/// Fastify, which sets the timeout itself.
pub(super) fn fastify(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    lossy(binary, times, account, &Server::fastify(Duration::from_secs(1)), kept(Duration::from_secs(12)))
}

/// An nginx that was told nothing, and keeps 32 connections for 60 s.
pub(super) fn unasked(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    lossy(binary, times, account, &Server::busy(Duration::from_secs(1)), Pool::Default)
}

fn kept(timeout: Duration) -> Pool {
    Pool::Kept { connections: POOL, timeout }
}

/// Requests are lost, as many as nginx's error log says.
fn lossy(binary: &Path, times: Times, account: &mut Account, server: &Server<'_>, pool: Pool) -> Result<()> {
    let node = Node::serve(server)?;
    let idle = node.measure_idle_timeout()?;
    let nginx = Nginx::proxy(node.port(), pool)?;
    let watch = Watch::begin_at(binary, node.port())?;
    let port = node.port();
    let mut stage = Stage::of(node, idle, nginx);
    let (limit, enough) = match times {
        Times::Real => (REAL_LIMIT, REAL_BURSTS),
        Times::Scaled => (LIMIT, ENOUGH_BURSTS),
    };
    let mut bursts = 0;
    let seen = stage.play_until_lost(
        limit,
        |burst, seen| {
            bursts = burst;
            burst >= enough && seen.failures.all() >= ENOUGH_LOST
        },
        |_, _| (),
    )?;
    let verdict = watch.verdict_of(account, "nginx", port)?;
    let closes = format!("{} to {}", seconds(idle.shortest), seconds(idle.longest));
    let more =
        [vec!["the upstream closes after".into(), closes.clone()], vec!["bursts".into(), bursts.to_string()]];
    let failed = losses::compare(account, &verdict, &seen, more)?;
    ensure!(
        failed > 0,
        "no request met a close in {bursts} bursts, and the upstream closes after {closes}: {}",
        verdict.told_of("nginx")
    );
    let told = verdict.only("keep_alive_race", "nginx")?;
    told.listens("node")?;
    ensure!(told.lost() == verdict.lost("nginx")?, "the finding names {}", told.lost());
    Ok(())
}

/// The cure: 65 s at the upstream, 60 s at the proxy.
pub(super) fn fixed(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    let real = times == Times::Real;
    let scale = |time: u64| Duration::from_millis(if real { time * 1000 } else { time * 100 });
    let [race, pool, keep_alive, headers] = [6, 60, 65, 66].map(scale);
    let more = format!("server.headersTimeout = {};", headers.as_millis());
    let node = Node::serve(&Server { more: &more, ..Server::busy(keep_alive) })?;
    let port = node.port();
    let nginx = Nginx::proxy(port, Pool::Kept { connections: POOL, timeout: pool })?;
    let watch = Watch::begin_at(binary, port)?;
    // First where an upstream of 5 s lost requests, then where the pool's own time ends.
    let mut stage = Stage::of(node, IdleTimeout::of(if real { race } else { Duration::from_secs(2) }), nginx);
    let bursts = if real { REAL_BURSTS } else { 4 };
    stage.play(REAL_LIMIT, |burst, _| burst >= bursts, |_, _| ())?;
    stage.pace(IdleTimeout::of(pool));
    stage.play(REAL_LIMIT, |burst, _| burst >= bursts + 2, |_, _| ())?;
    interrupt::pause(pool + Duration::from_secs(1))?;
    let seen = stage.seen()?;
    let verdict = watch.verdict_on(account, port)?;
    let requests = u64::from(bursts + 2) * POOL as u64;
    ensure!(seen.answers.all == requests, "{} of {requests} requests answered", seen.answers.all);
    losses::compare(account, &verdict, &seen, [])?;
    let opened = verdict.count("nginx", "connections_opened_total", None)?;
    account.same("connections opened by nginx; accepted by Node.js", opened, stage.node().connections()?)?;
    let by = |who| verdict.count("nginx", "connections_closed_total", Some(who));
    let (local, peer) = (by("local")?, by("peer")? + by("reset")?);
    account.same("closed by nginx: all that were opened", local, opened)?;
    account.same("closed by Node.js: none", peer, 0)
}
