//! Connections that are not kept, or too few of them; and what is right.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    ACT,
    looked::{Looked, directives, listens, sure},
    unanswered::{keeping, settled},
};
use crate::{
    account::Account,
    daemon::Daemon,
    host,
    process::Running,
    traffic::{
        clients::{at_once, until},
        nginx::Nginx,
        node::{Node, Server},
        proxy::Proxy,
    },
};

/// The upstream closes nothing while this goes on.
const LONG: Duration = Duration::from_mins(2);
const PACE: Duration = Duration::from_millis(200);
/// Requests at a time.
const AT_ONCE: usize = 4;
const OPENED: &str = "finwatch_connections_opened_total";

/// So many requests in groups, then what nginx answered.
fn groups(nginx: &Nginx, paths: &[&str]) -> Result<()> {
    until(Instant::now() + ACT, PACE, || {
        paths.iter().try_for_each(|path| at_once(nginx.port(), path, AT_ONCE))
    })
}

/// nginx as it comes; then with what triage printed.
pub(super) fn not_in_effect(binary: &Path, _: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let upstream = node.address();
    // No other nginx of this host: one that keeps connections would make this one upstream among several.
    let flags = ["--include-port", &node.port().to_string()];
    let daemon = Daemon::private_with(binary, &flags)?;
    let mut proxy = Proxy::to(&upstream);
    let nginx = Nginx::in_front(std::slice::from_ref(&proxy))?;
    groups(&nginx, &["/ok"])?;
    let (requests, looked) = all_answered(&daemon, &nginx)?;
    let opened = looked.count(OPENED, None, &upstream)?;
    account.same("connections nginx opened and requests it had", opened, requests)?;
    let finding =
        looked.only(account, &["keep_alive_not_in_effect"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "medium")?;
    listens(finding, "node", node.pid())?;
    let changes = directives(finding, "proxy", "nginx")?;
    let lines: Vec<&str> = changes.iter().flat_map(|change| change.text.lines()).collect();
    ensure!(
        lines == ["keepalive 32;", "proxy_http_version 1.1;", "proxy_set_header Connection \"\";"],
        "{lines:?}"
    );
    for change in &changes {
        proxy.apply(&change.context, &change.text)?;
    }
    drop(nginx);
    let nginx = Nginx::in_front(&[proxy])?;
    let daemon = Daemon::private_with(binary, &flags)?;
    groups(&nginx, &["/ok"])?;
    let (requests, looked) = all_answered(&daemon, &nginx)?;
    let kept = looked.count(OPENED, None, &upstream)?;
    ensure!(kept <= 2 * AT_ONCE as u64 && requests > 100, "{kept} connections for {requests} requests");
    println!("  keep-alive: {opened} connections before, {kept} for {requests} requests after");
    looked.nothing(account, &[&upstream, &nginx.address()])
}

/// Two upstreams, of which nginx was told of one only.
pub(super) fn one_upstream(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let nodes = [Node::serve(&Server::obeying(LONG))?, Node::serve(&Server::obeying(LONG))?];
    let [kept, other] = [0, 1].map(|at: usize| nodes[at].address());
    let nginx = Nginx::in_front(&[keeping(&kept), Proxy::to(&other)])?;
    groups(&nginx, &["/0/ok", "/1/ok"])?;
    let (_, looked) = all_answered(daemon, &nginx)?;
    let finding = looked.only(
        account,
        &["one_upstream_without_keep_alive"],
        &other,
        &[&kept, &other, &nginx.address()],
    )?;
    let verdict = finding["verdict"].as_str().context("a verdict")?;
    ensure!(verdict.contains("although it keeps"), "{verdict}");
    for (node, address) in nodes.iter().zip([&kept, &other]) {
        let opened = looked.count(OPENED, None, address)?;
        account.same("connections nginx opened, and Node.js accepted", opened, node.connections()?)?;
    }
    ensure!(directives(finding, "proxy", "nginx")?.iter().all(|change| !change.context.contains(&kept)));
    listens(finding, "node", nodes[1].pid())
}

/// Room for two connections and ten used at a time; in a pause nginx closes those two.
pub(super) fn too_small(binary: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let upstream = node.address();
    let mut proxy = keeping(&upstream);
    // For what lives longer, the upstream's timeout in mind.
    proxy.upstream("keepalive 2; keepalive_timeout 10500ms;");
    let nginx = Nginx::in_front(std::slice::from_ref(&proxy))?;
    let rush = || until(Instant::now() + ACT / 5, PACE, || at_once(nginx.port(), "/ok", 10));
    rush()?;
    until(Instant::now() + Duration::from_secs(12), ACT, || Ok(()))?;
    rush()?;
    let (_, looked) = all_answered(daemon, &nginx)?;
    let finding = looked.only(account, &["pool_too_small"], &upstream, &[&upstream, &nginx.address()])?;
    sure(finding, "medium")?;
    let before = looked.count(OPENED, None, &upstream)?;
    let accepted = node.connections()?;
    account.same("connections nginx opened, and Node.js accepted", before, accepted)?;
    for change in directives(finding, "proxy", "nginx")? {
        proxy.apply(&change.context, &change.text)?;
    }
    drop(nginx);
    let nginx = Nginx::in_front(&[proxy])?;
    let daemon = Daemon::private(binary)?;
    until(Instant::now() + 2 * ACT / 5, PACE, || at_once(nginx.port(), "/ok", 10))?;
    let (_, looked) = all_answered(&daemon, &nginx)?;
    let after = looked.count(OPENED, None, &upstream)?;
    let accepted = node.connections()? - accepted;
    account.same("with room for all: opened by nginx, and accepted by Node.js", after, accepted)?;
    ensure!(after <= 20, "{after} connections opened with room for all");
    println!("  pool: {before} connections before, {after} after");
    looked.nothing(account, &[&upstream, &nginx.address()])
}

/// Clients as busy as they can be and that leave, in front of a pool in the right order.
pub(super) fn healthy(_: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let upstream = node.address();
    let mut proxy = keeping(&upstream);
    // nginx closes what a rush has left over: the normal active close.
    proxy.upstream("keepalive_timeout 3s;");
    let nginx = Nginx::in_front(&[proxy])?;
    for header in ["Connection: keep-alive", "Connection: close"] {
        wrk(&nginx, header)?;
        until(Instant::now() + Duration::from_secs(5), ACT, || Ok(()))?;
    }
    let (requests, looked) = all_answered(daemon, &nginx)?;
    let opened = looked.count(OPENED, None, &upstream)?;
    println!("  nothing wrong: {requests} requests over {opened} connections");
    looked.nothing(account, &[&upstream, &nginx.address()])
}

/// wrk ends with requests under way: its clients leave.
fn wrk(nginx: &Nginx, header: &str) -> Result<()> {
    let wrk = host::find_program("wrk").context("wrk is not installed: `cargo xtask setup --for test`")?;
    let mut command = host::command(wrk);
    command.args(["-c16", "-t1", "-d4s", "-H", header, &format!("http://{}/ok", nginx.address())]);
    let status = Running::spawn("wrk", command.stdout(Stdio::null()))?.wait(ACT)?;
    ensure!(status.success(), "wrk failed ({status})");
    Ok(())
}

/// How many requests nginx has answered, none of them with an error.
fn all_answered(daemon: &Daemon, nginx: &Nginx) -> Result<(u64, Looked)> {
    let (seen, looked) = settled(daemon, nginx)?;
    ensure!(seen.failures.all() == 0, "nginx logged {:?}", seen.failures);
    Ok((seen.answers.all, looked))
}
