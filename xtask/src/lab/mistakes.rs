//! Configurations of nginx that look right and keep too few connections, or none.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::Times;
use crate::{
    account::Account,
    daemon::watch::{Verdict, Watch},
    host, interrupt, process,
    traffic::{
        SETTLE,
        clients::{at_once, until},
        nginx::Nginx,
        node::{Node, Server},
        proxy::Proxy,
    },
};

/// Longer than any of this takes: the upstream closes nothing.
const LONG: Duration = Duration::from_mins(2);
/// How long the traffic goes on, into the second half of what the daemon remembers.
const TRAFFIC: Duration = Duration::from_secs(13);
const PACE: Duration = Duration::from_millis(100);

/// `keepalive` is there, `proxy_http_version 1.1` is not.
pub(super) fn http_1_0(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    unkept(binary, account, "proxy_set_header Connection \"\";")
}

/// `Connection ""` is not there, so nginx asks the upstream to close.
pub(super) fn connection_close(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    unkept(binary, account, "proxy_http_version 1.1;")
}

fn unkept(binary: &Path, account: &mut Account, location: &str) -> Result<()> {
    let (opened, requests) = play(binary, account, 1, "keepalive 32;", location, |nginx| {
        let (url, seconds) = (format!("http://{}/ok", nginx.address()), format!("{}s", TRAFFIC.as_secs()));
        let mut wrk = host::command("wrk");
        wrk.args(["--threads", "2", "--connections", "4", "--duration", &seconds, &url]);
        process::run("wrk", &mut wrk, 10 * TRAFFIC)
    })?;
    account.same("connections opened by nginx; requests in its access log", opened, requests)
}

/// 200 requests a second in groups of 20, over four workers that keep four connections each.
pub(super) fn four_workers(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let location = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let (opened, requests) = play(binary, account, 4, "keepalive 4;", location, |nginx| {
        until(Instant::now() + TRAFFIC, PACE, || at_once(nginx.port(), "/ok", 20))
    })?;
    ensure!(opened < requests, "{opened} connections for {requests} requests: nothing was kept");
    Ok(())
}

/// Traffic through such an nginx: how many connections it opened, and how many requests it had.
fn play(
    binary: &Path,
    account: &mut Account,
    workers: usize,
    upstream: &str,
    location: &str,
    traffic: impl FnOnce(&Nginx) -> Result<()>,
) -> Result<(u64, u64)> {
    let node = Node::serve(&Server::obeying(LONG))?;
    let mut proxy = Proxy::to(node.address());
    proxy.upstream(upstream);
    proxy.location(location);
    let nginx = Nginx::with_workers(workers, &[proxy])?;
    let watch = Watch::begin_at(binary, node.port())?;
    traffic(&nginx)?;
    interrupt::pause(SETTLE)?;
    let verdict: Verdict = watch.verdict_on(account, node.port())?;
    let seen = nginx.seen()?;
    ensure!(seen.failures.all() == 0, "nginx logged {:?}", seen.failures);
    let opened = verdict.count("nginx", "connections_opened_total", None)?;
    account.same("connections opened by nginx; accepted by Node.js", opened, node.connections()?)?;
    account.table(
        &["measured", ""],
        [
            vec!["requests".into(), seen.answers.all.to_string()],
            vec!["connections".into(), opened.to_string()],
        ],
    );
    Ok((opened, seen.answers.all))
}
