//! One scrape: every family, one after the other, over the records as they are at that moment.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use prometheus::{HistogramOpts, core::Collector as _, proto::MetricType};

use super::{
    agent, family,
    levels::{self, Levels},
    lines::{Lines, label_text},
    process,
};
use crate::model::{
    families::{COUNTER_FAMILIES, CounterFamily, HISTOGRAM_FAMILIES, HistogramFamily, PREFIX},
    labels::{Group, Labels, ProcessFilter, Side, groups},
    levels::{PairLevel, Snapshot},
    source::{AgentSource, AgentState, LevelSource, NameSource, PairSource},
};

/// Upper bounds in seconds for the time a scrape takes.
const SCRAPE_BOUNDS: [f64; 9] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// What `/metrics` shows, and how.
pub struct Exporter {
    pairs: Arc<dyn PairSource>,
    names: Arc<dyn NameSource>,
    agent: Arc<dyn AgentSource>,
    levels: Option<Levels>,
    filter: ProcessFilter,
    durations: prometheus::Histogram,
}

impl Exporter {
    /// An exporter over these sources.
    pub fn new(
        pairs: Arc<dyn PairSource>,
        names: Arc<dyn NameSource>,
        agent: Arc<dyn AgentSource>,
        filter: ProcessFilter,
    ) -> Self {
        let durations = HistogramOpts::new(
            format!("{PREFIX}scrape_duration_seconds"),
            "How long earlier scrapes took to write, without the time they waited for the client.",
        )
        .buckets(SCRAPE_BOUNDS.to_vec());
        let durations =
            prometheus::Histogram::with_opts(durations).expect("the name is valid and the bounds rise");
        Self { pairs, names, agent, levels: None, filter, durations }
    }

    /// Shows levels too, with at most so many series of ephemeral ports.
    #[must_use]
    pub fn with_levels(self, source: Arc<dyn LevelSource>, max_port_series: u32) -> Self {
        Self { levels: Some(Levels::new(source, max_port_series)), ..self }
    }

    /// Writes all families in the Prometheus text format, version 0.0.4. A few hundred lines are in memory at once.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_pairs(out)?;
        agent::write(out, &self.pairs.totals(), &self.agent.state())?;
        for family in self.durations.collect() {
            let samples = family.get_metric().to_vec();
            family::write(out, family.name().to_owned(), family.help(), MetricType::HISTOGRAM, samples)?;
        }
        process::write(out)
    }

    /// Takes note of a finished scrape.
    pub(super) fn observe(&self, duration: Duration) {
        self.durations.observe(duration.as_secs_f64());
    }

    /// The agent's state, for the landing page.
    pub(super) fn agent(&self) -> AgentState {
        self.agent.state()
    }

    /// Pairs in the map, for the landing page.
    pub(super) fn pairs(&self) -> u64 {
        self.pairs.totals().pairs
    }

    fn write_pairs(&self, out: &mut impl Write) -> io::Result<()> {
        let snapshot = self.levels.as_ref().and_then(Levels::snapshot);
        let _steady = self.pairs.steady();
        let groups = groups(&*self.pairs, &*self.names, &self.filter);
        let series = Series::new(&*self.pairs, &groups);
        for family in &COUNTER_FAMILIES {
            series.write_counters(out, family)?;
        }
        for family in &HISTOGRAM_FAMILIES {
            series.write_histograms(out, family)?;
        }
        let (Some(levels), Some(snapshot)) = (&self.levels, snapshot) else { return Ok(()) };
        series.write_levels(out, &snapshot)?;
        levels.write_namespaces(out, &snapshot, &*self.names)
    }
}

/// The groups, each with its labels as they are written with every sample.
struct Series<'a> {
    pairs: &'a dyn PairSource,
    groups: &'a [Group],
    labels: Vec<String>,
}

impl<'a> Series<'a> {
    fn new(pairs: &'a dyn PairSource, groups: &'a [Group]) -> Self {
        let labels = groups.iter().map(|group| written(&group.labels)).collect();
        Self { pairs, groups, labels }
    }

    fn each(&self) -> impl Iterator<Item = (&'a Group, &str)> {
        self.groups.iter().zip(self.labels.iter().map(String::as_str))
    }

    fn write_counters(&self, out: &mut impl Write, family: &CounterFamily) -> io::Result<()> {
        let mut lines = Lines::new(out, family.name, family.help, "counter");
        for counter in family.counters {
            let extra = family.label.map(|name| label_text(name, counter.value));
            for (group, labels) in self.each() {
                let count = group.counter(self.pairs, counter.counter);
                if count > 0 || counter.from_zero && group.labels.side == Side::Proxy {
                    lines.sample("", &[Some(labels), extra.as_deref()], count)?;
                }
            }
        }
        if let (Some(series), Some(name)) = (&family.without_pair, family.label) {
            let none =
                [("side", "none"), ("proxy", ""), ("upstream", ""), ("workload", ""), (name, series.value)];
            let labels = none.map(|(name, value)| label_text(name, value)).join(",");
            lines.sample("", &[Some(&labels)], (series.count)(&self.pairs.totals()))?;
        }
        lines.end()
    }

    fn write_histograms(&self, out: &mut impl Write, family: &HistogramFamily) -> io::Result<()> {
        let mut lines = Lines::new(out, family.name, family.help, "histogram");
        let bounds = family.bounds.iter().map(|bound| (f64::from(*bound) / family.per_unit).to_string());
        let bounds: Vec<String> =
            bounds.chain(["+Inf".to_owned()]).map(|bound| label_text("le", &bound)).collect();
        for (group, labels) in self.each() {
            let record = group.histogram(self.pairs, family.histogram);
            let mut count = 0_u64;
            let counts = record.slots.map(|samples| {
                count = count.saturating_add(samples);
                count
            });
            if count == 0 {
                continue;
            }
            for (bound, count) in bounds.iter().zip(counts) {
                lines.sample("_bucket", &[Some(labels), Some(bound)], count)?;
            }
            lines.sample("_sum", &[Some(labels)], record.sum as f64 / family.per_unit)?;
            lines.sample("_count", &[Some(labels)], count)?;
        }
        lines.end()
    }

    fn write_levels(&self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        let levels: Vec<PairLevel> =
            self.groups.iter().map(|group| levels::of_group(group, snapshot)).collect();
        for family in &levels::PAIR_FAMILIES {
            let mut lines = Lines::new(&mut *out, family.name, family.help, "gauge");
            for (value, reading) in family.series() {
                let extra = value.map(|value| label_text("state", value));
                for (level, (_, labels)) in levels.iter().zip(self.each()) {
                    if let Some(level) = reading.of(level) {
                        lines.sample("", &[Some(labels), extra.as_deref()], level)?;
                    }
                }
            }
            lines.end()?;
        }
        Ok(())
    }
}

fn written(labels: &Labels) -> String {
    let labels = [
        ("side", labels.side.name()),
        ("proxy", &labels.proxy),
        ("upstream", &labels.upstream),
        ("workload", &labels.workload),
    ];
    labels.map(|(name, value)| label_text(name, value)).join(",")
}
