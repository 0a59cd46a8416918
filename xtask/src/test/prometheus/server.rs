//! A Prometheus that reads agents with the rules of deploy/.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::scaled::scaled;
use crate::{
    host, interrupt,
    prometheus::{READY_LIMIT, Server},
};

/// A Prometheus under way; dropping it ends it.
pub(super) struct Prometheus {
    server: Server,
    begun: f64,
}

impl Prometheus {
    /// Reads the agents each second, each by its name and address, and evaluates the rules as often.
    pub(super) fn reading(agents: &[(&str, &str)]) -> Result<Self> {
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
        let rules: Vec<_> = rules()?.into_iter().map(|(name, text)| (name, scaled(&text))).collect();
        let prometheus = Self { server: Server::start(&config, &rules, &[])?, begun: now() };
        // It begins to read some seconds after it is ready.
        let all = interrupt::poll(READY_LIMIT, || {
            let up = prometheus.server.ask("query", &[("query", "up == 1")])?;
            Ok((up["result"].as_array().map_or(0, Vec::len) == agents.len()).then_some(()))
        })?;
        ensure!(all.is_some(), "prometheus does not read all agents: {}", prometheus.server.said());
        Ok(prometheus)
    }

    /// Seconds since it was ready.
    pub(super) fn age(&self) -> u64 {
        Duration::try_from_secs_f64(now() - self.begun).unwrap_or_default().as_secs()
    }

    /// The labels of the series with numbers in them that an expression was, second by second, since Prometheus began.
    pub(super) fn over_time(&self, expr: &str) -> Result<Vec<Value>> {
        let (start, end) = (self.begun.to_string(), now().to_string());
        let data = self
            .server
            .ask("query_range", &[("query", expr), ("start", &start), ("end", &end), ("step", "1")])?;
        let series = data["result"].as_array().context("no result")?;
        let numbers = |one: &&Value| {
            let values = one["values"].as_array().into_iter().flatten();
            values.into_iter().any(|value| value[1] != "NaN")
        };
        Ok(series.iter().filter(numbers).map(|one| one["metric"].clone()).collect())
    }

    /// All rules as Prometheus has evaluated them.
    pub(super) fn rules(&self) -> Result<Vec<Value>> {
        let data = self.server.ask("rules", &[])?;
        let groups = data["groups"].as_array().context("no groups")?;
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).cloned().collect())
    }

    /// The alerts of that name that fire.
    pub(super) fn firing(&self, name: &str) -> Result<Vec<Value>> {
        let data = self.server.ask("alerts", &[])?;
        let alerts = data["alerts"].as_array().context("no alerts")?.iter();
        let wanted = |alert: &&Value| alert["state"] == "firing" && alert["labels"]["alertname"] == name;
        Ok(alerts.filter(wanted).cloned().collect())
    }

    /// Fails once Prometheus is gone, or when it had something to complain about.
    pub(super) fn check(&mut self) -> Result<()> {
        self.server.check()
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

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
