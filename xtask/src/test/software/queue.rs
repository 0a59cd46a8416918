//! A worker that is busy, so that nobody accepts.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    account::Account,
    daemon::watch::{Verdict, Watch},
    host, interrupt, process,
    traffic::{python::Python, requests::at_once},
};

/// What gunicorn is told; the kernel takes one more.
const BACKLOG: u64 = 8;
/// More clients than find room, and too few for a pool of connections to be spoken of.
const CLIENTS: usize = 15;
/// How long clients wait.
const PATIENCE: Duration = Duration::from_secs(9);
/// By then every connection that finds room is in the queue, and what finwatch has walked before is too old to be told.
const FILLED: Duration = Duration::from_millis(6_500);

/// gunicorn's only worker takes 10 s for a request.
pub(super) fn full(binary: &Path, account: &mut Account) -> Result<()> {
    let gunicorn = Python::gunicorn(&["--worker-class", "sync", "--backlog", &BACKLOG.to_string()])?;
    let told =
        fill(binary, account, (gunicorn.port(), gunicorn.port()), "/slow/10", "gunicorn", BACKLOG, CLIENTS)?;
    told.only_of_kind("accept_queue_full")?.advises("gunicorn", "--backlog")
}

/// More requests than there is room for, each of which keeps a worker; `ports` are where clients connect and where
/// `server` listens with such a backlog.
pub(crate) fn fill(
    binary: &Path,
    account: &mut Account,
    (front, port): (u16, u16),
    path: &str,
    server: &str,
    backlog: u64,
    clients: usize,
) -> Result<Verdict> {
    let watch = Watch::begin(binary)?;
    thread::scope(|scope| {
        let clients = scope.spawn(move || at_once(front, &vec![path; clients], PATIENCE));
        interrupt::pause(FILLED)?;
        let (waiting, room) = ss(port)?;
        let verdict = watch.verdict_on(account, port)?;
        let (length, limit) = verdict.queue()?;
        account.same("connections in the accept queue, as ss has it", length, waiting)?;
        account.same("room in it, as ss has it", limit, room)?;
        account.same("room in it, as the server was told", limit, backlog)?;
        let told = verdict.of_kind("accept_queue_full")?;
        told.listens(server)?;
        told.says(&format!("{length} of {limit} connections"))?;
        told.says("net.core.somaxconn = ")?;
        ensure!(!clients.is_finished(), "the clients were gone before the queue was read");
        Ok(verdict)
    })
}

/// How many connections to that port are established.
pub(crate) fn established(port: u16) -> Result<u64> {
    let filter = format!("dport = :{port}");
    let listed =
        process::output(host::command("ss").args(["-H", "-t", "-n", "state", "established", &filter]));
    Ok(listed.context("ss does not run")?.lines().count() as u64)
}

/// `Recv-Q` and `Send-Q` of the listening socket.
fn ss(port: u16) -> Result<(u64, u64)> {
    let filter = format!("sport = :{port}");
    let listed = process::output(host::command("ss").args(["-H", "-l", "-t", "-n", &filter]));
    let listed = listed.context("ss does not run")?;
    let mut fields = listed.split_whitespace().skip(1).map(str::parse);
    match (fields.next(), fields.next()) {
        (Some(Ok(waiting)), Some(Ok(room))) => Ok((waiting, room)),
        _ => anyhow::bail!("ss lists no socket at port {port}: {listed}"),
    }
}
