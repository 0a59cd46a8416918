//! `finwatch run`: the daemon.

use std::{io, sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use finwatch_ebpf::wire::Incident;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};
use tracing::level_filters::LevelFilter;

use super::{
    args::{LogArgs, Netns, RunArgs},
    logging,
};
use crate::{
    cgroup::Workloads,
    config::Config,
    export::{
        exposition::Exporter,
        http::App,
        server::{bind, serve},
    },
    kernel::{
        agent::Agent,
        expiry::Expiry,
        loader::{Kernel, Options},
        lock::Lock,
        mapped::Tables,
        rounds::Parts,
        snapshots::Snapshots,
    },
};

/// How often pairs are looked after.
const UPKEEP: Duration = Duration::from_secs(1);
/// Incidents a pair may report per second; its counters count all.
const INCIDENTS_PER_SECOND: u32 = 10;
/// Worker threads: the daemon waits most of the time, however many processors there are.
const THREADS: usize = 2;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// One sentence with the remedy; nothing stays attached.
pub fn run(log: LogArgs, args: RunArgs) -> Result<()> {
    let config = Config::load(log, args.options, args.config.as_deref())?;
    logging::start(config.log_level, config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the daemon's threads")?;
    let result = runtime.block_on(daemon(config));
    // A scrape that still waits for its client must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn daemon(config: Config) -> Result<()> {
    let mut stop = Stop::new()?;
    let _lock = Lock::take(&config.run_dir)?;
    let listener = bind(config.listen).await?;
    let address = listener.local_addr().context("the listening socket has no address")?;
    let mut kernel = Kernel::start(&Options::from(&config))?;
    for attached in &kernel.hooks {
        let hook = attached.hook;
        if attached.error.is_some() {
            tracing::warn!(hook = hook.name, "{}", attached.lacking());
        }
        tracing::debug!(hook = hook.name, mode = attached.mode.name(), "attached");
    }
    let agent = Agent::new(&kernel, &config);
    let workloads = Arc::new(Workloads::new());
    let diagnostics = diagnostics(&mut kernel.ebpf, &config)?;
    let Kernel { ebpf, tables, incidents, expiry, levels, .. } = kernel;
    let app = Arc::new(App::starting("connections that were there before are being taken in"));
    let exporter = Exporter::new(tables.clone(), workloads.clone(), agent.clone(), config.processes.clone());
    let upkeep = async {
        let snapshots = adopt(levels, config.snapshot_age).await;
        app.ready(match &snapshots {
            Some(snapshots) => exporter.with_levels(snapshots.clone(), config.max_port_series),
            None => exporter,
        });
        tracing::info!("ready: metrics at http://{address}/metrics");
        notify(&[sd_notify::NotifyState::Ready]);
        upkeep(tables, workloads, agent, expiry, config.pair_ttl, snapshots).await;
    };
    tokio::select! {
        () = serve(listener, app.clone(), stop.wait()) => {}
        result = watch_incidents(incidents) => result.context("cannot read the kernel's incidents")?,
        () = upkeep => {}
        () = diagnostics => {}
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopped");
    drop(ebpf);
    Ok(())
}

/// Takes in the connections that were there before; `None` where the kernel's tables cannot be read.
async fn adopt(levels: Option<Parts>, max_age: Duration) -> Option<Arc<Snapshots>> {
    let levels = levels?;
    match tokio::task::spawn_blocking(move || Snapshots::start(levels, max_age)).await {
        Ok(Ok(snapshots)) => Some(snapshots),
        Ok(Err(error)) => {
            tracing::error!(%error, "the sockets' levels are not shown");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the sockets' levels are not shown");
            None
        }
    }
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Self {
        Self {
            max_pairs: config.max_pairs,
            max_connections: config.max_connections,
            goodbye_bytes: config.goodbye_bytes,
            incidents_per_second: INCIDENTS_PER_SECOND,
            proxy_ranges: config.proxy_ranges.clone(),
            include_ports: config.include_ports.clone(),
            exclude_ports: config.exclude_ports.clone(),
            include_nets: config.include_nets.clone(),
            exclude_nets: config.exclude_nets.clone(),
            no_request_rules: config.no_request_rules.iter().map(|rule| (rule.address, rule.port)).collect(),
            own_netns_only: config.netns == Netns::Host,
            debug: debugging(config),
        }
    }
}

/// Whether the programs' own messages are wanted.
fn debugging(config: &Config) -> bool {
    LevelFilter::from(config.log_level) >= LevelFilter::DEBUG
}

/// The signals that end the daemon.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells the service manager, where there is one.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// Names workloads and drops pairs without sockets, every now and then.
async fn upkeep(
    tables: Arc<Tables>,
    workloads: Arc<Workloads>,
    agent: Arc<Agent>,
    mut expiry: Expiry,
    ttl: Duration,
    snapshots: Option<Arc<Snapshots>>,
) {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Off the runtime's threads: both read files and maps.
        let (tables, workloads) = (tables.clone(), workloads.clone());
        let latest = snapshots.as_ref().and_then(|snapshots| snapshots.latest());
        let round = tokio::task::spawn_blocking(move || {
            let listeners = latest.map(|latest| latest.listeners()).unwrap_or_default();
            workloads.refresh(&*tables, &listeners);
            let dropped = expiry.round(Instant::now(), ttl, &*workloads);
            (expiry, dropped)
        });
        match round.await {
            Ok((returned, dropped)) => {
                expiry = returned;
                agent.expired(dropped);
            }
            Err(error) => {
                tracing::error!(%error, "the upkeep of the pair table has ended; pairs no longer expire");
                return std::future::pending().await;
            }
        }
    }
}

/// Takes incidents from the ring buffer as they come.
async fn watch_incidents(ring: RingBuf<MapData>) -> io::Result<()> {
    // SAFETY: the ring buffer owns its descriptor and keeps it open.
    let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
    loop {
        let mut guard = ring.readable_mut().await?;
        while let Some(item) = guard.get_inner_mut().next() {
            if item.len() == size_of::<Incident>() {
                // SAFETY: the kernel's side writes this type, integers only; its alignment is not relied upon.
                let incident = unsafe { item.as_ptr().cast::<Incident>().read_unaligned() };
                tracing::debug!(
                    cause = incident.cause,
                    port = incident.key.port,
                    quiet_ms = incident.quiet_ms,
                    sent = incident.bytes_sent,
                    received = incident.bytes_received,
                    "incident"
                );
            }
        }
        guard.clear_ready();
    }
}

/// Forwards the programs' own messages; silent unless debugging was asked for.
fn diagnostics(ebpf: &mut Ebpf, config: &Config) -> Result<impl Future<Output = ()> + use<>> {
    let logger = if debugging(config) {
        let logger = aya_log::EbpfLogger::init(ebpf).context("cannot read the programs' messages")?;
        // SAFETY: the logger owns its ring buffer's descriptor and keeps it open.
        Some(unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?)
    } else {
        None
    };
    Ok(async move {
        let Some(mut logger) = logger else { return std::future::pending().await };
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    })
}
