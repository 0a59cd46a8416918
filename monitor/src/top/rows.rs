//! The table's rows and columns.

use std::cmp::Ordering;

use finwatch_ebpf::wire::Counter;

use super::rates::{Rates, Series, lost};
use crate::model::{
    labels::{Labels, Side},
    observation::{Observation, Pair},
};

/// One pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What is known about it.
    pub pair: Pair,
    /// What happens to it per second, oldest first.
    pub rates: Series,
    /// Which part of the local ports toward its upstream is taken; `None` where this host does not connect.
    pub ports: Option<f64>,
}

impl Row {
    /// Who closes most of its connections, and which part of all: by the label `by`, from this host's view.
    pub fn closer(&self) -> Option<(&'static str, f64)> {
        let (local, peer) = match self.pair.labels.side {
            Side::Proxy => ("proxy", "upstream"),
            Side::Upstream => ("upstream", "proxy"),
        };
        let by = [
            (local, Counter::ClosedLocal),
            (peer, Counter::ClosedPeer),
            ("reset", Counter::ClosedReset),
            ("timeout", Counter::ClosedTimeout),
        ];
        let by = by.map(|(name, counter)| (name, self.pair.counts.get(counter)));
        let all: u64 = by.iter().map(|(_, count)| count).sum();
        let (name, most) = by.into_iter().max_by_key(|(_, count)| *count)?;
        (all > 0).then(|| (name, most as f64 / all as f64))
    }

    /// `nginx -> 10.0.0.5:8080`.
    pub fn name(&self) -> String {
        format!("{} -> {}", self.pair.labels.proxy, self.pair.labels.upstream)
    }

    fn matches(&self, filter: &str) -> bool {
        let Labels { workload, .. } = &self.pair.labels;
        format!("{} {workload}", self.name()).to_lowercase().contains(&filter.to_lowercase())
    }
}

/// A column by which the table can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Its name.
    Pair,
    /// Connections opened per second.
    Opened,
    /// Established now.
    Open,
    /// Of these, in use.
    Busy,
    /// And those that nothing uses.
    Idle,
    /// In TIME_WAIT now.
    TimeWait,
    /// Local ports taken.
    Ports,
    /// Requests lost in the window.
    Lost,
    /// Resets per second.
    Resets,
    /// Who closes.
    Closer,
}

impl Column {
    /// All, as they stand from left to right.
    pub const ALL: [Self; 10] = [
        Self::Pair,
        Self::Opened,
        Self::Open,
        Self::Busy,
        Self::Idle,
        Self::TimeWait,
        Self::Ports,
        Self::Lost,
        Self::Resets,
        Self::Closer,
    ];

    /// Its heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Opened => "open/s",
            Self::Open => "open",
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::TimeWait => "t_wait",
            Self::Ports => "ports",
            Self::Lost => "lost",
            Self::Resets => "rst/s",
            Self::Closer => "closed by",
        }
    }

    /// Its cell.
    pub fn text(self, row: &Row) -> String {
        let rate = |of: fn(&super::rates::Rate) -> f64| {
            row.rates.back().map_or_else(|| "-".into(), |rate| per_second(of(rate)))
        };
        match self {
            Self::Pair => row.name(),
            Self::Opened => rate(|rate| rate.opened),
            Self::Resets => rate(|rate| rate.resets),
            Self::Open => row.pair.in_state("established").to_string(),
            Self::Busy => row.pair.busy().to_string(),
            Self::Idle => row.pair.unused().to_string(),
            Self::TimeWait => row.pair.in_state("time_wait").to_string(),
            Self::Ports => row.ports.map_or_else(|| "-".into(), percent),
            Self::Lost => lost(&row.pair.counts).to_string(),
            Self::Closer => {
                row.closer().map_or_else(|| "-".into(), |(name, part)| format!("{name} {}", percent(part)))
            }
        }
    }

    /// Large first, names in order.
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let rate = |row: &Row| row.rates.back().copied().unwrap_or_default();
        let number = |row: &Row| match self {
            Self::Pair => 0.0,
            Self::Opened => rate(row).opened,
            Self::Resets => rate(row).resets,
            Self::Open => row.pair.in_state("established").into(),
            Self::Busy => row.pair.busy().into(),
            Self::Idle => row.pair.unused().into(),
            Self::TimeWait => row.pair.in_state("time_wait").into(),
            Self::Ports => row.ports.unwrap_or(-1.0),
            Self::Lost => lost(&row.pair.counts) as f64,
            Self::Closer => row.closer().map_or(-1.0, |(_, part)| part),
        };
        match self {
            Self::Closer => row_closer(a).cmp(&row_closer(b)).then(number(b).total_cmp(&number(a))),
            _ => number(b).total_cmp(&number(a)),
        }
    }
}

/// Pairs of which nothing was closed come last.
fn row_closer(row: &Row) -> (bool, &'static str) {
    row.closer().map_or((true, ""), |(name, _)| (false, name))
}

/// How the table is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub column: Column,
    /// The other way round.
    pub reversed: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { column: Column::Lost, reversed: false }
    }
}

impl Order {
    /// Sorts; what is equal by its labels.
    pub fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| {
            let order = self.column.compare(a, b);
            let order = if self.column == Column::Pair { a.name().cmp(&b.name()) } else { order };
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| a.pair.labels.cmp(&b.pair.labels))
        });
    }
}

/// The rows of an observation that the filter lets through, in order.
pub fn rows(observation: &Observation, rates: &Rates, filter: &str, order: Order) -> Vec<Row> {
    let row = |pair: &Pair| {
        let toward = observation.ports.iter().filter(|ports| ports.label() == pair.labels.upstream);
        let taken = toward.map(|ports| f64::from(ports.used) / f64::from(ports.limit.max(1)));
        let ports = taken.max_by(f64::total_cmp).filter(|_| pair.labels.side == Side::Proxy);
        Row { rates: rates.of(&pair.labels), ports, pair: pair.clone() }
    };
    let mut rows: Vec<Row> = observation.pairs.iter().map(row).filter(|row| row.matches(filter)).collect();
    order.sort(&mut rows);
    rows
}

/// A rate in few characters.
pub fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        rate if rate < 0.01 => "<0.01".into(),
        rate if rate < 10.0 => format!("{rate:.2}"),
        rate if rate < 1_000.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A part of 1.
pub fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::state::tests::{observation, rates};

    fn sorted(column: Column, reversed: bool) -> Vec<String> {
        let rows = rows(&observation(), &rates(), "", Order { column, reversed });
        rows.into_iter().map(|row| row.pair.labels.proxy).collect()
    }

    #[test]
    fn every_column_sorts_large_first() {
        let (first, second) = (vec!["nginx", "envoy"], vec!["envoy", "nginx"]);
        for column in Column::ALL {
            let wanted = match column {
                Column::Opened | Column::Lost | Column::Resets | Column::Closer | Column::Ports => &first,
                _ => &second,
            };
            let by = if column == Column::Closer { &second } else { wanted };
            assert_eq!(&sorted(column, false), by, "{column:?}");
            let back: Vec<_> = by.iter().rev().copied().collect();
            assert_eq!(sorted(column, true), back, "{column:?} reversed");
        }
    }

    #[test]
    fn the_filter_looks_at_names_and_workloads() {
        let found = |filter: &str| rows(&observation(), &rates(), filter, Order::default()).len();
        assert_eq!((found(""), found("NGINX"), found(":9090"), found("shop.service")), (2, 1, 1, 1));
        assert_eq!(found("nothing like it"), 0);
    }

    #[test]
    fn cells_are_counts_to_the_unit() {
        let rows = rows(&observation(), &rates(), "nginx", Order::default());
        let cells = Column::ALL.map(|column| column.text(&rows[0]));
        assert_eq!(
            cells,
            ["nginx -> 10.0.0.5:8080", "4.00", "7", "2", "5", "30", "25%", "8", "3.00", "upstream 90%"]
        );
    }
}
