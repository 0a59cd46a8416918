//! What triage and the metrics say at one moment, and what may be said of an upstream.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    account::Account,
    daemon::{
        Daemon,
        metrics::Samples,
        triage::{Triage, is_of_other_client, is_trouble},
    },
    traffic,
};

/// Longer than any daemon here lives.
const ALL: Duration = Duration::from_hours(1);

/// One look.
pub(super) struct Looked {
    triage: Triage,
    samples: Samples,
}

impl Looked {
    /// At all that the daemon has seen.
    pub(super) fn at(daemon: &Daemon) -> Result<Self> {
        let looked = Self { triage: daemon.triage(ALL)?, samples: daemon.scrape()? };
        let any = looked.triage.findings.iter().any(is_trouble);
        ensure!(
            any == looked.triage.trouble,
            "the exit status says {}, the findings {any}",
            looked.triage.trouble
        );
        Ok(looked)
    }

    /// The finding of the first of these kinds about nginx's side of that pair; nothing else is wrong with any of these
    /// addresses.
    pub(super) fn only(
        &self,
        account: &mut Account,
        kinds: &[&str],
        upstream: &str,
        addresses: &[&str],
    ) -> Result<&Value> {
        account.look(self.troubles(addresses));
        let finding = self.about(kinds[0], upstream)?;
        let told = |other: &&Value| {
            let about = other["subject"]["upstream"] == upstream && other["subject"]["side"] != "upstream";
            about && kinds.iter().any(|kind| other["kind"] == *kind)
        };
        let others: Vec<_> = self.troubles(addresses).filter(|other| !told(other)).collect();
        ensure!(others.is_empty(), "{kinds:?} is not all that triage finds: {others:#?}");
        println!("  {}: {}", kinds[0], finding["verdict"].as_str().unwrap_or_default());
        Ok(finding)
    }

    /// The finding of that kind about nginx's side of that pair.
    pub(super) fn about(&self, kind: &str, upstream: &str) -> Result<&Value> {
        let of: Vec<&Value> = self.triage.about(upstream).filter(|finding| finding["kind"] == kind).collect();
        let finding = of.into_iter().find(|finding| is_trouble(finding)).with_context(|| {
            let about = [upstream];
            let all: Vec<_> = self.troubles(&about).collect();
            format!("no {kind} of {upstream}, but {all:#?} from {:#?}", self.pair(upstream))
        })?;
        let side = (&finding["subject"]["side"], &finding["subject"]["proxy"]);
        ensure!(
            side == (&"proxy".into(), &"nginx".into()) || finding["subject"]["type"] == "ports",
            "{side:?}"
        );
        Ok(finding)
    }

    /// Nothing is wrong with any of these addresses.
    pub(super) fn nothing(&self, account: &mut Account, addresses: &[&str]) -> Result<()> {
        account.look(self.troubles(addresses));
        let troubles: Vec<_> = self.troubles(addresses).collect();
        let pairs = addresses.iter().map(|address| self.pair(address));
        ensure!(troubles.is_empty(), "innocent, but {troubles:#?} from {:#?}", pairs.collect::<Vec<_>>());
        Ok(())
    }

    /// What is wrong with any of these addresses, or with the agent itself. Others use this host as well, and the
    /// clients here do open a connection for each request, as triage says.
    pub(super) fn troubles<'a>(&'a self, addresses: &'a [&str]) -> impl Iterator<Item = &'a Value> {
        self.triage.findings.iter().filter(|finding| is_trouble(finding)).filter(|finding| {
            let subject = &finding["subject"];
            let here = subject["upstream"].as_str().is_none_or(|upstream| addresses.contains(&upstream));
            here && !is_of_other_client(finding, "nginx")
        })
    }

    /// nginx's side of the pair as triage saw it.
    pub(super) fn pair(&self, upstream: &str) -> Option<&Value> {
        self.labelled(&traffic::pair(upstream))
    }

    /// The upstream's side of the pair with a proxy at that address.
    pub(super) fn upstreams_side(&self, proxy: &str, upstream: &str) -> Option<&Value> {
        self.labelled(&[("side", "upstream"), ("proxy", proxy), ("upstream", upstream)])
    }

    fn labelled(&self, labels: &[(&str, &str)]) -> Option<&Value> {
        let pairs = self.triage.observation["pairs"].as_array()?;
        pairs.iter().find(|pair| labels.iter().all(|(label, value)| pair[*label] == *value))
    }

    /// A counter of nginx's side of the pair.
    pub(super) fn count(&self, family: &str, label: Option<(&str, &str)>, upstream: &str) -> Result<u64> {
        let labels: Vec<_> = traffic::pair(upstream).into_iter().chain(label).collect();
        self.samples.sum(family, &labels)
    }

    /// Requests lost on nginx's side of the pair.
    pub(super) fn lost(&self, upstream: &str) -> Result<u64> {
        traffic::lost(&self.samples, upstream)
    }
}

/// Fails unless the finding is that sure.
pub(super) fn sure(finding: &Value, level: &str) -> Result<()> {
    let confidence = &finding["confidence"];
    ensure!(confidence["level"] == level, "sure is {confidence}, not {level}");
    Ok(())
}

/// Fails unless the finding names that process as the one that listens.
pub(super) fn listens(finding: &Value, name: &str, pid: u32) -> Result<()> {
    let candidates = finding["candidates"].as_array().context("candidates")?;
    let listening = candidates.iter().find(|one| one["known_by"] == "listening");
    let listening = listening.with_context(|| format!("nobody listens: {candidates:?}"))?;
    ensure!(listening["name"] == name && listening["pid"] == pid, "{listening} listens, not {name} {pid}");
    Ok(())
}

/// A text to paste that triage printed.
#[derive(Debug)]
pub(super) struct Directives {
    pub(super) context: String,
    pub(super) text: String,
}

/// What triage prints for that software, and nothing for others of that end.
pub(super) fn directives(finding: &Value, end: &str, software: &str) -> Result<Vec<Directives>> {
    let changes = finding["changes"].as_array().context("changes")?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let of_end: Vec<_> = changes.iter().filter(|change| change["end"] == end).collect();
    ensure!(!of_end.is_empty(), "nothing to change at the {end}: {changes:#?}");
    ensure!(of_end.iter().all(|change| change["software"] == software), "not only {software}: {of_end:#?}");
    of_end
        .into_iter()
        .map(|change| {
            Ok(Directives { context: text(&change["context"])?, text: text(&change["directives"])? })
        })
        .collect()
}
