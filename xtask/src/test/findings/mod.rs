//! What `finwatch triage` says of real nginx in front of real Node.js, mended by what it prints.

mod keep_alive;
mod latent;
mod looked;
mod own_side;
mod ports;
mod race;
mod unanswered;

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};

use super::Tally;
use crate::{account::Account, daemon::Daemon};

/// Plays one thing against a daemon and compares what triage says of it.
pub(crate) type Play = fn(&Path, &Daemon, &mut Account) -> Result<()>;

/// What is played at one time in front of one daemon; each is told by the port of its upstream, of the two beside this host one
/// at a time.
const ACTS: [&[(&str, Play)]; 2] = [
    &[
        ("keep-alive race, mended at either end", race::lossy),
        ("latent race", latent::upstream_first),
        ("equal timeouts", latent::equal),
        ("upstream closes before answering", unanswered::closes),
        ("upstream dies while answering", unanswered::dies),
        ("one crash of a worker", unanswered::one_crash),
        ("upstream answers too late", unanswered::too_late),
        ("upstream refuses", unanswered::refuses),
        ("one restart of the upstream", unanswered::one_restart),
        ("this host closes without reading", own_side::closes_unread),
    ],
    &[
        ("keep-alive not in effect", keep_alive::not_in_effect),
        ("local ports used up", ports::used_up),
        ("one upstream without keep-alive", keep_alive::one_upstream),
        ("pool too small", keep_alive::too_small),
        ("nothing wrong", keep_alive::healthy),
        ("this host closes", own_side::closes),
    ],
];

/// How long traffic goes on where something is to recur: well into the second half of what the daemon remembers, of
/// which it takes a mark every ten seconds.
const ACT: Duration = Duration::from_secs(20);

/// The names of what is played.
pub(crate) fn scenarios() -> Vec<&'static str> {
    ACTS.iter().flat_map(|act| act.iter().map(|(name, _)| *name)).collect()
}

/// The one of that name.
pub(crate) fn named(name: &str) -> Result<Play> {
    let mut all = ACTS.iter().flat_map(|act| act.iter());
    let found = all.find(|(other, _)| *other == name).map(|(_, play)| *play);
    found.with_context(|| format!("there is no scenario \"{name}\""))
}

/// Act by act, what is wanted of each.
pub(crate) fn run(binary: &Path, wanted: &[&str]) -> Result<Tally> {
    ACTS.iter().map(|act| play(binary, act, wanted)).sum::<Result<Tally>>()
}

fn play(binary: &Path, act: &[(&str, Play)], wanted: &[&str]) -> Result<Tally> {
    let act: Vec<_> = act.iter().filter(|(name, _)| wanted.contains(name)).collect();
    if act.is_empty() {
        return Ok(Tally::default());
    }
    let daemon = Daemon::private(binary)?;
    let daemon = &daemon;
    Ok(thread::scope(|scope| {
        let threads: Vec<_> = act
            .iter()
            .map(|(name, play)| {
                scope.spawn(move || Tally::of(name, || play(binary, daemon, &mut Account::default())))
            })
            .collect();
        threads.into_iter().map(|one| one.join().unwrap_or(Tally::ONE_FAILED)).sum()
    }))
}
