//! Timeouts in the wrong order, or equal, before anything is lost.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    looked::{Looked, directives, listens, sure},
    unanswered::{keeping, settled},
};
use crate::{
    account::Account,
    daemon::Daemon,
    traffic::{
        clients::{at_once, post, until},
        nginx::Nginx,
        node::{Node, Server},
    },
};

/// What the upstream is told; its connections live about a second longer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than the upstream keeps an idle connection, so that no request meets a close.
const APART: Duration = Duration::from_millis(3500);
const GROUPS: u32 = 5;

/// A steady trickle over one connection, and a few more now and then: the upstream closes those, and nothing is lost.
pub(super) fn upstream_first(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(TIMEOUT))?;
    let mut proxy = keeping(&node.address());
    proxy.upstream("keepalive_timeout 60s;");
    let nginx = Nginx::in_front(&[proxy])?;
    let begun = Instant::now();
    for group in 1..=GROUPS {
        at_once(nginx.port(), "/ok", 4)?;
        until(begun + group * APART, TIMEOUT / 4, || post(nginx.port(), "/ok"))?;
    }
    // The connection of the trickle is closed as well, and shows how long it lived.
    until(Instant::now() + APART, APART, || Ok(()))?;
    let looked = nothing_lost(daemon, &nginx)?;
    let upstream = node.address();
    let finding = looked.only(account, &["latent_race"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "high")?;
    listens(finding, "node", node.pid())?;
    ensure!(directives(finding, "proxy", "nginx")?.len() == 1);
    ensure!(directives(finding, "upstream", "Node.js")?.len() == 1);
    Ok(())
}

/// What the upstream is told where both timeouts are to be equal, and what it comes to is measured.
const EQUAL: Duration = Duration::from_secs(3);
/// nginx's timeout is longer by so much: less than the upstream keeps those connections longer that it ended late.
const BETWEEN: Duration = Duration::from_millis(20);

/// Both ends close after the same time: at one connection this end is first, at another that.
pub(super) fn equal(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(EQUAL))?;
    let idle = node.measure_idle_timeout()?;
    let measuring = node.connections()?;
    let timeout = idle.median + BETWEEN;
    let mut proxy = keeping(&node.address());
    proxy.upstream(&format!("keepalive_timeout {}ms;", timeout.as_millis()));
    let nginx = Nginx::in_front(&[proxy])?;
    for _ in 0..3 {
        // Each takes connections of its own: half of them the upstream closes first, half nginx.
        at_once(nginx.port(), "/ok", 6)?;
        until(Instant::now() + timeout + TIMEOUT, APART, || Ok(()))?;
        at_once(nginx.port(), "/late", 6)?;
        until(Instant::now() + timeout + TIMEOUT, APART, || Ok(()))?;
    }
    let looked = nothing_lost(daemon, &nginx)?;
    let upstream = node.address();
    let finding = looked.only(account, &["latent_race"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "high")?;
    let verdict = finding["verdict"].as_str().context("a verdict")?;
    ensure!(verdict.contains("equal timeouts"), "not named as equal: {verdict}");
    let opened = looked.count("finwatch_connections_opened_total", None, &upstream)?;
    let accepted = node.connections()? - measuring;
    account.same("connections nginx opened, and Node.js accepted", opened, accepted)?;
    Ok(())
}

fn nothing_lost(daemon: &Daemon, nginx: &Nginx) -> Result<Looked> {
    let (seen, looked) = settled(daemon, nginx)?;
    ensure!(seen.failures.all() == 0, "nginx lost requests: {:?}", seen.failures);
    Ok(looked)
}
