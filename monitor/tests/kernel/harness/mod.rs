//! What the tests stand on: the daemon, its metrics, namespaces, a crafted peer, the kernel's own account of transitions.

pub(crate) mod confined;
pub(crate) mod daemon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod detach;
pub(crate) mod gate;
pub(crate) mod incidents;
pub(crate) mod lab;
pub(crate) mod look;
pub(crate) mod metrics;
pub(crate) mod netns;
pub(crate) mod nginx;
pub(crate) mod peer;
pub(crate) mod reference;
pub(crate) mod tmux;
pub(crate) mod trace;
pub(crate) mod tracefs;
pub(crate) mod traffic;
pub(crate) mod tun;
pub(crate) mod types;
pub(crate) mod unseen;

use std::{env, thread, time::Duration};

/// How long anything may take that must happen: a machine with other things to do takes ten seconds to attach a daemon.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Whether kernel tests can run here. If not, says so loudly; in CI that is a failure.
pub(crate) fn can_run(test: &str) -> bool {
    if netns::permitted() {
        return true;
    }
    assert!(
        env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{test} needs root (network namespaces, eBPF) and CI may not skip it"
    );
    eprintln!("SKIPPED {test}: needs root (network namespaces, eBPF)");
    false
}

/// Polls until `done` gives something, for a bounded time.
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let pause = Duration::from_millis(20);
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(outcome) = done() {
            return outcome;
        }
        assert!(std::time::Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(pause);
    }
}

/// How often [`judge`] runs something that nobody could see all of.
const ATTEMPTS: usize = 5;

/// Runs something that tells what is wrong and with the sockets of which ports; panics when something is, unless nobody
/// could see all that these sockets did: then it is run once more.
pub(crate) fn judge(mut run: impl FnMut() -> Option<(String, Vec<u16>)>) {
    unseen::watch();
    for attempt in 1.. {
        let before = unseen::transitions().len();
        let Some((wrong, ports)) = run() else { return };
        let mut landed = unseen::transitions().split_off(before);
        let ends = ports.iter().flat_map(|port| ["sport", "dport"].map(|end| format!(" {end}={port} ")));
        let ends: Vec<_> = ends.collect();
        landed.retain(|line| ends.iter().any(|end| line.contains(end)));
        assert!(!landed.is_empty() && attempt < ATTEMPTS, "{wrong}");
        eprintln!("{wrong}\nonce more, since nobody could see:\n{}", landed.join("\n"));
    }
}

/// The name the kernel gives this process: that of its thread group leader.
pub(crate) fn process_name() -> String {
    std::fs::read_to_string("/proc/self/comm").expect("/proc is mounted").trim_end().to_owned()
}
