//! A real Prometheus under way, and its HTTP API.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{daemon::metrics, host, interrupt, process::Running};

/// How long it may take to be ready.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long one question may take.
const LIMIT: Duration = Duration::from_mins(2);

/// The server; dropping it ends it.
pub(crate) struct Server {
    running: Running,
    address: String,
    // After `running`: Prometheus ends before its directory goes.
    dir: TempDir,
}

impl Server {
    /// Starts it in a directory of its own with this configuration, these files beside it, and these flags more; waits
    /// until it is ready.
    pub(crate) fn start(config: &str, files: &[(String, String)], flags: &[&str]) -> Result<Self> {
        let prometheus = host::find_program("prometheus")
            .context("prometheus is not installed: `cargo xtask setup --for test`")?;
        let dir = tempfile::Builder::new()
            .prefix("finwatch-prometheus-")
            .tempdir()
            .context("a directory for Prometheus")?;
        fs::write(dir.path().join("prometheus.yml"), config).context("prometheus.yml")?;
        for (name, text) in files {
            fs::write(dir.path().join(name), text).with_context(|| name.clone())?;
        }
        let address = format!("127.0.0.1:{}", host::free_port()?);
        let log = File::create(dir.path().join("log")).context("Prometheus's log")?;
        let mut command = host::command(prometheus);
        command.current_dir(dir.path()).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--log.level=warn",
            &format!("--web.listen-address={address}"),
        ]);
        command.args(flags).stdout(log.try_clone().context("Prometheus's log")?).stderr(log);
        let running = Running::spawn("prometheus", &mut command)?;
        let mut server = Self { running, address, dir };
        let ready = interrupt::poll(READY_LIMIT, || {
            if let Some(status) = server.running.ended()? {
                bail!("prometheus ended before it was ready ({status}): {}", server.said());
            }
            Ok(metrics::get(&format!("http://{}/-/ready", server.address)).ok())
        })?;
        ensure!(ready.is_some(), "prometheus was not ready in time: {}", server.said());
        Ok(server)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.id()
    }

    /// Its own metrics.
    pub(crate) fn metrics(&self) -> Result<metrics::Samples> {
        metrics::Samples::scrape(&format!("http://{}/metrics", self.address))
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// What it has logged: warnings and errors.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The data of a successful answer; what Prometheus objects to is the error. Without a form it is a GET.
    pub(crate) fn ask(&self, what: &str, form: &[(&str, &str)]) -> Result<Value> {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(LIMIT)).http_status_as_error(false).build();
        let agent = ureq::Agent::new_with_config(config);
        let url = format!("http://{}/api/v1/{what}", self.address);
        let answer = if form.is_empty() {
            agent.get(&url).call()
        } else {
            agent.post(&url).send_form(form.iter().copied())
        };
        let mut answer = answer.with_context(|| url.clone())?;
        let text = answer.body_mut().read_to_string().with_context(|| url.clone())?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))?;
        ensure!(answer["status"] == "success", "Prometheus says: {}", answer["error"]);
        Ok(answer["data"].take())
    }

    /// Fails once it is gone, or when it had something to complain about.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.running.ended()?;
        let said = self.said();
        if let Some(status) = ended {
            bail!("prometheus ended ({status}): {said}");
        }
        ensure!(!said.contains("level=error"), "prometheus complains: {said}");
        Ok(())
    }
}
