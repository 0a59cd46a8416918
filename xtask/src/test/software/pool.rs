//! A pool that fills up, as requests come faster than gunicorn's threads answer; then with as many threads as triage
//! prints.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    account::{Account, expect},
    daemon::watch::{Told, Watch},
    interrupt,
    traffic::{
        logs::Failures,
        nginx::{Nginx, Pool},
        python::Python,
        requests::{Answers, at_once},
    },
};

/// gunicorn's threads at first, each of which takes so long for a request.
const THREADS: [&str; 4] = ["--worker-class", "gthread", "--threads", "4"];
const PATH: &str = "/slow/2";
/// Longer than any of this takes: gunicorn closes no idle connection, and no client leaves.
const LONG: Duration = Duration::from_secs(75);
/// At first a request comes every second, half as many as the threads can answer, for a whole first half.
const CALM: (u32, Duration) = (14, Duration::from_secs(1));
/// Then two and a half times as many as they can.
const RUSH: (u32, Duration) = (70, Duration::from_millis(200));

/// nginx in front of too few threads, and of enough.
pub(super) fn fills_up(binary: &Path, account: &mut Account) -> Result<()> {
    let advised = play(binary, account, &THREADS, |told| {
        told.confidence("medium")?;
        told.listens("gunicorn")?;
        ensure!(told.lost() == 0, "nothing is lost yet: {}", told.lost());
        told.directives("gunicorn")
    })?;
    let advised = advised.context("too few threads, and nothing was told")?;
    let arguments: Vec<&str> = advised.split_whitespace().collect();
    ensure!(play(binary, account, &arguments, |_| Ok(()))?.is_none(), "it fills up with {advised} too");
    println!("  with {advised} the pool does not fill up");
    Ok(())
}

/// The calm and the rush in front of gunicorn with these arguments. `read` takes what is told of a pool at the end of
/// the rush, if it is; nothing else may be.
fn play<T>(
    binary: &Path,
    account: &mut Account,
    arguments: &[&str],
    read: impl FnOnce(&Told<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let kept = ["--keep-alive", &LONG.as_secs().to_string()];
    let gunicorn = Python::gunicorn(&[arguments, &kept].concat())?;
    let nginx =
        Nginx::proxy(gunicorn.port(), Pool::Kept { connections: 128, timeout: Duration::from_mins(1) })?;
    let watch = Watch::begin(binary)?;
    let (mut answers, mut lost) = (Answers::default(), 0);
    let told = thread::scope(|scope| {
        let mut clients = Vec::new();
        for (count, pace) in [CALM, RUSH] {
            let start = Instant::now();
            for number in 0..count {
                interrupt::pause((start + pace * number).saturating_duration_since(Instant::now()))?;
                clients.push(scope.spawn(|| at_once(nginx.port(), &[PATH], LONG)));
            }
        }
        let verdict = watch.verdict_on(account, gunicorn.port())?;
        lost = verdict.failed("nginx")?;
        let told = if verdict.trouble().is_empty() {
            verdict.no_trouble()?;
            None
        } else {
            let pair = verdict.pair("nginx")?;
            let open = pair["sockets"]["established"].as_u64();
            let told = verdict.only("pool", "nginx")?;
            let open = open.context("a count")?;
            let free = (pair["idle"].as_u64().zip(pair["unanswered"].as_u64())).context("counts")?;
            let free = free.0 - free.1;
            told.says(&format!("{open} established, {} busy, {free} idle", open - free))?;
            Some(read(&told)?)
        };
        for client in clients {
            answers += client.join().unwrap_or_default();
        }
        anyhow::Ok(told)
    })?;
    let asked = u64::from(CALM.0 + RUSH.0);
    expect("requests answered in the end", answers.with(200), asked)?;
    account.same(
        "requests without an answer; nginx's failures",
        lost,
        Failures::count(&nginx.error_log()?).all(),
    )?;
    Ok(told)
}
