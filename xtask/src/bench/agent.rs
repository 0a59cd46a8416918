//! What the agent takes by itself: until it is ready, at rest, with many pairs, and for a scrape of them.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Serialize;

use super::{
    crowd::Crowd,
    figure::{Figure, cell, mebibytes, table},
    network, tables,
    tracer::{SCRAPED_EVERY, scraped},
    usage::{Usage, forget_peak, peak_bytes, resident_bytes},
};
use crate::{
    daemon::{Daemon, metrics},
    interrupt,
};

/// An owner may have three quarters of the slots, and all of these pairs have one.
const ROOM: [&str; 2] = ["--max-pairs", "5632"];
/// Only the measurement's own sockets.
const OWN_NAMESPACE: [&str; 2] = ["--netns", "host"];
/// How long starting may take.
const START_LIMIT: Duration = Duration::from_mins(2);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) starts: u32,
    /// Pairs to scrape; the last is measured with the tracked connections too.
    pub(crate) pairs: [u32; 2],
    pub(crate) tracked: u32,
    pub(crate) scrapes: u32,
    /// How long it is watched being scraped.
    pub(crate) watched: Duration,
}

impl Amount {
    /// What the targets are about.
    pub(crate) const FULL: Self = Self {
        starts: 11,
        pairs: [1_000, 4_096],
        tracked: 100_000,
        scrapes: 15,
        watched: Duration::from_secs(30),
    };
    /// Enough to see that measuring works.
    pub(crate) const SMOKE: Self =
        Self { starts: 1, pairs: [20, 100], tracked: 400, scrapes: 2, watched: Duration::from_millis(500) };
}

/// Memory of the agent, and the kernel's of its maps.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) resident_bytes: u64,
    table_bytes: u64,
}

/// Scrapes one after the other, which share a walk.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scraped {
    pub(crate) pairs: u32,
    pub(crate) series: usize,
    pub(crate) bytes: usize,
    /// From the request to the last byte, uncompressed.
    pub(crate) seconds: Option<Figure>,
    /// What the agent has in memory meanwhile beyond what it has before.
    pub(crate) more_bytes: Option<Figure>,
    pub(crate) resident_bytes: u64,
}

/// Everything about the agent alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Alone {
    pub(crate) ready_seconds: Option<Figure>,
    pub(crate) at_rest: Memory,
    /// The most there was until then: reading the kernel's types takes it.
    starting_bytes: u64,
    /// Scraped every 5 s, with the first number of pairs.
    pub(crate) scraped_cpu_ratio: f64,
    pub(crate) scrapes: Vec<Scraped>,
    pub(crate) tracked: u32,
    /// With the most pairs and so many tracked connections.
    pub(crate) crowded: Memory,
}

/// Measures in network namespaces of its own.
pub(crate) fn measure(binary: &Path, amount: Amount) -> Result<Alone> {
    let ready = (0..amount.starts).map(|_| ready_after(binary)).collect::<Result<Vec<_>>>()?;
    let (at_rest, starting_bytes) = network::alone(|| at_rest(binary))?;
    let [few, many] = amount.pairs;
    let (scraped_few, scraped_cpu_ratio) = network::alone(|| {
        let daemon = Daemon::private_with(binary, &OWN_NAMESPACE)?;
        let mut crowd = Crowd::default();
        crowd.mixed(few / 2)?;
        let scrapes = scrapes(&daemon, few, amount.scrapes)?;
        let watched = Usage::during(daemon.pid(), || scraped(&daemon, || interrupt::pause(amount.watched)))?;
        Ok((scrapes, watched.1.cpu_ratio))
    })?;
    let (scraped_many, crowded) = network::alone(|| {
        let daemon = Daemon::private_with(binary, &[OWN_NAMESPACE, ROOM].concat())?;
        let mut crowd = Crowd::default();
        crowd.mixed(many / 2)?;
        let scrapes = scrapes(&daemon, many, amount.scrapes)?;
        // The mixed pairs have two connections each that stay.
        crowd.established(amount.tracked.saturating_sub(2 * many) / 2, network::DESTINATIONS)?;
        let tracked = metric(&daemon, "finwatch_tracked_connections")?;
        ensure!(tracked >= f64::from(amount.tracked), "only {tracked} connections are tracked");
        interrupt::pause(SCRAPED_EVERY)?;
        daemon.scrape()?;
        Ok((scrapes, memory(daemon.pid())?))
    })?;
    Ok(Alone {
        ready_seconds: Figure::of(ready.into_iter().map(|time| time.as_secs_f64())),
        at_rest,
        starting_bytes,
        scraped_cpu_ratio,
        scrapes: vec![scraped_few, scraped_many],
        tracked: amount.tracked,
        crowded,
    })
}

/// From its start until it tells the service manager that it is ready.
fn ready_after(binary: &Path) -> Result<Duration> {
    let directory = tempfile::tempdir().context("a directory for the service manager's socket")?;
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).context("the service manager's socket")?;
    manager.set_read_timeout(Some(START_LIMIT)).context("the service manager's socket")?;
    let mut begun = None;
    let (told, daemon) = thread::scope(|scope| {
        let told = scope.spawn(move || told_ready(&manager));
        let daemon = Daemon::private_changed(binary, &[], |command| {
            command.env("NOTIFY_SOCKET", &path);
            begun = Some(Instant::now());
        });
        // Without a daemon nobody tells, and waiting for it ends by itself.
        (told.join(), daemon)
    });
    drop(daemon?);
    let told = told.map_err(|_panic| anyhow!("the service manager's thread has ended"))??;
    Ok(told.saturating_duration_since(begun.context("the daemon was not started")?))
}

fn told_ready(manager: &UnixDatagram) -> Result<Instant> {
    let mut message = [0; 4096];
    loop {
        let length = manager.recv(&mut message).context("the daemon did not say that it is ready")?;
        if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(Instant::now());
        }
    }
}

fn at_rest(binary: &Path) -> Result<(Memory, u64)> {
    let daemon = Daemon::private_with(binary, &OWN_NAMESPACE)?;
    for _ in 0..3 {
        daemon.scrape()?;
    }
    interrupt::pause(Duration::from_secs(1))?;
    Ok((memory(daemon.pid())?, peak_bytes(daemon.pid())?))
}

fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory { resident_bytes: resident_bytes(pid)?, table_bytes: tables::bytes(&tables::held(pid)?) })
}

fn scrapes(daemon: &Daemon, pairs: u32, count: u32) -> Result<Scraped> {
    let there = metric(daemon, "finwatch_pairs")?;
    ensure!(there >= f64::from(pairs), "only {there} of {pairs} pairs have a record");
    let (mut seconds, mut more, mut text) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..count {
        let before = resident_bytes(daemon.pid())?;
        forget_peak(daemon.pid())?;
        let begun = Instant::now();
        text = metrics::get(&daemon.metrics_url())?;
        seconds.push(begun.elapsed().as_secs_f64());
        more.push(peak_bytes(daemon.pid())?.saturating_sub(before) as f64);
    }
    Ok(Scraped {
        pairs,
        series: text.lines().filter(|line| !line.starts_with('#')).count(),
        bytes: text.len(),
        seconds: Figure::of(seconds),
        more_bytes: Figure::of(more),
        resident_bytes: resident_bytes(daemon.pid())?,
    })
}

/// The value of the agent's only series of that name.
pub(crate) fn metric(daemon: &Daemon, name: &str) -> Result<f64> {
    let samples = daemon.scrape()?;
    let sample = samples.matching(name, &[]).next();
    sample.with_context(|| format!("no {name} is shown"))?.number()
}

impl Alone {
    /// Fails where a figure is missing.
    pub(crate) fn complete(&self) -> Result<()> {
        let scraped = |scraped: &Scraped| scraped.seconds.is_some_and(|figure| figure.min > 0.0);
        if self.ready_seconds.is_none() || !self.scrapes.iter().all(scraped) || self.crowded.table_bytes == 0
        {
            bail!("the agent was not measured: {self:?}");
        }
        Ok(())
    }

    /// Markdown tables.
    pub(crate) fn tables(&self) -> String {
        let memory = |what: String, memory: &Memory| {
            let cells = [memory.resident_bytes, memory.table_bytes].map(|bytes| mebibytes(bytes as f64));
            [vec![what], cells.to_vec()].concat()
        };
        let most = self.scrapes.last().map_or(0, |scraped| scraped.pairs);
        let memories = table(
            &["", "RSS, MiB", "the kernel's memory of the maps, MiB"],
            [
                memory("at rest".to_owned(), &self.at_rest),
                memory(format!("{most} pairs, {} tracked connections", self.tracked), &self.crowded),
            ],
        );
        let scrapes = table(
            &["pairs", "series", "kB of text", "a scrape, ms", "memory beyond, MiB", "RSS, MiB"],
            self.scrapes.iter().map(|scraped| {
                vec![
                    scraped.pairs.to_string(),
                    scraped.series.to_string(),
                    (scraped.bytes / 1_000).to_string(),
                    cell(scraped.seconds, 1e3, 1),
                    cell(scraped.more_bytes, 1.0 / f64::from(1 << 20), 1),
                    mebibytes(scraped.resident_bytes as f64),
                ]
            }),
        );
        format!(
            "{memories}\n{scrapes}\nFrom start to ready: {} ms, with {} MiB at most. Scraped every {} s with {} pairs: {:.2} % of one CPU.\n",
            cell(self.ready_seconds, 1e3, 0),
            mebibytes(self.starting_bytes as f64),
            SCRAPED_EVERY.as_secs(),
            self.scrapes.first().map_or(0, |scraped| scraped.pairs),
            self.scraped_cpu_ratio * 100.0,
        )
    }
}
