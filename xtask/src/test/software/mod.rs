//! What triage says of real gunicorn, uvicorn and HAProxy, of a process that leaks and of a network that drops: the
//! finding of that trouble and no other, with the counts of logs, statistics and clients.

mod crashes;
mod healthy;
mod late;
mod leak;
mod pool;
pub(crate) mod queue;
mod races;
mod silence;
mod unreached;

use std::{path::Path, thread};

use anyhow::{Context as _, Result};

use super::Tally;
use crate::{account::Account, interrupt};

/// Plays one scenario against daemons of its own.
pub(crate) type Scenario = fn(&Path, &mut Account) -> Result<()>;

/// What is played. Those in [`WAITING`] mostly wait, so they go on beside the others.
const SCENARIOS: [(&str, Scenario); 18] = [
    ("silent drop: reset after a long quiet time", silence::reset_after_long_quiet),
    ("CLOSE_WAIT leak", leak::never_closed),
    ("a pool fills up", pool::fills_up),
    ("connects that time out, and to a host that is not there", unreached::in_vain),
    ("silent drop: never acknowledged", silence::never_acknowledged),
    ("uvicorn closes after 5 s: latent race", races::uvicorn_latent),
    ("uvicorn behind nginx: latent race, then a race", races::uvicorn_lossy),
    ("gunicorn closes after 2 s: latent race", races::gunicorn_latent),
    ("HAProxy before uvicorn: latent race, then a race", races::haproxy_lossy),
    ("HAProxy as upstream: latent race", races::haproxy_as_upstream),
    ("gunicorn's workers are killed", crashes::closes_before_answering),
    ("gunicorn's workers are killed while they answer", crashes::dies_while_answering),
    ("one of gunicorn's workers crashes", crashes::one_crash),
    ("gunicorn's accept queue is full", queue::full),
    ("HAProxy gives up", late::haproxy_gives_up),
    ("clients leave HAProxy", late::clients_leave),
    ("healthy, with health checks that reset", healthy::health_checks),
    ("one restart of gunicorn", healthy::one_restart),
];
const WAITING: usize = 4;

/// Their names.
pub(crate) fn scenarios() -> Vec<&'static str> {
    SCENARIOS.iter().map(|(name, _)| *name).collect()
}

/// The one of that name.
pub(crate) fn named(name: &str) -> Result<Scenario> {
    let found = SCENARIOS.iter().find(|(other, _)| *other == name).map(|(_, scenario)| *scenario);
    found.with_context(|| format!("there is no scenario \"{name}\""))
}

/// Those that are wanted.
pub(crate) fn run(binary: &Path, wanted: &[&str]) -> Result<Tally> {
    let is_wanted = |(name, _): &&(&str, Scenario)| wanted.contains(name);
    let (waiting, others) = SCENARIOS.split_at(WAITING);
    let tally = thread::scope(|scope| {
        let waiting: Vec<_> = waiting
            .iter()
            .filter(is_wanted)
            .map(|scenario| scope.spawn(move || play(binary, scenario)))
            .collect();
        let others: Tally = others.iter().filter(is_wanted).map(|scenario| play(binary, scenario)).sum();
        let waiting: Tally =
            waiting.into_iter().map(|thread| thread.join().unwrap_or(Tally::ONE_FAILED)).sum();
        waiting + others
    });
    interrupt::check()?;
    Ok(tally)
}

fn play(binary: &Path, (name, scenario): &(&str, Scenario)) -> Tally {
    Tally::of(name, || scenario(binary, &mut Account::default()))
}
