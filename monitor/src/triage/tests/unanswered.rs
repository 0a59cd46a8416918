//! Requests and connects that get no answer, and what looks like them.

use finwatch_ebpf::wire::Counter;

use super::scene::{Happened as _, innocent, kinds, observation, only, proxy};
use crate::triage::{
    finding::{Candidate, HarmClass, Level},
    kinds::Kind,
};

#[test]
fn requests_that_were_never_acknowledged_are_a_silent_drop() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .always(Counter::Opened, 200)
        .always(Counter::LocalClosedBeforeResponseUnacked, 9)
        .always(Counter::ClosedTimeout, 2);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::SilentDrop, Level::Medium));
    assert_eq!(finding.harm.requests_lost, 11);
    let alone = proxy("nginx", "10.0.0.7:80").always(Counter::LocalClosedBeforeResponseUnacked, 9);
    assert_eq!(only(&observation(vec![alone])).confidence.level, Level::Low, "nothing else was tried");
    assert!(finding.candidates.len() > 5, "a list, never one name");
    assert_eq!(finding.changes[0].directives, "proxy_socket_keepalive on;");
}

#[test]
fn probes_that_are_not_answered_lose_no_request() {
    let pair =
        proxy("haproxy", "10.0.0.7:80").always(Counter::ClosedTimeout, 6).always(Counter::SentTimeout, 6);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.harm.class), (Kind::SilentDrop, HarmClass::Latent));
}

#[test]
fn resets_after_long_quiet_times_are_a_silent_drop_and_no_race() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .always(Counter::LostNoFin, 7)
        .always(Counter::ResetReusedRequest, 7)
        .lost_after(&[(380.0, 5), (395.0, 2)]);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::SilentDrop, Level::High));
    let seconds: Vec<u32> = finding
        .candidates
        .iter()
        .filter_map(|candidate| match candidate {
            Candidate::IdleTime { seconds, .. } => Some(*seconds),
            Candidate::Listening(_) => None,
        })
        .collect();
    assert_eq!(seconds, [240, 350, 350], "nothing that remembers for longer");
}

#[test]
fn an_upstream_that_closes_after_minutes_is_a_race_and_no_silent_drop() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .peer_closes(&[(300.0, 40)])
        .always(Counter::LostNoFin, 7)
        .lost_after(&[(300.0, 7)]);
    assert_eq!(only(&observation(vec![pair])).kind, Kind::KeepAliveRace);
}

#[test]
fn where_connects_time_out_too_the_host_may_be_down() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .always(Counter::LocalClosedBeforeResponseUnacked, 9)
        .always(Counter::ConnectTimeout, 30);
    let found = crate::triage::findings(&observation(vec![pair]));
    assert_eq!(found[0].confidence.level, Level::Low);
    assert_eq!(found[1].kind, Kind::ConnectTimeouts);
}

#[test]
fn a_lost_packet_is_no_silent_drop() {
    innocent(proxy("nginx", "10.0.0.7:80").always(Counter::LocalClosedBeforeResponseUnacked, 2));
}

#[test]
fn answers_that_come_too_late() {
    let late = |count| {
        let pair = proxy("nginx", "10.0.0.7:80").always(Counter::LocalClosedBeforeResponseAcked, count);
        pair.always(Counter::ClosedLocal, count)
    };
    let pair = late(40);
    let finding = only(&observation(vec![pair]));
    assert_eq!((finding.kind, finding.harm.requests_lost), (Kind::AnswersTooLate, 40));
    assert!(finding.confidence.reason.contains("499"), "what the kernel cannot tell is not claimed");
    // Clients that leave: few, or few among many.
    innocent(late(4));
    innocent(late(40).always(Counter::ClosedLocal, 20_000));
}

#[test]
fn resets_in_the_middle_of_answers() {
    let pair = || proxy("nginx", "10.0.0.7:80").sockets("established", 20);
    let finding = only(&observation(vec![pair().always(Counter::ResetResponse, 12)]));
    assert_eq!(finding.kind, Kind::UpstreamDiesWhileAnswering);
    // One worker crashes with twelve answers under way.
    innocent(pair().once(Counter::ResetResponse, 12).once(Counter::ClosedReset, 12));
    // Resets on idle connections and after our own close take nothing with them.
    innocent(pair().always(Counter::ResetIdle, 40).always(Counter::ResetAfterLocalClose, 40));
}

#[test]
fn closes_instead_of_answers() {
    let pair = || proxy("nginx", "10.0.0.7:80").sockets("established", 20);
    let recycled = pair().always(Counter::PeerClosedBeforeResponse, 10).always(Counter::ClosedPeer, 10);
    let finding = only(&observation(vec![recycled]));
    assert_eq!((finding.kind, finding.confidence.level), (Kind::ClosesBeforeAnswering, Level::High));
    let quick = pair().always(Counter::ResetReusedRequest, 10).always(Counter::ResetFirstRequest, 4);
    let finding = only(&observation(vec![quick]));
    assert_eq!((finding.harm.requests_lost, finding.confidence.level), (14, Level::Medium));
    // One worker crashes, whatever its connections were doing.
    innocent(pair().once(Counter::PeerClosedBeforeResponse, 8).once(Counter::ResetWaiting, 5));
}

#[test]
fn resets_that_lost_requests_by_timing_are_not_counted_twice() {
    let pair = proxy("nginx", "10.0.0.7:80")
        .peer_closes(&[(5.0, 40)])
        .always(Counter::ResetReusedRequest, 10)
        .always(Counter::LostNoFin, 10)
        .lost_after(&[(5.0, 10)]);
    assert_eq!(kinds(&observation(vec![pair])), [Kind::KeepAliveRace]);
}

#[test]
fn connects_that_fail() {
    for (counter, kind) in [
        (Counter::ConnectRefused, Kind::Refuses),
        (Counter::ConnectTimeout, Kind::ConnectTimeouts),
        (Counter::ConnectUnreachable, Kind::Unreachable),
    ] {
        let pair = || proxy("nginx", "10.0.0.7:80");
        let finding = only(&observation(vec![pair().once(counter, 400)]));
        assert_eq!((finding.kind, finding.harm.connects_failed), (kind, 400), "down since a moment");
        let flapping = pair().always(counter, 400).sockets("established", 20);
        assert_eq!(only(&observation(vec![flapping])).kind, kind);
        // One probe more or less.
        innocent(pair().once(counter, 2));
    }
}

#[test]
fn one_restart_is_told_and_is_no_trouble() {
    let restarted = |refused| {
        proxy("nginx", "10.0.0.7:80")
            .always(Counter::Opened, 900)
            .local_closes(&[(60.0, 894)])
            .once(Counter::ConnectRefused, refused)
            .once(Counter::ResetHandshake, refused)
            .sockets("established", 20)
    };
    innocent(restarted(8));
    let found = crate::triage::findings(&observation(vec![restarted(200)]));
    let kinds: Vec<_> = found.iter().map(|finding| (finding.kind, finding.harm.class)).collect();
    assert_eq!(
        kinds,
        [(Kind::Refuses, HarmClass::Informative), (Kind::NothingWrong, HarmClass::Informative)]
    );
}

#[test]
fn a_restart_is_over_where_short_connections_succeed_again() {
    let mut pair =
        proxy("nginx", "10.0.0.7:80").always(Counter::Opened, 900).once(Counter::ConnectRefused, 200);
    // In the first half; nothing is open at the end.
    pair.first_half.as_mut().expect("made by halves").add(Counter::ConnectRefused, 200);
    let found = crate::triage::findings(&observation(vec![pair]));
    assert_eq!((found[0].kind, found[0].harm.class), (Kind::Refuses, HarmClass::Informative));
}
