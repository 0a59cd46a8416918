//! One scrape: every family, one after the other, over the records as they are at that moment.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use prometheus::{
    HistogramOpts,
    core::Collector as _,
    proto::{Bucket, Histogram, Metric, MetricType},
};

use super::{
    agent,
    family::{BATCH, FamilyWriter, label, set_counter, set_gauge},
    levels::{self, Levels},
    process,
};
use crate::model::{
    families::{
        COUNTER_FAMILIES, CounterFamily, HISTOGRAM_FAMILIES, HistogramFamily, LabelledCounter, PREFIX,
    },
    labels::{Group, Labels, ProcessFilter, Side, groups},
    levels::{PairLevel, Snapshot},
    source::{AgentSource, AgentState, LevelSource, NameSource, PairSource},
};

/// Labels of every pair family.
const PAIR_LABELS: usize = 4;

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

    /// Writes all families in the Prometheus text format, version 0.0.4. A few dozen samples are in memory at once.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_pairs(out)?;
        agent::write(out, &self.pairs.totals(), &self.agent.state())?;
        for family in self.durations.collect() {
            let mut samples = family.get_metric().to_vec();
            FamilyWriter::new(out, family.name().to_owned(), family.help(), MetricType::HISTOGRAM)
                .write(&mut samples)?;
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
        let mut series = Series::new(&*self.pairs, &groups);
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

/// The groups, each with a sample that already carries its labels and serves one family after the other.
struct Series<'a> {
    pairs: &'a dyn PairSource,
    groups: &'a [Group],
    samples: Vec<Metric>,
    batch: Vec<Metric>,
    batched: Vec<usize>,
}

impl<'a> Series<'a> {
    fn new(pairs: &'a dyn PairSource, groups: &'a [Group]) -> Self {
        let samples = groups.iter().map(|group| sample(&group.labels)).collect();
        Self { pairs, groups, samples, batch: Vec::with_capacity(BATCH), batched: Vec::with_capacity(BATCH) }
    }

    fn write_counters(&mut self, out: &mut impl Write, family: &CounterFamily) -> io::Result<()> {
        let name = format!("{PREFIX}{}", family.name);
        let mut writer = FamilyWriter::new(out, name, family.help, MetricType::COUNTER);
        for counter in family.counters {
            let (pairs, groups) = (self.pairs, self.groups);
            self.write(&mut writer, |at, sample| set_count(sample, family, counter, &groups[at], pairs))?;
        }
        if let (Some(series), Some(name)) = (&family.without_pair, family.label) {
            let labels =
                [("side", "none"), ("proxy", ""), ("upstream", ""), ("workload", ""), (name, series.value)];
            let mut sample = Metric::from_label(labels.map(|(name, value)| label(name, value)).to_vec());
            set_counter(&mut sample, (series.count)(&self.pairs.totals()) as f64);
            writer.write(&mut vec![sample])?;
        }
        Ok(())
    }

    fn write_histograms(&mut self, out: &mut impl Write, family: &HistogramFamily) -> io::Result<()> {
        let name = format!("{PREFIX}{}", family.name);
        let mut writer = FamilyWriter::new(out, name, family.help, MetricType::HISTOGRAM);
        let (pairs, groups) = (self.pairs, self.groups);
        self.write(&mut writer, |at, sample| set_histogram(sample, family, &groups[at], pairs))
    }

    fn write_levels(&mut self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        let levels: Vec<PairLevel> =
            self.groups.iter().map(|group| levels::of_group(group, snapshot)).collect();
        for family in &levels::PAIR_FAMILIES {
            let name = format!("{PREFIX}{}", family.name);
            let mut writer = FamilyWriter::new(out, name, family.help, MetricType::GAUGE);
            for (value, reading) in family.series() {
                self.write(&mut writer, |at, sample| {
                    let Some(level) = reading.of(&levels[at]) else { return false };
                    set_extra_label(sample, value.map(|value| ("state", value)));
                    set_gauge(sample, f64::from(level));
                    true
                })?;
            }
        }
        Ok(())
    }

    /// Writes the samples that `set` gives a value. They leave for the batch and come back with it.
    fn write<W: Write>(
        &mut self,
        writer: &mut FamilyWriter<'_, W>,
        set: impl Fn(usize, &mut Metric) -> bool,
    ) -> io::Result<()> {
        for at in 0..self.samples.len() {
            if set(at, &mut self.samples[at]) {
                self.batch.push(std::mem::take(&mut self.samples[at]));
                self.batched.push(at);
            }
            if self.batch.len() == BATCH {
                self.write_batch(writer)?;
            }
        }
        self.write_batch(writer)
    }

    fn write_batch<W: Write>(&mut self, writer: &mut FamilyWriter<'_, W>) -> io::Result<()> {
        let written = writer.write(&mut self.batch);
        for (at, sample) in self.batched.drain(..).zip(self.batch.drain(..)) {
            self.samples[at] = sample;
        }
        written
    }
}

fn sample(labels: &Labels) -> Metric {
    let pairs: [_; PAIR_LABELS] = [
        label("side", labels.side.name()),
        label("proxy", &labels.proxy),
        label("upstream", &labels.upstream),
        label("workload", &labels.workload),
    ];
    let mut with_room = Vec::with_capacity(PAIR_LABELS + 1);
    with_room.extend(pairs);
    Metric::from_label(with_room)
}

/// Gives the sample its value, unless the family leaves it out.
fn set_count(
    sample: &mut Metric,
    family: &CounterFamily,
    counter: &LabelledCounter,
    group: &Group,
    pairs: &dyn PairSource,
) -> bool {
    let count = group.counter(pairs, counter.counter);
    if count == 0 && !(counter.from_zero && group.labels.side == Side::Proxy) {
        return false;
    }
    set_extra_label(sample, family.label.map(|name| (name, counter.value)));
    set_counter(sample, count as f64);
    true
}

fn set_histogram(
    sample: &mut Metric,
    family: &HistogramFamily,
    group: &Group,
    pairs: &dyn PairSource,
) -> bool {
    let record = group.histogram(pairs, family.histogram);
    let mut cumulative = 0_u64;
    let bounds = family.bounds.iter().zip(record.slots);
    let buckets: Vec<Bucket> = bounds
        .map(|(&bound, count)| {
            cumulative = cumulative.saturating_add(count);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(f64::from(bound) / family.per_unit);
            bucket.set_cumulative_count(cumulative);
            bucket
        })
        .collect();
    let count = cumulative.saturating_add(record.slots[family.bounds.len()]);
    if count == 0 {
        return false;
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(record.sum as f64 / family.per_unit);
    set_extra_label(sample, None);
    sample.set_histogram(histogram);
    true
}

fn set_extra_label(sample: &mut Metric, extra: Option<(&str, &str)>) {
    let mut labels = sample.take_label();
    labels.truncate(PAIR_LABELS);
    labels.extend(extra.map(|(name, value)| label(name, value)));
    sample.set_label(labels);
}
