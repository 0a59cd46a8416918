//! Watches for a while without a daemon: attaches, waits, looks, and leaves nothing behind.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::time;

use crate::{
    api::observer::{Observer, Sources},
    cgroup::Workloads,
    config::Config,
    kernel::{
        agent::Agent,
        listeners::Listeners,
        loader::{Kernel, Options},
        snapshots::Snapshots,
    },
    model::{observation::Observation, source::LevelSource},
    recorder::{
        Recorder,
        intake::{Inflow, Intake},
    },
};

/// How often new control groups are looked up.
const UPKEEP: Duration = Duration::from_secs(1);

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
    let config_of_kernel = Options::from(config);
    // Loading, and taking in what is there, block.
    let kernel = tokio::task::spawn_blocking(move || Kernel::start(&config_of_kernel)).await??;
    let agent = Agent::new(&kernel, config, recorder.clone());
    let Kernel { ebpf, tables, incidents, levels, .. } = kernel;
    let max_age = config.snapshot_age;
    let levels: Option<Arc<dyn LevelSource>> = match levels {
        Some(parts) => Some(tokio::task::spawn_blocking(move || Snapshots::start(parts, max_age)).await??),
        None => None,
    };
    let workloads = Arc::new(Workloads::new());
    let listeners = Arc::new(Listeners::default());
    let intake = Intake::new(recorder, workloads.clone(), listeners.clone(), None);
    let mut incidents = Inflow::new(incidents, intake).context("cannot read the kernel's incidents")?;
    let observer = Observer::new(Sources {
        pairs: tables.clone(),
        workloads: workloads.clone(),
        agent,
        levels: levels.clone(),
        filter: config.processes.clone(),
        listeners,
    });
    let begun = Instant::now();
    tracing::debug!("everything is attached; watching");
    let upkeep = async {
        let mut ticks = time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            let (tables, workloads, levels) = (tables.clone(), workloads.clone(), levels.clone());
            let refresh = move || {
                let listeners = levels.and_then(|levels| levels.latest()).map(|latest| latest.listeners());
                workloads.refresh(&*tables, &listeners.unwrap_or_default());
            };
            // Names only: should it fail, workloads stay empty.
            drop(tokio::task::spawn_blocking(refresh).await);
        }
    };
    tokio::select! {
        () = time::sleep(longest) => {}
        () = end => {}
        () = upkeep => {}
        result = incidents.watch() => result.context("cannot read the kernel's incidents")?,
    }
    let observation = tokio::task::spawn_blocking(move || observer.observe(begun.elapsed())).await?;
    drop(ebpf);
    incidents.finish().await.context("the last incidents were not recorded")?;
    Ok(observation)
}
