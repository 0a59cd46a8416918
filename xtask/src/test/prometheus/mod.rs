//! A real Prometheus reads the daemon while the lab traffic runs: every expression of dashboards and rules evaluates, those
//! that the traffic concerns return data, and the alert about lost requests fires.

mod agents;
mod full;
mod nested;
mod panels;
mod scaled;
mod server;
mod time_wait;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::sys::{Stats, enable_stats};
use serde_json::Value;

use self::{agents::Agents, panels::Query, server::Prometheus, traffic::Played};
use super::Tally;
use crate::{daemon::Daemon, interrupt};

/// What is checked, in this order.
pub(super) const CHECKS: [&str; 5] = [
    "the alert about lost requests fires, and only where it should",
    "every expression evaluates",
    "every panel has data, but for those of other traffic",
    "what is wrong with an agent is told of that agent",
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
const CONCERNED: [&str; 5] = [
    "FinwatchAgentDown",
    "FinwatchRequestsLost",
    "FinwatchConnectsRefused",
    "FinwatchNoLocalPort",
    "FinwatchPortsNearlyUsedUp",
];

/// The agents for which an expression returned something; an empty name where it is of none.
type Instances = BTreeSet<String>;

/// Plays the short traffic, or with `full` that of all findings, and asks.
pub(super) fn run(binary: &Path, full: bool) -> Result<Tally> {
    // So that the kernel says what the programs cost.
    let _statistics = enable_stats(Stats::RunTime).context("switching the kernel's eBPF statistics on")?;
    let daemon = Daemon::private_with(binary, &["--requests"])?;
    let agents = Agents::start(binary)?;
    let host_only = full.then(|| full::host_only(binary)).transpose()?;
    let mut targets = vec![(AGENT, daemon.address())];
    targets.extend(agents.targets());
    targets.extend(host_only.as_ref().map(|daemon| (full::HOST_ONLY, daemon.address())));
    let mut prometheus = Prometheus::reading(&targets)?;
    let played = thread::scope(|scope| {
        let trouble = scope.spawn(|| agents.trouble());
        let played = traffic::play();
        trouble.join().unwrap_or_else(|_| bail!("the agents in trouble: it panicked"))?;
        played
    })?;
    let mut checked = vec![fires(&prometheus, &played)];
    let mut lab = Tally::default();
    if full {
        lab = full::play(binary)?;
    }
    let evaluated = evaluate(&prometheus);
    checked.push(evaluated.as_ref().map(|_| ()).map_err(|error| anyhow!("{error:#}")));
    let evaluated = evaluated.unwrap_or_default();
    checked.push(if full { full::has_data(&evaluated) } else { has_data(&evaluated) });
    checked.push(told_of(&evaluated));
    prometheus.check()?;
    drop(daemon);
    checked.push(told_down(&prometheus));
    let failed = checked.iter().filter_map(|one| one.as_ref().err());
    let failed = failed.inspect(|error| super::tell_failure(format!("{error:#}"))).count();
    Ok(lab + Tally { passed: checked.len() - failed, failed, skipped: 0 })
}

/// The alert about lost requests names the pair that lost them, in sentences; its neighbours set off their own.
fn fires(prometheus: &Prometheus, played: &Played) -> Result<()> {
    let about = |alerts: &[Value], upstream: &str| {
        let wanted = |labels: &Value| labels["instance"] == AGENT && labels["upstream"] == upstream;
        alerts.iter().find(|alert| wanted(&alert["labels"])).cloned()
    };
    let wait = |name: &str, upstream: &str| {
        let found = interrupt::poll(SOON, || Ok(about(&prometheus.firing(name)?, upstream)))?;
        found.with_context(|| format!("{name} does not fire for {upstream}"))
    };
    let lost = wait("FinwatchRequestsLost", &played.lossy)?;
    ensure!(lost["labels"]["proxy"] == "nginx" && lost["labels"]["side"] == "proxy", "{}", lost["labels"]);
    ensure!(lost["labels"]["severity"] == "critical", "{}", lost["labels"]);
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

/// Evaluates everything; returns whom it was about: panels, annotations and rules by name.
fn evaluate(prometheus: &Prometheus) -> Result<BTreeMap<String, Instances>> {
    let mut evaluated: BTreeMap<String, Instances> = BTreeMap::new();
    let instances = |name: &str, expr: &str| -> Result<Instances> {
        let series = prometheus.over_time(expr).with_context(|| format!("{name}: {expr}"))?;
        let instance = |labels: &Value| labels["instance"].as_str().unwrap_or_default().to_owned();
        Ok(series.iter().map(instance).collect())
    };
    let queries = panels::queries(prometheus.age())?;
    for Query { panel, expr } in &queries {
        let found = instances(panel, expr)?;
        // Where some of a panel's queries return nothing, the panel is not as it should be.
        evaluated
            .entry(panel.clone())
            .and_modify(|all| {
                if found.is_empty() {
                    all.clear();
                }
            })
            .or_insert(found);
    }
    let rules = prometheus.rules()?;
    for rule in &rules {
        let name = rule["name"].as_str().context("a rule without a name")?;
        ensure!(rule["health"] == "ok", "{name}: {} {}", rule["health"], rule["lastError"]);
        let expr = rule["query"].as_str().with_context(|| format!("{name} without a query"))?;
        evaluated.insert(name.to_owned(), instances(name, expr)?);
    }
    let texts = server::rules()?;
    let lines = texts.iter().flat_map(|(_, text)| text.lines()).map(str::trim_start);
    let written =
        lines.filter(|line| line.starts_with("- alert: ") || line.starts_with("- record: ")).count();
    ensure!(rules.len() == written, "{written} rules in deploy/prometheus, Prometheus has {}", rules.len());
    println!(
        "  {} queries of dashboards and {} rules evaluate, {} panels and rules return nothing",
        queries.len(),
        written,
        evaluated.values().filter(|found| found.is_empty()).count()
    );
    Ok(evaluated)
}

/// What the short traffic concerns has returned data.
fn has_data(evaluated: &BTreeMap<String, Instances>) -> Result<()> {
    let wanted = |name: &str| {
        let panel = name.contains(": ") && !OTHER_TRAFFIC.iter().any(|other| name.ends_with(other));
        let recorded = name.starts_with("finwatch:") && !OTHER_RECORDS.contains(&name);
        panel || recorded || CONCERNED.contains(&name)
    };
    let missing: Vec<_> = evaluated
        .iter()
        .filter(|(name, found)| found.is_empty() && wanted(name))
        .map(|(name, _)| name)
        .collect();
    ensure!(missing.is_empty(), "nothing is returned for {missing:#?}");
    Ok(())
}

/// What is wrong with an agent itself is told of it, and of no other.
fn told_of(evaluated: &BTreeMap<String, Instances>) -> Result<()> {
    let wrong = |(alert, agent): &(&'static str, &str)| {
        let told = evaluated.get(*alert);
        (!told.is_some_and(|told| told.iter().eq([agent]))).then_some((*alert, told))
    };
    let wrong: Vec<_> = agents::TOLD.iter().filter_map(wrong).collect();
    ensure!(wrong.is_empty(), "not told of {:?}, but: {wrong:#?}", agents::TOLD);
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
