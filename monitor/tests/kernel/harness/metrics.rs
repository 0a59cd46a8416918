//! Samples, and what a sequence expects of them.

use std::collections::{BTreeMap, BTreeSet};

/// Labels by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// A series: name and labels.
pub(crate) type Series = (String, Labels);

/// All samples of one exposition.
pub(crate) struct Scrape(pub(crate) BTreeMap<Series, f64>);

/// Levels, which come and go; and parts of histograms other than their counts.
const NOT_COUNTED: [&str; 10] = [
    "_bucket",
    "_sum",
    "finwatch_sockets",
    "finwatch_idle_sockets",
    "finwatch_accept_queue_length",
    "finwatch_accept_queue_limit",
    "finwatch_ephemeral_ports_used",
    "finwatch_ephemeral_ports_used_ratio",
    "finwatch_ephemeral_ports_limit",
    "finwatch_info",
];

/// Which end's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The end that connected.
    Proxy,
    /// The end that accepted.
    Upstream,
}

impl Side {
    /// The label's value.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Upstream => "upstream",
        }
    }
}

impl Scrape {
    /// Reads an exposition; panics where a line is none or a series comes twice.
    pub(crate) fn parse(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (series, value) = sample(line).unwrap_or_else(|| panic!("not a sample: {line}"));
            let before = samples.insert(series, value);
            assert!(before.is_none(), "a series comes twice: {line}");
        }
        Self(samples)
    }

    /// The sum over all series of `name` that carry these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // The sum of nothing would be -0.
        self.matching(name, labels).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The same of whole things.
    pub(crate) fn whole(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        let sum = self.sum(name, labels);
        sum.to_string().parse().unwrap_or_else(|error| panic!("{name}: {sum}: {error}"))
    }

    /// All series of `name` that carry these labels.
    pub(crate) fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> + 'a {
        self.0.iter().filter(move |((series, _), _)| series == name).filter_map(move |((_, have), value)| {
            labels
                .iter()
                .all(|(label, wanted)| have.get(*label).is_some_and(|have| have == wanted))
                .then_some((have, *value))
        })
    }

    /// What is counted for one side of `upstream`, as `family{label="value"}` without the pair's own labels; the pair's
    /// `proxy` labels go to the second place.
    fn pair(&self, side: Side, upstream: &str) -> (BTreeMap<String, f64>, Vec<String>) {
        let mut counted = BTreeMap::new();
        let mut proxies = Vec::new();
        for ((name, labels), value) in &self.0 {
            let is = |label: &str, wanted: &str| labels.get(label).is_some_and(|have| have == wanted);
            let level = NOT_COUNTED
                .iter()
                .any(|other| name == other || (other.starts_with('_') && name.ends_with(other)));
            if level || !is("upstream", upstream) || !is("side", side.label()) {
                continue;
            }
            let mut own = labels.clone();
            own.remove("side");
            own.remove("upstream");
            own.remove("workload");
            proxies.extend(own.remove("proxy"));
            let short = name.strip_prefix("finwatch_").unwrap_or(name);
            *counted.entry(render(short, &own)).or_default() += value;
        }
        proxies.sort();
        proxies.dedup();
        (counted, proxies)
    }

    /// The differences between what is counted for one side of a pair and what should be; empty when all is as it should.
    pub(crate) fn differences(
        &self,
        side: Side,
        upstream: &str,
        proxy: &str,
        expected: &[&str],
    ) -> Vec<String> {
        let (have, proxies) = self.pair(side, upstream);
        let mut wanted: BTreeMap<String, f64> = BTreeMap::new();
        let mut wrong = Vec::new();
        for item in expected {
            for (series, count) in expand(item) {
                *wanted.entry(series).or_default() += count;
            }
            if let Some((family, bound, below)) = bucket(item) {
                let labels = [("side", side.label()), ("upstream", upstream), ("le", bound)];
                let inside = self.sum(&format!("finwatch_{family}_bucket"), &labels) > 0.0;
                if inside != below {
                    let not = if below { "" } else { "not " };
                    wrong.push(format!("{family}: the bucket up to {bound} s should {not}hold the sample"));
                }
            }
        }
        if side == Side::Proxy && !expected.is_empty() {
            for always in ALWAYS {
                wanted.entry(always.to_owned()).or_default();
                if !have.contains_key(always) {
                    wrong.push(format!("{always}: not present from 0"));
                }
            }
        }
        for series in have.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
            let (have, wanted) = (have.get(series).unwrap_or(&0.0), wanted.get(series).unwrap_or(&0.0));
            if (have - wanted).abs() > 0.0 {
                wrong.push(format!("{series}: {have}, should be {wanted}"));
            }
        }
        if !have.is_empty() && proxies != [proxy] {
            wrong.push(format!("proxy is {proxies:?}, should be {proxy:?}"));
        }
        wrong
    }
}

/// Present from 0 on side=proxy.
const ALWAYS: [&str; 5] = [
    "requests_on_peer_closed_socket_total{timing=\"crossed_fin\"}",
    "requests_on_peer_closed_socket_total{timing=\"after_fin\"}",
    "requests_on_peer_closed_socket_total{timing=\"no_fin\"}",
    "peer_closed_before_response_total",
    "connect_failures_total{reason=\"no_local_port\"}",
];

/// What the short notation of the sequences' tables stands for: `closed:peer`, `connect:refused*3`.
pub(crate) fn expand(item: &str) -> Vec<(String, f64)> {
    let (item, count) = match item.split_once('*') {
        Some((item, count)) => (item, count.parse().expect("a count")),
        None => (item, 1.0),
    };
    let (item, _) = item.split_once(['<', '>']).unwrap_or((item, ""));
    let (kind, value) = item.split_once(':').unwrap_or((item, ""));
    let series = match kind {
        "opened" => "connections_opened_total".to_owned(),
        // "ended": the connection was there before the daemon, so how long it lived is not known.
        "closed" | "ended" => format!("connections_closed_total{{by=\"{value}\"}}"),
        "lived" => "connection_duration_seconds_count".to_owned(),
        "connect" => format!("connect_failures_total{{reason=\"{value}\"}}"),
        "received" => format!("resets_received_total{{phase=\"{value}\"}}"),
        "lost" => format!("requests_on_peer_closed_socket_total{{timing=\"{value}\"}}"),
        "peer_closed_before_response" => "peer_closed_before_response_total".to_owned(),
        "gave_up" => format!("local_closed_before_response_total{{acked=\"{value}\"}}"),
        "sent" => format!("resets_sent_total{{cause=\"{value}\"}}"),
        "fin_then_rst" => format!("fin_then_rst_total{{direction=\"{value}\"}}"),
        "time_wait" => "time_wait_entered_total".to_owned(),
        "peer_close_idle" => "peer_close_idle_seconds_count".to_owned(),
        "local_close_idle" => "local_close_idle_seconds_count".to_owned(),
        "lost_idle" => "lost_request_idle_seconds_count".to_owned(),
        // Recorded, and counted in no series of its own.
        "incident" => return Vec::new(),
        _ => panic!("unknown short form {item}"),
    };
    // Every connection that was opened and closed has lived.
    if kind == "closed" {
        return vec![(series, count), ("connection_duration_seconds_count".to_owned(), count)];
    }
    vec![(series, count)]
}

/// `lost_idle>1`: the family, the bound in seconds and whether the sample lies below it.
fn bucket(item: &str) -> Option<(&'static str, &str, bool)> {
    let at = item.find(['<', '>'])?;
    let family = match &item[..at] {
        "peer_close_idle" => "peer_close_idle_seconds",
        "local_close_idle" => "local_close_idle_seconds",
        "lost_idle" => "lost_request_idle_seconds",
        other => panic!("no histogram: {other}"),
    };
    Some((family, &item[at + 1..], item.as_bytes()[at] == b'<'))
}

fn render(name: &str, labels: &Labels) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// One line of the text format.
fn sample(line: &str) -> Option<(Series, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.trim().parse().ok()?;
    Some(((name.to_owned(), labels), value))
}

/// A label's value up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
finwatch_connections_opened_total{side="proxy",proxy="a",upstream="u:1",workload=""} 1
finwatch_connections_closed_total{side="proxy",proxy="a",upstream="u:1",workload="",by="peer"} 1
finwatch_connections_opened_total{side="upstream",proxy="b",upstream="u:1",workload=""} 1
finwatch_connection_duration_seconds_count{side="proxy",proxy="a",upstream="u:1",workload=""} 1
finwatch_peer_close_idle_seconds_bucket{side="proxy",proxy="a",upstream="u:1",workload="",le="1"} 1
finwatch_peer_close_idle_seconds_count{side="proxy",proxy="a",upstream="u:1",workload=""} 1
finwatch_sockets{side="proxy",proxy="a",upstream="u:1",workload="",state="established"} 7
finwatch_requests_on_peer_closed_socket_total{side="proxy",proxy="a",upstream="u:1",workload="",timing="crossed_fin"} 0
finwatch_requests_on_peer_closed_socket_total{side="proxy",proxy="a",upstream="u:1",workload="",timing="after_fin"} 0
finwatch_requests_on_peer_closed_socket_total{side="proxy",proxy="a",upstream="u:1",workload="",timing="no_fin"} 0
finwatch_peer_closed_before_response_total{side="proxy",proxy="a",upstream="u:1",workload=""} 0
finwatch_connect_failures_total{side="proxy",proxy="a",upstream="u:1",workload="",reason="no_local_port"} 0
"#;

    fn wrong(proxy: &str, expected: &[&str]) -> usize {
        Scrape::parse(TEXT).differences(Side::Proxy, "u:1", proxy, expected).len()
    }

    #[test]
    fn exactly_what_is_expected() {
        assert_eq!(wrong("a", &["opened", "closed:peer", "peer_close_idle<1"]), 0);
    }

    #[test]
    fn each_deviation_is_found() {
        assert_eq!(wrong("a", &["opened", "closed:peer"]), 1, "one that is not expected");
        assert_eq!(wrong("a", &["opened", "closed:peer", "peer_close_idle>1"]), 1, "another bucket");
        assert_eq!(wrong("a", &["opened", "closed:peer", "peer_close_idle", "time_wait"]), 1, "one missing");
        assert_eq!(wrong("a", &["opened*2", "closed:peer", "peer_close_idle"]), 1, "another count");
        assert_eq!(wrong("b", &["opened", "closed:peer", "peer_close_idle"]), 1, "another proxy");
        assert_eq!(wrong("a", &[]), 4, "none expected: opened, closed, both histograms");
    }

    #[test]
    fn escapes_and_duplicates() {
        let Scrape(samples) = Scrape::parse("a{l=\"q\\\"b\\\\n\\n,}=\"} 2\n");
        assert_eq!(samples.keys().next().expect("one").1["l"], "q\"b\\n\n,}=");
        let twice = std::panic::catch_unwind(|| Scrape::parse("a{l=\"x\"} 1\na{l=\"x\"} 1\n"));
        assert!(twice.is_err(), "a series that comes twice is refused");
    }
}
