//! What the families hold.

use std::{collections::BTreeMap, sync::Arc};

use finwatch::model::labels::ProcessFilter;
use finwatch_ebpf::{
    histogram::SLOTS,
    wire::{Counter, Histogram, KEY_EXTERNAL, KEY_FOLDED, SIDE_UPSTREAM},
};

use proptest::prelude::*;

use crate::{
    parsed::{parse, text, values},
    support::{Pairs, Record, busy_pairs, exporter, filtered, levels, proxy_key, upstream_key},
};

fn expect(samples: &[(&str, f64)]) -> BTreeMap<String, f64> {
    samples.iter().map(|(labels, value)| ((*labels).to_owned(), *value)).collect()
}

fn families_of(records: Vec<Record>) -> Vec<crate::parsed::Family> {
    parse(&text(&exporter(Pairs(records.into_iter().map(Some).collect()))))
}

#[test]
fn an_idle_pair_shows_what_alerts_need_from_zero_and_nothing_else() {
    let families = families_of(vec![
        Record::new(proxy_key(b"nginx", "10.0.0.1", 80)),
        Record::new(upstream_key("10.0.0.9", "10.0.0.1", 80)),
    ]);
    let pair_families: Vec<&str> = families
        .iter()
        .filter(|family| family.samples.iter().any(|sample| sample.labels.contains_key("side")))
        .map(|family| family.name.as_str())
        .collect();
    assert_eq!(
        pair_families,
        [
            "finwatch_connect_failures_total",
            "finwatch_requests_on_peer_closed_socket_total",
            "finwatch_peer_closed_before_response_total",
            "finwatch_resets_sent_total",
        ]
    );
    // Labels by name: proxy, reason, side, upstream, workload.
    assert_eq!(
        values(&families, "finwatch_connect_failures_total"),
        expect(&[("nginx|no_local_port|proxy|10.0.0.1:80|", 0.0)])
    );
    assert_eq!(
        values(&families, "finwatch_requests_on_peer_closed_socket_total"),
        expect(&[
            ("nginx|proxy|crossed_fin|10.0.0.1:80|", 0.0),
            ("nginx|proxy|after_fin|10.0.0.1:80|", 0.0),
            ("nginx|proxy|no_fin|10.0.0.1:80|", 0.0),
        ])
    );
    assert_eq!(values(&families, "finwatch_resets_sent_total"), expect(&[("no_socket||none||", 16.0)]));
}

#[test]
fn records_that_print_alike_are_merged() {
    let histogram = |first, rest| Histogram {
        sum: 1_500,
        slots: [&[first][..], &[rest; SLOTS - 1]].concat().try_into().expect("slots"),
    };
    let record = |name: &[u8], count, histogram| {
        let mut record = Record::new(proxy_key(name, "::ffff:10.0.0.1", 80)).count(Counter::Opened, count);
        record.histogram = histogram;
        record
    };
    let families = families_of(vec![
        record(b"bad\xff", 5, histogram(1, 0)),
        record(b"good", 70, histogram(0, 0)),
        record(b"bad\xfe", 600, histogram(2, 1)),
        record(b"kworker/0:1", 1, histogram(0, 0)),
        record(b"kworker/u9:2", 2, histogram(0, 0)),
    ]);
    assert_eq!(
        values(&families, "finwatch_connections_opened_total"),
        expect(&[
            ("bad\u{fffd}|proxy|10.0.0.1:80|", 605.0),
            ("good|proxy|10.0.0.1:80|", 70.0),
            ("kworker|proxy|10.0.0.1:80|", 3.0),
        ])
    );
    let durations = values(&families, "finwatch_connection_duration_seconds");
    assert_eq!(durations.get("0.001|bad\u{fffd}|proxy|10.0.0.1:80|"), Some(&3.0));
    assert_eq!(durations.get("0.005|bad\u{fffd}|proxy|10.0.0.1:80|"), Some(&4.0));
    assert_eq!(durations.get("+Inf|bad\u{fffd}|proxy|10.0.0.1:80|"), Some(&24.0));
}

#[test]
fn odd_names_survive_the_text_format() {
    for (name, printed) in [
        (&b"a\"b"[..], "a\"b"),
        (b"a\\b", "a\\b"),
        (b"a\\nb", "a\\nb"),
        (b"a\nb\x1b[31m", "a\u{fffd}b\u{fffd}[31m"),
        (b"{a=\"b\",} 1", "{a=\"b\",} 1"),
        (b"\xf0\x9f\xa6", "\u{fffd}"),
        ("日本".as_bytes(), "日本"),
        (b"", ""),
    ] {
        let families = families_of(vec![Record::new(proxy_key(name, "::1", 80)).count(Counter::Opened, 1)]);
        let labels = format!("{printed}|proxy|[::1]:80|");
        assert_eq!(values(&families, "finwatch_connections_opened_total"), expect(&[(&labels, 1.0)]));
    }
}

#[test]
fn folded_and_external_pairs_are_named_so() {
    let mut folded = proxy_key(b"\xff", "::", 0);
    folded.flags = KEY_FOLDED;
    let mut folded_upstream = folded;
    folded_upstream.side = SIDE_UPSTREAM;
    let mut external = upstream_key("::", "10.0.0.1", 80);
    external.flags = KEY_EXTERNAL;
    external.cgroup = 3;
    let records = [folded, folded_upstream, external].map(|key| Record::new(key).count(Counter::Opened, 1));
    assert_eq!(
        values(&families_of(records.into()), "finwatch_connections_opened_total"),
        expect(&[
            ("other|proxy|other|", 1.0),
            ("other|upstream|other|", 1.0),
            ("external|upstream|10.0.0.1:80|unit-3.service", 1.0),
        ])
    );
}

#[test]
fn process_filters_apply_to_the_side_that_has_a_process() {
    let mut folded = proxy_key(b"", "::", 0);
    folded.flags = KEY_FOLDED;
    let keys = || {
        let keys = [
            proxy_key(b"nginx", "::1", 1),
            proxy_key(b"kworker/1:1", "::1", 2),
            proxy_key(b"curl", "::1", 3),
            upstream_key("10.0.0.1", "10.0.0.2", 4),
            folded,
        ];
        Pairs(keys.map(|key| Some(Record::new(key).count(Counter::Opened, 1))).into())
    };
    let shown = |include: &[&str], exclude: &[&str]| {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let exporter = filtered(keys(), ProcessFilter { include: set(include), exclude: set(exclude) });
        let samples = values(&parse(&text(&exporter)), "finwatch_connections_opened_total");
        samples
            .keys()
            .map(|labels| labels.split('|').next().expect("a process").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(&[], &[]), ["10.0.0.1", "curl", "kworker", "nginx", "other"]);
    assert_eq!(shown(&[], &["kworker"]), ["10.0.0.1", "curl", "nginx", "other"]);
    assert_eq!(shown(&["nginx", "curl"], &["curl"]), ["10.0.0.1", "nginx", "other"]);
}

#[test]
fn large_families_stay_in_one_piece_and_in_order() {
    let mut pairs = busy_pairs(200);
    pairs.0.insert(7, None);
    let exporter = exporter(pairs);
    let first = text(&exporter);
    let families = parse(&first);
    assert_eq!(values(&families, "finwatch_resets_received_total").len(), 200 * 9);
    let pair_part =
        |text: &str| text[..text.find("# HELP finwatch_pairs").expect("the agent's part")].to_owned();
    assert_eq!(pair_part(&first), pair_part(&text(&exporter)));
}

#[test]
fn the_agent_tells_its_occupancy_and_limits() {
    let families = families_of(vec![]);
    let single = |name: &str| values(&families, name).get("").copied();
    for (name, value) in [
        ("finwatch_pairs", 13.0),
        ("finwatch_pairs_limit", 4096.0),
        ("finwatch_pairs_folded_total", 14.0),
        ("finwatch_pairs_expired_total", 2.0),
        ("finwatch_tracked_connections", 11.0),
        ("finwatch_untracked_connections_total", 12.0),
        ("finwatch_closed_connections", 15.0),
        ("finwatch_closed_connections_limit", 65_536.0),
        ("finwatch_incidents_total", 17.0),
        ("finwatch_incidents_lost_total", 18.0),
        ("finwatch_incident_file_errors_total", 22.0),
        ("finwatch_config_last_reload_successful", 1.0),
    ] {
        assert_eq!(single(name), Some(value), "{name}");
    }
    assert_eq!(
        values(&families, "finwatch_hook_attached"),
        expect(&[
            ("inet_sock_set_state|full", 1.0),
            ("inet_sock_set_state|partial", 0.0),
            ("inet_sock_set_state|off", 0.0),
            ("tcp_send_reset|full", 0.0),
            ("tcp_send_reset|partial", 1.0),
            ("tcp_send_reset|off", 0.0),
        ])
    );
    assert_eq!(
        values(&families, "finwatch_bpf_run_seconds_total"),
        expect(&[("inet_sock_set_state", 0.25), ("tcp_receive_reset", 0.25)])
    );
    assert!(single("process_start_time_seconds").is_some_and(|start| start > 1e9));
    assert!(single("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e5));
}

#[test]
fn nothing_of_the_proxy_side_is_shown_for_the_upstream_side() {
    let families =
        families_of(vec![Record::new(upstream_key("10.0.0.9", "10.0.0.1", 80)).count(Counter::Opened, 2)]);
    assert!(!values(&families, "finwatch_connections_opened_total").is_empty());
    assert!(values(&families, "finwatch_peer_closed_before_response_total").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Few and short names, so that some are the same and some become the same.
    #[test]
    fn whatever_the_names_a_scrape_can_be_read(names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..40)) {
        let records = names.iter().map(|name: &Vec<u8>| Some(Record::new(proxy_key(name, "::1", 80)).touched_everywhere()));
        let families = parse(&text(&exporter(Pairs(records.collect()))));
        let opened: f64 = values(&families, "finwatch_connections_opened_total").values().sum();
        prop_assert!((opened - 1_234_567.0 * names.len() as f64).abs() < 0.5);
    }
}

#[test]
fn levels_of_pairs_that_print_alike_are_added() {
    let record = || Record::new(proxy_key(b"nginx", "10.0.0.1", 80));
    let pairs = Pairs(vec![Some(record()), None, Some(record())]);
    let families = parse(&text(&exporter(pairs).with_levels(Arc::new(levels(3)), 10)));
    let sockets = values(&families, "finwatch_sockets");
    assert_eq!(sockets.len(), 9);
    assert_eq!(sockets["nginx|proxy|established|10.0.0.1:80|"].to_bits(), 2.0_f64.to_bits());
    assert_eq!(sockets["nginx|proxy|time_wait|10.0.0.1:80|"].to_bits(), 12.0_f64.to_bits());
    assert_eq!(values(&families, "finwatch_idle_sockets"), expect(&[("nginx|proxy|10.0.0.1:80|", 2.0)]));
}

#[test]
fn the_largest_port_series_are_kept_and_queues_that_print_alike_are_added() {
    let exporter = exporter(Pairs::default()).with_levels(Arc::new(levels(0)), 1);
    let families = parse(&text(&exporter));
    assert_eq!(
        values(&families, "finwatch_ephemeral_ports_used_ratio"),
        expect(&[("host|10.0.0.9|10.0.0.1:80", 0.7)])
    );
    assert_eq!(
        values(&families, "finwatch_accept_queue_limit"),
        expect(&[("host|[::]:443|unit-3.service", 256.0)])
    );
}
