//! The families that tell how things stand.

use std::{
    io::{self, Write},
    sync::Arc,
};

use prometheus::proto::MetricType;

use super::agent::write_family;
use crate::model::{
    labels::{Group, endpoint, upstream},
    levels::{NamespaceLevel, PairLevel, STATES, Snapshot, address, largest, listener_key},
    source::{LevelSource, NameSource},
};

/// A family of gauges with samples per pair.
pub(super) struct PairFamily {
    /// Name without prefix.
    pub(super) name: &'static str,
    /// The HELP text.
    pub(super) help: &'static str,
    shows: Shows,
}

/// What a family's series show.
enum Shows {
    /// One series for each state.
    States,
    /// This alone.
    One(Reading),
}

/// All of them, in the order of exposition.
pub(super) static PAIR_FAMILIES: [PairFamily; 3] = [
    PairFamily {
        name: "sockets",
        help: "Sockets there are now, by state, those that only hold a port included.",
        shows: Shows::States,
    },
    PairFamily {
        name: "idle_sockets",
        help: "Established connections that have been quiet for at least a second: the idle part of a pool.",
        shows: Shows::One(Reading::Idle),
    },
    PairFamily {
        name: "unanswered_sockets",
        help: "Idle ones upon which a request has waited for its answer for at least a second: busy all the same.",
        shows: Shows::One(Reading::Unanswered),
    },
];

/// What one series of a family shows.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// Sockets in this state.
    State(u8),
    /// Idle ones.
    Idle,
    /// Idle ones with a request that waits.
    Unanswered,
}

impl Reading {
    /// The value; `None` where the pair does not have the series.
    pub(super) fn of(self, level: &PairLevel) -> Option<u32> {
        let (established, _) = STATES[0];
        match self {
            Self::State(state) => level.in_state(state),
            Self::Idle => level.in_state(established).map(|_| level.idle),
            Self::Unanswered => level.in_state(established).map(|_| level.unanswered),
        }
    }
}

impl PairFamily {
    /// The values of the label `state`, each with its reading; none in a family without that label.
    pub(super) fn series(&self) -> Vec<(Option<&'static str>, Reading)> {
        match self.shows {
            Shows::States => STATES.map(|(state, name)| (Some(name), Reading::State(state))).into(),
            Shows::One(reading) => vec![(None, reading)],
        }
    }
}

/// The sum over a group's slots.
pub(super) fn of_group(group: &Group, snapshot: &Snapshot) -> PairLevel {
    let mut sum = PairLevel::default();
    for level in group.slots.iter().filter_map(|slot| snapshot.pairs.get(slot)) {
        sum.merge(level);
    }
    sum
}

/// Where levels come from, and how many series of them are shown.
pub(super) struct Levels {
    source: Arc<dyn LevelSource>,
    max_port_series: usize,
}

impl Levels {
    pub(super) fn new(source: Arc<dyn LevelSource>, max_port_series: u32) -> Self {
        Self { source, max_port_series: max_port_series as usize }
    }

    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.source.snapshot()
    }

    /// The families that belong to namespaces, and those about the snapshot itself.
    pub(super) fn write_namespaces(
        &self,
        out: &mut impl Write,
        snapshot: &Snapshot,
        names: &dyn NameSource,
    ) -> io::Result<()> {
        write_queues(out, snapshot, names)?;
        self.write_ports(out, snapshot)?;
        write_limits(out, snapshot)?;
        let mut gauge =
            |name, help, value| write_family(out, name, help, MetricType::GAUGE, [(vec![], value)]);
        gauge(
            "snapshot_duration_seconds",
            "How long the last reading of the kernel's socket tables took.",
            snapshot.duration.as_secs_f64(),
        )?;
        gauge("snapshot_age_seconds", "How old that reading is.", snapshot.taken.elapsed().as_secs_f64())
    }

    fn write_ports(&self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        let ports: Vec<PortSeries<'_>> = largest(&snapshot.namespaces, self.max_port_series)
            .into_iter()
            .map(|(namespace, entry)| PortSeries {
                netns: &namespace.name,
                source: address(entry.source).to_canonical().to_string(),
                upstream: endpoint(address(entry.destination), port(entry.port)),
                used: entry.used,
                limit: namespace.port_limit,
            })
            .collect();
        let mut write = |name, help, value: fn(&PortSeries<'_>) -> f64| {
            let samples = ports.iter().map(|series| (series.labels(), value(series)));
            write_family(out, name, help, MetricType::GAUGE, samples)
        };
        write(
            "ephemeral_ports_used",
            "Ports of the namespace's range held toward this destination.",
            |series| f64::from(series.used),
        )?;
        write("ephemeral_ports_used_ratio", "The same, as part of the limit.", |series| {
            f64::from(series.used) / f64::from(series.limit)
        })
    }
}

struct PortSeries<'a> {
    netns: &'a str,
    source: String,
    upstream: String,
    used: u32,
    limit: u32,
}

impl PortSeries<'_> {
    fn labels(&self) -> Vec<(&str, &str)> {
        vec![("netns", self.netns), ("src", &self.source), ("upstream", &self.upstream)]
    }
}

/// Entries that print the same labels are one series.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct QueueLabels<'a> {
    netns: &'a str,
    upstream: String,
    workload: Arc<str>,
}

fn write_queues(out: &mut impl Write, snapshot: &Snapshot, names: &dyn NameSource) -> io::Result<()> {
    let addresses = names.addresses();
    let mut queues: Vec<(QueueLabels<'_>, u64, u64)> = Vec::new();
    for namespace in &snapshot.namespaces {
        for entry in &*namespace.queues {
            let labels = QueueLabels {
                netns: &namespace.name,
                upstream: upstream(&addresses, address(entry.address), port(entry.port)),
                workload: names.workload(&listener_key(entry), 0),
            };
            queues.push((labels, entry.length.into(), entry.limit.into()));
        }
    }
    queues.sort_unstable();
    queues.dedup_by(|(labels, length, limit), (kept, kept_length, kept_limit)| {
        let same = labels == kept;
        if same {
            *kept_length += *length;
            *kept_limit += *limit;
        }
        same
    });
    let mut write = |name, help, value: fn(&(QueueLabels<'_>, u64, u64)) -> u64| {
        let samples = queues.iter().map(|queue| {
            let QueueLabels { netns, upstream, workload } = &queue.0;
            (
                vec![("netns", *netns), ("upstream", upstream.as_str()), ("workload", &**workload)],
                value(queue) as f64,
            )
        });
        write_family(out, name, help, MetricType::GAUGE, samples)
    };
    write("accept_queue_length", "Connections that wait for accept().", |queue| queue.1)?;
    write("accept_queue_limit", "Connections that may wait for accept().", |queue| queue.2)
}

fn write_limits(out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
    let mut write = |name, help, kind, value: fn(&NamespaceLevel) -> f64| {
        let samples = snapshot
            .namespaces
            .iter()
            .map(|namespace| (vec![("netns", namespace.name.as_str())], value(namespace)));
        write_family(out, name, help, kind, samples)
    };
    write(
        "namespace_walks_total",
        "Readings of the namespace's sockets; one in which nothing happens is not read again.",
        MetricType::COUNTER,
        |namespace| namespace.walks as f64,
    )?;
    write(
        "ephemeral_ports_limit",
        "Ports of the namespace's range that are not reserved.",
        MetricType::GAUGE,
        |namespace| f64::from(namespace.port_limit),
    )?;
    write(
        "time_wait_limit",
        "Timewait sockets that the namespace may hold (tcp_max_tw_buckets), 0 when unknown.",
        MetricType::GAUGE,
        |namespace| namespace.time_wait_limit as f64,
    )?;
    write(
        "time_wait_overflow_total",
        "Connections that found no room in TIME_WAIT and left at once (TCPTimeWaitOverflow).",
        MetricType::COUNTER,
        |namespace| namespace.time_wait_overflow as f64,
    )?;
    write(
        "ephemeral_ports_uncounted",
        "Sockets left out of the ephemeral ports for want of room for their destination.",
        MetricType::GAUGE,
        |namespace| namespace.ports_lost as f64,
    )?;
    write(
        "accept_queues_uncounted",
        "Listening sockets left out of the accept queues for want of room.",
        MetricType::GAUGE,
        |namespace| namespace.listeners_lost as f64,
    )
}

/// The kernel's half hands over ports as words.
fn port(word: u32) -> u16 {
    u16::try_from(word).unwrap_or_default()
}
