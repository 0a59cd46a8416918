//! The measurements as a table and as JSON.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{
    figure::{Figure, cell, table},
    load::Connections,
    measured::Measured,
    programs::Spent,
    tracer::Mode,
    usage::Usage,
};

const MEBIBYTE: f64 = 1.0 / 1_048_576.0;
/// The daemon's programs, whose shares are told.
const PROGRAMS: [&str; 6] =
    ["set_state", "missed", "receive_reset", "receive_reset_2", "send_reset", "send_reset_2"];

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
    user_ratio: Option<Figure>,
    cpu_ratio: Option<Figure>,
    peak_bytes: Option<Figure>,
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

    /// What following requests costs. A Markdown table: median (min to max).
    pub(crate) fn requests_table(&self) -> String {
        let head = [
            "",
            "requests/s",
            "of untraced, %",
            "BPF ns per request",
            "BPF runs per request",
            "peak RSS, MiB",
        ];
        let rows = self.of(Connections::Kept).map(|row| {
            vec![
                row.mode.name().to_owned(),
                cell(row.requests_per_second, 1.0, 0),
                cell(row.ratio_to_untraced, 100.0, 1),
                cell(row.bpf_nanoseconds_per_request, 1.0, 0),
                cell(row.bpf_runs_per_request, 1.0, 2),
                cell(row.peak_bytes, MEBIBYTE, 1),
            ]
        });
        table(&head, rows)
    }

    /// What watching costs where every request opens a connection, likewise.
    pub(crate) fn table(&self) -> String {
        let head = [
            "",
            "requests/s",
            "of untraced, %",
            "BPF ns per state change",
            "changes per request",
            "user CPU, % of one",
            "CPU, % of one",
            "peak RSS, MiB",
        ];
        let rows = self.of(Connections::Closed).map(|row| {
            vec![
                row.mode.name().to_owned(),
                cell(row.requests_per_second, 1.0, 0),
                cell(row.ratio_to_untraced, 100.0, 1),
                cell(row.bpf_nanoseconds_per_state_change, 1.0, 0),
                cell(row.state_changes_per_request, 1.0, 1),
                cell(row.user_ratio, 100.0, 2),
                cell(row.cpu_ratio, 100.0, 2),
                cell(row.peak_bytes, MEBIBYTE, 1),
            ]
        });
        table(&head, rows)
    }

    /// What each of finwatch's programs has of its time, likewise.
    pub(crate) fn programs_table(&self) -> String {
        let spent = || {
            self.measured
                .iter()
                .filter(|one| one.connections == Connections::Closed)
                .filter(|one| one.mode == Mode::Finwatch)
                .filter_map(|one| one.programs.as_ref())
        };
        let rows = PROGRAMS.iter().map(|name| {
            let runs = Figure::of(spent().map(|spent| spent.runs_per_state_change(name)));
            let nanoseconds = Figure::of(spent().filter_map(|spent| spent.nanoseconds_per_run(name)));
            vec![(*name).to_owned(), cell(runs, 1.0, 2), cell(nanoseconds, 1.0, 0)]
        });
        table(&["finwatch's program", "runs per state change", "ns per run"], rows)
    }

    /// finwatch's BPF time per state change over that of another mode in the same round.
    pub(crate) fn bpf_ratio(&self, other: Mode) -> Option<f64> {
        let cost = |mode: Mode, round: u32| {
            let mut fitting = self.measured.iter().filter(|one| one.connections == Connections::Closed);
            let one = fitting.find(|one| one.mode == mode && one.round == round)?;
            Some(one.programs.as_ref()?.nanoseconds_per_state_change())
        };
        let rounds: BTreeSet<u32> = self.measured.iter().map(|one| one.round).collect();
        let ratios =
            rounds.into_iter().filter_map(|round| Some(cost(Mode::Finwatch, round)? / cost(other, round)?));
        Figure::of(ratios).map(|figure| figure.median)
    }

    /// Requests per second under finwatch, of those untraced.
    pub(crate) fn throughput_ratio(&self) -> Option<f64> {
        self.finwatch()?.ratio_to_untraced.map(|figure| figure.median)
    }

    /// The daemon's own processor time.
    pub(crate) fn cpu_ratio(&self) -> Option<f64> {
        self.finwatch()?.cpu_ratio.map(|figure| figure.median)
    }

    fn finwatch(&self) -> Option<&Row> {
        self.of(Connections::Closed).find(|row| row.mode == Mode::Finwatch)
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

fn row(connections: Connections, mode: Mode, measured: &[Measured]) -> Row {
    let same = |one: &&Measured| one.connections == connections;
    let ours = || measured.iter().filter(same).filter(move |one| one.mode == mode);
    let untraced =
        |round| measured.iter().filter(same).find(|one| one.mode == Mode::Untraced && one.round == round);
    let ratios =
        ours().filter_map(|one| Some(one.requests_per_second / untraced(one.round)?.requests_per_second));
    let programs = |figure: fn(&Measured, &Spent) -> f64| {
        Figure::of(ours().filter_map(|one| Some(figure(one, one.programs.as_ref()?))))
    };
    let usages = |figure: fn(Usage) -> f64| Figure::of(ours().filter_map(|one| one.usage).map(figure));
    Row {
        connections,
        mode,
        requests_per_second: Figure::of(ours().map(|one| one.requests_per_second)),
        ratio_to_untraced: Figure::of(ratios),
        bpf_nanoseconds_per_state_change: programs(|_, spent| spent.nanoseconds_per_state_change()),
        state_changes_per_request: programs(|one, spent| spent.state_changes as f64 / one.requests_traced),
        bpf_nanoseconds_per_request: programs(|one, spent| spent.nanoseconds() / one.requests_traced),
        bpf_runs_per_request: programs(|one, spent| spent.runs() as f64 / one.requests_traced),
        user_ratio: usages(|usage| usage.user_ratio),
        cpu_ratio: usages(|usage| usage.cpu_ratio),
        peak_bytes: usages(|usage| usage.peak_bytes as f64),
    }
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
            requests_traced: 0.0,
            programs: None,
            usage: None,
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
}
