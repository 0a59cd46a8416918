//! Ports, accept queues, and what silence is worth.

use finwatch_ebpf::wire::Counter;

use super::scene::{Happened as _, directives, kinds, observation, only, ports, proxy, queue};
use crate::{
    model::observation::{EarlierUse, KernelSettings, Observation, Window},
    triage::{
        finding::{HarmClass, Level},
        findings,
        kinds::Kind,
        report::{Style, report},
    },
};

fn with_ports(used: u32, earlier: Option<(f64, u32)>, time_wait: u32, established: u32) -> Observation {
    let pair = proxy("nginx", "10.0.0.7:80")
        .sockets("time_wait", time_wait)
        .sockets("established", established)
        .always(Counter::Opened, 10);
    let mut observation = observation(vec![pair]);
    let mut held = ports("10.0.0.7:80", used);
    held.earlier = earlier.map(|(seconds, used)| EarlierUse { seconds, used });
    observation.ports = vec![held];
    observation.settings = KernelSettings {
        ip_local_port_range: Some("32768\t60999".into()),
        tcp_tw_reuse: Some(2),
        tcp_fin_timeout: Some(60),
        somaxconn: Some(4096),
    };
    observation
}

#[test]
fn ports_that_are_nearly_used_up() {
    let finding = only(&with_ports(24_000, None, 23_900, 100));
    assert_eq!((finding.kind, finding.harm.class), (Kind::PortsRunningOut, HarmClass::Imminent));
    assert!(finding.verdict.contains("24,000 of 28,232 local ports"), "{}", finding.verdict);
    assert!(!directives(&finding, "nginx").is_empty(), "keep-alive removes the cause");
    assert_eq!(directives(&finding, "Linux")[0].directives, "net.ipv4.ip_local_port_range = 10240 65535");
}

#[test]
fn ports_toward_an_upstream_with_a_name() {
    let mut observation = with_ports(24_000, None, 23_900, 100);
    observation.ports[0].name = Some("checkout".into());
    observation.pairs[0].labels.upstream = "checkout".into();
    observation.pairs[0].addresses = vec!["10.0.0.7:80".parse().expect("an endpoint")];
    let pair = observation.pairs.remove(0).always(Counter::ConnectNoLocalPort, 5);
    observation.pairs.push(pair);
    let finding = only(&observation);
    assert!(finding.verdict.contains("5 connects to checkout (10.0.0.7:80) failed"), "{}", finding.verdict);
    let held = "toward checkout in all: 23,900 in TIME_WAIT or FIN_WAIT2, 100 established";
    assert!(finding.evidence.iter().any(|line| line == held), "{:?}", finding.evidence);
    assert!(directives(&finding, "nginx")[0].context.contains("that lists 10.0.0.7:80"));
}

#[test]
fn ports_whose_end_is_in_sight() {
    let finding = only(&with_ports(20_000, Some((10.0, 18_000)), 19_000, 1_000));
    assert_eq!(finding.harm.seconds_left.map(f64::round), Some(41.0));
    assert!(finding.verdict.contains("gone in 41 s"), "{}", finding.verdict);
    let leak = only(&with_ports(10_000, Some((10.0, 9_000)), 0, 10_000));
    assert_eq!(leak.harm.seconds_left.map(f64::round), Some(182.0), "established connections give none back");
    assert!(directives(&leak, "nginx").is_empty(), "keep-alive is no remedy for what is kept");
}

#[test]
fn another_namespace_has_settings_of_its_own() {
    let mut observation = with_ports(24_000, None, 23_900, 100);
    observation.settings.ip_local_port_range = Some("1024 65535".into());
    let ours = only(&observation);
    assert!(ours.evidence.iter().any(|line| line.contains("= 1024 65535")), "{:?}", ours.evidence);
    assert_eq!(directives(&ours, "Linux").len(), 1, "the range is wide already");
    observation.ports[0].netns = "4026532177".into();
    let theirs = only(&observation);
    assert!(!theirs.evidence.iter().any(|line| line.contains("1024")), "{:?}", theirs.evidence);
    assert_eq!(directives(&theirs, "Linux").len(), 2, "not known to be wide");
}

#[test]
fn what_holds_ports_for_good_reasons() {
    for observation in [
        // An hour of 200 short connections a second.
        with_ports(12_000, Some((10.0, 12_000)), 11_900, 100),
        // The first seconds of such traffic: TIME_WAIT will run out as fast.
        with_ports(7_200, Some((10.0, 5_200)), 7_000, 200),
        with_ports(12_000, Some((10.0, 12_400)), 11_900, 100),
    ] {
        assert_eq!(kinds(&observation), [Kind::NothingWrong]);
    }
}

#[test]
fn connects_without_a_port_fail_now() {
    let mut observation = with_ports(100, None, 90, 10);
    observation.pairs[0].counts.add(Counter::ConnectNoLocalPort, 31);
    let finding = only(&observation);
    assert_eq!((finding.harm.class, finding.harm.connects_failed), (HarmClass::FailedConnects, 31));
    // The destination is not among those that are listed.
    observation.ports.clear();
    let finding = only(&observation);
    assert_eq!((finding.kind, finding.harm.connects_failed), (Kind::PortsRunningOut, 31));
}

#[test]
fn accept_queues() {
    let with_queue = |length, limit| {
        let mut observation = with_ports(0, None, 0, 5);
        observation.queues = vec![queue(length, limit)];
        observation
    };
    let full = only(&with_queue(512, 511));
    assert_eq!((full.kind, full.harm.class), (Kind::AcceptQueueFull, HarmClass::FailedConnects));
    assert_eq!(full.changes[0].directives, "backlog: 4096");
    assert_eq!(only(&with_queue(450, 511)).harm.class, HarmClass::Imminent);
    let bounded = only(&with_queue(4_097, 4_096));
    assert_eq!(bounded.changes[0].directives, "net.core.somaxconn = 8192");
    for (length, limit) in [(0, 0), (0, 511), (200, 511), (4, 5)] {
        assert_eq!(kinds(&with_queue(length, limit)), [Kind::NothingWrong], "{length} of {limit}");
    }
}

#[test]
fn silence_says_what_it_is_worth() {
    let quiet = with_ports(0, None, 0, 5);
    let found = findings(&quiet);
    assert_eq!((found[0].kind, found[0].confidence.level), (Kind::NothingWrong, Level::High));
    assert!(found[0].evidence[0].contains("15 min"), "{:?}", found[0].evidence);
    let mut short = quiet.clone();
    short.window = Window { seconds: 30.0, asked_seconds: 30.0, watched_seconds: 30.0 };
    assert_eq!(findings(&short)[0].confidence.level, Level::Medium);
    let mut blind = quiet;
    blind.watch.degraded_hooks = vec!["tcp_send_reset: resets without a full socket are not traced".into()];
    blind.watch.pairs_folded = 3;
    let found = findings(&blind);
    assert_eq!(kinds(&blind), [Kind::NotAllSeen, Kind::NothingWrong]);
    assert_eq!(found[1].confidence.level, Level::Medium);
    assert_eq!(findings(&Observation::default())[0].confidence.level, Level::Low, "nothing seen");
    let text = report(&blind, &found, Style { width: 80, color: false });
    assert!(text.contains("tcp_send_reset"), "{text}");
}
