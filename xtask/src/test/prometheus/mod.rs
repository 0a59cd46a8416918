//! A real Prometheus reads the daemon while the lab traffic runs: every expression of dashboards and rules evaluates, those
//! that the traffic concerns return data, and the alert about lost requests fires.

mod full;
mod panels;
mod scaled;
mod server;
mod traffic;

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::sys::{Stats, enable_stats};
use serde_json::Value;

use self::{panels::Query, server::Prometheus, traffic::Played};
use super::Tally;
use crate::{daemon::Daemon, interrupt};

/// What is checked, in this order.
pub(super) const CHECKS: [&str; 4] = [
    "the alert about lost requests fires, and only where it should",
    "every expression evaluates",
    "every panel has data, but for those of other traffic",
    "the agent's end is told",
];
/// The name of the agent that is read, as `instance`.
const AGENT: &str = "lab";
/// Rules are evaluated each second, and no alert that is waited for is pending for longer than 12 s.
const SOON: Duration = Duration::from_secs(15);

/// What this traffic leaves empty, by the end of its name: nobody gives up waiting, which RST comes after a FIN is chance,
/// and no agent starts anew.
const OTHER_TRAFFIC: [&str; 4] = [
    "Ended with a request unanswered, per pair",
    "Ended with a request unanswered",
    "FIN, then RST from the same end",
    STARTED,
];
/// An annotation.
const STARTED: &str = "annotation Agent started";
/// Recording rules that it leaves empty.
const OTHER_RECORDS: [&str; 1] = ["finwatch:local_closed_before_response:increase10m"];
/// Alerts that this traffic concerns.
const CONCERNED: [&str; 4] =
    ["FinwatchRequestsLost", "FinwatchConnectsRefused", "FinwatchNoLocalPort", "FinwatchPortsNearlyUsedUp"];

/// Plays the short traffic, or with `full` that of all findings, and asks.
pub(super) fn run(binary: &Path, full: bool) -> Result<Tally> {
    // So that the kernel says what the programs cost.
    let _statistics = enable_stats(Stats::RunTime).context("switching the kernel's eBPF statistics on")?;
    let daemon = Daemon::private_with(binary, &["--requests"])?;
    let mut prometheus = Prometheus::reading(AGENT, daemon.address())?;
    let played = traffic::play()?;
    let mut checked = vec![fires(&prometheus, &played)];
    let mut lab = Tally::default();
    if full {
        lab = full::play(binary)?;
    }
    let empty = evaluate(&prometheus);
    checked.push(empty.as_ref().map(|_| ()).map_err(|error| anyhow!("{error:#}")));
    let empty = empty.unwrap_or_default();
    checked.push(if full { full::has_data(&empty) } else { has_data(&empty) });
    prometheus.check()?;
    drop(daemon);
    checked.push(told_down(&prometheus));
    let failed = checked.iter().filter_map(|one| one.as_ref().err());
    let failed = failed.inspect(|error| eprintln!("FAILED: {error:#}")).count();
    Ok(lab + Tally { passed: checked.len() - failed, failed, skipped: 0 })
}

/// The alert about lost requests names the pair that lost them, in sentences; its neighbours set off their own.
fn fires(prometheus: &Prometheus, played: &Played) -> Result<()> {
    let about = |alerts: &[Value], upstream: &str| {
        alerts.iter().find(|alert| alert["labels"]["upstream"] == upstream).cloned()
    };
    let wait = |name: &str, upstream: &str| {
        let found = interrupt::poll(SOON, || Ok(about(&prometheus.firing(name)?, upstream)))?;
        found.with_context(|| format!("{name} does not fire for {upstream}"))
    };
    let lost = wait("FinwatchRequestsLost", &played.lossy)?;
    ensure!(lost["labels"]["proxy"] == "nginx" && lost["labels"]["side"] == "proxy", "{}", lost["labels"]);
    ensure!(
        lost["labels"]["instance"] == AGENT && lost["labels"]["severity"] == "critical",
        "{}",
        lost["labels"]
    );
    let summary = format!("nginx -> {} loses requests to closed connections", played.lossy);
    ensure!(lost["annotations"]["summary"] == summary.as_str(), "{}", lost["annotations"]);
    println!("  {} lost requests by nginx's error log", played.lost);
    println!("  FinwatchRequestsLost fires: {}", lost["annotations"]["description"]);
    wait("FinwatchConnectsRefused", &played.dead)?;
    let all = prometheus.firing("FinwatchRequestsLost")?;
    for innocent in [&played.dead, &played.unkept] {
        ensure!(about(&all, innocent).is_none(), "FinwatchRequestsLost fires for {innocent}");
    }
    Ok(())
}

/// Evaluates everything; returns what came to nothing: panels, annotations and rules by name.
fn evaluate(prometheus: &Prometheus) -> Result<BTreeSet<String>> {
    let mut empty = BTreeSet::new();
    let queries = panels::queries(prometheus.age())?;
    for Query { panel, expr } in &queries {
        let series = prometheus.over_time(expr).with_context(|| format!("{panel}: {expr}"))?;
        if series == 0 {
            empty.insert(panel.clone());
        }
    }
    let rules = prometheus.rules()?;
    for rule in &rules {
        let name = rule["name"].as_str().context("a rule without a name")?;
        ensure!(rule["health"] == "ok", "{name}: {} {}", rule["health"], rule["lastError"]);
        let expr = rule["query"].as_str().with_context(|| format!("{name} without a query"))?;
        if prometheus.over_time(expr).with_context(|| name.to_owned())? == 0 {
            empty.insert(name.to_owned());
        }
    }
    let texts = server::rules()?;
    let lines = texts.iter().flat_map(|(_, text)| text.lines()).map(str::trim_start);
    let written =
        lines.filter(|line| line.starts_with("- alert: ") || line.starts_with("- record: ")).count();
    ensure!(rules.len() == written, "{written} rules in deploy/prometheus, Prometheus has {}", rules.len());
    println!(
        "  {} queries of dashboards and {} rules evaluate, {} return nothing",
        queries.len(),
        written,
        empty.len()
    );
    Ok(empty)
}

/// What the short traffic concerns has returned data.
fn has_data(empty: &BTreeSet<String>) -> Result<()> {
    let wanted = |name: &&String| {
        let panel = name.contains(": ") && !OTHER_TRAFFIC.iter().any(|other| name.ends_with(other));
        let recorded = name.starts_with("finwatch:") && !OTHER_RECORDS.contains(&name.as_str());
        panel || recorded || CONCERNED.contains(&name.as_str())
    };
    let missing: Vec<_> = empty.iter().filter(wanted).collect();
    ensure!(missing.is_empty(), "nothing is returned for {missing:#?}");
    Ok(())
}

/// An agent that ends is told as well.
fn told_down(prometheus: &Prometheus) -> Result<()> {
    let told = interrupt::poll(SOON, || {
        let firing = prometheus.firing("FinwatchAgentDown")?;
        Ok(firing.iter().any(|alert| alert["labels"]["instance"] == AGENT).then_some(()))
    })?;
    told.context("FinwatchAgentDown does not fire")
}
