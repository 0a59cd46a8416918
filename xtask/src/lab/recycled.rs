//! Workers that are too few, or are replaced while they have requests.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use super::{Times, losses};
use crate::{
    account::Account,
    daemon::watch::{Verdict, Watch},
    interrupt,
    test::software::queue,
    traffic::{
        SETTLE,
        nginx::{Nginx, Pool},
        php::PhpFpm,
        python::Python,
        requests::{PATIENT, at_once},
    },
};

/// What PHP-FPM is told to keep waiting.
const BACKLOG: u64 = 16;
/// More clients than find room.
const CLIENTS: usize = 24;
/// How often a worker is ended.
const ROUNDS: u32 = 6;
/// gunicorn's workers, and requests that are too slow for them.
const WORKERS: usize = 3;
/// More than a jiffy: within one, finwatch does not tell a request from the answer before it (docs/limitations.md).
const APART: Duration = Duration::from_millis(100);

/// As many requests as PHP-FPM has workers, and more than may wait.
pub(super) fn max_children(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let pool = format!("pm = ondemand\npm.max_children = 2\nlisten.backlog = {BACKLOG}");
    let mut php = PhpFpm::start(&pool)?;
    let nginx = php.nginx()?;
    let front = (nginx.port(), php.port());
    let told = queue::fill(binary, account, front, "/?10000", &php.name()?, BACKLOG, CLIENTS)?;
    told.of_kind("pool")?.advises("PHP-FPM", "pm.max_children")?;
    php.check()?;
    ensure!(php.log().contains("max_children"), "PHP-FPM did not reach pm.max_children: {}", php.log());
    Ok(())
}

/// PHP-FPM ends workers whose request takes too long, again and again.
pub(super) fn terminated(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let pool = "pm = static\npm.max_children = 4\nrequest_terminate_timeout = 1s";
    let mut php = PhpFpm::start(pool)?;
    let nginx = php.nginx()?;
    let watch = Watch::begin(binary)?;
    for _ in 0..ROUNDS {
        at_once(nginx.port(), &["/?10"; 2], PATIENT);
        interrupt::pause(APART)?;
        at_once(nginx.port(), &["/?8000"; 2], PATIENT);
    }
    php.check()?;
    interrupt::pause(SETTLE)?;
    let verdict = watch.verdict_on(account, php.port())?;
    all_reached_a_worker(account, &verdict, &nginx)?;
    verdict.only("closes_before_answering", "nginx").map(drop)
}

/// gunicorn's arbiter ends workers that take longer than `--timeout` for a request, again and again.
pub(super) fn gunicorn_timeout(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let mut gunicorn =
        Python::gunicorn(&["--worker-class", "sync", "--workers", &WORKERS.to_string(), "--timeout", "2"])?;
    let nginx = kept(gunicorn.port())?;
    let watch = Watch::begin(binary)?;
    for _ in 0..ROUNDS {
        at_once(nginx.port(), &["/locked/12"; WORKERS], PATIENT);
    }
    gunicorn.check()?;
    interrupt::pause(SETTLE)?;
    let verdict = watch.verdict_on(account, gunicorn.port())?;
    all_reached_a_worker(account, &verdict, &nginx)?;
    verdict.only("closes_before_answering", "nginx")?.listens("gunicorn")
}

fn kept(upstream: u16) -> Result<Nginx> {
    Nginx::proxy(upstream, Pool::Kept { connections: 32, timeout: Duration::from_secs(10) })
}

/// Requests that no answer came to, by both counts.
fn compare(account: &mut Account, verdict: &Verdict, nginx: &Nginx) -> Result<()> {
    let failed = losses::compare(account, verdict, &nginx.seen()?, [])?;
    ensure!(failed > 0, "no worker was ended with a request in it");
    Ok(())
}

/// All of them were in a worker that was ended: none met the close of an idle connection.
fn all_reached_a_worker(account: &mut Account, verdict: &Verdict, nginx: &Nginx) -> Result<()> {
    compare(account, verdict, nginx)?;
    let failed = nginx.seen()?.failures.all();
    account.same("of them those that had reached a worker: all", verdict.unanswered("nginx")?, failed)?;
    account.same(
        "of them lost to the close of an idle connection: none",
        verdict.lost_to_idle_close("nginx")?,
        0,
    )
}
