//! What is looked after while the kernel is watched: names, pairs that have ended, marks of the history.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use crate::{
    api::observer::Observer,
    kernel::{agent::Agent, expiry::Expiry, mapped::Tables},
    model::source::LevelSource,
    naming::Naming,
};

/// How often pairs are looked after.
const UPKEEP: Duration = Duration::from_secs(1);
/// How many rounds of upkeep lie between two marks of the history.
const UPKEEPS_PER_MARK: u32 = 10;

/// What is looked after.
pub struct Upkeep {
    /// The pairs' records.
    pub tables: Arc<Tables>,
    /// What they print.
    pub names: Arc<Naming>,
    /// Is told how many pairs were dropped.
    pub agent: Arc<Agent>,
    /// Drops pairs.
    pub expiry: Expiry,
    /// For how long a pair is kept after its last event.
    pub ttl: Duration,
    /// Where listening sockets are known from.
    pub levels: Option<Arc<dyn LevelSource>>,
    /// Remembers how things stood.
    pub observer: Arc<Observer>,
}

impl Upkeep {
    /// Looks after the tables every now and then, for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 1_u32.. {
            ticks.tick().await;
            // Off the runtime's threads.
            let round = tokio::task::spawn_blocking(move || {
                self.round();
                if tick.is_multiple_of(UPKEEPS_PER_MARK) {
                    self.observer.mark();
                }
                self
            });
            match round.await {
                Ok(returned) => self = returned,
                Err(error) => {
                    tracing::error!(%error, "the upkeep of the pair table has ended; pairs no longer expire");
                    return std::future::pending().await;
                }
            }
        }
    }

    /// One round: names workloads and drops pairs without sockets. Reads files and maps.
    fn round(&mut self) {
        let latest = self.levels.as_ref().and_then(|levels| levels.latest());
        let listeners = latest.map(|latest| latest.listeners()).unwrap_or_default();
        self.names.refresh(&*self.tables, &listeners);
        let handed_over = |from, to| self.observer.handed_over(from, to);
        let dropped = self.expiry.round(Instant::now(), self.ttl, &*self.names, &handed_over);
        self.agent.expired(dropped);
    }
}
