//! `finwatch triage`: what is wrong, why, and what to change.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use tokio::time;

use super::{
    args::LogArgs,
    ask::{DaemonArgs, FOUND, color, daemon, interrupted, print, runtime, seconds, tell, width},
    attach, logging,
};
use crate::{
    api::{
        client::{AskError, Daemon},
        routes::VERSION,
    },
    config::{Config, value::Given},
    kernel::rights,
    model::observation::Observation,
    recorder::Recorder,
    triage::{
        finding::Finding,
        findings,
        report::{Style, report},
    },
};

/// How far back a daemon is asked.
const SINCE: Duration = Duration::from_mins(15);
/// How long is watched without a daemon.
const WATCH: Duration = Duration::from_secs(30);

/// Flags of `finwatch triage`.
#[derive(Clone, Debug, Args)]
pub struct TriageArgs {
    /// Look at the time since so long ago, as the daemon remembers it: 90s, 15m, 2h. [default: 15m]
    #[arg(long, value_name = "TIME", conflicts_with = "watch")]
    pub since: Option<Given<Duration>>,
    /// Watch for so long from now, then look at that. Without a daemon, triage attaches to the kernel by itself for as
    /// long (as root). [default: 30s without a daemon, else what the daemon remembers]
    #[arg(long = "for", id = "watch", value_name = "TIME")]
    pub watch: Option<Given<Duration>>,
    /// Print JSON: the findings, and the observation they rest on.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    version: &'static str,
    findings: &'a [Finding],
    observation: &'a Observation,
}

/// Prints the findings; the exit status is 0 (nothing wrong) or 1 (something is).
///
/// # Errors
/// When it could not be told; status 2.
pub fn run(log: LogArgs, args: &TriageArgs) -> Result<ExitCode> {
    let config = args.daemon.config(log)?;
    logging::start(config.log_level, config.log_format);
    let runtime = runtime()?;
    let observation = runtime.block_on(observe(args, &config))?;
    // Nothing is waited for any longer.
    runtime.shutdown_background();
    let findings = findings(&observation);
    let status =
        if findings.iter().any(Finding::is_trouble) { ExitCode::from(FOUND) } else { ExitCode::SUCCESS };
    let text = if args.json {
        let printed = Printed { version: VERSION, findings: &findings, observation: &observation };
        serde_json::to_string_pretty(&printed).context("cannot be written as JSON")? + "\n"
    } else {
        report(&observation, &findings, Style { width: width(), color: color() })
    };
    print(&text, status)
}

async fn observe(args: &TriageArgs, config: &Config) -> Result<Observation> {
    let daemon = daemon(config);
    let since = args.since.as_ref().map_or(SINCE, |since| since.0);
    let question = |since| format!("/observation?since={}", seconds(since));
    let watch = args.watch.as_ref().map(|watch| watch.0);
    // Also tells at once whether there is a daemon, before anybody waits.
    match daemon.ask::<Observation>(&question(since)).await {
        Ok(observation) => match watch {
            None => Ok(observation),
            Some(watch) => {
                wait(watch).await;
                Ok(daemon.ask(&question(watch)).await?)
            }
        },
        Err(error @ AskError::NoDaemon(_)) => {
            by_ourselves(&daemon, error, config, watch.unwrap_or(WATCH)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// There is no daemon.
async fn by_ourselves(
    daemon: &Daemon,
    error: AskError,
    config: &Config,
    longest: Duration,
) -> Result<Observation> {
    if !rights::missing().is_empty() {
        return Err(error.into());
    }
    tell(format_args!(
        "no daemon at {}: watching for {} s, Ctrl-C looks at once",
        daemon.path().display(),
        longest.as_secs()
    ));
    attach::watch(config, Arc::new(Recorder::new(config.incidents)), longest, interrupted()).await
}

async fn wait(watch: Duration) {
    tell(format_args!("watching for {} s, Ctrl-C looks at once", watch.as_secs()));
    tokio::select! {
        () = time::sleep(watch) => {}
        () = interrupted() => {}
    }
}
