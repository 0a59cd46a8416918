//! Upstreams that close idle connections: told before the first loss, and after it.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    account::{Account, expect},
    daemon::watch::{Verdict, Watch},
    interrupt,
    traffic::{
        self,
        bursts::Bursts,
        haproxy::HaProxy,
        logs::Failures,
        nginx::{Nginx, Pool},
        node::measure_idle_timeout,
        python::Python,
        requests::{PATIENT, at_once},
    },
};

/// Connections of a burst: each of its requests needs one of its own.
const BURST: usize = 16;
/// Takes longer than a busy machine takes to send all of a burst.
const LONG_ENOUGH: &str = "/slow/0.5";
const QUICK: &str = "/";
/// What short upstreams are told.
const SHORT: Duration = Duration::from_secs(2);
/// Closed by then, however late the upstream's timer is.
const LATE: Duration = Duration::from_millis(1500);
/// Bursts that may meet a close, and losses that are enough.
const BURSTS: u32 = 32;
const ENOUGH: u64 = 4;
/// For so long at a time uvicorn's event loop is blocked where a race is wanted.
const BLOCKED_SECONDS: f32 = 0.04;

/// nginx keeps connections for longer than any upstream here.
fn nginx(upstream: u16) -> Result<Nginx> {
    Nginx::proxy(upstream, Pool::Kept { connections: 32, timeout: Duration::from_mins(1) })
}

/// Bursts that leave the pool idle until the upstream has closed all of it.
fn let_close(port: u16, path: &str, timeout: Duration, bursts: u32) -> Result<()> {
    for _ in 0..bursts {
        let answers = at_once(port, &[path; BURST], PATIENT);
        ensure!(answers.with(200) == BURST as u64, "a burst that meets no close was answered {answers:?}");
        interrupt::pause(timeout + LATE)?;
    }
    Ok(())
}

/// The upstream closed each connection of the bursts after a time in the bucket up to `bound`, and nothing was lost.
fn expect_closes(
    account: &mut Account,
    verdict: &Verdict,
    proxy: &str,
    bursts: u32,
    bound: f64,
) -> Result<()> {
    let closes = u64::from(bursts) * BURST as u64;
    let (all, inside) = verdict.samples(proxy, "peer_close_idle", bound)?;
    account.same("idle connections that the upstream closed", all, closes)?;
    account.same(&format!("of them in the bucket up to {bound} s"), inside, closes)?;
    account.same("requests lost", verdict.lost(proxy)?, 0)
}

fn failures(nginx: &Nginx) -> Result<Failures> {
    let failures = Failures::count(&nginx.error_log()?);
    ensure!(failures.unknown.is_empty(), "nginx logged errors of another kind: {:#?}", failures.unknown);
    Ok(failures)
}

/// Bursts sent at the moment at which the upstream closes, until enough of them met it.
fn collide(port: u16, upstream: u16, mut failed: impl FnMut() -> Result<u64>) -> Result<u64> {
    let mut bursts = Bursts::new(port, BURST, measure_idle_timeout(("127.0.0.1", upstream), 2 * SHORT)?);
    while bursts.done() < BURSTS {
        bursts.next()?;
        if failed()? >= ENOUGH {
            break;
        }
    }
    interrupt::pause(traffic::SETTLE)?;
    let failed = failed()?;
    ensure!(failed > 0, "no request met a close in {BURSTS} bursts");
    Ok(failed)
}

/// uvicorn as it comes, whose timeout of 5 s is in the list of known ones.
pub(super) fn uvicorn_latent(binary: &Path, account: &mut Account) -> Result<()> {
    const BURSTS: u32 = 2;
    let uvicorn = Python::uvicorn(&[], 0.0)?;
    let nginx = nginx(uvicorn.port())?;
    let watch = Watch::begin(binary)?;
    let_close(nginx.port(), LONG_ENOUGH, Duration::from_secs(5), BURSTS)?;
    let verdict = watch.verdict_on(account, uvicorn.port())?;
    expect_closes(account, &verdict, "nginx", BURSTS, 5.5)?;
    let told = verdict.only("latent_race", "nginx")?;
    told.listens("uvicorn")?;
    told.may_be("uvicorn")?;
    told.advises("uvicorn", "--timeout-keep-alive 65")?;
    told.advises("nginx", "keepalive_timeout 4s;")?;
    expect("nginx's failures", failures(&nginx)?.all(), 0)
}

/// The same race before the first loss, and after some.
pub(super) fn uvicorn_lossy(binary: &Path, account: &mut Account) -> Result<()> {
    const BURSTS: u32 = 2;
    let uvicorn = Python::uvicorn(&["--timeout-keep-alive", "2"], BLOCKED_SECONDS)?;
    let nginx = nginx(uvicorn.port())?;
    let watch = Watch::begin(binary)?;
    let_close(nginx.port(), LONG_ENOUGH, SHORT, BURSTS)?;
    let verdict = watch.verdict_on(account, uvicorn.port())?;
    expect_closes(account, &verdict, "nginx", BURSTS, 2.5)?;
    verdict.only("latent_race", "nginx")?.listens("uvicorn")?;

    let failed = collide(nginx.port(), uvicorn.port(), || Ok(failures(&nginx)?.all()))?;
    let verdict = watch.verdict_of(account, "nginx", uvicorn.port())?;
    let told = verdict.only("keep_alive_race", "nginx")?;
    told.listens("uvicorn")?;
    told.advises("uvicorn", "--timeout-keep-alive 65")?;
    told.advises("nginx", "keepalive_timeout 1s;")?;
    if failed >= ENOUGH {
        told.confidence("high")?;
    }
    account.same("lost requests and nginx's failures", verdict.lost("nginx")?, failed)?;
    account.same("lost requests the finding names", told.lost(), failed)
}

/// gunicorn keeps connections for 2 s by default, with workers that keep any.
pub(super) fn gunicorn_latent(binary: &Path, account: &mut Account) -> Result<()> {
    const BURSTS: u32 = 2;
    let gunicorn = Python::gunicorn(&["--worker-class", "gthread", "--threads", "32", "--keep-alive", "2"])?;
    let nginx = nginx(gunicorn.port())?;
    let watch = Watch::begin(binary)?;
    let_close(nginx.port(), QUICK, SHORT, BURSTS)?;
    let verdict = watch.verdict_on(account, gunicorn.port())?;
    let told = verdict.only("latent_race", "nginx")?;
    told.listens("gunicorn")?;
    told.may_be("gunicorn")?;
    told.advises("gunicorn", "--keep-alive 65")?;
    let closes = verdict.samples("nginx", "peer_close_idle", 2.5)?.0;
    account.same("idle connections that gunicorn closed", closes, u64::from(BURSTS) * BURST as u64)?;
    expect("nginx's failures", failures(&nginx)?.all(), 0)
}

/// HAProxy keeps connections to its servers for 5 s and more.
pub(super) fn haproxy_lossy(binary: &Path, account: &mut Account) -> Result<()> {
    const BURSTS: u32 = 2;
    let uvicorn = Python::uvicorn(&["--timeout-keep-alive", "2"], BLOCKED_SECONDS)?;
    let haproxy = HaProxy::proxy(
        uvicorn.port(),
        "timeout server 30s",
        "http-reuse always",
        "pool-purge-delay 60s pool-max-conn 64",
    )?;
    let watch = Watch::begin(binary)?;
    let_close(haproxy.port(), LONG_ENOUGH, SHORT, BURSTS)?;
    let verdict = watch.verdict_on(account, uvicorn.port())?;
    expect_closes(account, &verdict, "haproxy", BURSTS, 2.5)?;
    let told = verdict.only("latent_race", "haproxy")?;
    told.listens("uvicorn")?;
    told.advises("HAProxy", "pool-purge-delay")?;

    let failed = collide(haproxy.port(), uvicorn.port(), || haproxy.failed_exchanges())?;
    let verdict = watch.verdict_of(account, "haproxy", uvicorn.port())?;
    let told = verdict.only("keep_alive_race", "haproxy")?;
    told.listens("uvicorn")?;
    println!(
        "  HAProxy: {} retries, {} answers 5xx",
        haproxy.server()?.count("wretr")?,
        haproxy.clients()?.count("hrsp_5xx")?
    );
    account
        .same("lost requests and HAProxy's failed exchanges", verdict.lost("haproxy")?, failed)
        .with_context(|| format!("{}\n{}", verdict.told_of("haproxy"), haproxy.log()))?;
    account.same("lost requests the finding names", told.lost(), failed)
}

/// HAProxy as what nginx proxies to: its `timeout http-keep-alive` is the upstream's idle timeout.
pub(super) fn haproxy_as_upstream(binary: &Path, account: &mut Account) -> Result<()> {
    const BURSTS: u32 = 2;
    let uvicorn = Python::uvicorn(&["--timeout-keep-alive", "60"], 0.0)?;
    let haproxy = HaProxy::proxy(
        uvicorn.port(),
        "timeout http-keep-alive 2s\ntimeout server 30s",
        "",
        "pool-max-conn 64",
    )?;
    let nginx = nginx(haproxy.port())?;
    let watch = Watch::begin(binary)?;
    let_close(nginx.port(), LONG_ENOUGH, SHORT, BURSTS)?;
    let verdict = watch.verdict_on(account, haproxy.port())?;
    expect_closes(account, &verdict, "nginx", BURSTS, 2.5)?;
    let told = verdict.only("latent_race", "nginx")?;
    told.listens("haproxy")?;
    told.advises("HAProxy", "timeout http-keep-alive 65s")?;
    expect("nginx's failures", failures(&nginx)?.all(), 0)
}
