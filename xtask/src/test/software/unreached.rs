//! Connects that come to nothing: a firewall drops them in silence or turns them away, or the host that they are for is not
//! there.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    account::Account,
    daemon::watch::Watch,
    host, interrupt,
    traffic::{
        SETTLE,
        clients::{post_at, until},
        logs::Failures,
        namespace::{Namespace, WITHIN},
        nginx::Nginx,
        proxy::Proxy,
    },
};

/// nginx gives up after the kernel has sent the SYN a second time, after one second.
const PATIENCE: &str = "proxy_connect_timeout 2s;";
/// Well into the second half of what the daemon remembers, of which it takes a mark every ten seconds.
const TIME: Duration = Duration::from_secs(24);
const PACE: Duration = Duration::from_millis(500);

/// nginx in front of all three.
pub(super) fn in_vain(binary: &Path, account: &mut Account) -> Result<()> {
    let watch = Watch::begin(binary)?;
    let namespace = Namespace::alone("unreached")?;
    // Ports that nobody else on this host asks for: the daemon tells upstreams by address and port, in whatever namespace.
    let [dropped, rejected, nobody] = [host::free_port()?, host::free_port()?, host::free_port()?];
    namespace.firewall(&format!("tcp dport {dropped} drop\ntcp dport {rejected} reject"))?;
    let [dropped, rejected] = [dropped, rejected].map(|port| format!("{WITHIN}:{port}"));
    let nobody = format!("{}:{nobody}", namespace.link_to_nobody()?);
    let mut patient = Proxy::to(&dropped);
    patient.location(PATIENCE);
    // Toward the other the kernel gives up by itself, after three seconds without an answer to ARP.
    let nginx = Nginx::in_namespace(&namespace, &[patient, Proxy::to(&nobody), Proxy::to(&rejected)])?;
    let (socket, end) = (nginx.socket(), Instant::now() + TIME);
    thread::scope(|scope| {
        let clients =
            ["/0/", "/1/", "/2/"].map(|path| scope.spawn(|| until(end, PACE, || post_at(&socket, path))));
        clients.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")))
    })?;
    interrupt::pause(SETTLE)?;
    let log = nginx.error_log()?;
    for (upstream, kind, reason, errno) in [
        (&dropped, "connect_timeouts", "timeout", libc::ETIMEDOUT),
        // tcp_v4_err() wakes nginx before it sets the socket's error: nginx may then take the connection for made, and be told
        // by recv() that it is not. The error is the same: <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_ipv4.c>.
        (&nobody, "unreachable", "unreachable", libc::EHOSTUNREACH),
        // The ICMP comes while nginx is still in connect(): the kernel leaves it to nginx to end the attempt.
        (&rejected, "unreachable", "unreachable", libc::ECONNREFUSED),
    ] {
        let failures = Failures::toward(&log, upstream);
        ensure!(failures.unknown.is_empty(), "other errors: {:#?}", failures.unknown);
        let logged = failures.by_errno.get(&errno).copied().unwrap_or(0);
        ensure!(logged >= 3 && logged == failures.all(), "nginx's log has {failures:?}");
        let verdict = watch.verdict(account, upstream)?;
        verdict.only(kind, "nginx")?.confidence("high")?;
        let counted = verdict.count("nginx", "connect_failures_total", Some(reason))?;
        account
            .same(&format!("attempts that failed with error {errno}, {upstream}"), counted, logged)
            .with_context(|| format!("{}\n{log}", verdict.told_of("nginx")))?;
    }
    Ok(())
}
