//! Connects that come to nothing: a firewall drops them in silence, or the host that they are for is not there.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{
    account::Account,
    daemon::watch::Watch,
    interrupt,
    traffic::{
        SETTLE,
        clients::{post_at, until},
        namespace::{Namespace, WITHIN},
        nginx::Nginx,
        proxy::Proxy,
    },
};

/// What the firewall drops.
const DROPPED: u16 = 81;
/// nginx gives up after the kernel has sent the SYN a second time, after one second.
const PATIENCE: &str = "proxy_connect_timeout 2s;";
/// Well into the second half of what the daemon remembers, of which it takes a mark every ten seconds.
const TIME: Duration = Duration::from_secs(24);
const PACE: Duration = Duration::from_millis(500);

/// nginx in front of both.
pub(super) fn in_vain(binary: &Path, account: &mut Account) -> Result<()> {
    let watch = Watch::begin(binary)?;
    let namespace = Namespace::alone("unreached")?;
    namespace.firewall(&format!("tcp dport {DROPPED} drop"))?;
    let dropped = format!("{WITHIN}:{DROPPED}");
    let nobody = format!("{}:80", namespace.link_to_nobody()?);
    let mut patient = Proxy::to(&dropped);
    patient.location(PATIENCE);
    // Toward the other the kernel gives up by itself, after three seconds without an answer to ARP.
    let nginx = Nginx::in_namespace(&namespace, &[patient, Proxy::to(&nobody)])?;
    let (socket, end) = (nginx.socket(), Instant::now() + TIME);
    thread::scope(|scope| {
        let clients = ["/0/", "/1/"].map(|path| scope.spawn(|| until(end, PACE, || post_at(&socket, path))));
        clients.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")))
    })?;
    interrupt::pause(SETTLE)?;
    let failures = nginx.seen()?.failures;
    ensure!(failures.unknown.is_empty(), "other errors: {:#?}", failures.unknown);
    for (upstream, kind, reason, words) in [
        (&dropped, "connect_timeouts", "timeout", "upstream timed out"),
        (&nobody, "unreachable", "unreachable", "connect() failed"),
    ] {
        let verdict = watch.verdict(account, upstream)?;
        verdict.only(kind, "nginx")?.confidence("high")?;
        let logged = failures.by_message.get(words).copied().unwrap_or(0);
        ensure!(logged >= 3, "nginx's log has only {logged} of \"{words}\"");
        let counted = verdict.count("nginx", "connect_failures_total", Some(reason))?;
        account.same(&format!("{words}, {upstream}"), counted, logged)?;
    }
    Ok(())
}
