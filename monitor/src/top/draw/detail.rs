//! One pair: its graphs, sockets by state, what was counted, and its histograms.

use finwatch_ebpf::histogram::{IDLE_BOUNDS_MS, SLOTS};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Stylize as _,
    text::Line,
    widgets::Paragraph,
};

use super::{GRAPHS, graph};
use crate::{
    model::{counts::Samples, families::COUNTER_FAMILIES, incident::IncidentRecord},
    top::rows::{Row, per_second},
};

/// From here on there is room for two columns.
const WIDE: u16 = 100;
/// Columns of a histogram's longest bar.
const BAR: u64 = 24;
/// Columns of a graph.
const GRAPH: usize = 40;

/// Incidents that are shown, the last ones.
const INCIDENTS: usize = 3;

pub(super) fn draw(
    frame: &mut Frame<'_>,
    row: &Row,
    incidents: &[IncidentRecord],
    scrolled: usize,
    area: Rect,
) {
    if area.width >= WIDE {
        let [beside, other] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(area);
        page(frame, left(row), scrolled, beside);
        page(frame, right(row, incidents, other.width), scrolled, other);
    } else {
        let lines = left(row).into_iter().chain(right(row, incidents, area.width));
        page(frame, lines.collect(), scrolled, area);
    }
}

/// The lines from `scrolled` on; never more scrolled than there is.
fn page(frame: &mut Frame<'_>, lines: Vec<Line<'static>>, scrolled: usize, area: Rect) {
    let most = lines.len().saturating_sub(usize::from(area.height));
    let lines: Vec<_> = lines.into_iter().skip(scrolled.min(most)).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn left(row: &Row) -> Vec<Line<'static>> {
    let pair = &row.pair;
    let mut lines = vec![Line::from(row.name()).bold()];
    let pids: Vec<String> = pair.pids.iter().map(u32::to_string).collect();
    let about = [
        format!("side {}", pair.labels.side.name()),
        pair.labels.workload.clone(),
        if pids.is_empty() { String::new() } else { format!("pid {}", pids.join(" ")) },
    ];
    lines.push(about.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ").into());
    if let Some(listener) = &pair.listener {
        lines.push(format!("{} (pid {}) listens there, on this host", listener.name, listener.pid).into());
    }
    for (name, of) in GRAPHS {
        let values: Vec<f64> = row.rates.iter().map(of).collect();
        let now = values.last().map_or_else(|| "-".into(), |now| per_second(*now));
        lines.push(format!("{name:<9}{now:>7} {}", graph(&values, GRAPH)).into());
    }
    let use_now = [("busy", pair.busy()), ("idle", pair.unused())]
        .map(|(name, count)| (format!("established, {name}"), u64::from(count)));
    let states = pair.sockets.iter().map(|(state, count)| (state.clone(), u64::from(*count)));
    lines.extend(section("sockets now", states.chain(use_now)));
    for family in &COUNTER_FAMILIES {
        let counters = family.counters.iter().map(|labelled| {
            let value = if labelled.value.is_empty() { "all" } else { labelled.value };
            (value.to_owned(), pair.counts.get(labelled.counter))
        });
        lines.extend(section(&family.name.trim_end_matches("_total").replace('_', " "), counters));
    }
    lines
}

fn right(row: &Row, incidents: &[IncidentRecord], columns: u16) -> Vec<Line<'static>> {
    let pair = &row.pair;
    let histograms = [
        ("idle when the peer closed", &pair.peer_close_idle),
        ("idle when this host closed", &pair.local_close_idle),
        ("idle before lost requests", &pair.lost_request_idle),
    ];
    let some = histograms.into_iter().filter(|(_, samples)| samples.count > 0);
    let histograms = some.flat_map(|(name, samples)| histogram(name, samples, &IDLE_BOUNDS_MS));
    let of_pair = incidents.iter().rev().filter(|record| record.pair == pair.labels).take(INCIDENTS);
    let columns = usize::from(columns);
    let told: String = of_pair.fold(String::new(), |told, record| format!("{told}{record:columns$}\n"));
    let told: Vec<Line<'_>> = told.lines().map(|line| Line::from(line.to_owned())).collect();
    let title = (!told.is_empty()).then(|| Line::from("last incidents, the newest first").bold());
    histograms.chain(title).chain(told).collect()
}

/// A heading and what is above 0; nothing where all is 0.
fn section(title: &str, numbers: impl Iterator<Item = (String, u64)>) -> Vec<Line<'static>> {
    let some = numbers.filter(|(_, number)| *number > 0);
    let some: Vec<_> = some.map(|(name, number)| Line::from(format!("  {name:<20}{number:>9}"))).collect();
    if some.is_empty() {
        return some;
    }
    [Line::from(title.to_owned()).bold()].into_iter().chain(some).collect()
}

fn histogram(title: &str, samples: &Samples, bounds_ms: &[u32; SLOTS - 1]) -> Vec<Line<'static>> {
    let most = samples.buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let mut lines = vec![Line::from(title.to_owned()).bold()];
    for (high, count) in &samples.buckets {
        let below = bounds_ms.iter().map(|bound| f64::from(*bound) / 1e3);
        let low = below.take_while(|bound| high.is_none_or(|high| *bound < high)).last().unwrap_or(0.0);
        let range = high.map_or_else(|| format!("over {low} s"), |high| format!("{low} to {high} s"));
        let bar = usize::try_from((count * BAR).div_ceil(most)).unwrap_or_default();
        lines.push(format!("  {range:<14}{count:>7} {}", "█".repeat(bar)).into());
    }
    lines
}
