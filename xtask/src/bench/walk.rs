//! What a walk over the kernel's sockets costs, with many and with few, against an iterator that does nothing.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::{
    crowd::Crowd,
    empty,
    figure::{Figure, cell, mebibytes, table},
    network::{self, DESTINATIONS, Gate},
    programs::Spent,
    usage::resident_bytes,
};
use crate::{
    daemon::{Daemon, metrics::Sample},
    interrupt,
};

/// Next to no sockets, to tell what grows with them.
const FEW: u32 = 1_000;
/// A snapshot is at most this old, so each scrape after it makes another.
const AGE: Duration = Duration::from_millis(1_050);
/// The iterator's program.
const PROGRAM: &str = "walk";
const FLAGS: [&str; 4] = ["--netns", "host", "--snapshot-age", "1s"];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Sockets, half of them established and half in TIME_WAIT.
    many: u32,
    /// The kernel keeps a TIME_WAIT for a minute.
    readings: usize,
}

impl Amount {
    /// What the target is about.
    pub(crate) const FULL: Self = Self { many: 100_000, readings: 15 };
    /// Enough to see that measuring works.
    pub(crate) const SMOKE: Self = Self { many: 2_000, readings: 2 };
}

/// Measured with so many sockets.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Walked {
    pub(crate) sockets: u32,
    /// An iterator program that returns at once.
    pub(crate) empty_seconds: Option<Figure>,
    /// The daemon's whole reading.
    pub(crate) snapshot_seconds: Option<Figure>,
    /// Of that the program, by the kernel's statistics, which cost something themselves.
    program_nanoseconds_per_socket: f64,
    resident_bytes: u64,
}

/// Measures with few sockets and with many.
pub(crate) fn measure(binary: &Path, amount: Amount) -> Result<Vec<Walked>> {
    let with = |sockets| network::alone(|| with(binary, sockets, amount.readings));
    [FEW, amount.many].into_iter().map(with).collect()
}

fn with(binary: &Path, sockets: u32, count: usize) -> Result<Walked> {
    let daemon = Daemon::private_with(binary, &FLAGS)?;
    let mut crowd = Crowd::default();
    crowd.established(sockets / 4, DESTINATIONS)?;
    Gate::open()?.churn(sockets / 2, DESTINATIONS)?;
    let empty = empty::Iterator::attach()?;
    let empty_seconds = (0..count).map(|_| empty.walk()).collect::<Result<Vec<_>>>()?;
    let mut readings = Vec::new();
    for _ in 0..count {
        interrupt::pause(AGE)?;
        readings.push(snapshot_seconds(&daemon)?);
    }
    let resident_bytes = resident_bytes(daemon.pid())?;
    let (_, spent) = Spent::during(daemon.pid(), || {
        interrupt::pause(AGE)?;
        daemon.scrape()
    })?;
    let program = spent.nanoseconds_per_run(PROGRAM).context("the program of the walk did not run")?;
    // Those of the daemon's own scrapes are there too.
    let listed = met(&daemon)?;
    ensure!(listed >= f64::from(sockets), "only {listed} of {sockets} sockets were walked");
    drop(crowd);
    Ok(Walked {
        sockets,
        empty_seconds: Figure::of(empty_seconds.into_iter().map(|time| time.as_secs_f64())),
        snapshot_seconds: Figure::of(readings),
        program_nanoseconds_per_socket: program,
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
pub(crate) fn written(walks: &[Walked]) -> String {
    let head = ["sockets", "empty iterator, ms", "snapshot, ms", "program, ns per socket", "RSS, MiB"];
    let row = |walked: &Walked| {
        vec![
            walked.sockets.to_string(),
            cell(walked.empty_seconds, 1e3, 1),
            cell(walked.snapshot_seconds, 1e3, 1),
            format!("{:.0}", walked.program_nanoseconds_per_socket),
            mebibytes(walked.resident_bytes as f64),
        ]
    };
    table(&head, walks.iter().map(row))
}
