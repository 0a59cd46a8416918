//! Upstreams that close idle connections after a time of their own: what is measured of it, and whose it may be.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{Times, seconds};
use crate::{
    account::{Account, expect},
    daemon::watch::{Verdict, Watch},
    interrupt,
    traffic::{
        apache::Apache,
        haproxy::HaProxy,
        nginx::{Nginx, Pool},
        node::{Node, Server, measure_idle_timeout},
        requests::{PATIENT, at_once},
    },
};

/// Requests at a time.
const AT_ONCE: usize = 8;
/// Closed by then, however late the upstream's timer is.
const LATE: Duration = Duration::from_millis(1500);

/// Apache httpd as it comes.
pub(super) fn apache(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let apache = Apache::start()?;
    let time = Duration::from_secs(5);
    let (verdict, _nginx) = play(binary, account, apache.port(), (time, 3), || Ok(apache.connections()))?;
    let told = verdict.only("latent_race", "nginx")?;
    told.listens("apache2")?;
    told.may_be("Apache")
}

/// 20 s, as Tomcat and older Puma have it; HAProxy stands in for them.
pub(super) fn twenty_seconds(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let node = Node::serve(&Server::obeying(Duration::from_mins(2)))?;
    let time = Duration::from_secs(20);
    let defaults = "timeout http-keep-alive 20s\ntimeout server 30s";
    let haproxy = HaProxy::proxy(node.port(), defaults, "", "pool-max-conn 64")?;
    let accepted = || haproxy.clients()?.count("conn_tot");
    let (verdict, _nginx) = play(binary, account, haproxy.port(), (time, 3), accepted)?;
    let told = verdict.only("latent_race", "nginx")?;
    told.listens("haproxy")?;
    told.may_be("Tomcat")
}

/// Groups of requests, each left idle until the upstream has closed its connections.
fn play(
    binary: &Path,
    account: &mut Account,
    port: u16,
    (time, rounds): (Duration, u32),
    accepted: impl Fn() -> Result<u64>,
) -> Result<(Verdict, Nginx)> {
    let pool = Pool::Kept { connections: 32, timeout: Duration::from_mins(1) };
    let nginx = Nginx::proxy(port, pool)?;
    let measured = measure_idle_timeout(("127.0.0.1", port), 2 * time)?;
    let before = accepted()?;
    let watch = Watch::begin_at(binary, port)?;
    for _ in 0..rounds {
        let answers = at_once(nginx.port(), &["/ok"; AT_ONCE], PATIENT);
        expect("requests answered", answers.with(200), AT_ONCE as u64)?;
        interrupt::pause(time + LATE)?;
    }
    let verdict = watch.verdict_on(account, port)?;
    let accepted = accepted()? - before;
    let opened = verdict.count("nginx", "connections_opened_total", None)?;
    account.same("connections opened by nginx; accepted by the upstream", opened, accepted)?;
    let closed = verdict.count("nginx", "connections_closed_total", Some("peer"))?;
    account.same("closed by the upstream: all of them", closed, accepted)?;
    account.table(
        &["idle at close", ""],
        [
            vec!["by finwatch, mean".into(), format!("{:.2} s", verdict.mean("nginx", "peer_close_idle")?)],
            vec![
                "by clients of our own".into(),
                format!("{} to {}", seconds(measured.shortest), seconds(measured.longest)),
            ],
        ],
    );
    Ok((verdict, nginx))
}
