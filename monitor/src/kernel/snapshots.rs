//! Keeps a snapshot fresh enough for whoever asks: one thread makes rounds, concurrent readers share what it makes.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::rounds::{Parts, Rounds};
use crate::model::{levels::Snapshot, source::LevelSource};

/// A reader waits this long for a round, then takes what there is.
const PATIENCE: Duration = Duration::from_secs(2);
/// A round is made this often even if nobody asks: missed ends are found by it.
const UPKEEP: Duration = Duration::from_mins(1);

/// The latest snapshot, and the thread that makes the next.
pub struct Snapshots {
    shared: Arc<Shared>,
    max_age: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    latest: Option<Arc<Snapshot>>,
    wanted: bool,
    stopped: bool,
}

impl Snapshots {
    /// Starts the thread and returns when the connections that were there before are tracked. Blocks meanwhile.
    /// Snapshots are at most `max_age` old when they are read.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(parts: Parts, max_age: Duration) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        // Nobody waits for its end: it ends when it is told, or with the process.
        drop(thread::Builder::new().name("snapshots".into()).spawn(move || make_rounds(parts, &of_thread))?);
        let mut state = shared.lock();
        while state.latest.is_none() && !state.stopped {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let failed = state.stopped;
        drop(state);
        if failed {
            return Err(io::Error::other("the thread has ended before its first round"));
        }
        Ok(Arc::new(Self { shared, max_age }))
    }
}

impl LevelSource for Snapshots {
    fn latest(&self) -> Option<Arc<Snapshot>> {
        self.shared.lock().latest.clone()
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let asked = Instant::now();
        let mut state = self.shared.lock();
        loop {
            let fresh = state.latest.as_ref().is_some_and(|latest| latest.taken.elapsed() <= self.max_age);
            let left = PATIENCE.saturating_sub(asked.elapsed());
            if fresh || state.stopped || left.is_zero() {
                return state.latest.clone();
            }
            state.wanted = true;
            self.shared.changed.notify_all();
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, snapshot: Snapshot) {
        let mut state = self.lock();
        state.latest = Some(Arc::new(snapshot));
        state.wanted = false;
        self.changed.notify_all();
    }

    /// Waits until a round is wanted or due; `false` when there will be no more.
    fn wait(&self) -> bool {
        let due = Instant::now() + UPKEEP;
        let mut state = self.lock();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if state.stopped {
                return false;
            }
            if state.wanted || left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn make_rounds(parts: Parts, shared: &Shared) {
    // Whatever ends the thread, nobody waits for it any longer.
    let _ended = Ended(shared);
    let mut rounds = match Rounds::new(parts) {
        Ok(rounds) => rounds,
        Err(error) => {
            tracing::error!(%error, "the sockets' levels cannot be read");
            return;
        }
    };
    shared.publish(rounds.adopt());
    while shared.wait() {
        shared.publish(rounds.round());
    }
}

struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}
