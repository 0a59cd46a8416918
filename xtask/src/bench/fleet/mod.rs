//! What many hosts mean for a Prometheus: a real one reads simulated hosts, whose text is made by the agent's own exporter.

mod prometheus;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use self::prometheus::Prometheus;
use super::{
    figure::{mebibytes, table},
    usage::Usage,
};
use crate::{
    daemon::metrics::{self, Sample, Samples},
    host, interrupt,
    process::Running,
};

/// What Prometheus adds to each host it reads: `up` and how the scrape went.
const OF_A_TARGET: u64 = 5;
/// The fleet that is reckoned with, scraped so often, kept for so long.
const HOSTS: f64 = 10_000.0;
const SCRAPED_EVERY: f64 = 15.0;
const DAYS: f64 = 15.0;
const SECONDS_OF_A_DAY: f64 = 86_400.0;
/// Prometheus may take this many scrapes to have met every host.
const PATIENCE: u32 = 10;

/// How much is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    hosts: u32,
    pairs: u32,
    every: Duration,
    time: Duration,
}

impl Amount {
    /// What the document shows.
    pub(crate) const FULL: Self =
        Self { hosts: 200, pairs: 20, every: Duration::from_secs(3), time: Duration::from_secs(90) };
    /// Enough to see that measuring works.
    pub(crate) const SMOKE: Self =
        Self { hosts: 5, pairs: 2, every: Duration::from_secs(1), time: Duration::from_secs(3) };
}

/// What Prometheus took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Fleet {
    hosts: u32,
    pairs: u32,
    seconds_between_scrapes: u64,
    /// By the text of one host.
    series_per_host: u64,
    bytes_per_scrape: usize,
    /// In memory at the end, of the hosts.
    series: f64,
    /// Series that the aggregating rules make of them.
    aggregated: f64,
    samples_per_second: f64,
    cpu_ratio: f64,
    resident_bytes: u64,
    chunk_bytes_per_sample: f64,
    index_bytes_per_series: f64,
}

/// Runs it.
pub(crate) fn measure(amount: Amount) -> Result<Fleet> {
    let hosts = Hosts::start(amount)?;
    let text = metrics::get(&format!("http://{}/0/metrics", hosts.address))?;
    let series_per_host = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
    let prometheus = Prometheus::reading(&hosts.address, amount.hosts, amount.every)?;
    let all = interrupt::poll(amount.every * PATIENCE, || {
        let up = prometheus.number("sum(up)")?;
        Ok((up >= f64::from(amount.hosts)).then_some(()))
    })?;
    ensure!(all.is_some(), "Prometheus does not read all hosts in time");
    let before = appended(&prometheus.metrics()?)?;
    let (after, usage) = Usage::during(prometheus.pid(), || {
        interrupt::pause(amount.time)?;
        appended(&prometheus.metrics()?)
    })?;
    let up = prometheus.number("sum(up)")?;
    ensure!(up >= f64::from(amount.hosts), "at the end Prometheus reads {up} of {} hosts", amount.hosts);
    let series = prometheus.number("count({job=\"finwatch\",__name__!~\"finwatch:.*\"})")?;
    // Scrapes of the agent's own series begin with the second scrape, but for those that Prometheus makes.
    let expected = f64::from(amount.hosts) * (series_per_host + OF_A_TARGET) as f64;
    ensure!(
        (series - expected).abs() < 0.5,
        "{series} series of the hosts, {expected} expected by their text"
    );
    let aggregated = prometheus.number("count({__name__=~\"finwatch:.*:sum.*\"})")?;
    let block = prometheus.block()?;
    Ok(Fleet {
        hosts: amount.hosts,
        pairs: amount.pairs,
        seconds_between_scrapes: amount.every.as_secs(),
        series_per_host,
        bytes_per_scrape: text.len(),
        series,
        aggregated,
        samples_per_second: (after - before) / amount.time.as_secs_f64(),
        cpu_ratio: usage.cpu_ratio,
        resident_bytes: usage.peak_bytes,
        chunk_bytes_per_sample: block.chunk_bytes as f64 / block.samples as f64,
        index_bytes_per_series: block.index_bytes as f64 / series,
    })
}

fn appended(samples: &Samples) -> Result<f64> {
    samples.matching("prometheus_tsdb_head_samples_appended_total", &[]).map(Sample::number).sum()
}

/// The simulated hosts.
struct Hosts {
    // Named for its drop: serves them until then.
    _running: Running,
    address: String,
}

impl Hosts {
    fn start(amount: Amount) -> Result<Self> {
        // Built for the tests already; how fast the hosts are is not measured.
        let program = host::build_example("fleet")?;
        let mut command = host::command(program);
        command.args([amount.hosts.to_string(), amount.pairs.to_string()]).stdout(Stdio::piped());
        let mut running = Running::spawn("the simulated hosts", &mut command)?;
        let said = running.child().stdout.take().context("the pipe was asked for")?;
        let mut address = String::new();
        BufReader::new(said).read_line(&mut address).context("the hosts' address")?;
        ensure!(!address.is_empty(), "the simulated hosts did not start");
        Ok(Self { _running: running, address: address.trim().to_owned() })
    }
}

impl Fleet {
    /// What was measured, and what follows for a large fleet.
    pub(crate) fn tables(&self) -> String {
        let each = |bytes: f64| format!("{bytes:.0}");
        let memory_per_series = self.resident_bytes as f64 / self.series;
        let measured = table(
            &["a Prometheus that reads", &format!("{} simulated hosts", self.hosts)],
            [
                ("usual pairs on each", self.pairs.to_string()),
                ("bytes of a scrape", self.bytes_per_scrape.to_string()),
                ("series of the agent", self.series_per_host.to_string()),
                ("series in its head, 5 of its own for each host", each(self.series)),
                ("scraped every", format!("{} s", self.seconds_between_scrapes)),
                ("samples/s taken in", each(self.samples_per_second)),
                ("CPU, % of one", format!("{:.0}", self.cpu_ratio * 100.0)),
                ("peak RSS, MiB", mebibytes(self.resident_bytes as f64)),
                ("of that for each series, bytes", each(memory_per_series)),
                ("on disk for each sample, bytes", format!("{:.2}", self.chunk_bytes_per_sample)),
                ("index of a block for each series, bytes", each(self.index_bytes_per_series)),
                ("series of the aggregating rules", each(self.aggregated)),
            ]
            .map(|(what, figure)| vec![what.to_owned(), figure]),
        );
        let series = (self.series_per_host + OF_A_TARGET) as f64 * HOSTS;
        let samples = series / SCRAPED_EVERY;
        let samples_kept = samples * SECONDS_OF_A_DAY * DAYS;
        let gigabytes = |bytes: f64| format!("{:.0} GB", bytes / 1e9);
        let reckoned = table(
            &["", &format!("{HOSTS:.0} such hosts, scraped every {SCRAPED_EVERY:.0} s")],
            [
                ("series", format!("{:.1} million", series / 1e6)),
                ("samples/s", each(samples)),
                ("memory of all Prometheus servers together", gigabytes(series * memory_per_series)),
                (
                    "text read per second, uncompressed",
                    format!("{:.0} MB", self.bytes_per_scrape as f64 * HOSTS / SCRAPED_EVERY / 1e6),
                ),
                ("on disk for 15 days", gigabytes(samples_kept * self.chunk_bytes_per_sample)),
            ]
            .map(|(what, figure)| vec![what.to_owned(), figure]),
        );
        format!("{measured}\n{reckoned}")
    }
}
