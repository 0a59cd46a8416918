//! What a load's totals must come to in finwatch's counters, and what differs.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::Result;

use super::{
    load::{CLOSED_PORT, Kind, PORT, Totals},
    sight::Unseen,
};
use crate::daemon::metrics::Samples;

/// How many pairs the connections to one accepting end make: both sides', and that of the refused ones.
pub(crate) const PAIRS: u64 = 3;

/// A family with the label that tells its series apart.
type Series = (&'static str, Option<(&'static str, &'static str)>);

/// Incidents that a load makes: a refusal, a reset that met an idle connection, a request lost to a reset.
pub(crate) fn anomalies(totals: &Totals) -> u64 {
    [Kind::Refused, Kind::OpenerAborts, Kind::AcceptorAborts, Kind::RequestUnread]
        .into_iter()
        .map(|kind| totals.of(kind))
        .sum()
}

/// What is counted otherwise than the accepting end `upstream` has seen it, by more than nobody can have seen.
pub(crate) fn differences(
    samples: &Samples,
    upstream: Ipv4Addr,
    totals: &Totals,
    unseen: &Unseen,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (side, port, expected) in [
        ("proxy", PORT, opener(totals)),
        ("upstream", PORT, acceptor(totals)),
        ("proxy", CLOSED_PORT, refused(totals)),
    ] {
        let unseen = unseen.of_pair(side, upstream, port) + totals.closed_by_others();
        let upstream = format!("{upstream}:{port}");
        let pair = [("side", side), ("upstream", upstream.as_str())];
        for family in FAMILIES {
            // Each series, and that there is no other.
            let all: u64 =
                expected.iter().filter(|((name, _), _)| name == family).map(|(_, count)| count).sum();
            let series = expected.iter().filter(|((name, label), _)| name == family && label.is_some());
            let each = series.map(|((_, label), count)| (*label, *count));
            for (label, wanted) in each.chain([(None, all)]) {
                let labels: Vec<_> = pair.into_iter().chain(label).collect();
                let have = samples.sum(&format!("finwatch_{family}"), &labels)?;
                if have.abs_diff(wanted) > unseen {
                    let label =
                        label.map_or(String::new(), |(name, value)| format!("{{{name}=\"{value}\"}}"));
                    wrong.push(format!("{upstream} side={side} {family}{label}: {have}, should be {wanted}"));
                }
            }
        }
    }
    Ok(wrong)
}

/// Every counter of a pair that a load could move, also those that must stand still.
const FAMILIES: &[&str] = &[
    "connections_opened_total",
    "connections_closed_total",
    "connection_duration_seconds_count",
    "connect_failures_total",
    "resets_received_total",
    "resets_sent_total",
    "time_wait_entered_total",
    "fin_then_rst_total",
    "requests_on_peer_closed_socket_total",
    "peer_closed_before_response_total",
    "local_closed_before_response_total",
];

fn opened(totals: &Totals) -> u64 {
    totals.all() - totals.of(Kind::Refused)
}

/// The side that opens.
fn opener(totals: &Totals) -> BTreeMap<Series, u64> {
    let of = |kind| totals.of(kind);
    let resets = of(Kind::OpenerAborts) + of(Kind::AcceptorAborts) + of(Kind::RequestUnread);
    [
        (("connections_opened_total", None), opened(totals)),
        (("connection_duration_seconds_count", None), opened(totals)),
        (("connections_closed_total", Some(("by", "local"))), of(Kind::OpenerCloses)),
        (("connections_closed_total", Some(("by", "peer"))), of(Kind::AcceptorCloses)),
        (("connections_closed_total", Some(("by", "reset"))), resets),
        (("time_wait_entered_total", None), of(Kind::OpenerCloses)),
        (("resets_sent_total", Some(("cause", "abort"))), of(Kind::OpenerAborts)),
        (("resets_received_total", Some(("phase", "idle"))), of(Kind::AcceptorAborts)),
        (("resets_received_total", Some(("phase", "first_request"))), of(Kind::RequestUnread)),
    ]
    .into()
}

/// The side that accepts.
fn acceptor(totals: &Totals) -> BTreeMap<Series, u64> {
    let of = |kind| totals.of(kind);
    let resets = of(Kind::OpenerAborts) + of(Kind::AcceptorAborts) + of(Kind::RequestUnread);
    [
        (("connections_opened_total", None), opened(totals)),
        (("connection_duration_seconds_count", None), opened(totals)),
        (("connections_closed_total", Some(("by", "peer"))), of(Kind::OpenerCloses)),
        (("connections_closed_total", Some(("by", "local"))), of(Kind::AcceptorCloses)),
        (("connections_closed_total", Some(("by", "reset"))), resets),
        (("time_wait_entered_total", None), of(Kind::AcceptorCloses)),
        (("resets_received_total", Some(("phase", "idle"))), of(Kind::OpenerAborts)),
        (("resets_sent_total", Some(("cause", "abort"))), of(Kind::AcceptorAborts)),
        (("resets_sent_total", Some(("cause", "unread_data_at_close"))), of(Kind::RequestUnread)),
    ]
    .into()
}

fn refused(totals: &Totals) -> BTreeMap<Series, u64> {
    let refused = totals.of(Kind::Refused);
    [
        (("connect_failures_total", Some(("reason", "refused"))), refused),
        (("resets_received_total", Some(("phase", "handshake"))), refused),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an accepting end at 127.83.0.1 has seen: one connection closed by the opener, and one refused.
    const TEXT: &str = r#"
finwatch_connections_opened_total{side="proxy",upstream="127.83.0.1:7200"} 1
finwatch_connections_opened_total{side="upstream",upstream="127.83.0.1:7200"} 1
finwatch_connections_closed_total{side="proxy",upstream="127.83.0.1:7200",by="local"} 1
finwatch_connections_closed_total{side="upstream",upstream="127.83.0.1:7200",by="peer"} 1
finwatch_connection_duration_seconds_count{side="proxy",upstream="127.83.0.1:7200"} 1
finwatch_connection_duration_seconds_count{side="upstream",upstream="127.83.0.1:7200"} 1
finwatch_time_wait_entered_total{side="proxy",upstream="127.83.0.1:7200"} 1
finwatch_connect_failures_total{side="proxy",upstream="127.83.0.1:7201",reason="refused"} 1
finwatch_resets_received_total{side="proxy",upstream="127.83.0.1:7201",phase="handshake"} 1
"#;

    fn wrong(text: &str) -> usize {
        let totals = serde_json::from_str(r#"{"opener_closes": 1, "refused": 1}"#).expect("totals");
        let samples = Samples::parse(text).expect("a scrape");
        let upstream = Ipv4Addr::new(127, 83, 0, 1);
        differences(&samples, upstream, &totals, &Unseen::default()).expect("whole numbers").len()
    }

    #[test]
    fn each_difference_is_found() {
        assert_eq!(wrong(TEXT), 0);
        assert_eq!(wrong(&TEXT.replace("by=\"peer\"} 1", "by=\"peer\"} 2")), 2, "the series and the sum");
        assert_eq!(wrong(&TEXT.replace("time_wait_entered", "other")), 1, "one missing");
        let more = "finwatch_fin_then_rst_total{side=\"proxy\",upstream=\"127.83.0.1:7200\"} 1\n";
        assert_eq!(wrong(&format!("{TEXT}{more}")), 1, "one that must stand still");
    }
}
