//! What a walk over the kernel's sockets costs, with many and with few, against an iterator that does nothing.

mod crowd;
mod empty;

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;

use self::{crowd::Crowd, empty::Empty};
use super::{
    programs,
    report::{Figure, cell},
};
use crate::{
    daemon::{Daemon, metrics::Sample},
    interrupt,
};

/// Sockets there are, half of them established and half in TIME_WAIT.
pub(crate) const MANY: usize = 100_000;
/// The same with next to none, to tell what grows with them.
const FEW: usize = 1_000;
/// Readings that are measured; the kernel keeps a TIME_WAIT for a minute.
const READINGS: usize = 15;
/// A snapshot is at most this old, so each scrape after it makes another.
const AGE: Duration = Duration::from_millis(1_050);
const FLAGS: [&str; 4] = ["--netns", "host", "--snapshot-age", "1s"];

/// Measured with so many sockets.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Walked {
    sockets: usize,
    /// An iterator program that returns at once.
    empty_seconds: Option<Figure>,
    /// The daemon's whole reading.
    snapshot_seconds: Option<Figure>,
    /// Of that the program, by the kernel's statistics, which cost something themselves.
    program_nanoseconds_per_socket: f64,
    resident_bytes: u64,
}

/// Measures with few sockets and with `many`.
pub(crate) fn measure(binary: &Path, many: usize) -> Result<Vec<Walked>> {
    [FEW, many].into_iter().map(|sockets| alone(|| with(binary, sockets))).collect()
}

/// On a thread in a network namespace of its own, which ends with it.
fn alone<T: Send>(measure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                crowd::enter_namespace()?;
                measure()
            })
            .join()
    });
    outcome.map_err(|_panic| anyhow!("the thread that measures walks has ended"))?
}

fn with(binary: &Path, sockets: usize) -> Result<Walked> {
    let daemon = Daemon::private_with(binary, &FLAGS)?;
    let crowd = Crowd::gather(sockets)?;
    let empty = Empty::load()?;
    let empty_seconds = (0..READINGS).map(|_| empty.walk()).collect::<Result<Vec<_>>>()?;
    let mut readings = Vec::new();
    for _ in 0..READINGS {
        interrupt::pause(AGE)?;
        readings.push(snapshot_seconds(&daemon)?);
    }
    let resident_bytes = programs::resident_bytes(daemon.pid())?;
    let program = programs::average(daemon.pid(), "walk", || {
        interrupt::pause(AGE)?;
        daemon.scrape().map(drop)
    })?;
    // Those of the daemon's own scrapes are there too.
    let listed = met(&daemon)?;
    ensure!(listed >= sockets as f64, "only {listed} of {sockets} sockets were walked");
    drop(crowd);
    Ok(Walked {
        sockets,
        empty_seconds: Figure::of(empty_seconds.into_iter().map(|time| time.as_secs_f64())),
        snapshot_seconds: Figure::of(readings.into_iter()),
        program_nanoseconds_per_socket: program.as_nanos() as f64,
        resident_bytes,
    })
}

/// Sockets that the daemon shows.
fn met(daemon: &Daemon) -> Result<f64> {
    let samples = daemon.scrape()?;
    samples.matching("finwatch_sockets", &[]).map(Sample::number).sum()
}

fn snapshot_seconds(daemon: &Daemon) -> Result<f64> {
    let samples = daemon.scrape()?;
    let sample = samples.matching("finwatch_snapshot_duration_seconds", &[]).next();
    sample.context("no levels are shown")?.number()
}

/// Fails where a figure is missing.
pub(crate) fn complete(walks: &[Walked]) -> Result<()> {
    for walked in walks {
        let measured = |figure: Option<Figure>| figure.is_some_and(|figure| figure.min > 0.0);
        let all = measured(walked.empty_seconds)
            && measured(walked.snapshot_seconds)
            && walked.program_nanoseconds_per_socket > 0.0;
        ensure!(all, "walks were not measured: {walked:?}");
    }
    Ok(())
}

/// A Markdown table: median (min to max).
pub(crate) fn table(walks: &[Walked]) -> String {
    let rows = walks.iter().map(|walked| {
        format!(
            "| {} | {} | {} | {:.0} | {:.1} |\n",
            walked.sockets,
            cell(walked.empty_seconds, 1e3, 1),
            cell(walked.snapshot_seconds, 1e3, 1),
            walked.program_nanoseconds_per_socket,
            walked.resident_bytes as f64 / f64::from(1 << 20),
        )
    });
    "| sockets | empty iterator, ms | snapshot, ms | program, ns per socket | RSS, MiB |\n|---|---|---|---|---|\n"
        .to_owned()
        + &rows.collect::<String>()
}
