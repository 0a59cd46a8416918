//! The measurements as a table and as JSON.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Measured, tracer::Mode};

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
    mode: Mode,
    requests_per_second: Option<Figure>,
    ratio_to_untraced: Option<Figure>,
    bpf_nanoseconds_per_state_change: Option<Figure>,
    state_changes_per_request: Option<Figure>,
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
        let modes: BTreeSet<Mode> = measured.iter().map(|one| one.mode).collect();
        Self { rows: modes.into_iter().map(|mode| row(mode, &measured)).collect(), measured }
    }

    /// A Markdown table: median (min to max).
    pub(crate) fn table(&self) -> String {
        let mut table =
            "| | requests/s | of untraced, % | BPF ns per state change | changes per request | CPU, % of one | RSS, MiB |\n\
                         |---|---|---|---|---|---|---|\n"
                .to_owned();
        for row in &self.rows {
            let name = match row.mode {
                Mode::Untraced => "untraced",
                Mode::Finwatch => "finwatch",
                Mode::Bpftrace => "bpftrace, only counting",
            };
            let cells = [
                cell(row.requests_per_second, 1.0, 0),
                cell(row.ratio_to_untraced, 100.0, 1),
                cell(row.bpf_nanoseconds_per_state_change, 1.0, 0),
                cell(row.state_changes_per_request, 1.0, 1),
                cell(row.cpu_ratio, 100.0, 1),
                cell(row.resident_bytes, 1.0 / f64::from(1 << 20), 1),
            ];
            // Writing to a String cannot fail.
            _ = writeln!(table, "| {name} | {} |", cells.join(" | "));
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

fn row(mode: Mode, measured: &[Measured]) -> Row {
    let ours = || measured.iter().filter(move |one| one.mode == mode);
    let untraced = |round| measured.iter().find(|one| one.mode == Mode::Untraced && one.round == round);
    let ratios =
        ours().filter_map(|one| Some(one.requests_per_second / untraced(one.round)?.requests_per_second));
    let programs = || ours().filter_map(|one| one.programs);
    let usages = || ours().filter_map(|one| one.tracer);
    Row {
        mode,
        requests_per_second: Figure::of(ours().map(|one| one.requests_per_second)),
        ratio_to_untraced: Figure::of(ratios),
        bpf_nanoseconds_per_state_change: Figure::of(
            programs().map(|cost| cost.nanoseconds_per_state_change),
        ),
        state_changes_per_request: Figure::of(programs().map(|cost| cost.state_changes_per_request)),
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
        Measured { mode, round, requests_per_second, programs: None, tracer: None }
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
        assert!(report.complete().is_err());
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Figure::of([3.0, 1.0, 2.0].into_iter()), Some(Figure { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Figure::of([4.0, 1.0].into_iter()), Some(Figure { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Figure::of([].into_iter()), None);
    }
}
