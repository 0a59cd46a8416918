//! A range of local ports that is used up, in a network namespace.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    ACT,
    looked::{Looked, sure},
    unanswered::settled,
};
use crate::{
    account::Account,
    daemon::Daemon,
    traffic::{
        Seen,
        clients::{post_at, until},
        namespace::Namespace,
    },
};

const PORTS: u16 = 300;
/// Where Node.js listens: outside that range.
const PORT: u16 = 18_099;
/// They last for three quarters of the time.
const PACE: Duration = Duration::from_millis(50);
/// After the first mark of what is held, which the daemon takes every ten seconds, and before the last port is gone.
const BEFORE: Duration = Duration::from_secs(12);
/// How nginx words it.
const NO_PORT: &str = "failed (99: Cannot assign requested address) while connecting to upstream";

/// nginx closes after each exchange, so each leaves a port in TIME_WAIT, until there is none.
pub(super) fn used_up(binary: &Path, _: &Daemon, account: &mut Account) -> Result<()> {
    // No other nginx of this host: one that keeps connections would be compared with this one.
    let daemon = Daemon::private_with(binary, &["--include-port", &PORT.to_string()])?;
    let namespace = Namespace::with_ports(PORTS)?;
    let (node, nginx) = namespace.unkept(PORT)?;
    let upstream = node.address();
    let socket = nginx.socket();
    let start = Instant::now();
    until(start + BEFORE, PACE, || post_at(&socket, "/ok"))?;
    foretold(&settled(&daemon, &nginx)?, &upstream)?;
    until(start + ACT, PACE, || post_at(&socket, "/ok"))?;
    let (seen, looked) = settled(&daemon, &nginx)?;
    let log = nginx.error_log()?;
    let logged = log.lines().filter(|line| line.contains(NO_PORT)).count() as u64;
    ensure!(logged == seen.failures.all(), "other failures: {:?}", seen.failures);
    let reason = Some(("reason", "no_local_port"));
    let counted = looked.count("finwatch_connect_failures_total", reason, &upstream)?;
    ensure!(logged > 0, "{PORTS} ports were enough");
    account.same("connects without a port, and nginx's", counted, logged)?;
    // That nginx keeps no connection is why, and told as well.
    looked.about("keep_alive_not_in_effect", &upstream)?;
    let finding =
        looked.only(account, &["ports_running_out", "keep_alive_not_in_effect"], &upstream, &[&upstream])?;
    sure(finding, "high")?;
    ensure!(finding["harm"]["connects_failed"] == logged, "{} of {logged}", finding["harm"]);
    let evidence = finding["evidence"].as_array().context("evidence")?;
    let holders = format!("holding them: {PORTS} in TIME_WAIT or FIN_WAIT2, 0 established");
    ensure!(evidence.iter().any(|line| *line == holders), "not {holders}: {evidence:#?}");
    Ok(())
}

/// While every connect still finds a port, it is told for how long.
fn foretold((seen, looked): &(Seen, Looked), upstream: &str) -> Result<()> {
    let finding = looked.about("ports_running_out", upstream)?;
    let harm = &finding["harm"];
    let left = harm["seconds_left"].as_f64().with_context(|| format!("no forecast: {finding:#}"))?;
    ensure!(
        seen.failures.all() == 0 && harm["connects_failed"] == 0,
        "too late: {harm}, {:?}",
        seen.failures
    );
    ensure!(left > 0.0, "nothing is left already: {harm}");
    println!("  ports_running_out: {}", finding["verdict"].as_str().unwrap_or_default());
    Ok(())
}
