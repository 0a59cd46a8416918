//! Workers that end in the middle of requests: again and again, and once.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    account::Account,
    daemon::watch::Watch,
    interrupt,
    traffic::{
        logs::Failures,
        nginx::{Nginx, Pool},
        python::Python,
        requests::{Answers, PATIENT, at_once, post},
    },
};

/// By then requests have reached their worker.
const ARRIVED: Duration = Duration::from_millis(500);
/// More than a jiffy: within one, finwatch does not tell a request from the answer before it.
const APART: Duration = Duration::from_millis(100);
/// Time for gunicorn to start another worker.
const RESTART: Duration = Duration::from_millis(1500);
/// One worker with room for all requests of a scenario.
const GUNICORN: [&str; 6] = ["--worker-class", "gthread", "--threads", "32", "--keep-alive", "30"];
/// A body that is more than gunicorn reads by itself.
const BODY: usize = 40_000;

fn stage() -> Result<(Python, Nginx)> {
    let gunicorn = Python::gunicorn(&GUNICORN)?;
    let nginx =
        Nginx::proxy(gunicorn.port(), Pool::Kept { connections: 32, timeout: Duration::from_secs(10) })?;
    Ok((gunicorn, nginx))
}

fn failures(nginx: &Nginx) -> Result<u64> {
    let failures = Failures::count(&nginx.error_log()?);
    ensure!(failures.unknown.is_empty(), "nginx logged errors of another kind: {:#?}", failures.unknown);
    Ok(failures.all())
}

/// Slow requests, and one that kills their worker once they have reached it. A POST, so that nginx does not send it to the
/// next worker as well.
fn crash(nginx: &Nginx, others: &[&str]) -> Result<Answers> {
    let port = nginx.port();
    thread::scope(|scope| {
        let slow = scope.spawn(move || at_once(port, others, PATIENT));
        interrupt::pause(ARRIVED)?;
        let mut answers = post(port, "/die", 1);
        answers += slow.join().ok().context("a client")?;
        Ok(answers)
    })
}

/// A worker is killed with four requests in it, again and again.
pub(super) fn closes_before_answering(binary: &Path, account: &mut Account) -> Result<()> {
    const CRASHES: u64 = 6;
    let (mut gunicorn, nginx) = stage()?;
    let watch = Watch::begin(binary)?;
    for _ in 0..CRASHES {
        at_once(nginx.port(), &["/"; 4], PATIENT);
        interrupt::pause(APART)?;
        crash(&nginx, &["/slow/1.5"; 3])?;
        interrupt::pause(RESTART)?;
    }
    gunicorn.check()?;
    let verdict = watch.verdict_on(account, gunicorn.port())?;
    let told = verdict.only("closes_before_answering", "nginx")?;
    told.listens("gunicorn")?;
    told.confidence("high")?;
    let failed = failures(&nginx)?;
    ensure!(failed >= 4 * CRASHES, "only {failed} requests were in a worker when it was killed");
    account.same("unanswered requests and nginx's failures", verdict.unanswered("nginx")?, failed)?;
    account.same("requests the finding names", told.lost(), failed)
}

/// A worker is killed in the middle of an answer, with a part of the request unread, eight times.
pub(super) fn dies_while_answering(binary: &Path, account: &mut Account) -> Result<()> {
    const CRASHES: u64 = 8;
    let (mut gunicorn, nginx) = stage()?;
    let watch = Watch::begin(binary)?;
    for _ in 0..CRASHES {
        post(nginx.port(), "/half", BODY);
        interrupt::pause(RESTART)?;
    }
    gunicorn.check()?;
    let verdict = watch.verdict_on(account, gunicorn.port())?;
    let told = verdict.only("upstream_dies_while_answering", "nginx")?;
    told.listens("gunicorn")?;
    account.same("crashes", told.lost(), CRASHES)?;
    let resets = verdict.count("nginx", "resets_received_total", Some("response"))?;
    account.same("resets and nginx's failures", resets, failures(&nginx)?)
}

/// One crash takes a dozen requests along: trouble of a moment, and over.
pub(super) fn one_crash(binary: &Path, account: &mut Account) -> Result<()> {
    const OTHERS: usize = 11;
    let (mut gunicorn, nginx) = stage()?;
    let watch = Watch::begin(binary)?;
    let mut answers = Answers::default();
    for round in 0..14 {
        if round == 2 {
            answers += crash(&nginx, &["/slow/1.5"; OTHERS])?;
        }
        answers += at_once(nginx.port(), &["/"; 4], PATIENT);
        interrupt::pause(Duration::from_secs(1))?;
    }
    gunicorn.check()?;
    let verdict = watch.verdict_on(account, gunicorn.port())?;
    let failed = failures(&nginx)?;
    ensure!(failed > OTHERS as u64, "the crash took only {failed} requests along: {answers:?}");
    account.same("unanswered requests and nginx's failures", verdict.unanswered("nginx")?, failed)?;
    verdict.no_trouble()
}
