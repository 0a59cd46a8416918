//! Keep-alive races, lost and latent, from either end, and what looks like them.

use finwatch_ebpf::wire::Counter;

use super::scene::{
    Happened, directives, innocent, kinds, nginx_and_node, observation, only, proxy, upstream,
};
use crate::{
    model::observation::Pair,
    triage::{
        finding::{Candidate, End, HarmClass, Level},
        kinds::Kind,
    },
};

#[test]
fn the_race_names_the_time_the_process_and_both_changes() {
    let finding = only(&observation(vec![nginx_and_node()]));
    assert_eq!(finding.kind, Kind::KeepAliveRace);
    assert_eq!(finding.harm.requests_lost, 8);
    assert_eq!(finding.confidence.level, Level::High);
    assert!(finding.verdict.contains("idle for 5.0 s"), "{}", finding.verdict);
    assert!(matches!(&finding.candidates[0], Candidate::Listening(process) if process.name == "node"));
    let nginx = directives(&finding, "nginx");
    assert_eq!((nginx.len(), nginx[0].end), (1, End::Proxy));
    assert_eq!(nginx[0].directives, "keepalive_timeout 4s;");
    assert!(nginx[0].context.contains("upstream {} block that lists 127.0.0.1:3000"));
    let node = directives(&finding, "Node.js");
    assert_eq!((node.len(), node[0].end), (1, End::Upstream));
    assert_eq!(node[0].directives, "server.keepAliveTimeout = 65_000;\nserver.headersTimeout = 66_000;");
    assert_eq!(finding.changes.len(), 2);
}

#[test]
fn an_upstream_with_a_name_is_configured_by_its_addresses() {
    let mut pair = nginx_and_node();
    pair.labels.upstream = "checkout".into();
    pair.addresses = ["10.0.0.5:8080", "10.0.0.6:8080"].map(|end| end.parse().expect("an endpoint")).into();
    let finding = only(&observation(vec![pair]));
    assert!(finding.verdict.contains("checkout closes connections"), "{}", finding.verdict);
    let nginx = directives(&finding, "nginx");
    assert!(nginx[0].context.contains("that lists 10.0.0.5:8080 or 10.0.0.6:8080"), "{}", nginx[0].context);
}

#[test]
fn a_race_of_one_request_is_named_with_less_confidence() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .peer_closes(&[(5.0, 40)])
        .once(Counter::LostNoFin, 1)
        .once(Counter::ResetReusedRequest, 1)
        .lost_after(&[(5.0, 1)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::KeepAliveRace, Level::Medium));
}

#[test]
fn the_time_comes_from_the_lost_requests_where_no_close_was_seen() {
    let pair = proxy("nginx", "10.0.0.7:80").always(Counter::LostNoFin, 12).lost_after(&[(6.01, 12)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!(finding.kind, Kind::KeepAliveRace);
    assert!(finding.verdict.contains("6.0 s"), "{}", finding.verdict);
    assert_eq!(directives(&finding, "nginx")[0].directives, "keepalive_timeout 5s;");
    assert_eq!(finding.confidence.level, Level::Medium);
}

#[test]
fn a_count_limit_is_a_race_without_a_time() {
    let pair = proxy("haproxy", "10.0.0.7:80")
        .always(Counter::LostAfterFin, 20)
        .always(Counter::ResetAfterPeerFin, 20)
        .peer_closes(&[(0.01, 300)])
        .lost_after(&[(0.01, 20)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::KeepAliveRace, Level::Low));
    assert!(finding.verdict.contains("at no one idle time"), "{}", finding.verdict);
    let changes: Vec<&str> = finding.changes.iter().map(|change| change.directives.as_str()).collect();
    assert_eq!(changes, ["retry-on conn-failure empty-response"]);
}

#[test]
fn equal_timeouts_are_named_as_such() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .peer_closes(&[(60.02, 14)])
        .local_closes(&[(60.05, 20)])
        .lived(&[(400.0, 20)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::LatentRace, Level::High));
    assert!(finding.verdict.contains("equal timeouts"), "{}", finding.verdict);
    assert_eq!(directives(&finding, "nginx")[0].directives, "keepalive_timeout 54s;");
}

#[test]
fn a_latent_race_is_told_before_anything_is_lost() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .always(Counter::Opened, 50)
        .peer_closes(&[(5.0, 45)])
        .lived(&[(5.0, 20), (60.0, 25)])
        .listener("uvicorn");
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.harm.class), (Kind::LatentRace, HarmClass::Latent));
    assert_eq!(finding.confidence.level, Level::High);
    assert_eq!(directives(&finding, "uvicorn")[0].directives, "--timeout-keep-alive 65");
}

#[test]
fn a_latent_race_without_reuse_is_less_sure() {
    let pair = proxy("curl-pool", "10.0.0.7:80").peer_closes(&[(5.0, 45)]).lived(&[(5.1, 45)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::LatentRace, Level::Medium));
}

#[test]
fn the_range_is_told_where_not_all_closes_share_a_bucket() {
    let pair = nginx_and_node().peer_closes(&[(5.0, 75), (0.4, 3), (20.0, 4)]);
    let finding = only(&observation(vec![pair]));
    assert!(finding.verdict.contains("idle for 4.5 to 5.5 s"), "{}", finding.verdict);
    assert_eq!(directives(&finding, "nginx")[0].directives, "keepalive_timeout 3s;", "below the whole range");
}

#[test]
fn one_restart_is_no_race() {
    let spread = [(0.3, 4), (1.5, 6), (3.0, 9), (5.0, 5), (12.0, 4)];
    innocent(
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 60)
            .peer_closes_once(&spread)
            .once(Counter::LostAfterFin, 2)
            .once(Counter::ResetAfterPeerFin, 2)
            .once(Counter::PeerClosedBeforeResponse, 3)
            .once(Counter::ClosedPeer, 3)
            .lost_after(&[(0.2, 2)])
            .sockets("established", 28)
            .idle(20),
    );
}

#[test]
fn one_restart_after_a_burst_closes_the_whole_pool_at_one_idle_time() {
    innocent(
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 60)
            .peer_closes_once(&[(2.0, 32)])
            .sockets("established", 3),
    );
}

#[test]
fn where_halves_are_not_known_more_closes_than_connections_are_a_habit() {
    let mut pair = proxy("nginx", "10.0.0.7:80").peer_closes_once(&[(5.0, 32)]).sockets("established", 32);
    pair.first_half = None;
    innocent(pair.clone());
    let pair = pair.sockets("established", 10);
    assert_eq!(kinds(&observation(vec![pair])), [Kind::LatentRace]);
}

#[test]
fn a_proxy_that_closes_first_is_no_race() {
    innocent(
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 50)
            .always(Counter::TimeWaitEntered, 45)
            .local_closes(&[(60.0, 45)])
            .lived(&[(200.0, 45)])
            .sockets("established", 8)
            .sockets("time_wait", 5)
            .idle(6),
    );
}

#[test]
fn half_closes_and_goodbyes_are_no_race() {
    // A half-close: the peer's FIN right after the request's last byte, answered all the same.
    innocent(proxy("ssh-like", "10.0.0.7:80").always(Counter::Opened, 20).peer_closes(&[(0.01, 20)]));
    // TLS goodbyes: a reset after the peer's FIN on every connection, no request lost.
    let goodbye = proxy("node", "10.0.0.7:443")
        .always(Counter::Opened, 20)
        .always(Counter::ResetAfterPeerFin, 20)
        .always(Counter::FinThenRstReceived, 20)
        .peer_closes(&[(0.01, 20)]);
    innocent(goodbye);
}

#[test]
fn an_upstream_that_closes_right_after_its_answer_is_no_latent_race() {
    innocent(
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 20)
            .peer_closes(&[(0.05, 20)])
            .lived(&[(0.1, 20)]),
    );
}

fn own_side() -> Pair {
    upstream("10.0.0.2", "10.0.0.7:80")
        .always(Counter::Opened, 80)
        .local_closes(&[(5.0, 75)])
        .always(Counter::SentDataAfterClose, 6)
        .always(Counter::FinThenRstSent, 6)
        .listener("gunicorn")
}

#[test]
fn this_host_closes_what_a_proxy_uses() {
    let finding = only(&observation(vec![own_side()]));
    assert_eq!(finding.kind, Kind::OwnSideCloses);
    assert!(finding.verdict.contains("idle for 5.0 s"), "{}", finding.verdict);
    assert_eq!(directives(&finding, "gunicorn")[0].directives, "--keep-alive 65");
    let unread = upstream("10.0.0.2", "10.0.0.7:80")
        .local_closes(&[(5.0, 75)])
        .always(Counter::ClosedReset, 7)
        .always(Counter::SentUnreadDataAtClose, 7);
    assert_eq!(only(&observation(vec![unread])).harm.requests_lost, 7);
}

#[test]
fn goodbyes_do_not_hide_requests_that_were_not_read() {
    let pair = upstream("10.0.0.2", "10.0.0.7:443")
        .local_closes(&[(5.0, 75)])
        .always(Counter::SentDataAfterClose, 70)
        .always(Counter::ClosedReset, 7)
        .always(Counter::SentUnreadDataAtClose, 7);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.harm.requests_lost), (Kind::OwnSideCloses, 7));
}

fn closed_unread(happened: fn(Pair, Counter, u64) -> Pair) -> Pair {
    let pair = happened(upstream("10.0.0.2", "10.0.0.7:80"), Counter::ClosedReset, 128);
    happened(pair, Counter::SentUnreadDataAtClose, 128).listener("node")
}

#[test]
fn requests_that_this_host_does_not_read_are_told_without_a_time() {
    let finding = only(&observation(vec![closed_unread(Happened::always)]));
    assert_eq!((finding.kind, finding.harm.requests_lost), (Kind::OwnSideCloses, 128));
    assert_eq!(finding.confidence.level, Level::Low);
    // One restart.
    innocent(closed_unread(Happened::once));
    // One restart, and goodbyes left unread all along.
    innocent(closed_unread(Happened::once).always(Counter::SentUnreadDataAtClose, 40));
}

#[test]
fn benign_resets_of_this_host_are_no_race() {
    // TLS clients say goodbye on every connection that is closed.
    innocent(
        upstream("10.0.0.2", "10.0.0.7:443")
            .local_closes(&[(65.0, 75)])
            .always(Counter::SentDataAfterClose, 70),
    );
    // A peer's close_notify is left unread after its FIN.
    innocent(
        upstream("10.0.0.2", "10.0.0.7:443")
            .peer_closes(&[(0.1, 40)])
            .local_closes(&[(65.0, 75)])
            .always(Counter::SentUnreadDataAtClose, 40),
    );
    // Health checks and closed listeners abort; proxies abort idle connections.
    innocent(
        upstream("10.0.0.2", "10.0.0.7:80")
            .local_closes(&[(65.0, 75)])
            .always(Counter::ClosedReset, 50)
            .always(Counter::SentAbort, 30)
            .always(Counter::ResetIdle, 20)
            .always(Counter::SentUnreadDataAtClose, 1),
    );
    // Browsers are not proxies.
    innocent(
        upstream("external", "10.0.0.7:443")
            .local_closes(&[(65.0, 75)])
            .always(Counter::SentDataAfterClose, 9),
    );
}

#[test]
fn both_ends_on_one_host_are_told_once() {
    let mut there = own_side();
    there.labels.upstream = "127.0.0.1:3000".into();
    there.labels.proxy = "127.0.0.1".into();
    assert_eq!(kinds(&observation(vec![nginx_and_node(), there])), [Kind::KeepAliveRace]);
    let here = proxy("nginx", "10.0.0.7:80")
        .always(Counter::ClosedReset, 128)
        .always(Counter::ResetFirstRequest, 128);
    let both = vec![here, closed_unread(Happened::always)];
    assert_eq!(kinds(&observation(both)), [Kind::ClosesBeforeAnswering]);
    // What nginx gives up is not what this host closes toward another.
    let late = proxy("nginx", "10.0.0.7:80")
        .always(Counter::ClosedLocal, 40)
        .always(Counter::LocalClosedBeforeResponseAcked, 40);
    let both = vec![late, closed_unread(Happened::always)];
    assert_eq!(kinds(&observation(both)), [Kind::OwnSideCloses, Kind::AnswersTooLate]);
}

#[test]
fn thousands_come_before_a_few() {
    let many = proxy("nginx", "10.0.0.8:80")
        .peer_closes(&[(5.0, 4_000)])
        .always(Counter::LostNoFin, 3_000)
        .lost_after(&[(5.0, 3_000)]);
    let latent = proxy("nginx", "10.0.0.9:80").peer_closes(&[(5.0, 4_000)]);
    let found = crate::triage::findings(&observation(vec![latent, nginx_and_node(), many]));
    let lost: Vec<u64> = found.iter().map(|finding| finding.harm.requests_lost).collect();
    assert_eq!(lost, [3_000, 8, 0]);
}
