//! A Prometheus that reads many hosts, and what that takes it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    daemon::metrics::{self, Samples},
    host, interrupt,
    process::Running,
};

/// How long Prometheus may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// What aggregates before sending on.
const RULES: &str = "deploy/prometheus/finwatch.rules.yml";

/// A Prometheus under way; dropping it ends it.
pub(super) struct Prometheus {
    running: Running,
    address: String,
    // After `running`: Prometheus ends before its directory goes.
    dir: TempDir,
}

impl Prometheus {
    /// Reads so many hosts at one address, each under its number, so often.
    pub(super) fn reading(address: &str, hosts: u32, every: Duration) -> Result<Self> {
        let prometheus = host::find_program("prometheus")
            .context("prometheus is not installed: `cargo xtask setup --for bench`")?;
        let dir = tempfile::Builder::new().prefix("finwatch-fleet-").tempdir().context("a directory")?;
        let seconds = every.as_secs();
        let rules = host::root().join(RULES);
        let mut config = format!(
            "global: {{ scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: 15s }}\n\
             rule_files: [ '{}' ]\n\
             scrape_configs:\n- job_name: finwatch\n  static_configs:\n",
            rules.display()
        );
        for host in 0..hosts {
            // Writing to a String cannot fail.
            _ = writeln!(
                config,
                "  - targets: [ '{address}' ]\n    labels: {{ instance: 'host-{host}', __metrics_path__: '/{host}/metrics' }}"
            );
        }
        fs::write(dir.path().join("prometheus.yml"), config).context("prometheus.yml")?;
        let log = File::create(dir.path().join("log")).context("Prometheus's log")?;
        let address = format!("127.0.0.1:{}", host::free_port()?);
        let mut command = host::command(prometheus);
        command.current_dir(dir.path()).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.enable-admin-api",
            "--log.level=warn",
            &format!("--web.listen-address={address}"),
        ]);
        command.stdout(log.try_clone().context("Prometheus's log")?).stderr(log);
        let mut running = Running::spawn("prometheus", &mut command)?;
        let ready = interrupt::poll(READY_LIMIT, || {
            if let Some(status) = running.ended()? {
                bail!("prometheus ended before it was ready ({status}): {}", said(dir.path()));
            }
            Ok(metrics::get(&format!("http://{address}/-/ready")).ok())
        })?;
        ensure!(ready.is_some(), "prometheus was not ready in time: {}", said(dir.path()));
        Ok(Self { running, address, dir })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.running.id()
    }

    /// Its own metrics.
    pub(super) fn metrics(&self) -> Result<Samples> {
        Samples::scrape(&format!("http://{}/metrics", self.address))
    }

    /// The only number that an expression is now; 0 where it is nothing.
    pub(super) fn number(&self, expression: &str) -> Result<f64> {
        let url = format!("http://{}/api/v1/query", self.address);
        let mut answer =
            ureq::post(&url).send_form([("query", expression)]).with_context(|| expression.to_owned())?;
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().context("an answer")?)
            .context("Prometheus's answer")?;
        match answer["data"]["result"].as_array().context("no result")?.as_slice() {
            [] => Ok(0.0),
            [one] => one["value"][1].as_str().context("no value")?.parse().context("no number"),
            _ => bail!("{expression} is several series"),
        }
    }

    /// Writes what it has into a block, as it does every two hours.
    pub(super) fn block(&self) -> Result<Block> {
        let url = format!("http://{}/api/v1/admin/tsdb/snapshot", self.address);
        let mut answer = ureq::post(&url).send_empty().context("a snapshot")?;
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().context("an answer")?)
            .context("Prometheus's answer")?;
        let name = answer["data"]["name"].as_str().context("a snapshot without a name")?;
        let mut block = Block::default();
        let blocks =
            fs::read_dir(self.dir.path().join("data/snapshots").join(name)).context("the snapshot")?;
        for entry in blocks.flatten() {
            let path = entry.path();
            let meta = fs::read_to_string(path.join("meta.json")).context("a block's meta.json")?;
            let meta: Value = serde_json::from_str(&meta).context("a block's meta.json")?;
            block.samples += meta["stats"]["numSamples"].as_u64().context("no number of samples")?;
            block.index_bytes += fs::metadata(path.join("index")).context("a block's index")?.len();
            let chunks = fs::read_dir(path.join("chunks")).context("a block's chunks")?;
            let sizes = chunks.flatten().filter_map(|chunk| chunk.metadata().ok()).map(|file| file.len());
            block.chunk_bytes += sizes.sum::<u64>();
        }
        ensure!(block.samples > 0, "the snapshot is empty: {}", said(self.dir.path()));
        Ok(block)
    }
}

/// What samples take on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block {
    pub(super) samples: u64,
    pub(super) chunk_bytes: u64,
    pub(super) index_bytes: u64,
}

fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}
