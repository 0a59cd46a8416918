//! The report as it is read, word for word.

use finwatch_ebpf::wire::Counter;
use insta::assert_snapshot;

use super::scene::{Happened as _, nginx_and_node, observation, ports, proxy, queue, upstream};
use crate::{
    model::{
        behind::Behind,
        incident::IncidentCause,
        labels::Side,
        observation::{EarlierUse, KernelSettings, Observation, Window},
    },
    triage::{
        findings,
        report::{Style, report},
    },
};

fn printed(observation: &Observation, width: usize) -> String {
    report(observation, &findings(observation), Style { width, color: false })
}

fn settings() -> KernelSettings {
    KernelSettings {
        ip_local_port_range: Some("32768\t60999".into()),
        tcp_tw_reuse: Some(2),
        tcp_fin_timeout: Some(60),
        somaxconn: Some(4096),
    }
}

#[test]
fn nothing_wrong() {
    let web = proxy("nginx", "10.0.0.7:8080")
        .always(Counter::Opened, 214)
        .local_closes(&[(60.0, 198)])
        .always(Counter::TimeWaitEntered, 198)
        .lived(&[(300.0, 198)])
        .sockets("established", 16)
        .sockets("time_wait", 13)
        .idle(11);
    let clients = upstream("10.0.0.2", "10.0.0.3:443").peer_closes(&[(30.0, 12)]).always(Counter::Opened, 14);
    let mut observation = observation(vec![web, clients]);
    observation.ports = vec![ports("10.0.0.7:8080", 29)];
    assert_snapshot!(printed(&observation, 80));
}

#[test]
fn keep_alive_race() {
    let mut pair = nginx_and_node();
    pair.labels.workload = "nginx.service".into();
    assert_snapshot!(printed(&observation(vec![pair]), 80));
}

#[test]
fn keep_alive_race_behind_a_service() {
    use IncidentCause::{RequestAfterFin, RequestNoFin, ResetIdle};
    let behind = |backend: Option<&str>, cause, incidents| Behind {
        backend: backend.map(ToOwned::to_owned),
        cause,
        incidents,
    };
    let (one, other) = (Some("10.244.1.7:8080"), Some("10.244.2.9:8080"));
    let mut pair = nginx_and_node();
    pair.labels.upstream = "10.96.0.10:80".into();
    pair.listener = None;
    pair.behind = vec![
        behind(None, RequestNoFin, 2),
        behind(other, RequestNoFin, 1),
        behind(one, RequestNoFin, 3),
        behind(one, RequestAfterFin, 2),
        // What the finding is not about.
        behind(other, ResetIdle, 9),
    ];
    assert_snapshot!(printed(&observation(vec![pair.clone()]), 80));
    pair.behind.retain(|behind| behind.backend.is_none());
    let unknown = printed(&observation(vec![pair.clone()]), 80);
    assert!(!unknown.contains("behind"), "{unknown}");
    pair.behind = (1..=11).map(|n| behind(Some(&format!("10.244.1.{n}:80")), RequestNoFin, n)).collect();
    let many = printed(&observation(vec![pair]), 80);
    assert!(many.contains("10.244.1.11:80 (11)") && many.contains(" (4), 3 more\n"), "{many}");
}

#[test]
fn latent_race_of_equal_timeouts() {
    let pair = proxy("nginx", "10.0.0.7:8080")
        .always(Counter::Opened, 40)
        .peer_closes(&[(60.02, 14)])
        .local_closes(&[(60.05, 20)])
        .lived(&[(400.0, 34)])
        .sockets("established", 6)
        .idle(4);
    assert_snapshot!(printed(&observation(vec![pair]), 80));
}

fn running_out() -> Observation {
    let pair = proxy("nginx", "10.0.0.7:8080")
        .always(Counter::Opened, 420_000)
        .local_closes(&[(0.001, 419_900)])
        .always(Counter::TimeWaitEntered, 419_900)
        .lived(&[(0.02, 419_900)])
        .sockets("established", 90)
        .sockets("time_wait", 25_400);
    let mut observation = observation(vec![pair]);
    let mut held = ports("10.0.0.7:8080", 25_490);
    held.earlier = Some(EarlierUse { seconds: 10.0, used: 24_600 });
    observation.ports = vec![held];
    observation.settings = settings();
    observation
}

#[test]
fn ports_running_out() {
    assert_snapshot!(printed(&running_out(), 80));
}

#[test]
fn several_at_once() {
    let mut observation = running_out();
    let dropping = proxy("haproxy", "10.9.0.1:5432")
        .always(Counter::LocalClosedBeforeResponseUnacked, 14)
        .always(Counter::ClosedLocal, 14);
    let refused = proxy("nginx", "10.0.0.8:8080").always(Counter::ConnectRefused, 1_200);
    let mut leaking = proxy("java", "10.0.0.9:9200").sockets("close_wait", 210).sockets("established", 4);
    leaking.oldest_close_wait_seconds = Some(5_400.0);
    observation.pairs.extend([nginx_and_node(), dropping, refused, leaking]);
    observation.queues = vec![queue(512, 511)];
    observation.watch.missed_runs = 2;
    observation.watch.missed_ends = 1;
    observation.watch.degraded_hooks =
        vec!["tcp_send_reset: resets without a full socket are not traced before Linux 6.10".into()];
    observation.window = Window { seconds: 340.0, asked_seconds: 900.0, watched_seconds: 340.0 };
    assert_snapshot!(printed(&observation, 80));
}

#[test]
fn long_and_odd_names() {
    let mut long = nginx_and_node();
    long.labels.proxy = "the-payment-gateway-of-the-checkout-team-in-production-blue".into();
    long.labels.upstream = "recommendation-service-v2.internal.example.com:18443".into();
    long.labels.workload = "pod/1b2c3d4e-0000-1111-2222-333344445555/0123456789ab".into();
    let mut odd = nginx_and_node();
    odd.labels.proxy = "\u{1b}[31mré\u{202e}d 漢字漢字".into();
    odd.listener = None;
    assert_snapshot!(printed(&observation(vec![long, odd]), 60));
}

#[test]
fn ipv6() {
    let mut pair = nginx_and_node();
    pair.labels.upstream = "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:8080".into();
    pair.listener = None;
    let mut there = upstream("2001:db8:85a3:8d3:1319:8a2e:370:1", "[2001:db8:85a3:8d3:1319:8a2e:370:2]:443");
    there.labels.side = Side::Upstream;
    assert_snapshot!(printed(&observation(vec![pair, there]), 80));
}

#[test]
fn colour_changes_nothing_but_colour() {
    let observation = running_out();
    let found = findings(&observation);
    let plain = report(&observation, &found, Style { width: 80, color: false });
    let painted = report(&observation, &found, Style { width: 80, color: true });
    let mut stripped = String::new();
    for (at, part) in painted.split("\u{1b}[").enumerate() {
        stripped += if at == 0 { part } else { part.split_once('m').expect("only colours").1 };
    }
    assert_eq!(stripped, plain);
    assert!(painted.contains('\u{1b}') && !plain.contains('\u{1b}'));
}
