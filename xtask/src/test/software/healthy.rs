//! Nothing is wrong: health checks that reset, timeouts in order, one restart.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    account::{Account, expect},
    daemon::watch::Watch,
    interrupt,
    traffic::{
        haproxy::HaProxy,
        nginx::{Nginx, Pool},
        python::Python,
        requests::{Answers, PATIENT, at_once},
    },
};

/// How long the traffic goes on.
const TRAFFIC: Duration = Duration::from_secs(14);

/// HAProxy checks its server five times a second and ends each check with a reset; another one asks for a page. The pools
/// of both are what closes.
pub(super) fn health_checks(binary: &Path, account: &mut Account) -> Result<()> {
    let uvicorn = Python::uvicorn(&["--timeout-keep-alive", "60"], 0.0)?;
    let proxy = |backend: &str| {
        let server = "check inter 200ms pool-purge-delay 500ms pool-max-conn 64";
        HaProxy::proxy(uvicorn.port(), "timeout server 30s", &format!("{backend}\nhttp-reuse always"), server)
    };
    let (connecting, asking) = (proxy("")?, proxy("option httpchk GET /")?);
    let watch = Watch::begin(binary)?;
    let (mut answers, mut asked) = (Answers::default(), 0);
    let end = Instant::now() + TRAFFIC;
    while Instant::now() < end {
        for haproxy in [&connecting, &asking] {
            answers += at_once(haproxy.port(), &["/"; 6], PATIENT);
            asked += 6;
        }
        interrupt::pause(Duration::from_secs(1))?;
    }
    let verdict = watch.verdict_on(account, uvicorn.port())?;
    expect("requests, all of them answered", answers.with(200), asked)?;
    let aborts = verdict.count("haproxy", "resets_sent_total", Some("abort"))?;
    println!("  {aborts} connections that HAProxy ended by a reset");
    ensure!(aborts >= 30, "HAProxy ended only {aborts} connections by a reset");
    for haproxy in [&connecting, &asking] {
        ensure!(haproxy.server()?.count("chkfail")? == 0, "a health check failed");
    }
    verdict.no_trouble()
}

/// gunicorn is stopped in the middle of traffic, and started again at the same port.
pub(super) fn one_restart(binary: &Path, account: &mut Account) -> Result<()> {
    let args = ["--worker-class", "gthread", "--threads", "16", "--keep-alive", "30"];
    let mut gunicorn = Some(Python::gunicorn(&args)?);
    let port = gunicorn.as_ref().map_or(0, Python::port);
    let nginx = Nginx::proxy(port, Pool::Kept { connections: 16, timeout: Duration::from_secs(10) })?;
    let watch = Watch::begin(binary)?;
    let (mut answers, mut asked, mut restarted) = (Answers::default(), 0, false);
    let begin = Instant::now();
    while begin.elapsed() < TRAFFIC {
        if !restarted && begin.elapsed() > TRAFFIC / 4 {
            drop(gunicorn.take());
            // While nobody listens, as in most restarts.
            answers += at_once(nginx.port(), &["/"; 4], PATIENT);
            asked += 4;
            gunicorn = Some(Python::gunicorn_at(port, &args)?);
            restarted = true;
        }
        answers += at_once(nginx.port(), &["/"; 4], PATIENT);
        asked += 4;
        interrupt::pause(Duration::from_millis(100))?;
    }
    let verdict = watch.verdict_on(account, port)?;
    println!("  {answers:?}");
    expect("requests, all of them answered", answers.all(), asked)?;
    ensure!(answers.with(502) > 0, "the restart was not noticed");
    let refused = verdict.count("nginx", "connect_failures_total", Some("refused"))?;
    let failures = crate::traffic::logs::Failures::count(&nginx.error_log()?);
    account.same(
        "refused connects and nginx's",
        refused,
        failures.by_message.get("connect() failed").copied().unwrap_or(0),
    )?;
    verdict.no_trouble()
}
