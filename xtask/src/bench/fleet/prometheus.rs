//! A Prometheus that reads many hosts, and what that takes it.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{daemon::metrics::Samples, host, prometheus::Server};

/// What aggregates before sending on.
const RULES: &str = "deploy/prometheus/finwatch.rules.yml";

/// A Prometheus under way; dropping it ends it.
pub(super) struct Prometheus(Server);

impl Prometheus {
    /// Reads so many hosts at one address, each under its number, so often.
    pub(super) fn reading(address: &str, hosts: u32, every: Duration) -> Result<Self> {
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
        Ok(Self(Server::start(&config, &[], &["--web.enable-admin-api"])?))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Its own metrics.
    pub(super) fn metrics(&self) -> Result<Samples> {
        self.0.metrics()
    }

    /// The only number that an expression is now; 0 where it is nothing.
    pub(super) fn number(&self, expression: &str) -> Result<f64> {
        let data = self.0.ask("query", &[("query", expression)])?;
        match data["result"].as_array().context("no result")?.as_slice() {
            [] => Ok(0.0),
            [one] => one["value"][1].as_str().context("no value")?.parse().context("no number"),
            _ => bail!("{expression} is several series"),
        }
    }

    /// Writes what it has into a block, as it does every two hours.
    pub(super) fn block(&self) -> Result<Block> {
        // The answer to a form, as it changes something.
        let data = self.0.ask("admin/tsdb/snapshot", &[("skip_head", "false")])?;
        let name = data["name"].as_str().context("a snapshot without a name")?;
        let mut block = Block::default();
        let blocks =
            fs::read_dir(self.0.directory().join("data/snapshots").join(name)).context("the snapshot")?;
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
        ensure!(block.samples > 0, "the snapshot is empty: {}", self.0.said());
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
