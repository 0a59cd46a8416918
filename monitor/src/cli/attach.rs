//! Watches without a daemon: attaches, tells what happened, and leaves nothing behind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use aya::Ebpf;
use tokio::{task::JoinSet, time};

use super::upkeep::Upkeep;
use crate::{
    api::observer::{Observer, Sources},
    cgroup::Workloads,
    config::Config,
    kernel::{
        agent::Agent,
        loader::{Kernel, Options},
        snapshots::Snapshots,
    },
    model::{observation::Observation, source::LevelSource, tally::Tallies},
};

/// The kernel, watched by this process; dropping it detaches everything.
pub struct Attached {
    observer: Arc<Observer>,
    begun: Instant,
    // Ends its task when it is dropped.
    _upkeep: JoinSet<()>,
    _ebpf: Ebpf,
}

impl Attached {
    /// Attaches, and takes in the connections that are there.
    ///
    /// # Errors
    /// One sentence with the remedy; nothing stays attached.
    pub async fn start(config: &Config) -> Result<Self> {
        let config_of_kernel = Options::from(config);
        // Loading, and taking in what is there, block.
        let kernel = tokio::task::spawn_blocking(move || Kernel::start(&config_of_kernel)).await??;
        let agent = Agent::new(&kernel, config);
        let Kernel { ebpf, tables, levels, expiry, .. } = kernel;
        let max_age = config.snapshot_age;
        let levels: Option<Arc<dyn LevelSource>> = match levels {
            Some(parts) => {
                Some(tokio::task::spawn_blocking(move || Snapshots::start(parts, max_age)).await??)
            }
            None => None,
        };
        let workloads = Arc::new(Workloads::new());
        let observer = Arc::new(Observer::new(Sources {
            pairs: tables.clone(),
            workloads: workloads.clone(),
            agent: agent.clone(),
            levels: levels.clone(),
            filter: config.processes.clone(),
        }));
        let begun = Instant::now();
        let ttl = config.pair_ttl;
        let mut upkeep = JoinSet::new();
        upkeep.spawn(
            Upkeep { tables, workloads, agent, expiry, ttl, levels, observer: observer.clone() }.run(),
        );
        Ok(Self { observer, begun, _upkeep: upkeep, _ebpf: ebpf })
    }

    /// What happened in the last `since`, at most since the start, and how things stand.
    ///
    /// # Errors
    /// When it could not be read.
    pub async fn observe(&self, since: Duration) -> Result<Observation> {
        let observer = self.observer.clone();
        Ok(tokio::task::spawn_blocking(move || observer.observe(since)).await?)
    }

    /// What every pair has counted since the start.
    ///
    /// # Errors
    /// When it could not be read.
    pub async fn tallies(&self) -> Result<Tallies> {
        let observer = self.observer.clone();
        Ok(tokio::task::spawn_blocking(move || observer.tallies()).await?)
    }
}

/// Watches until `end` completes and tells what happened since, but at most for `longest`.
///
/// # Errors
/// One sentence with the remedy; nothing stays attached.
pub async fn watch(
    config: &Config,
    longest: Duration,
    end: impl Future<Output = ()> + Send,
) -> Result<Observation> {
    let attached = Attached::start(config).await?;
    tokio::select! {
        () = time::sleep(longest) => {}
        () = end => {}
    }
    attached.observe(attached.begun.elapsed()).await
}
