//! Answers that come too late: HAProxy gives up, or its clients do.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    account::{Account, expect},
    daemon::watch::{Verdict, Watch},
    interrupt,
    traffic::{
        SETTLE,
        haproxy::HaProxy,
        python::Python,
        requests::{Answers, PATIENT, at_once},
    },
};

/// Requests at a time.
const CLIENTS: usize = 8;

/// Requests given up that the upstream had acknowledged, or had not.
fn given_up(verdict: &Verdict, acked: &str) -> Result<u64> {
    verdict.count("haproxy", "local_closed_before_response_total", Some(acked))
}

/// HAProxy answers 504 after a second, in three rounds.
pub(super) fn haproxy_gives_up(binary: &Path, account: &mut Account) -> Result<()> {
    let uvicorn = Python::uvicorn(&["--timeout-keep-alive", "60"], 0.0)?;
    let haproxy = HaProxy::proxy(uvicorn.port(), "timeout server 1s", "", "")?;
    let watch = Watch::begin(binary)?;
    let mut answers = Answers::default();
    for _ in 0..3 {
        answers += at_once(haproxy.port(), &["/slow/4"; CLIENTS], PATIENT);
        answers += at_once(haproxy.port(), &["/"; CLIENTS], PATIENT);
    }
    interrupt::pause(SETTLE)?;
    ensure!(answers.with(504) == 3 * CLIENTS as u64, "expected 504s: {answers:?}");
    ensure!(answers.with(200) == 3 * CLIENTS as u64, "expected as many answers: {answers:?}");
    let verdict = watch.verdict_on(account, uvicorn.port())?;
    let told = verdict.only("answers_too_late", "haproxy")?;
    told.listens("uvicorn")?;
    account.same("requests given up and clients' 504s", told.lost(), answers.with(504))?;
    account.same("the same in HAProxy's statistics", told.lost(), haproxy.clients()?.count("hrsp_5xx")?)?;
    account.same("of them acknowledged", given_up(&verdict, "true")?, answers.with(504))?;
    account.same("of them never acknowledged", given_up(&verdict, "false")?, 0)
}

/// Clients leave after one and a half seconds; those that leave within a second are not counted.
pub(super) fn clients_leave(binary: &Path, account: &mut Account) -> Result<()> {
    let uvicorn = Python::uvicorn(&["--timeout-keep-alive", "60"], 0.0)?;
    let haproxy = HaProxy::proxy(uvicorn.port(), "timeout server 30s\noption abortonclose", "", "")?;
    let watch = Watch::begin(binary)?;
    let quick = at_once(haproxy.port(), &["/slow/8"; CLIENTS], Duration::from_millis(300));
    let slow = at_once(haproxy.port(), &["/slow/8"; CLIENTS], Duration::from_millis(1500));
    interrupt::pause(SETTLE)?;
    ensure!(quick.left == CLIENTS as u64 && slow.left == CLIENTS as u64, "{quick:?}, {slow:?}");
    let verdict = watch.verdict_on(account, uvicorn.port())?;
    let told = verdict.only("answers_too_late", "haproxy")?;
    told.listens("uvicorn")?;
    account.same("requests given up and clients that left", told.lost(), slow.left)?;
    expect("aborts in HAProxy's statistics", quick.left + slow.left, haproxy.server()?.count("cli_abrt")?)?;
    account.same("of the requests never acknowledged", given_up(&verdict, "false")?, 0)
}
