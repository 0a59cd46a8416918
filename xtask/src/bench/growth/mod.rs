//! How cost grows with connections per second, tracked connections, pairs, namespaces and incidents: a curve each.

mod fit;
mod incidents;
mod namespaces;
mod pairs;
mod rate;
mod tracked;

use std::{path::Path, time::Duration};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use super::{figure, network::Gate, programs::Spent};
use crate::{
    daemon::{Daemon, metrics::Sample},
    interrupt,
};

/// What the daemon of a curve is told, so that it sees the measurement's own sockets only and reads them when asked.
const FLAGS: [&str; 4] = ["--netns", "host", "--snapshot-age", "1s"];
/// A snapshot is at most this old, so a scrape after it makes another.
const AGE: Duration = Duration::from_millis(1_050);
/// What a figure per event may grow with: caches hold less and less of a larger table.
const FLAT: f64 = 0.1;
/// What a sum may grow with: linear, but for how exact measuring is.
const LINEAR: f64 = 1.1;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    rates: &'static [Option<u32>],
    tracked: &'static [u32],
    pairs: &'static [u32],
    namespaces: &'static [u32],
    incidents: &'static [Option<u32>],
    /// Of each rate.
    time: Duration,
    /// Connections that programs are timed with.
    connections: u32,
    readings: u32,
}

impl Amount {
    /// What the document shows.
    pub(crate) const FULL: Self = Self {
        rates: &[Some(1_000), Some(5_000), None],
        tracked: &[1_000, 10_000, 100_000, 500_000],
        pairs: &[10, 100, 1_000, 4_000, 10_000, 100_000],
        namespaces: &[1, 10, 50, 200],
        incidents: &[Some(10), Some(100), Some(1_000), None],
        time: Duration::from_secs(4),
        connections: 20_000,
        readings: 3,
    };
    /// Enough to see that measuring works.
    pub(crate) const SMOKE: Self = Self {
        rates: &[Some(100), None],
        tracked: &[100, 400],
        pairs: &[10, 40],
        namespaces: &[1, 3],
        incidents: &[Some(50), None],
        time: Duration::from_millis(300),
        connections: 200,
        readings: 1,
    };
}

/// How a figure may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum May {
    /// Not at all: it is of one event.
    NotGrow,
    /// In proportion to what is counted.
    GrowLinearly,
}

/// A column of a curve.
#[derive(Clone, Copy, Debug, Serialize)]
struct Column {
    name: &'static str,
    may: May,
    digits: usize,
}

/// One figure each for several counts of one thing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Curve {
    counted: &'static str,
    columns: Vec<Column>,
    /// A count and its figures, in the columns' order.
    points: Vec<(f64, Vec<f64>)>,
}

const fn each(name: &'static str) -> Column {
    Column { name, may: May::NotGrow, digits: 0 }
}

const fn sum(name: &'static str, digits: usize) -> Column {
    Column { name, may: May::GrowLinearly, digits }
}

const PER_STATE_CHANGE: Column = each("BPF ns per state change");
const RESIDENT: Column = sum("RSS, MiB", 1);
const SNAPSHOT: Column = sum("a reading of all sockets, ms", 1);

/// All curves.
pub(crate) fn measure(binary: &Path, amount: Amount) -> Result<Vec<Curve>> {
    Ok(vec![
        rate::curve(binary, amount)?,
        tracked::curve(binary, amount)?,
        pairs::curve(binary, amount)?,
        namespaces::curve(binary, amount)?,
        incidents::curve(binary, amount)?,
    ])
}

/// What a state change costs the programs.
fn per_state_change(daemon: &Daemon, gate: &Gate, amount: Amount, destinations: u32) -> Result<f64> {
    let churn = || gate.churn(amount.connections.max(destinations), destinations);
    Ok(Spent::during(daemon.pid(), churn)?.1.nanoseconds_per_state_change())
}

/// The least of some readings, in milliseconds: whatever disturbs one makes it longer.
fn snapshot_milliseconds(daemon: &Daemon, readings: u32) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..readings {
        interrupt::pause(AGE)?;
        let samples = daemon.scrape()?;
        let sample = samples.matching("finwatch_snapshot_duration_seconds", &[]).next();
        least = least.min(sample.map(Sample::number).transpose()?.unwrap_or(f64::INFINITY));
    }
    ensure!(least.is_finite(), "no levels are shown");
    Ok(least * 1e3)
}

impl Curve {
    fn of(counted: &'static str, columns: &[Column], points: Vec<(f64, Vec<f64>)>) -> Self {
        Self { counted, columns: columns.to_vec(), points }
    }

    fn column(&self, index: usize) -> Vec<(f64, f64)> {
        self.points.iter().map(|(count, figures)| (*count, figures[index])).collect()
    }

    /// What a column grows with, and whether it may.
    fn verdict(&self, index: usize) -> (Option<f64>, bool) {
        let points = self.column(index);
        match self.columns[index].may {
            May::NotGrow => {
                let exponent = fit::exponent(&points);
                (exponent, exponent.is_none_or(|exponent| exponent <= FLAT))
            }
            // What is there at the start hides growth: the far end tells.
            May::GrowLinearly => {
                let exponent = fit::exponent(&points[points.len().saturating_sub(2)..]);
                (exponent, exponent.is_none_or(|exponent| exponent <= LINEAR))
            }
        }
    }

    /// Fails where a figure is missing.
    pub(crate) fn complete(&self) -> Result<()> {
        let all = self.points.iter().all(|(count, figures)| {
            *count > 0.0
                && figures.len() == self.columns.len()
                && figures.iter().all(|figure| figure.is_finite())
        });
        if self.points.len() < 2 || !all {
            bail!("no curve of {}: {self:?}", self.counted);
        }
        Ok(())
    }

    /// A Markdown table, with a line for slope, power and verdict.
    pub(crate) fn table(&self) -> String {
        let head: Vec<&str> =
            [self.counted].into_iter().chain(self.columns.iter().map(|column| column.name)).collect();
        let figure = |index: usize, figure: f64| {
            let digits = self.columns[index].digits;
            format!("{figure:.digits$}")
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (count, figures) in &self.points {
            let cells = figures.iter().enumerate().map(|(index, value)| figure(index, *value));
            rows.push([format!("{count:.0}")].into_iter().chain(cells).collect());
        }
        let mut line = |name: &str, tell: &dyn Fn(usize) -> String| {
            rows.push([name.to_owned()].into_iter().chain((0..self.columns.len()).map(tell)).collect());
        };
        line("1,000 more add", &|index| {
            let slope = fit::slope(&self.column(index));
            slope.map_or_else(String::new, |slope| format!("{:.3}", slope * 1e3))
        });
        line("grows with the power", &|index| {
            self.verdict(index).0.map_or_else(|| "-".to_owned(), |exponent| format!("{exponent:.2}"))
        });
        line("", &|index| {
            let (_, is_well) = self.verdict(index);
            match (self.columns[index].may, is_well) {
                (May::NotGrow, true) => "**flat**",
                (May::NotGrow, false) => "**grows**",
                (May::GrowLinearly, true) => "**linear at most**",
                (May::GrowLinearly, false) => "**faster than linear**",
            }
            .to_owned()
        });
        figure::table(&head, rows)
    }
}

/// What the curves tell together.
pub(crate) fn told(curves: &[Curve]) -> String {
    let wrong = curves.iter().flat_map(|curve| {
        let columns = (0..curve.columns.len()).filter(|index| !curve.verdict(*index).1);
        columns.map(|index| format!("{} with {}", curve.columns[index].name, curve.counted))
    });
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() {
        "Nothing grows faster than linearly in what it counts, and nothing per event grows with how many there are."
            .to_owned()
    } else {
        format!("Grows more than it may: {}.", wrong.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(figures: [[f64; 2]; 3]) -> Curve {
        let points = [10.0, 100.0, 1_000.0].into_iter().zip(figures.map(|figures| figures.to_vec()));
        Curve::of("things", &[PER_STATE_CHANGE, RESIDENT], points.collect())
    }

    #[test]
    fn what_is_flat_and_what_is_linear_may_be() {
        let good = curve([[300.0, 10.0], [310.0, 11.0], [320.0, 20.0]]);
        assert!(told(std::slice::from_ref(&good)).starts_with("Nothing grows faster"));
        let table = good.table();
        assert!(table.contains("| 100 | 310 | 11.0 |"), "{table}");
        assert!(table.contains("| **flat** | **linear at most** |"), "{table}");
    }

    #[test]
    fn what_grows_is_named() {
        let bad = curve([[300.0, 10.0], [600.0, 11.0], [1_200.0, 2_000.0]]);
        assert_eq!(
            told(&[bad]),
            "Grows more than it may: BPF ns per state change with things; RSS, MiB with things."
        );
    }
}
