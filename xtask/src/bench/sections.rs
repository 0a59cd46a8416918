//! The parts that can be measured by themselves, their results, and where each stands in the documents.

use std::{path::Path, time::Duration};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::{
    agent::{self, Alone},
    contention::{self, Contention},
    document::{self, machine, version},
    fleet::{self, Fleet},
    growth::{self, Curve},
    load::Connections,
    measured,
    peers::Peer,
    report::Report,
    targets::{Bound, Target, judged},
    tracer::Mode,
    walk::{self, Walked},
};

const MEBIBYTE: f64 = 1_048_576.0;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Every watcher in turns, where every request opens a connection
    Load,
    /// Following requests, where connections are kept
    Requests,
    /// The agent by itself: start, memory, scrapes
    Agent,
    /// A walk over many sockets
    Walk,
    /// How cost grows
    Growth,
    /// All processors in one pair
    Contention,
    /// A Prometheus that reads many hosts
    Fleet,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    rounds: u32,
    time: Duration,
    agent: agent::Amount,
    walk: walk::Amount,
    growth: growth::Amount,
    contending: u32,
    fleet: fleet::Amount,
}

impl Amounts {
    /// What the documents show, with so many rounds under load, each of so long.
    pub(crate) const fn full(rounds: u32, time: Duration) -> Self {
        Self {
            rounds,
            time,
            agent: agent::Amount::FULL,
            walk: walk::Amount::FULL,
            growth: growth::Amount::FULL,
            contending: 20_000,
            fleet: fleet::Amount::FULL,
        }
    }

    /// Enough to see that measuring works.
    pub(crate) const SMOKE: Self = Self {
        rounds: 1,
        time: Duration::from_secs(1),
        agent: agent::Amount::SMOKE,
        walk: walk::Amount::SMOKE,
        growth: growth::Amount::SMOKE,
        contending: 200,
        fleet: fleet::Amount::SMOKE,
    };
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    peers: Vec<String>,
    load: Option<Report>,
    requests: Option<Report>,
    agent: Option<Alone>,
    walks: Option<Vec<Walked>>,
    growth: Option<Vec<Curve>>,
    contention: Option<Contention>,
    fleet: Option<Fleet>,
    targets: Vec<Target>,
}

impl Results {
    /// Measures these sections, or all where none is named.
    pub(crate) fn measure(binary: &Path, only: &[Section], amounts: Amounts) -> Result<Self> {
        let is_wanted = |section: Section| only.is_empty() || only.contains(&section);
        let under = |connections| measured::measure(connections, binary, amounts.rounds, amounts.time);
        let mut results = Self::default();
        let installed = Peer::ALL.into_iter().filter(|peer| peer.is_installed());
        results.peers = installed.map(Peer::typed).collect();
        // First what a warm machine could disturb.
        if is_wanted(Section::Agent) {
            results.agent = Some(agent::measure(binary, amounts.agent)?);
        }
        if is_wanted(Section::Load) {
            results.load = Some(under(Connections::Closed)?);
        }
        if is_wanted(Section::Requests) {
            results.requests = Some(under(Connections::Kept)?);
        }
        if is_wanted(Section::Walk) {
            results.walks = Some(walk::measure(binary, amounts.walk)?);
        }
        if is_wanted(Section::Growth) {
            results.growth = Some(growth::measure(binary, amounts.growth)?);
        }
        if is_wanted(Section::Contention) {
            results.contention = Some(contention::measure(binary, amounts.contending)?);
        }
        if is_wanted(Section::Fleet) {
            results.fleet = Some(fleet::measure(amounts.fleet)?);
        }
        results.targets = results.targets();
        Ok(results)
    }

    fn targets(&self) -> Vec<Target> {
        let target = |what: &str, bound, unit, digits, measured| Target {
            what: what.to_owned(),
            bound,
            unit,
            digits,
            measured,
        };
        let load = self.load.as_ref();
        let alone = self.agent.as_ref();
        let scraped = |index: usize| alone.and_then(|alone| alone.scrapes.get(index));
        let scrape = |index: usize| Some(scraped(index)?.seconds?.median * 1e3);
        let mebibytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / MEBIBYTE);
        let walked = self.walks.as_ref().and_then(|walks| walks.last());
        vec![
            target(
                "BPF time per state change over bpftrace's one-liner",
                Bound::AtMost(1.0),
                "",
                2,
                load.and_then(|load| load.bpf_ratio(Mode::Peer(Peer::Bpftrace))),
            ),
            target(
                "BPF time per state change over tcplife's",
                Bound::AtMost(0.15),
                "",
                2,
                load.and_then(|load| load.bpf_ratio(Mode::Peer(Peer::Tcplife))),
            ),
            target(
                "requests/s over those untraced",
                Bound::AtLeast(0.95),
                "",
                3,
                load.and_then(Report::throughput_ratio),
            ),
            target(
                "the daemon's CPU under that load, scraped every 5 s",
                Bound::AtMost(0.5),
                " %",
                2,
                load.and_then(Report::cpu_ratio).map(|ratio| ratio * 100.0),
            ),
            target(
                "RSS at rest",
                Bound::AtMost(16.0),
                " MiB",
                1,
                mebibytes(alone.map(|alone| alone.at_rest.resident_bytes)),
            ),
            target(
                "RSS with 4,096 pairs and 100,000 tracked connections",
                Bound::AtMost(24.0),
                " MiB",
                1,
                mebibytes(alone.map(|alone| alone.crowded.resident_bytes)),
            ),
            target(
                "start to ready",
                Bound::AtMost(300.0),
                " ms",
                0,
                alone.and_then(|alone| Some(alone.ready_seconds?.median * 1e3)),
            ),
            target("a scrape of 1,000 pairs", Bound::AtMost(40.0), " ms", 1, scrape(0)),
            target("a scrape of 4,096 pairs", Bound::AtMost(160.0), " ms", 1, scrape(1)),
            target(
                "memory beyond while that runs, at most",
                Bound::AtMost(8.0),
                " MiB",
                1,
                scraped(1).and_then(|scraped| Some(scraped.more_bytes?.max / MEBIBYTE)),
            ),
            target(
                "a walk over 100,000 sockets",
                Bound::AtMost(25.0),
                " ms",
                1,
                walked.and_then(|walked| Some(walked.snapshot_seconds?.median * 1e3)),
            ),
        ]
    }

    /// Each section that was measured: its document, its name there, and its text.
    fn written(&self) -> Vec<(&'static str, &'static str, String)> {
        let cost = |name, text: Option<String>| text.map(|text| ("cost.md", name, text));
        let measured_on = format!("Measured on {}.", machine());
        // Judged whole or not at all.
        let judgeable = self.load.is_some() && self.agent.is_some() && self.walks.is_some();
        let sections = [
            cost("targets", judgeable.then(|| format!("{measured_on}\n\n{}", judged(&self.targets)))),
            cost(
                "load",
                self.load.as_ref().map(|load| {
                    let peers = format!("    {}\n", self.peers.join("\n    "));
                    format!("{peers}\n{}\n{}", load.table(), load.programs_table())
                }),
            ),
            cost("agent", self.agent.as_ref().map(Alone::tables)),
            cost("requests", self.requests.as_ref().map(Report::requests_table)),
            cost("walk", self.walks.as_deref().map(walk::written)),
            cost(
                "growth",
                self.growth.as_ref().map(|curves| {
                    let tables: Vec<String> = curves.iter().map(Curve::table).collect();
                    format!("{}\n\n{}", growth::told(curves), tables.join("\n"))
                }),
            ),
            cost("contention", self.contention.as_ref().map(Contention::tables)),
            self.fleet.as_ref().map(|fleet| {
                let version = version("prometheus", "--version");
                let name = version.split(" (").next().unwrap_or_default();
                (
                    "sizing.md",
                    "fleet",
                    format!("{measured_on} The Prometheus is {name}.\n\n{}", fleet.tables()),
                )
            }),
        ];
        sections.into_iter().flatten().collect()
    }

    /// All of it, for the terminal.
    pub(crate) fn text(&self) -> String {
        let written = self.written().into_iter();
        let sections = written.map(|(_, name, text)| format!("## {name}\n\n{text}"));
        sections.collect::<Vec<_>>().join("\n")
    }

    /// Writes it into the documents.
    pub(crate) fn write(&self) -> Result<()> {
        for (document, section, text) in self.written() {
            document::write(document, section, &text)?;
        }
        Ok(())
    }

    /// Fails where a figure is missing.
    pub(crate) fn complete(&self) -> Result<()> {
        for report in [&self.load, &self.requests].into_iter().flatten() {
            report.complete()?;
        }
        for curve in self.growth.iter().flatten() {
            curve.complete()?;
        }
        self.agent.as_ref().map_or(Ok(()), Alone::complete)?;
        self.walks.as_deref().map_or(Ok(()), walk::complete)?;
        self.contention.as_ref().map_or(Ok(()), Contention::complete)
    }
}
