//! Tests of conversion, rendering and filters.

use std::time::{Duration, UNIX_EPOCH};

use clap::builder::PossibleValue;
use finwatch_ebpf::{
    cause::{Cause, UNKNOWN},
    state,
    wire::{
        CONN_LOCAL_FIN, CONN_OPENED, CONN_PEER_FIN, CONN_PROXY, CONN_RST, ClosedKey, Counter, Incident,
        NO_COUNTER, PairKey, SIDE_PROXY, SIDE_UPSTREAM,
    },
};

use super::*;
use crate::model::{
    labels::{Side, labels},
    names::Names,
};

const HZ: u32 = 250;
/// 2026-11-21 14:03:11.482 UTC.
const WALL_MS: u64 = 1_795_269_791_482;
const EVENT_NS: u64 = 90_000_000_000;

fn octets(address: &str) -> [u8; 16] {
    match address.parse().expect("an address") {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    }
}

/// What the kernel tells of a request of 78 bytes written 16 ms after the peer's FIN, on a connection of 12.3 s.
pub(crate) fn evidence() -> Incident {
    let mut proxy = [0; 16];
    proxy[..5].copy_from_slice(b"nginx");
    let upstream = octets("127.0.0.1");
    Incident {
        time_ns: EVENT_NS,
        opened_ns: EVENT_NS - 12_345_678_901,
        bytes_sent: 1_234,
        bytes_received: 4_100,
        key: PairKey { side: SIDE_PROXY, flags: 0, port: 3_000, reserved: 0, upstream, proxy, cgroup: 7 },
        endpoints: ClosedKey {
            netns: 1,
            local_port: 43_512,
            remote_port: 3_000,
            local: upstream,
            remote: upstream,
        },
        flags: CONN_PROXY | CONN_OPENED | CONN_PEER_FIN | CONN_RST,
        pid: 812,
        since_received: 1_255,
        since_sent: 1,
        since_fin: 5,
        quiet: 1_254,
        bytes_unacked: 78,
        bytes_after_fin: 78,
        bytes_late: 0,
        retransmits: 0,
        srtt_us: 43,
        err: 32,
        counters: [
            Counter::ClosedPeer as u8,
            Counter::ResetAfterPeerFin as u8,
            NO_COUNTER,
            Counter::LostAfterFin as u8,
        ],
        cause: Cause::RequestAfterFin as u8,
        death: Cause::RequestAfterFin as u8,
        state: state::CLOSE_WAIT,
        late: 0,
    }
}

/// The same connection after a reset while idle: nothing asked, no FIN.
fn idle_reset() -> Incident {
    Incident {
        flags: CONN_PROXY | CONN_OPENED | CONN_RST,
        since_received: 1_250,
        since_sent: 1_250,
        since_fin: UNKNOWN,
        quiet: 0,
        bytes_unacked: 0,
        bytes_after_fin: 0,
        err: 104,
        counters: [Counter::ClosedReset as u8, Counter::ResetIdle as u8, NO_COUNTER, NO_COUNTER],
        cause: Cause::ResetIdle as u8,
        death: Cause::ResetIdle as u8,
        state: state::ESTABLISHED,
        ..evidence()
    }
}

/// This host is the upstream; a request of 120 bytes came 3 s after our close.
fn late() -> Incident {
    let upstream = octets("fd00::3");
    let remote = octets("fd00::9");
    Incident {
        opened_ns: 0,
        key: PairKey { side: SIDE_UPSTREAM, upstream, proxy: remote, ..evidence().key },
        endpoints: ClosedKey {
            netns: 4_026_532_177,
            local_port: 3_000,
            remote_port: 51_000,
            local: upstream,
            remote,
        },
        flags: CONN_OPENED | CONN_LOCAL_FIN,
        pid: 0,
        since_received: UNKNOWN,
        since_sent: UNKNOWN,
        since_fin: 750,
        quiet: UNKNOWN,
        bytes_late: 120,
        err: 0,
        counters: [NO_COUNTER; 4],
        cause: Cause::DataAfterClose as u8,
        death: Cause::DataAfterClose as u8,
        state: state::FIN_WAIT2,
        late: 1,
        ..evidence()
    }
}

fn read(incident: &Incident) -> IncidentRecord {
    let side = if incident.key.side == SIDE_PROXY { Side::Proxy } else { Side::Upstream };
    let process = match side {
        Side::Proxy => Process { name: "nginx".into(), pid: incident.pid },
        Side::Upstream => Process { name: "node".into(), pid: 901 },
    };
    let around = Surroundings {
        id: 17,
        // Read 2 s after the event.
        clocks: (UNIX_EPOCH + Duration::from_millis(WALL_MS + 2_000), EVENT_NS + 2_000_000_000),
        hz: HZ,
        pair: labels(&incident.key, &Names::default(), || "nginx.service".into()),
        netns: if incident.endpoints.netns == 1 {
            "host".into()
        } else {
            incident.endpoints.netns.to_string()
        },
        process: Some(process),
        backend: None,
    };
    IncidentRecord::read(incident, around).expect("an anomaly")
}

/// One to test readers with.
pub(crate) fn record() -> IncidentRecord {
    read(&evidence())
}

fn story(record: &IncidentRecord) -> Vec<(i64, EventKind)> {
    record.timeline.iter().map(|step| (step.offset_ms, step.event)).collect()
}

#[test]
fn a_record_survives_json() {
    for incident in [evidence(), idle_reset(), late()] {
        let record = read(&incident);
        let json = serde_json::to_string(&record).expect("JSON");
        assert!(!json.contains('\n'), "one line");
        assert_eq!(serde_json::from_str::<IncidentRecord>(&json).expect("a record"), record);
    }
}

#[test]
fn the_json_is_the_format_that_readers_rely_on() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&record()).expect("JSON"), @r#"
    {
      "id": 17,
      "time": "2026-11-21T14:03:11.482Z",
      "monotonic_ns": 90000000000,
      "pair": {
        "side": "proxy",
        "proxy": "nginx",
        "upstream": "127.0.0.1:3000",
        "workload": "nginx.service"
      },
      "local": "127.0.0.1:43512",
      "remote": "127.0.0.1:3000",
      "netns": "host",
      "process": {
        "name": "nginx",
        "pid": 812
      },
      "cause": "request_after_fin",
      "counted_in": [
        "requests_on_peer_closed_socket_total{timing=\"after_fin\"}",
        "connections_closed_total{by=\"peer\"}",
        "resets_received_total{phase=\"after_peer_fin\"}"
      ],
      "state": "close_wait",
      "errno": 32,
      "timeline": [
        {
          "offset_ms": -12345,
          "event": "opened"
        },
        {
          "offset_ms": -5020,
          "event": "data_received"
        },
        {
          "offset_ms": -20,
          "event": "peer_fin"
        },
        {
          "offset_ms": -4,
          "event": "data_sent",
          "bytes": 78
        },
        {
          "offset_ms": 0,
          "event": "rst_received"
        }
      ],
      "traffic": {
        "bytes_sent": 1234,
        "bytes_received": 4100,
        "bytes_unacked": 78,
        "bytes_after_peer_fin": 78,
        "retransmits": 0,
        "srtt_us": 43
      },
      "quiet_ms": 5016,
      "resolution_ms": 4,
      "adopted": false
    }
    "#);
}

#[test]
fn what_shares_a_tick_is_told_in_the_order_it_must_have_had() {
    use EventKind::{DataReceived, DataSent, LocalFin, Opened, PeerFin, RstReceived};
    let at_once = Incident { since_received: 2, since_sent: 2, since_fin: 2, ..evidence() };
    let after_fin = [(-12_345, Opened), (-8, DataReceived), (-8, PeerFin), (-8, DataSent), (0, RstReceived)];
    assert_eq!(story(&read(&at_once)), after_fin);
    let crossed = Incident { bytes_after_fin: 0, ..at_once };
    let before_fin = [(-12_345, Opened), (-8, DataReceived), (-8, DataSent), (-8, PeerFin), (0, RstReceived)];
    assert_eq!(story(&read(&crossed)), before_fin);
    let answered = Incident { flags: CONN_PROXY | CONN_OPENED | CONN_LOCAL_FIN, bytes_unacked: 0, ..crossed };
    let closed_by_us =
        [(-12_345, Opened), (-8, DataSent), (-8, DataReceived), (-8, LocalFin), (0, RstReceived)];
    assert_eq!(story(&read(&answered)), closed_by_us);
}

#[test]
fn nothing_is_older_than_its_connection() {
    let young =
        Incident { opened_ns: EVENT_NS - 3_000_000, since_received: 1, since_sent: 1, ..idle_reset() };
    assert_eq!(story(&read(&young))[0], (-3, EventKind::Opened));
    assert!(read(&young).timeline.iter().all(|step| step.offset_ms >= -3));
}

#[test]
fn what_never_happened_is_absent() {
    let refused = Incident {
        opened_ns: 0,
        bytes_sent: 0,
        bytes_received: 0,
        flags: CONN_PROXY | CONN_RST,
        since_received: UNKNOWN,
        since_sent: UNKNOWN,
        since_fin: UNKNOWN,
        quiet: UNKNOWN,
        bytes_unacked: 0,
        bytes_after_fin: 0,
        err: 111,
        counters: [Counter::ConnectRefused as u8, Counter::ResetHandshake as u8, NO_COUNTER, NO_COUNTER],
        cause: Cause::Refused as u8,
        death: Cause::Refused as u8,
        state: state::SYN_SENT,
        ..evidence()
    };
    let record = read(&refused);
    assert_eq!(story(&record), [(0, EventKind::RstReceived)]);
    assert_eq!((record.cause, record.quiet_ms), (IncidentCause::ConnectRefused, None));
    assert_eq!(
        record.counted_in,
        ["connect_failures_total{reason=\"refused\"}", "resets_received_total{phase=\"handshake\"}"]
    );
    assert_eq!(story(&read(&idle_reset())).last(), Some(&(0, EventKind::RstReceived)));
    assert_eq!(read(&late()).traffic, None);
}

#[test]
fn no_cause_is_left_out_and_only_anomalies_are_records() {
    let around = |incident: &Incident| Surroundings {
        id: 1,
        clocks: (UNIX_EPOCH + Duration::from_mins(5), EVENT_NS),
        hz: HZ,
        pair: labels(&incident.key, &Names::default(), String::new),
        netns: "host".into(),
        process: None,
        backend: None,
    };
    let causes: Vec<IncidentCause> = (0..=u8::MAX)
        .filter_map(|cause| {
            let incident = Incident { cause, ..evidence() };
            IncidentRecord::read(&incident, around(&incident)).map(|record| record.cause)
        })
        .collect();
    assert_eq!(causes.len(), IncidentCause::value_variants().len());
    assert!(IncidentCause::value_variants().iter().all(|cause| causes.contains(cause)));
}

#[test]
fn a_cause_is_named_as_on_the_command_line() {
    for cause in IncidentCause::value_variants() {
        let json = serde_json::to_value(cause).expect("JSON");
        assert_eq!(json.as_str(), cause.to_possible_value().as_ref().map(PossibleValue::get_name));
    }
}

#[test]
fn filters() {
    let takes = |filter: IncidentFilter| filter.takes(&record());
    let pair = |text: &str| IncidentFilter { pair: Some(text.into()), ..IncidentFilter::default() };
    assert!(takes(IncidentFilter::default()));
    assert!(takes(pair("nginx")) && takes(pair("127.0.0.1:3000")) && takes(pair("nginx.service")));
    assert!(!takes(pair("haproxy")));
    let since = |ms: u64| IncidentFilter {
        since: Some(UNIX_EPOCH + Duration::from_millis(ms)),
        ..IncidentFilter::default()
    };
    assert!(takes(since(WALL_MS - 1)) && !takes(since(WALL_MS)));
    let cause = |cause| IncidentFilter { causes: vec![cause], ..IncidentFilter::default() };
    assert!(takes(cause(IncidentCause::RequestAfterFin)) && !takes(cause(IncidentCause::ResetIdle)));
}

#[test]
fn a_lost_request_as_text() {
    insta::assert_snapshot!(record(), @r#"
    2026-11-21 14:03:11.482Z  lost request, written after the peer's FIN
      nginx -> 127.0.0.1:3000  (nginx pid 812, from 127.0.0.1:43512, nginx.service)
        -12.345 s  connection opened
         -5.020 s  last answer received
         -0.020 s  peer's FIN
         -0.004 s  request sent, 78 bytes
              0    RST received in close_wait
                   quiet for 5.0 s before the request; 78 bytes unacknowledged;
                   open 12.3 s; in 4.1 kB, out 1.2 kB; srtt 0.04 ms; errno 32;
                   times +-4 ms
    "#);
}

#[test]
fn a_reset_while_idle_as_text() {
    insta::assert_snapshot!(read(&idle_reset()), @r#"
    2026-11-21 14:03:11.482Z  reset while idle
      nginx -> 127.0.0.1:3000  (nginx pid 812, from 127.0.0.1:43512, nginx.service)
        -12.345 s  connection opened
         -5.000 s  last data sent
         -5.000 s  last data received
              0    RST received in established
                   open 12.3 s; in 4.1 kB, out 1.2 kB; srtt 0.04 ms; errno 104;
                   times +-4 ms
    "#);
}

#[test]
fn late_data_as_text() {
    insta::assert_snapshot!(read(&late()), @r#"
    2026-11-21 14:03:11.482Z  data came after our close, answered by a reset
      fd00::9 -> [fd00::3]:3000  (node pid 901, accepted from [fd00::9]:51000,
        nginx.service, netns 4026532177)
         -3.000 s  our FIN
              0    data came, nobody can read it any more, 120 bytes
              0    RST sent in fin_wait2
                   times +-4 ms
    "#);
}

#[test]
fn who_answered_behind_a_service_is_told() {
    let record = IncidentRecord { backend: Some("10.244.1.7:8080".into()), ..record() };
    let json = serde_json::to_value(&record).expect("JSON");
    assert_eq!(json["backend"], "10.244.1.7:8080");
    assert_eq!(serde_json::from_value::<IncidentRecord>(json).expect("a record"), record);
    let told = "from 127.0.0.1:43512, translated to\n    10.244.1.7:8080, nginx.service)";
    assert!(record.to_string().contains(told), "{record}");
}

#[test]
fn text_fits_into_eighty_columns() {
    let mut record = read(&late());
    record.pair.workload = "a-rather-long-name-of-a-unit-that-somebody-has-chosen.service".into();
    record.pair.upstream = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into();
    record.remote = record.pair.upstream.clone();
    let text = record.to_string();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
