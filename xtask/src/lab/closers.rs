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
        namespace::{Namespace, WITHIN},
        nginx::Nginx,
        node::measure_idle_timeout,
        proxy::Proxy,
        requests::{PATIENT, at_once},
        tomcat::Tomcat,
    },
};

/// Requests at a time, and how often.
const AT_ONCE: usize = 8;
const ROUNDS: u32 = 3;
/// Closed by then, however late the upstream's timer is.
const LATE: Duration = Duration::from_millis(1500);
/// Where Tomcat listens in a namespace.
const PORT: u16 = 18_100;

/// Apache httpd as it comes.
pub(super) fn apache(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let apache = Apache::start()?;
    let time = Duration::from_secs(5);
    let address = ("127.0.0.1", apache.port());
    let verdict = play(binary, account, address, time, || Ok(apache.connections()))?;
    let told = verdict.only("latent_race", "nginx")?;
    told.listens("apache2")?;
    told.may_be("Apache")
}

/// Tomcat as it is shipped, on a host that the daemon does not see.
pub(super) fn tomcat(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let namespace = Namespace::beside_us()?;
    let tomcat = Tomcat::start(&namespace, PORT)?;
    let time = Duration::from_secs(20);
    let verdict = play(binary, account, (WITHIN, PORT), time, || tomcat.connections())?;
    verdict.only("latent_race", "nginx")?.may_be("Tomcat")
}

/// Groups of requests, each left idle until the upstream has closed its connections.
fn play(
    binary: &Path,
    account: &mut Account,
    (address, port): (&str, u16),
    time: Duration,
    accepted: impl Fn() -> Result<u64>,
) -> Result<Verdict> {
    let upstream = format!("{address}:{port}");
    let mut proxy = Proxy::to(&upstream);
    proxy.upstream("keepalive 32; keepalive_timeout 60s;");
    proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
    let nginx = Nginx::in_front(&[proxy])?;
    let measured = measure_idle_timeout((address, port), 2 * time)?;
    let before = accepted()?;
    let port = port.to_string();
    let watch = Watch::begin_with(binary, &["--netns", "host", "--include-port", &port])?;
    for _ in 0..ROUNDS {
        let answers = at_once(nginx.port(), &["/ok"; AT_ONCE], PATIENT);
        expect("requests answered", answers.with(200), AT_ONCE as u64)?;
        interrupt::pause(time + LATE)?;
    }
    let verdict = watch.verdict(account, &upstream)?;
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
    Ok(verdict)
}
