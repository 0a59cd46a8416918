//! `finwatch run`: the daemon.

use std::{net, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::level_filters::LevelFilter;

use super::{
    args::{LogArgs, Netns, Requests, RunArgs},
    logging,
    reload::Reloader,
    upkeep::Upkeep,
};
use crate::{
    api::{
        observer::{Observer, Sources},
        routes::{self, Api},
        socket::Socket,
    },
    config::Config,
    containers::{Containers, Docker, Kubernetes, Resolver},
    export::{
        exposition::Exporter,
        http::{self, App},
        server::{bind, serve},
    },
    kernel::{
        agent::Agent,
        hooks::Precision,
        listeners::Listeners,
        loader::{Kernel, Options},
        lock::Lock,
        rights::{self, Lasting},
        rounds::Parts,
        snapshots::Snapshots,
    },
    memory,
    model::source::LevelSource,
    naming::Naming,
    recorder::{
        Recorder,
        backends::Backends,
        file::IncidentFile,
        intake::{Inflow, Intake},
    },
    web::{Guarded, Web, guarded},
};

/// Worker threads: the daemon waits most of the time, however many processors there are.
const THREADS: usize = 2;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// One sentence with the remedy; nothing stays attached.
pub fn run(log: LogArgs, args: RunArgs) -> Result<()> {
    let config = Config::load(log, args.options.clone(), args.config.as_deref())?;
    logging::start(config.log_level, config.log_format);
    memory::share_heap();
    let prepared = Prepared::new(&config)?;
    // Before there is a second thread: those to come hold no more than this one.
    rights::give_up(Lasting::from(&config))
        .context("cannot give up capabilities; a filter of system calls must allow capset")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the daemon's threads")?;
    let result = runtime.block_on(daemon(config, (log, args), prepared));
    // A scrape that still waits for its client must not hold up the end.
    runtime.shutdown_background();
    result
}

/// What takes capabilities, or may be refused.
struct Prepared {
    web: Web,
    kubernetes: Option<Kubernetes>,
    _lock: Lock,
    listener: net::TcpListener,
    kernel: Kernel,
}

impl Prepared {
    fn new(config: &Config) -> Result<Self> {
        let web = Web::load(config.web_config.as_deref())?;
        let kubernetes = config.kubernetes.as_ref().map(Kubernetes::new).transpose()?;
        let lock = Lock::take(&config.run_dir)?;
        let listener = bind(config.listen)?;
        Ok(Self { web, kubernetes, _lock: lock, listener, kernel: Kernel::start(&Options::from(config))? })
    }
}

async fn daemon(config: Config, flags: (LogArgs, RunArgs), prepared: Prepared) -> Result<()> {
    let mut stop = Stop::new()?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let Prepared { web, kubernetes, _lock, listener, mut kernel } = prepared;
    let web = Arc::new(web);
    let listener = TcpListener::from_std(listener).context("cannot listen")?;
    let socket = Socket::bind(&config.run_dir)?;
    let address = listener.local_addr().context("the listening socket has no address")?;
    for attached in &kernel.hooks {
        let hook = attached.hook;
        if attached.error.is_some() {
            tracing::warn!(hook = hook.name, "{}", attached.lacking());
        }
        tracing::debug!(hook = hook.name, mode = attached.mode.name(), "attached");
    }
    let recorder = Arc::new(Recorder::new(config.incidents));
    let containers = Arc::new(Containers::default());
    let agent = Agent::new(&kernel, &config, recorder.clone(), containers.clone());
    let names = Arc::new(Naming::new(config.names.clone(), containers.clone()));
    let file = config.incident_file.clone().map(IncidentFile::new);
    let listeners = Arc::new(Listeners::default());
    let backends = config.conntrack.then(|| Backends::new(recorder.clone()));
    let intake = Intake::new(recorder.clone(), names.clone(), listeners.clone(), backends, file);
    let diagnostics = diagnostics(&mut kernel.ebpf, &config)?;
    let Kernel { ebpf, tables, incidents, expiry, levels, .. } = kernel;
    let mut incidents = Inflow::new(incidents, intake).context("cannot read the kernel's incidents")?;
    let app = Arc::new(App::starting("connections that were there before are being taken in"));
    let api = Arc::new(Api::default());
    let reloader = Reloader {
        flags,
        config: config.clone(),
        web: web.clone(),
        names: names.clone(),
        agent: agent.clone(),
    };
    let guard = web.clone();
    let resolver = Resolver::new(containers, Docker::at(config.docker_socket.clone()), kubernetes);
    let exporter = Exporter::new(tables.clone(), names.clone(), agent.clone(), config.processes.clone());
    let upkeep = async {
        let snapshots = adopt(levels, config.snapshot_age).await;
        let levels = snapshots.map(|snapshots| -> Arc<dyn LevelSource> { snapshots });
        let observer = Arc::new(Observer::new(Sources {
            pairs: tables.clone(),
            names: names.clone(),
            agent: agent.clone(),
            levels: levels.clone(),
            filter: config.processes.clone(),
            listeners,
            recorder: recorder.clone(),
        }));
        app.ready(match &levels {
            Some(levels) => exporter.with_levels(levels.clone(), config.max_port_series),
            None => exporter,
        });
        api.ready(observer.clone(), recorder);
        tracing::info!("ready: metrics at {}://{address}/metrics", web.scheme());
        notify(&[sd_notify::NotifyState::Ready]);
        Upkeep { tables, names, agent, expiry, ttl: config.pair_ttl, levels, observer }.run().await;
    };
    let Socket { listener: asked, file: _file } = socket;
    tokio::select! {
        () = serve(Guarded::new(listener, guard.clone()), guarded(http::router(app.clone()), guard), stop.wait()) => {}
        () = serve(asked, routes::router(api.clone()), std::future::pending()) => {}
        result = incidents.watch() => result.context("cannot read the kernel's incidents")?,
        () = upkeep => {}
        () = reloader.run(hangup) => {}
        () = resolver.run() => {}
        () = diagnostics => {}
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    drop(ebpf);
    incidents.finish().await.context("the last incidents were not recorded")?;
    tracing::info!("stopped");
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
            incidents_per_second: config.incidents_per_second,
            proxy_ranges: config.proxy_ranges.clone(),
            include_ports: config.include_ports.clone(),
            exclude_ports: config.exclude_ports.clone(),
            include_nets: config.include_nets.clone(),
            exclude_nets: config.exclude_nets.clone(),
            no_request_rules: config.no_request_rules.iter().map(|rule| (rule.address, rule.port)).collect(),
            own_netns_only: config.netns == Netns::Host,
            requests: match config.requests {
                Requests::Off => None,
                Requests::On => Some(Precision::Finest),
                Requests::Coarse => Some(Precision::Jiffy),
            },
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
