//! `finwatch top`: the live view.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{self, Interval, MissedTickBehavior},
};

use super::{
    args::LogArgs,
    ask::{DaemonArgs, color, daemon, runtime, seconds},
    attach::Attached,
    logging,
};
use crate::{
    api::client::{AskError, Daemon},
    config::{Config, value::Given},
    kernel::rights,
    model::incident::IncidentFilter,
    recorder::Recorder,
    top::{
        draw::draw,
        state::{Reading, State},
        terminal::Screen,
    },
};

/// How often everything is read.
const INTERVAL: Duration = Duration::from_secs(2);
/// How far back findings, lost requests and histograms go.
const SINCE: Duration = Duration::from_mins(15);

/// Flags of `finwatch top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Read everything anew this often: 1s to 30days. Rates are over the time measured between two readings.
    /// [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub interval: Option<Given<Duration>>,
    /// Findings, lost requests, who closes and histograms are of the time since so long ago, as far as it is
    /// remembered: 90s, 15m, 2h. [default: 15m]
    #[arg(long, value_name = "TIME")]
    pub since: Option<Given<Duration>>,
    /// Where the daemon is.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// Shows the live view until it is quit.
///
/// # Errors
/// Where there is no terminal, or neither a daemon nor the right to attach.
pub fn run(log: LogArgs, args: &TopArgs) -> Result<ExitCode> {
    if !io::stdout().is_terminal() {
        bail!("top draws on a terminal, and standard output is none: use `finwatch triage`, or --json of it");
    }
    let config = args.daemon.config(log)?;
    // Messages would be written into the picture.
    if !io::stderr().is_terminal() {
        logging::start(config.log_level, config.log_format);
    }
    let runtime = runtime()?;
    let result = runtime.block_on(show(args, &config));
    // Nothing is waited for any longer.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// Who is asked.
enum Source {
    Daemon(Daemon),
    Attached(Box<Attached>, Arc<Recorder>),
}

/// Why there is no reading.
struct Problem {
    text: String,
    gone: bool,
}

impl Source {
    async fn find(config: &Config) -> Result<(Self, &'static str)> {
        let daemon = daemon(config);
        match daemon.ask::<serde::de::IgnoredAny>("/sums").await {
            Ok(_) => Ok((Self::Daemon(daemon), "daemon")),
            Err(AskError::NoDaemon(_)) if rights::missing().is_empty() => {
                let recorder = Arc::new(Recorder::new(config.incidents));
                let attached = Box::new(Attached::start(config, recorder.clone()).await?);
                Ok((Self::Attached(attached, recorder), "no daemon, watching by itself"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Until the next reading is due: where nobody else does, incidents are taken in meanwhile.
    async fn wait(&mut self, ticks: &mut Interval) -> Result<()> {
        match self {
            Self::Daemon(_) => {
                ticks.tick().await;
            }
            Self::Attached(attached, _) => tokio::select! {
                _ = ticks.tick() => {}
                result = attached.take_in() => result?,
            },
        }
        Ok(())
    }

    async fn read(&self, since: Duration) -> Result<Reading, Problem> {
        match self {
            Self::Daemon(daemon) => {
                let read = async {
                    let sums = daemon.ask("/sums").await?;
                    let question = format!("/observation?since={}", seconds(since));
                    let incidents = daemon.ask(&format!("/incidents?since={}", seconds(since))).await?;
                    Ok(Reading { sums, incidents, observation: daemon.ask(&question).await? })
                };
                read.await.map_err(|error: AskError| match error {
                    AskError::NoDaemon(_) => Problem { text: "daemon gone, retrying".into(), gone: true },
                    error => Problem { text: format!("no answer, retrying: {error}"), gone: false },
                })
            }
            Self::Attached(attached, recorder) => {
                let read = async {
                    let kept = recorder.latest(&IncidentFilter::default());
                    let incidents = kept.iter().map(|record| (**record).clone()).collect();
                    let sums = attached.sums().await?;
                    Ok(Reading { sums, incidents, observation: attached.observe(since).await? })
                };
                read.await.map_err(|error: anyhow::Error| Problem { text: error.to_string(), gone: false })
            }
        }
    }
}

async fn show(args: &TopArgs, config: &Config) -> Result<()> {
    let interval = args.interval.as_ref().map_or(INTERVAL, |interval| interval.0);
    let since = args.since.as_ref().map_or(SINCE, |since| since.0);
    let mut end = End::new()?;
    let (mut source, name) = Source::find(config).await?;
    let about = format!(
        "{name}, every {}, window {}",
        humantime::format_duration(interval),
        humantime::format_duration(since)
    );
    let (sender, mut readings) = mpsc::channel(1);
    let mut reader = tokio::task::JoinSet::new();
    reader.spawn(async move {
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reading = match source.wait(&mut ticks).await {
                Ok(()) => source.read(since).await,
                Err(error) => Err(Problem { text: error.to_string(), gone: false }),
            };
            if sender.send(reading).await.is_err() {
                return;
            }
        }
    });
    let color = color();
    let mut state = State::new(about);
    let mut screen = Screen::open().context("cannot draw on this terminal")?;
    let mut events = EventStream::new();
    loop {
        screen.draw(|frame| draw(frame, &state, color)).context("cannot draw on this terminal")?;
        tokio::select! {
            reading = readings.recv() => match reading.context("reading has ended")? {
                Ok(reading) => state.read(reading),
                Err(problem) => state.fail(problem.text, problem.gone),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if !state.press(&key) {
                        return Ok(());
                    }
                }
                // The next frame has the new size.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("cannot read this terminal's keys"),
                None => return Ok(()),
            },
            () = end.wait() => return Ok(()),
        }
    }
}

/// The signals that end it.
struct End([Signal; 3]);

impl End {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
