//! Watches without a daemon: attaches, tells what happened, and leaves nothing behind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use tokio::{task::JoinSet, time};

use super::upkeep::Upkeep;
use crate::{
    api::observer::{Observer, Sources},
    config::Config,
    kernel::{
        agent::Agent,
        listeners::Listeners,
        loader::{Kernel, Options},
        snapshots::Snapshots,
    },
    model::{observation::Observation, source::LevelSource, sums::Sums},
    naming::Naming,
    recorder::{
        Recorder,
        backends::Backends,
        intake::{Inflow, Intake},
    },
};

/// The kernel, watched by this process; dropping it detaches everything.
pub struct Attached {
    observer: Arc<Observer>,
    begun: Instant,
    incidents: Inflow,
    ebpf: Ebpf,
    // Ends its task when it is dropped.
    _upkeep: JoinSet<()>,
}

impl Attached {
    /// Attaches, and takes in the connections that are there. Incidents will go to `recorder`.
    ///
    /// # Errors
    /// One sentence with the remedy; nothing stays attached.
    pub async fn start(config: &Config, recorder: Arc<Recorder>) -> Result<Self> {
        let config_of_kernel = Options::from(config);
        // Loading, and taking in what is there, block.
        let kernel = tokio::task::spawn_blocking(move || Kernel::start(&config_of_kernel)).await??;
        let agent = Agent::new(&kernel, config, recorder.clone(), Arc::default());
        let Kernel { ebpf, tables, incidents, levels, expiry, .. } = kernel;
        let max_age = config.snapshot_age;
        let levels: Option<Arc<dyn LevelSource>> = match levels {
            Some(parts) => {
                Some(tokio::task::spawn_blocking(move || Snapshots::start(parts, max_age)).await??)
            }
            None => None,
        };
        let names = Arc::new(Naming::new(config.names.clone(), Arc::default()));
        let listeners = Arc::new(Listeners::default());
        let backends = config.conntrack.then(|| Backends::new(recorder.clone()));
        let intake = Intake::new(recorder.clone(), names.clone(), listeners.clone(), backends, None);
        let incidents = Inflow::new(incidents, intake).context("cannot read the kernel's incidents")?;
        let observer = Arc::new(Observer::new(Sources {
            pairs: tables.clone(),
            names: names.clone(),
            agent: agent.clone(),
            levels: levels.clone(),
            filter: config.processes.clone(),
            listeners,
            recorder,
        }));
        let begun = Instant::now();
        tracing::debug!("everything is attached; watching");
        let ttl = config.pair_ttl;
        let mut upkeep = JoinSet::new();
        upkeep.spawn(Upkeep { tables, names, agent, expiry, ttl, levels, observer: observer.clone() }.run());
        Ok(Self { observer, begun, incidents, ebpf, _upkeep: upkeep })
    }

    /// Takes incidents in, for ever; may be dropped at any time and called again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn take_in(&mut self) -> Result<()> {
        self.incidents.watch().await.context("cannot read the kernel's incidents")
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
    pub async fn sums(&self) -> Result<Sums> {
        let observer = self.observer.clone();
        Ok(tokio::task::spawn_blocking(move || observer.sums()).await?)
    }

    /// Detaches, and records the incidents that came before.
    ///
    /// # Errors
    /// When the last ones could not be recorded.
    pub async fn finish(self) -> Result<()> {
        drop(self.ebpf);
        self.incidents.finish().await.context("the last incidents were not recorded")
    }
}

/// Watches until `end` completes and tells what happened since, but at most for `longest`. Meanwhile incidents go to
/// `recorder`.
///
/// # Errors
/// One sentence with the remedy; nothing stays attached.
pub async fn watch(
    config: &Config,
    recorder: Arc<Recorder>,
    longest: Duration,
    end: impl Future<Output = ()> + Send,
) -> Result<Observation> {
    let mut attached = Attached::start(config, recorder).await?;
    tokio::select! {
        () = time::sleep(longest) => {}
        () = end => {}
        result = attached.take_in() => result?,
    }
    let observation = attached.observe(attached.begun.elapsed()).await?;
    attached.finish().await?;
    Ok(observation)
}
