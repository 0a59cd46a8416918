//! The pairs as a table: a line with the name, one with numbers, one with who closes and resets by phase.

use std::{cmp::Reverse, fmt::Write as _};

use anstyle::Style as Paint;
use finwatch_ebpf::wire::Counter;

use super::{
    facts,
    report::{Page, pair_name},
};
use crate::model::{
    labels::Side,
    observation::{Observation, Pair},
};

/// Pairs that are printed; all are in the JSON.
const MAX_PAIRS: usize = 20;
/// Columns with their widths; a number takes at most seven.
const COLUMNS: [(&str, usize); 7] =
    [("opened/s", 12), ("open", 9), ("busy", 9), ("idle", 9), ("TIME_WAIT", 11), ("ports", 9), ("lost", 9)];

/// Writes the table: what is lost most first, then what is opened most.
pub(super) fn write(page: &mut Page, observation: &Observation) {
    if observation.pairs.is_empty() {
        return;
    }
    page.gap();
    page.painted("Pairs", Paint::new().bold());
    let heading: String = COLUMNS.iter().fold(String::new(), |mut line, (name, width)| {
        write!(line, "{name:>width$}").expect("a string");
        line
    });
    page.painted(&heading, Paint::new().dimmed());
    let mut pairs: Vec<&Pair> = observation.pairs.iter().collect();
    pairs.sort_by_key(|pair| {
        let opened = pair.counts.get(Counter::Opened);
        Reverse((pair.counts.sum(&facts::LOST), opened, facts::established(pair)))
    });
    for pair in pairs.iter().take(MAX_PAIRS) {
        write_pair(page, observation, pair);
    }
    if pairs.len() > MAX_PAIRS {
        page.line(&format!("and {} more, see --json", facts::number((pairs.len() - MAX_PAIRS) as u64)));
    }
}

fn write_pair(page: &mut Page, observation: &Observation, pair: &Pair) {
    let name = pair_name(&pair.labels, page.style.width);
    page.line(&name);
    let cells = [
        facts::per_second(facts::rate(pair.counts.get(Counter::Opened), observation.window.seconds)),
        facts::short(facts::established(pair).into()),
        facts::short(pair.busy().into()),
        facts::short(pair.unused().into()),
        facts::short(pair.in_state("time_wait").into()),
        ports(observation, pair),
        lost(pair),
    ];
    let mut numbers = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        write!(numbers, "{cell:>width$}").expect("a string");
    }
    page.line(&numbers);
    let details = details(pair);
    if !details.is_empty() {
        page.paragraph(&details, "    ", "    ");
    }
}

/// The most that one source address holds toward the destination.
fn ports(observation: &Observation, pair: &Pair) -> String {
    let toward = observation.ports.iter().filter(|ports| ports.label() == pair.labels.upstream);
    let most = toward.map(|ports| ports.used).max().filter(|_| facts::is_proxy(pair));
    most.map_or_else(|| "-".into(), |used| facts::short(used.into()))
}

fn lost(pair: &Pair) -> String {
    if facts::is_proxy(pair) { facts::short(pair.counts.sum(&facts::LOST)) } else { "-".into() }
}

fn details(pair: &Pair) -> String {
    let (local, peer) = match pair.labels.side {
        Side::Proxy => ("proxy", "upstream"),
        Side::Upstream => ("upstream", "proxy"),
    };
    let closed = [
        (Counter::ClosedPeer, peer),
        (Counter::ClosedLocal, local),
        (Counter::ClosedReset, "reset"),
        (Counter::ClosedTimeout, "timeout"),
    ];
    let sent = pair.counts.sum(&facts::RESETS_SENT);
    let mut parts = Vec::new();
    for (words, counters) in [("closed by:", &closed[..]), ("resets received:", &facts::RESETS_RECEIVED)] {
        let some = counters.iter().map(|(counter, name)| (pair.counts.get(*counter), name));
        let list: Vec<String> = some
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{name} {}", facts::number(count)))
            .collect();
        if !list.is_empty() {
            parts.push(format!("{words} {}", list.join(", ")));
        }
    }
    if sent > 0 {
        parts.push(format!("resets sent: {}", facts::number(sent)));
    }
    parts.join("; ")
}
