//! A load balancer in the middle, which keeps idle connections for a minute.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Times, seconds};
use crate::{
    account::{Account, expect},
    daemon::watch::Watch,
    interrupt,
    traffic::{
        SETTLE,
        bursts::Bursts,
        haproxy::HaProxy,
        nginx::{Nginx, Pool},
        node::{Node, Server},
        requests::{PATIENT, at_once},
    },
};

/// Requests in a burst, each of which needs a connection of its own.
const BURST: usize = 32;
/// Enough, and the most there are.
const ENOUGH: u64 = 4;
const ENOUGH_BURSTS: u32 = 6;
const BURSTS: u32 = 60;
/// Minutes of them, with real times.
const REAL_BURSTS: u32 = 40;

/// HAProxy keeps what Node.js closes.
pub(super) fn before_node(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    let (keep_alive, purge, enough) =
        if times == Times::Real { (5, 60, REAL_BURSTS) } else { (1, 20, ENOUGH_BURSTS) };
    let node = Node::start(Duration::from_secs(keep_alive))?;
    let idle = node.measure_idle_timeout()?;
    let before = node.connections()?;
    let server = format!("pool-purge-delay {purge}s pool-max-conn 64");
    let haproxy = HaProxy::proxy(node.port(), "timeout server 30s", "http-reuse always", &server)?;
    let watch = Watch::begin_at(binary, node.port())?;
    let mut bursts = Bursts::new(haproxy.port(), BURST, idle);
    while bursts.done() < BURSTS {
        bursts.next()?;
        if bursts.done() >= enough && haproxy.failed_exchanges()? >= ENOUGH {
            break;
        }
    }
    interrupt::pause(SETTLE)?;
    let verdict = watch.verdict_on(account, node.port())?;
    let (failed, counted) = (haproxy.failed_exchanges()?, verdict.failed("haproxy")?);
    account.table(
        &["measured", ""],
        [
            vec![
                "the upstream closes after".into(),
                format!("{} to {}", seconds(idle.shortest), seconds(idle.longest)),
            ],
            vec!["requests".into(), (bursts.done() as usize * BURST).to_string()],
            vec!["HAProxy sent again".into(), haproxy.server()?.count("wretr")?.to_string()],
            vec!["HAProxy answered 5xx".into(), haproxy.clients()?.count("hrsp_5xx")?.to_string()],
        ],
    );
    account
        .same(
            "requests without an answer; HAProxy's retries, and requests its log ends with the server's abort",
            counted,
            failed,
        )
        .with_context(|| format!("{}\n{}", verdict.told_of("haproxy"), haproxy.log()))?;
    ensure!(failed > 0, "no request met a close in {BURSTS} bursts");
    let told = verdict.only("keep_alive_race", "haproxy")?;
    told.listens("node")?;
    ensure!(told.lost() == verdict.lost("haproxy")?, "the finding names {}", told.lost());
    account.table(&["finwatch's counters", ""], verdict.failures("haproxy")?);
    let opened = verdict.count("haproxy", "connections_opened_total", None)?;
    account.same("connections opened by HAProxy; accepted by Node.js", opened, node.connections()? - before)
}

/// nginx and HAProxy close idle connections after the same time.
pub(super) fn tie(binary: &Path, times: Times, account: &mut Account) -> Result<()> {
    const AT_ONCE: usize = 4;
    // Each with a pool of its own, used a moment after the others': who is first is decided anew for each.
    const PROXIES: usize = 6;
    const APART: Duration = Duration::from_millis(37);
    // The upstream has to be first in both halves of the window: once is no habit.
    let (seconds, rounds) = if times == Times::Real { (60, 4) } else { (3, 4) };
    let time = Duration::from_secs(seconds);
    let node = Node::serve(&Server::obeying(Duration::from_mins(10)))?;
    let defaults = format!("timeout http-keep-alive {}s\ntimeout server 30s", time.as_secs());
    let haproxy = HaProxy::proxy(node.port(), &defaults, "", "pool-max-conn 64")?;
    let nginx = || Nginx::proxy(haproxy.port(), Pool::Kept { connections: 32, timeout: time });
    let proxies = (0..PROXIES).map(|_| nginx()).collect::<Result<Vec<_>>>()?;
    let before = haproxy.clients()?.count("conn_tot")?;
    let watch = Watch::begin_at(binary, haproxy.port())?;
    for _ in 0..rounds {
        for nginx in &proxies {
            let answers = at_once(nginx.port(), &["/ok"; AT_ONCE], PATIENT);
            expect("requests answered", answers.with(200), AT_ONCE as u64)?;
            interrupt::pause(APART)?;
        }
        interrupt::pause(time + Duration::from_millis(1500))?;
    }
    let verdict = watch.verdict_on(account, haproxy.port())?;
    let accepted = haproxy.clients()?.count("conn_tot")? - before;
    let opened = verdict.count("nginx", "connections_opened_total", None)?;
    account.same("connections opened by nginx; HAProxy's conn_tot", opened, accepted)?;
    let by = |who| verdict.count("nginx", "connections_closed_total", Some(who));
    account.same("closed by either end; the same", by("peer")? + by("local")? + by("reset")?, accepted)?;
    account.table(
        &["measured", ""],
        [
            vec!["closed by HAProxy first".into(), by("peer")?.to_string()],
            vec!["closed by nginx first".into(), by("local")?.to_string()],
        ],
    );
    let logged = proxies.iter().map(|nginx| Ok(nginx.seen()?.failures.all())).sum::<Result<u64>>()?;
    account.same(
        "requests without an answer; failures in nginx's error logs",
        verdict.failed("nginx")?,
        logged,
    )
}
