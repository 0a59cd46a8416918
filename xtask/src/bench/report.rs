//! The measurements as a table and as JSON.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Measured, load::Connections, tracer::Mode};

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    median: f64,
    pub(super) min: f64,
    max: f64,
}

impl Figure {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = values.first().zip(values.last())?;
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }
}

/// One mode over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    connections: Connections,
    mode: Mode,
    requests_per_second: Option<Figure>,
    ratio_to_untraced: Option<Figure>,
    bpf_nanoseconds_per_state_change: Option<Figure>,
    state_changes_per_request: Option<Figure>,
    bpf_nanoseconds_per_request: Option<Figure>,
    bpf_runs_per_request: Option<Figure>,
    cpu_ratio: Option<Figure>,
    resident_bytes: Option<Figure>,
}

/// Everything measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    measured: Vec<Measured>,
}

impl Report {
    /// Sums the rounds up.
    pub(crate) fn new(measured: Vec<Measured>) -> Self {
        let kinds: BTreeSet<_> = measured.iter().map(|one| (one.connections, one.mode)).collect();
        let rows = kinds.into_iter().map(|(connections, mode)| row(connections, mode, &measured));
        Self { rows: rows.collect(), measured }
    }

    fn of(&self, connections: Connections) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.connections == connections)
    }

    /// What following requests costs, as [`Self::table`].
    pub(crate) fn requests_table(&self) -> String {
        let head = "| | requests/s | of untraced, % | BPF ns per request | BPF runs per request | RSS, MiB |\n\
                    |---|---|---|---|---|---|\n";
        self.written(head, Connections::Kept, |row| {
            vec![cell(row.bpf_nanoseconds_per_request, 1.0, 0), cell(row.bpf_runs_per_request, 1.0, 2)]
        })
    }

    /// What finwatch costs where every request opens a connection. A Markdown table: median (min to max).
    pub(crate) fn table(&self) -> String {
        let head = "| | requests/s | of untraced, % | BPF ns per state change | changes per request | CPU, % of one | RSS, MiB |\n\
                    |---|---|---|---|---|---|---|\n";
        self.written(head, Connections::Closed, |row| {
            vec![
                cell(row.bpf_nanoseconds_per_state_change, 1.0, 0),
                cell(row.state_changes_per_request, 1.0, 1),
                cell(row.cpu_ratio, 100.0, 1),
            ]
        })
    }

    /// A row per mode: throughput first, memory last, and what else the table is about in between.
    fn written(&self, head: &str, connections: Connections, middle: fn(&Row) -> Vec<String>) -> String {
        let mut table = head.to_owned();
        for row in self.of(connections) {
            let mut cells =
                vec![cell(row.requests_per_second, 1.0, 0), cell(row.ratio_to_untraced, 100.0, 1)];
            cells.extend(middle(row));
            cells.push(cell(row.resident_bytes, 1.0 / f64::from(1 << 20), 1));
            // Writing to a String cannot fail.
            _ = writeln!(table, "| {} | {} |", name(row.mode), cells.join(" | "));
        }
        table
    }

    /// Fails where a figure is missing.
    pub(crate) fn complete(&self) -> Result<()> {
        for row in &self.rows {
            let traced = row.mode != Mode::Untraced;
            let programs = row.bpf_nanoseconds_per_state_change.is_some_and(|figure| figure.min > 0.0);
            let served = row.requests_per_second.is_some_and(|figure| figure.min > 0.0);
            ensure!(served && programs == traced, "{:?} was not measured: {row:?}", row.mode);
        }
        Ok(())
    }
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Untraced => "untraced",
        Mode::Finwatch => "finwatch",
        Mode::Requests => "finwatch --requests",
        Mode::RequestsCoarse => "finwatch --requests=coarse",
        Mode::Bpftrace => "bpftrace, only counting",
    }
}

fn row(connections: Connections, mode: Mode, measured: &[Measured]) -> Row {
    let same = |one: &&Measured| one.connections == connections;
    let ours = || measured.iter().filter(same).filter(move |one| one.mode == mode);
    let untraced =
        |round| measured.iter().filter(same).find(|one| one.mode == Mode::Untraced && one.round == round);
    let ratios =
        ours().filter_map(|one| Some(one.requests_per_second / untraced(one.round)?.requests_per_second));
    let programs = || ours().filter_map(|one| one.programs);
    let usages = || ours().filter_map(|one| one.tracer);
    Row {
        connections,
        mode,
        requests_per_second: Figure::of(ours().map(|one| one.requests_per_second)),
        ratio_to_untraced: Figure::of(ratios),
        bpf_nanoseconds_per_state_change: Figure::of(
            programs().map(|cost| cost.nanoseconds_per_state_change),
        ),
        state_changes_per_request: Figure::of(programs().map(|cost| cost.state_changes_per_request)),
        bpf_nanoseconds_per_request: Figure::of(programs().map(|cost| cost.nanoseconds_per_request)),
        bpf_runs_per_request: Figure::of(programs().map(|cost| cost.runs_per_request)),
        cpu_ratio: Figure::of(usages().map(|usage| usage.cpu_ratio)),
        resident_bytes: Figure::of(usages().map(|usage| usage.resident_bytes as f64)),
    }
}

/// A figure as a cell, times `scale`.
pub(super) fn cell(figure: Option<Figure>, scale: f64, digits: usize) -> String {
    figure.map_or_else(String::new, |Figure { median, min, max }| {
        let [median, min, max] = [median, min, max].map(|value| value * scale);
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mode: Mode, round: u32, requests_per_second: f64) -> Measured {
        Measured {
            connections: Connections::Closed,
            mode,
            round,
            requests_per_second,
            programs: None,
            tracer: None,
        }
    }

    #[test]
    fn a_round_is_compared_with_its_own_untraced_run() {
        let report = Report::new(vec![
            measured(Mode::Untraced, 0, 100.0),
            measured(Mode::Finwatch, 0, 90.0),
            measured(Mode::Finwatch, 1, 190.0),
            measured(Mode::Untraced, 1, 200.0),
        ]);
        let table = report.table();
        assert!(table.contains("| untraced | 150 (100 to 200) | 100.0 (100.0 to 100.0) |"), "{table}");
        assert!(table.contains("| finwatch | 140 (90 to 190) | 92.5 (90.0 to 95.0) |"), "{table}");
        let header = report.requests_table();
        assert_eq!(header.lines().count(), 2, "other connections do not mix: {header}");
        assert!(report.complete().is_err());
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Figure::of([3.0, 1.0, 2.0].into_iter()), Some(Figure { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Figure::of([4.0, 1.0].into_iter()), Some(Figure { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Figure::of([].into_iter()), None);
    }
}
