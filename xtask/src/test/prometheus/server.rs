//! A real Prometheus with the rules of deploy/, and its HTTP API.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::scaled::scaled;
use crate::{daemon::metrics, host, interrupt, process::Running};

/// How long Prometheus may take to be ready, and then to read.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long one question may take.
const LIMIT: Duration = Duration::from_mins(2);

/// A Prometheus under way; dropping it ends it.
pub(super) struct Prometheus {
    running: Running,
    address: String,
    begun: f64,
    // After `running`: Prometheus ends before its directory goes.
    dir: TempDir,
}

impl Prometheus {
    /// Reads the agents each second, each by its name and address, and evaluates the rules as often.
    pub(super) fn reading(agents: &[(&str, &str)]) -> Result<Self> {
        let prometheus = host::find_program("prometheus")
            .context("prometheus is not installed: `cargo xtask setup --for test`")?;
        let dir = tempfile::Builder::new()
            .prefix("finwatch-prometheus-")
            .tempdir()
            .context("a directory for Prometheus")?;
        let target = |(name, agent): &(&str, &str)| {
            format!("  - targets: [ '{agent}' ]\n    labels: {{ instance: '{name}' }}\n")
        };
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ '*.rules.yml', '*.alerts.yml' ]\n\
             scrape_configs:\n\
             - job_name: finwatch\n  static_configs:\n{}",
            agents.iter().map(target).collect::<String>()
        );
        fs::write(dir.path().join("prometheus.yml"), config).context("prometheus.yml")?;
        for (name, text) in rules()? {
            fs::write(dir.path().join(&name), scaled(&text)).with_context(|| name.clone())?;
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
        command.stdout(log.try_clone().context("Prometheus's log")?).stderr(log);
        let mut running = Running::spawn("prometheus", &mut command)?;
        let ready = interrupt::poll(READY_LIMIT, || {
            if let Some(status) = running.ended()? {
                bail!("prometheus ended before it was ready ({status}): {}", said(dir.path()));
            }
            Ok(metrics::get(&format!("http://{address}/-/ready")).ok())
        })?;
        ensure!(ready.is_some(), "prometheus was not ready in time: {}", said(dir.path()));
        let prometheus = Self { running, address, begun: now(), dir };
        // It begins to read some seconds after it is ready.
        let all = interrupt::poll(READY_LIMIT, || {
            let up = prometheus.ask("query", &[("query", "up == 1")])?;
            Ok((up["result"].as_array().map_or(0, Vec::len) == agents.len()).then_some(()))
        })?;
        ensure!(all.is_some(), "prometheus does not read all agents: {}", said(prometheus.dir.path()));
        Ok(prometheus)
    }

    /// Seconds since it was ready.
    pub(super) fn age(&self) -> u64 {
        Duration::try_from_secs_f64(now() - self.begun).unwrap_or_default().as_secs()
    }

    /// The labels of the series with numbers in them that an expression was, second by second, since Prometheus began.
    pub(super) fn over_time(&self, expr: &str) -> Result<Vec<Value>> {
        let (start, end) = (self.begun.to_string(), now().to_string());
        let data =
            self.ask("query_range", &[("query", expr), ("start", &start), ("end", &end), ("step", "1")])?;
        let series = data["result"].as_array().context("no result")?;
        let numbers = |one: &&Value| {
            let values = one["values"].as_array().into_iter().flatten();
            values.into_iter().any(|value| value[1] != "NaN")
        };
        Ok(series.iter().filter(numbers).map(|one| one["metric"].clone()).collect())
    }

    /// All rules as Prometheus has evaluated them.
    pub(super) fn rules(&self) -> Result<Vec<Value>> {
        let data = self.ask("rules", &[])?;
        let groups = data["groups"].as_array().context("no groups")?;
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).cloned().collect())
    }

    /// The alerts of that name that fire.
    pub(super) fn firing(&self, name: &str) -> Result<Vec<Value>> {
        let data = self.ask("alerts", &[])?;
        let alerts = data["alerts"].as_array().context("no alerts")?.iter();
        let wanted = |alert: &&Value| alert["state"] == "firing" && alert["labels"]["alertname"] == name;
        Ok(alerts.filter(wanted).cloned().collect())
    }

    /// The data of a successful answer; what Prometheus objects to is the error.
    fn ask(&self, what: &str, form: &[(&str, &str)]) -> Result<Value> {
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

    /// Fails once Prometheus is gone, or when it had something to complain about.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.running.ended()? {
            bail!("prometheus ended ({status}): {}", said(self.dir.path()));
        }
        let said = said(self.dir.path());
        ensure!(!said.contains("level=error"), "prometheus complains: {said}");
        Ok(())
    }
}

/// The files of deploy/prometheus that Prometheus reads, by name.
pub(super) fn rules() -> Result<Vec<(String, String)>> {
    let mut rules = Vec::new();
    for entry in fs::read_dir(host::root().join("deploy/prometheus")).context("deploy/prometheus")? {
        let entry = entry.context("deploy/prometheus")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rules.yml") || name.ends_with(".alerts.yml") {
            rules.push((name, fs::read_to_string(entry.path()).context("a file of rules")?));
        }
    }
    Ok(rules)
}

fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
