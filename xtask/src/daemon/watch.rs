//! A daemon that watches one scenario, and what it says in the end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    Daemon,
    triage::{Triage, is_of_other_client, is_trouble},
};
use crate::{account::Account, traffic::LOST};

/// Asked for on top of a scenario's time, so that the window begins with the daemon.
const BEFORE: Duration = Duration::from_secs(2);

/// A daemon that has watched since before a scenario's traffic.
pub(crate) struct Watch {
    daemon: Daemon,
    begun: Instant,
}

impl Watch {
    /// Begins now.
    pub(crate) fn begin(binary: &Path) -> Result<Self> {
        Self::begin_with(binary, &[])
    }

    /// Begins now, and sees this upstream's port only: another upstream of a proxy of the same name is no matter.
    pub(crate) fn begin_at(binary: &Path, port: u16) -> Result<Self> {
        Self::begin_with(binary, &["--include-port", &port.to_string()])
    }

    /// Begins now, with these flags.
    pub(crate) fn begin_with(binary: &Path, flags: &[&str]) -> Result<Self> {
        Ok(Self { daemon: Daemon::private_with(binary, flags)?, begun: Instant::now() })
    }

    /// What triage says about everything that ends at `upstream`, since the beginning; the account has it, too.
    pub(crate) fn verdict(&self, account: &mut Account, upstream: &str) -> Result<Verdict> {
        self.look(account, upstream.to_owned(), None)
    }

    /// The same of a port of the loopback address.
    pub(crate) fn verdict_on(&self, account: &mut Account, port: u16) -> Result<Verdict> {
        self.look(account, on_loopback(port), None)
    }

    /// The same, without what other clients than `proxy` do.
    pub(crate) fn verdict_of(
        &self,
        account: &mut Account,
        proxy: &'static str,
        port: u16,
    ) -> Result<Verdict> {
        self.look(account, on_loopback(port), Some(proxy))
    }

    fn look(&self, account: &mut Account, upstream: String, proxy: Option<&'static str>) -> Result<Verdict> {
        let triage = self.daemon.triage(self.begun.elapsed() + BEFORE)?;
        let verdict = Verdict { triage, upstream, proxy };
        account.look(verdict.trouble());
        Ok(verdict)
    }
}

fn on_loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// What triage says about one upstream.
pub(crate) struct Verdict {
    triage: Triage,
    upstream: String,
    /// The only client that matters.
    proxy: Option<&'static str>,
}

impl Verdict {
    /// Everything that is wrong with the upstream.
    pub(crate) fn trouble(&self) -> Vec<&Value> {
        let of_other = |finding| self.proxy.is_some_and(|proxy| is_of_other_client(finding, proxy));
        self.triage
            .about(&self.upstream)
            .filter(|finding| is_trouble(finding) && !of_other(finding))
            .collect()
    }

    /// The only trouble there is with the upstream, which is of this kind and with this proxy.
    pub(crate) fn only(&self, kind: &str, proxy: &str) -> Result<Told<'_>> {
        let told = self.only_of_kind(kind)?;
        let subject = &told.0["subject"];
        ensure!(subject["proxy"] == proxy, "{kind} is told of another pair: {subject}");
        Ok(told)
    }

    /// The trouble of this kind, of which there is one; there may be others.
    pub(crate) fn of_kind(&self, kind: &str) -> Result<Told<'_>> {
        let trouble = self.trouble();
        let mut fitting = trouble.iter().filter(|finding| finding["kind"] == kind);
        let (Some(finding), None) = (fitting.next(), fitting.next()) else {
            bail!("expected one {kind} of {}: {trouble:#?}", self.upstream);
        };
        Ok(Told(finding))
    }

    /// The only trouble there is with the upstream, which is of this kind.
    pub(crate) fn only_of_kind(&self, kind: &str) -> Result<Told<'_>> {
        let trouble = self.trouble();
        ensure!(
            self.triage.trouble && trouble.len() == 1 && trouble[0]["kind"] == kind,
            "expected {kind} and nothing else of {}: {trouble:#?}\nof {:#?}",
            self.upstream,
            self.pairs()
        );
        Ok(Told(trouble[0]))
    }

    /// Nothing is wrong with the upstream, and the agent saw everything.
    pub(crate) fn no_trouble(&self) -> Result<()> {
        let trouble = self.trouble();
        ensure!(
            trouble.is_empty(),
            "expected no trouble with {}: {trouble:#?}\nof {:#?}",
            self.upstream,
            self.pairs()
        );
        ensure!(!self.pairs().is_empty(), "{} was not watched", self.upstream);
        Ok(())
    }

    fn pairs(&self) -> Vec<&Value> {
        let pairs = self.triage.observation["pairs"].as_array().into_iter().flatten();
        pairs.filter(|pair| pair["upstream"] == *self.upstream).collect()
    }

    /// The pair of this process with the upstream, as this host opened it.
    pub(crate) fn pair(&self, proxy: &str) -> Result<&Value> {
        let pairs = self.pairs();
        let ours = |pair: &&&Value| pair["side"] == "proxy" && pair["proxy"] == proxy;
        pairs.iter().find(ours).copied().with_context(|| format!("no pair of {proxy}: {pairs:#?}"))
    }

    /// All that is known of that pair, and what the agent did not see.
    pub(crate) fn told_of(&self, proxy: &str) -> String {
        let pair = self.pair(proxy).map_or_else(|error| format!("{error:#}"), Value::to_string);
        format!("{pair}\n{}", self.triage.observation["watch"])
    }

    /// How many sockets that this host accepted at the upstream are in a state.
    pub(crate) fn accepted_in(&self, state: &str) -> u64 {
        let accepted = self.pairs().into_iter().filter(|pair| pair["side"] == "upstream");
        accepted.filter_map(|pair| pair["sockets"][state].as_u64()).sum()
    }

    /// What a family has counted for the pair, all its series together or the one of `label`.
    pub(crate) fn count(&self, proxy: &str, family: &str, label: Option<&str>) -> Result<u64> {
        let counts = &self.pair(proxy)?["counts"][family];
        Ok(match label {
            Some(label) => counts[label].as_u64().unwrap_or(0),
            None => sum(counts),
        })
    }

    /// Requests of the pair that met a close.
    pub(crate) fn lost(&self, proxy: &str) -> Result<u64> {
        LOST.iter().map(|family| self.count(proxy, family.trim_start_matches("finwatch_"), None)).sum()
    }

    /// Requests of the pair that met the close of an idle connection.
    pub(crate) fn lost_to_idle_close(&self, proxy: &str) -> Result<u64> {
        self.count(proxy, "requests_on_peer_closed_socket_total", None)
    }

    /// Requests of the pair that reached the upstream and that no answer came to.
    pub(crate) fn unanswered(&self, proxy: &str) -> Result<u64> {
        let resets: u64 = ["waiting", "first_request", "reused_request"]
            .iter()
            .map(|phase| self.count(proxy, "resets_received_total", Some(phase)))
            .sum::<Result<u64>>()?;
        Ok(self.count(proxy, "peer_closed_before_response_total", None)? + resets)
    }

    /// Requests of the pair that got no answer: each is counted once, as lost to a close, or by the end of its connection.
    pub(crate) fn failed(&self, proxy: &str) -> Result<u64> {
        let lost = |timing| self.count(proxy, "requests_on_peer_closed_socket_total", Some(timing));
        // Those without a FIN are among the resets.
        Ok(lost("crossed_fin")? + lost("after_fin")? + self.unanswered(proxy)?)
    }

    /// How these are told apart, for a table.
    pub(crate) fn failures(&self, proxy: &str) -> Result<Vec<Vec<String>>> {
        let counts = &self.pair(proxy)?["counts"];
        let families = [
            "requests_on_peer_closed_socket_total",
            "peer_closed_before_response_total",
            "resets_received_total",
        ];
        let there = families.iter().filter(|family| !counts[**family].is_null());
        Ok(there.map(|family| vec![format!("`{family}`"), counts[*family].to_string()]).collect())
    }

    /// The mean of a histogram of the pair.
    pub(crate) fn mean(&self, proxy: &str, histogram: &str) -> Result<f64> {
        let samples = &self.pair(proxy)?[histogram];
        let mean = samples["sum_seconds"].as_f64().zip(samples["count"].as_f64());
        mean.map(|(sum, count)| sum / count).with_context(|| format!("no samples: {samples}"))
    }

    /// How many samples a histogram of the pair has, and how many of them in the bucket up to `bound` seconds.
    pub(crate) fn samples(&self, proxy: &str, histogram: &str, bound: f64) -> Result<(u64, u64)> {
        let samples = &self.pair(proxy)?[histogram];
        let buckets = samples["buckets"].as_array().into_iter().flatten();
        // Written by the same code from the same table of bounds.
        let inside = buckets.filter(|bucket| bucket[0] == bound).filter_map(|bucket| bucket[1].as_u64());
        Ok((samples["count"].as_u64().unwrap_or(0), inside.sum()))
    }

    /// Accept queues at the upstream: how many wait, and how many may.
    pub(crate) fn queue(&self) -> Result<(u64, u64)> {
        let mut queues = self.triage.observation["queues"].as_array().into_iter().flatten();
        let queue = queues.find(|queue| queue["upstream"] == *self.upstream);
        let queue = queue.with_context(|| format!("no queue at {}", self.upstream))?;
        queue["length"].as_u64().zip(queue["limit"].as_u64()).context("a queue without numbers")
    }
}

fn sum(counts: &Value) -> u64 {
    let by_label = counts.as_object().into_iter().flatten();
    counts.as_u64().unwrap_or(0) + by_label.filter_map(|(_, count)| count.as_u64()).sum::<u64>()
}

/// A finding.
pub(crate) struct Told<'a>(&'a Value);

impl Told<'_> {
    /// Fails unless it is this sure.
    pub(crate) fn confidence(&self, level: &str) -> Result<()> {
        let confidence = &self.0["confidence"];
        ensure!(confidence["level"] == level, "expected {level} confidence: {confidence}");
        Ok(())
    }

    /// Fails unless this process is named as the one that listens.
    pub(crate) fn listens(&self, name: &str) -> Result<()> {
        ensure!(
            self.candidates().any(|one| one["known_by"] == "listening" && one["name"] == name),
            "{name} is not named as listening: {}",
            self.0["candidates"]
        );
        Ok(())
    }

    /// Fails unless this product's timeout is among the candidates.
    pub(crate) fn may_be(&self, product: &str) -> Result<()> {
        let named = |one: &Value| one["product"].as_str().is_some_and(|name| name.starts_with(product));
        ensure!(self.candidates().any(named), "{product} is no candidate: {}", self.0["candidates"]);
        Ok(())
    }

    /// Fails unless a change names this software, with directives that hold this text.
    pub(crate) fn advises(&self, software: &str, text: &str) -> Result<()> {
        let mut changes = self.0["changes"].as_array().into_iter().flatten();
        let fits = |change: &Value| {
            change["software"] == software
                && change["directives"].as_str().is_some_and(|directives| directives.contains(text))
        };
        ensure!(changes.any(fits), "no {software} with {text}: {:#}", self.0["changes"]);
        Ok(())
    }

    /// The directives for this software, the only ones there are for it.
    pub(crate) fn directives(&self, software: &str) -> Result<String> {
        let changes = self.0["changes"].as_array().into_iter().flatten();
        let mut fitting = changes.filter(|change| change["software"] == software);
        let (change, None) = (fitting.next(), fitting.next()) else {
            bail!("several changes for {software}: {:#}", self.0["changes"]);
        };
        let text = change.and_then(|change| change["directives"].as_str());
        Ok(text.with_context(|| format!("no change for {software}: {:#}", self.0["changes"]))?.to_owned())
    }

    /// Fails unless a line of evidence, or the verdict, holds this text.
    pub(crate) fn says(&self, text: &str) -> Result<()> {
        let lines = self.0["evidence"].as_array().into_iter().flatten().chain([&self.0["verdict"]]);
        let mut lines = lines.filter_map(Value::as_str);
        ensure!(lines.any(|line| line.contains(text)), "it does not say \"{text}\": {:#}", self.0);
        Ok(())
    }

    /// Requests it says are lost.
    pub(crate) fn lost(&self) -> u64 {
        self.0["harm"]["requests_lost"].as_u64().unwrap_or(0)
    }

    fn candidates(&self) -> impl Iterator<Item = &Value> {
        self.0["candidates"].as_array().into_iter().flatten()
    }
}
