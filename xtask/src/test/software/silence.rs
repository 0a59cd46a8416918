//! A firewall on the way forgets connections: what comes on them vanishes, or is answered by a reset.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    account::Account,
    daemon::watch::Watch,
    interrupt,
    traffic::{
        cable::{Cable, Unknown},
        python::Python,
    },
};

/// A client with a pool.
const CLIENT: &str = include_str!("client.py");
/// Connections of its pool, and how many of them are left alone and forgotten, so long before they are used again.
const POOL: u64 = 8;
const FORGOTTEN: u64 = 6;
const FORGOTTEN_BEFORE: Duration = Duration::from_secs(2);
/// When the firewall forgets a connection: longer than a busy machine keeps the client from what it uses all the time.
const FORGETS: Duration = Duration::from_secs(7);
/// Seconds after which the client gives up.
const PATIENCE: &str = "3";
/// Where the servers of both scenarios, which go on at the same time, listen.
const PORTS: [u16; 2] = [8080, 8081];
/// The same for a quiet time that finwatch takes for a long one, the bound of a bucket and some when it is used again.
const FORGETS_LATE: Duration = Duration::from_secs(125);

/// What came of the requests on a pool that was quiet, as the client counts.
struct Outcome {
    answered: u64,
    timed_out: u64,
    reset: u64,
}

/// A client uses a part of its pool all the time; the rest is left alone until the firewall has forgotten it, and then the
/// client uses all of it.
fn play(
    binary: &Path,
    port: u16,
    forgets: Duration,
    unknown: Unknown,
) -> Result<(Watch, Outcome, Cable, Python)> {
    let cable = Cable::lay(&port.to_string())?;
    cable.firewall(forgets, unknown)?;
    let args = ["--host", Cable::server_address(), "--timeout-keep-alive", "300"];
    let mut server = Python::uvicorn_by(cable.at_server(), &args, port)?;
    // No probe from here reaches it.
    interrupt::pause(Duration::from_secs(3))?;
    server.check()?;
    let watch = Watch::begin(binary)?;
    let [pool, used] = [POOL, POOL - FORGOTTEN].map(|count| count.to_string());
    let arguments = [Cable::server_address(), &port.to_string(), &pool, &used, PATIENCE];
    let mut client = Python::script(cable.at_client(), CLIENT, &arguments)?;
    client.said(1)?;
    interrupt::pause(forgets + FORGOTTEN_BEFORE)?;
    fs::write(client.path().join("go"), "").context("telling the client to go on")?;
    let counts = client.said(2)?[1].split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let &[answered, timed_out, reset, 0] = counts.context("the client's counts")?.as_slice() else {
        anyhow::bail!("the server closed connections");
    };
    Ok((watch, Outcome { answered, timed_out, reset }, cable, server))
}

/// Packets vanish; the client gives up.
pub(super) fn never_acknowledged(binary: &Path, account: &mut Account) -> Result<()> {
    let (watch, outcome, _cable, _server) = play(binary, PORTS[0], FORGETS, Unknown::Dropped)?;
    ensure!(outcome.answered == POOL - FORGOTTEN, "{} were answered", outcome.answered);
    let verdict = watch.verdict(account, &format!("{}:{}", Cable::server_address(), PORTS[0]))?;
    let told = verdict.only("silent_drop", "python3")?;
    told.confidence("medium")?;
    told.listens("uvicorn")?;
    let unacked = verdict.count("python3", "local_closed_before_response_total", Some("false"))?;
    account.same("requests never acknowledged and the client's timeouts", unacked, outcome.timed_out)?;
    account.same("of requests the firewall dropped", unacked, FORGOTTEN)?;
    let acked = verdict.count("python3", "local_closed_before_response_total", Some("true"))?;
    account.same("given up though acknowledged", acked, 0)?;
    account.same("requests the finding names", told.lost(), FORGOTTEN)
}

/// The firewall answers with a reset, after a quiet time that no upstream has.
pub(super) fn reset_after_long_quiet(binary: &Path, account: &mut Account) -> Result<()> {
    let (watch, outcome, _cable, _server) = play(binary, PORTS[1], FORGETS_LATE, Unknown::Reset)?;
    ensure!(outcome.answered == POOL - FORGOTTEN, "{} were answered", outcome.answered);
    let verdict = watch.verdict(account, &format!("{}:{}", Cable::server_address(), PORTS[1]))?;
    let told = verdict.only("silent_drop", "python3")?;
    told.confidence("high")?;
    told.listens("uvicorn")?;
    let lost = verdict.count("python3", "requests_on_peer_closed_socket_total", None)?;
    account.same("requests answered by a reset and the client's resets", lost, outcome.reset)?;
    account.same("of requests the firewall turned away", lost, FORGOTTEN)?;
    account.same("requests the finding names", told.lost(), FORGOTTEN)
}
