//! Workers that are too few, or are replaced while they have requests.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::Times;
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
const BACKLOG: u64 = 8;

/// As many requests as PHP-FPM has workers, and more than may wait.
pub(super) fn max_children(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let pool = format!("pm = static\npm.max_children = 2\nlisten.backlog = {BACKLOG}");
    let mut php = PhpFpm::start(&pool)?;
    let nginx = php.nginx()?;
    queue::fill(binary, account, (nginx.port(), php.port()), "/?10000", "php-fpm", BACKLOG)?;
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
    for _ in 0..5 {
        at_once(nginx.port(), &["/?10"; 2], PATIENT);
        at_once(nginx.port(), &["/?8000"; 2], PATIENT);
    }
    php.check()?;
    let verdict = watch.verdict_on(account, php.port())?;
    compare(account, &verdict, &nginx)?;
    verdict.only("closes_before_answering", "nginx").map(drop)
}

/// gunicorn replaces a worker after so many requests, and cuts off those that take longer than its grace.
pub(super) fn max_requests(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let mut gunicorn = Python::gunicorn(&[
        "--worker-class",
        "gthread",
        "--threads",
        "16",
        "--keep-alive",
        "30",
        "--max-requests",
        "6",
    ])?;
    let pool = Pool::Kept { connections: 16, timeout: Duration::from_secs(10) };
    let nginx = Nginx::proxy(gunicorn.port(), pool)?;
    let watch = Watch::begin(binary)?;
    for _ in 0..5 {
        let port = nginx.port();
        thread::scope(|scope| {
            let slow = scope.spawn(move || at_once(port, &["/slow/4"; 3], PATIENT));
            interrupt::pause(SETTLE)?;
            at_once(port, &["/"; 5], PATIENT);
            slow.join().ok().context("a client").map(drop)
        })?;
        interrupt::pause(SETTLE)?;
    }
    gunicorn.check()?;
    let verdict = watch.verdict_on(account, gunicorn.port())?;
    compare(account, &verdict, &nginx)?;
    verdict.only("closes_before_answering", "nginx")?.listens("gunicorn")
}

/// Requests that no answer came to, by both counts.
fn compare(account: &mut Account, verdict: &Verdict, nginx: &Nginx) -> Result<()> {
    let seen = nginx.seen()?;
    account.table(
        &["measured", ""],
        [
            vec!["requests".into(), seen.answers.all.to_string()],
            vec!["answered 502".into(), seen.answers.bad_gateway.to_string()],
        ],
    );
    ensure!(seen.failures.unknown.is_empty(), "nginx logged errors: {:#?}", seen.failures.unknown);
    let failed = seen.failures.all();
    account.same(
        "requests unanswered; failures in nginx's error log",
        verdict.unanswered("nginx")?,
        failed,
    )?;
    ensure!(failed > 0, "no worker was ended with a request in it");
    Ok(())
}
