//! `finwatch incidents`: each anomaly with its connection's own timeline.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use http_body_util::BodyExt as _;
use tokio::sync::broadcast::error::RecvError;

use super::{
    args::LogArgs,
    ask::{DaemonArgs, FOUND, daemon, interrupted, runtime, seconds, tell},
    attach, logging,
};
use crate::{
    api::{
        client::{AskError, Daemon},
        routes::{Followed, Which},
    },
    config::{Config, value::Given},
    kernel::rights,
    model::incident::{IncidentCause, IncidentFilter, IncidentRecord},
    recorder::Recorder,
};

/// How long is watched without a daemon.
const WATCH: Duration = Duration::from_secs(30);

/// Flags of `finwatch incidents`.
#[derive(Clone, Debug, Args)]
pub struct IncidentsArgs {
    /// Go on and show incidents as they happen, until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
    /// Only pairs with this text in "PROXY -> UPSTREAM" or in the workload: nginx, 127.0.0.1:3000. [default: every pair]
    #[arg(long, value_name = "TEXT")]
    pub pair: Option<String>,
    /// Only incidents of this cause. Repeatable. [default: every cause]
    #[arg(long = "cause", value_name = "CAUSE")]
    pub causes: Vec<IncidentCause>,
    /// Only incidents since so long ago: 90s, 15m, 2h. [default: all that the daemon has kept]
    #[arg(long, value_name = "TIME")]
    pub since: Option<Given<Duration>>,
    /// Without a daemon, attach to the kernel for so long (as root) and show incidents as they happen. [default: 30s]
    #[arg(long = "for", id = "watch", value_name = "TIME")]
    pub watch: Option<Given<Duration>>,
    /// Print JSON: one object per line and incident.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// Prints incidents, oldest first; the exit status is 0 (there are none) or 1 (there are).
///
/// # Errors
/// When it could not be told; status 2.
pub fn run(log: LogArgs, args: &IncidentsArgs) -> Result<ExitCode> {
    let config = args.daemon.config(log)?;
    logging::start(config.log_level, config.log_format);
    let runtime = runtime()?;
    let mut printer = Printer { json: args.json, printed: 0 };
    let outcome = runtime.block_on(show(args, &config, &mut printer));
    // Nothing is waited for any longer.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => {}
        // Who reads has seen enough.
        Err(error) if is_broken_pipe(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(if printer.printed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn show(args: &IncidentsArgs, config: &Config, printer: &mut Printer) -> Result<()> {
    let daemon = daemon(config);
    let which = Which {
        since: args.since.as_ref().map(|since| seconds(since.0)),
        pair: args.pair.clone(),
        causes: args.causes.clone(),
    };
    let asked = if args.follow {
        tokio::select! {
            asked = follow(&daemon, &which, printer) => asked,
            () = interrupted() => Ok(()),
        }
    } else {
        latest(&daemon, &which, printer).await
    };
    match asked {
        Err(error) if without_daemon(&error) => {
            if !rights::missing().is_empty() {
                return Err(error);
            }
            let watch = args.watch.as_ref().map_or(WATCH, |watch| watch.0);
            tell(format_args!(
                "no daemon at {}: watching for {} s",
                daemon.path().display(),
                watch.as_secs()
            ));
            by_ourselves(config, watch, &IncidentFilter::from(which), printer).await
        }
        asked => asked,
    }
}

fn without_daemon(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(AskError::NoDaemon(_)))
}

async fn latest(daemon: &Daemon, which: &Which, printer: &mut Printer) -> Result<()> {
    let records: Vec<IncidentRecord> = daemon.ask(&format!("/incidents?{}", which.query()?)).await?;
    if records.is_empty() {
        tell("no incidents of that kind are kept");
    }
    records.iter().try_for_each(|record| printer.print(record))
}

/// Shows what is kept, then what comes.
async fn follow(daemon: &Daemon, which: &Which, printer: &mut Printer) -> Result<()> {
    let mut body = daemon.open(&format!("/incidents/follow?{}", which.query()?)).await?;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the daemon has ended")?;
        rest.extend_from_slice(frame.data_ref().map(|data| &**data).unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if line == b"\n" {
                // The daemon looks whether anybody is there.
                continue;
            }
            match serde_json::from_slice(&line).context("the daemon says what is not understood")? {
                Followed::Incident(record) => printer.print(&record)?,
                Followed::Lost(lost) => {
                    tracing::warn!("{lost} incidents came faster than they were read and are not shown");
                }
            }
        }
    }
    anyhow::bail!("the daemon has ended")
}

/// There is no daemon: attaches, and shows incidents as they happen.
async fn by_ourselves(
    config: &Config,
    watch: Duration,
    filter: &IncidentFilter,
    printer: &mut Printer,
) -> Result<()> {
    let recorder = Arc::new(Recorder::new(config.incidents));
    let mut incidents = recorder.follow();
    let shown = async {
        loop {
            match incidents.recv().await {
                Ok(record) if filter.takes(&record) => printer.print(&record)?,
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!("{lost} incidents came faster than they were printed and are not shown");
                }
                Err(RecvError::Closed) => return Ok::<_, anyhow::Error>(()),
            }
        }
    };
    tokio::select! {
        watched = attach::watch(config, recorder.clone(), watch, interrupted()) => watched.map(drop),
        shown = shown => shown,
    }
}

/// Prints records as they come.
struct Printer {
    json: bool,
    printed: u64,
}

impl Printer {
    fn print(&mut self, record: &IncidentRecord) -> Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, record).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            let gap = if self.printed == 0 { "" } else { "\n" };
            writeln!(out, "{gap}{record}")?;
        }
        out.flush()?;
        self.printed += 1;
        Ok(())
    }
}
