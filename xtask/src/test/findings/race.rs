//! Timeouts in the wrong order: requests are lost, and the printed directives end that.

use std::{path::Path, slice, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::looked::{Looked, directives, listens, sure};
use crate::{
    account::Account,
    daemon::Daemon,
    traffic::{
        self, POOL, Seen, Stage,
        nginx::Nginx,
        node::{Node, Server},
        proxy::Proxy,
    },
};

/// The longest bursts go on.
const LIMIT: Duration = Duration::from_mins(1);
/// The finding is sure from so many lost requests on.
const ENOUGH: u64 = 3;
const ENOUGH_BURSTS: u32 = 8;
/// The upstream's timeout before the printed lines change it.
const SHORT: Duration = Duration::from_secs(1);

/// nginx as it was misconfigured: it keeps connections for longer than the upstream.
fn mismatched(upstream: &str) -> Proxy {
    let mut proxy = Proxy::to(upstream);
    proxy.upstream(&format!("keepalive {POOL}; keepalive_timeout 60s;"));
    proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    proxy
}

/// Requests are lost; then what triage printed is applied at one end and at the other, and none is.
pub(super) fn lossy(binary: &Path, daemon: &Daemon, account: &mut Account) -> Result<()> {
    let (node, idle) = traffic::short_upstream()?;
    let proxy = mismatched(&node.address());
    let mut stage = Stage::of(node, idle, Nginx::in_front(slice::from_ref(&proxy))?);
    let mut bursts = 0;
    let seen = stage.play_until_lost(
        LIMIT,
        |burst, seen| {
            bursts = burst;
            seen.failures.all() >= ENOUGH && burst >= ENOUGH_BURSTS
        },
        |_, _| (),
    )?;
    let (upstream, front) = (stage.upstream(), stage.front());
    let looked = Looked::at(daemon)?;
    let lost = same(account, &looked, &seen, &upstream)?;
    ensure!(lost >= ENOUGH, "only {lost} requests lost in {bursts} bursts");
    let finding = looked.only(account, &["keep_alive_race"], &upstream, &[&upstream, &front])?;
    sure(finding, "high")?;
    listens(finding, "node", stage.node().pid())?;
    let candidates = finding["candidates"].as_array().map(Vec::len);
    ensure!(candidates == Some(1), "the process is known, yet {}", finding["candidates"]);
    ensure!(finding["harm"]["requests_lost"] == lost, "{} of {lost} lost", finding["harm"]);
    let at_nginx = directives(finding, "proxy", "nginx")?;
    let at_node = directives(finding, "upstream", "Node.js")?;
    let [at_node] = &at_node[..] else { bail!("one text for Node.js, not {at_node:#?}") };

    let mut mended = proxy;
    for change in &at_nginx {
        mended.apply(&change.context, &change.text)?;
    }
    let node = Node::serve(&Server { more: &at_node.text, ..Server::busy(SHORT) })?;
    let still = mismatched(&node.address());
    let stages = [
        ("nginx", Stage::of(stage.into_node(), idle, Nginx::in_front(&[mended])?)),
        ("Node.js", Stage::of(node, idle, Nginx::in_front(&[still])?)),
    ];
    let daemon = Daemon::private(binary)?;
    thread::scope(|scope| {
        let daemon = &daemon;
        let threads = stages.map(|(name, stage)| {
            scope.spawn(move || mended_at(daemon, stage, bursts).with_context(|| format!("{name} mended")))
        });
        for one in threads {
            account.append(one.join().unwrap_or_else(|_| bail!("a thread panicked"))?);
        }
        anyhow::Ok(())
    })?;
    println!(
        "  mended: {:?} and {:?}, {bursts} bursts each",
        at_nginx.iter().map(|change| &change.text).collect::<Vec<_>>(),
        at_node.text
    );
    Ok(())
}

/// The same bursts lose nothing, and nothing is wrong any more.
fn mended_at(daemon: &Daemon, mut stage: Stage, bursts: u32) -> Result<Account> {
    let mut account = Account::default();
    let seen = stage.play(LIMIT, |burst, _| burst >= bursts, |_, _| ())?;
    let looked = Looked::at(daemon)?;
    let requests = u64::from(bursts) * POOL as u64;
    ensure!(seen.answers.all == requests, "{} of {requests} requests answered", seen.answers.all);
    ensure!(seen.answers.bad_gateway == 0, "{} answered 502", seen.answers.bad_gateway);
    let lost = same(&mut account, &looked, &seen, &stage.upstream())?;
    ensure!(lost == 0, "{lost} requests lost");
    looked.nothing(&mut account, &[&stage.upstream(), &stage.front()])?;
    Ok(account)
}

/// Requests lost as finwatch counts them and as nginx's error log does.
fn same(account: &mut Account, looked: &Looked, seen: &Seen, upstream: &str) -> Result<u64> {
    ensure!(seen.failures.unknown.is_empty(), "other errors: {:#?}", seen.failures.unknown);
    let (lost, logged) = (looked.lost(upstream)?, seen.failures.all());
    account.same("requests lost, and failures in nginx's error log", lost, logged)?;
    Ok(lost)
}
