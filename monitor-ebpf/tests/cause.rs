//! The cause function on the host: every rule with a near neighbour, and that it is total.

use finwatch_ebpf::{
    cause::{Cause, Death, UNKNOWN, judge},
    evidence::Evidence,
    state::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_RECV, SYN_SENT},
    wire::{
        CONN_ADOPTED, CONN_GAVE_UP_ACKED, CONN_GAVE_UP_UNACKED, CONN_NO_REQUEST_RULES, CONN_OPENED,
        CONN_PROXY, CONN_RST, CONN_RST_SENT, Connection, Counter,
    },
};
use proptest::prelude::*;

const HZ: u32 = 250;
const GOODBYE: u32 = 80;
const ISN: u32 = u32::MAX - 50;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const EHOSTUNREACH: u32 = 113;

/// A connection that has asked 100 bytes and been answered 200, long before `now`.
fn answered() -> Evidence {
    Evidence {
        now: 100_000,
        hz: HZ,
        write_seq: ISN.wrapping_add(101),
        snd_nxt: ISN.wrapping_add(101),
        snd_una: ISN.wrapping_add(101),
        rcv_nxt: 1_201,
        copied_seq: 1_201,
        lsndtime: 90_000,
        lrcvtime: 90_001,
        data_segs_in: 1,
        bytes_sent: 100,
        bytes_received: 200,
        local_port: 40_000,
        ..Evidence::default()
    }
}

/// The same with another request, sent `ago` jiffies ago.
fn asked_again(ago: u32, acknowledged: bool) -> Evidence {
    let before = answered();
    let end = before.write_seq.wrapping_add(300);
    Evidence {
        write_seq: end,
        snd_nxt: end,
        snd_una: if acknowledged { end } else { before.snd_una },
        lsndtime: before.now - ago,
        bytes_sent: before.bytes_sent + 300,
        ..before
    }
}

fn proxy() -> Connection {
    let mut conn = Connection::connecting(2, false, &Evidence { write_seq: ISN, ..Evidence::default() });
    conn.on_established(1);
    conn
}

fn upstream() -> Connection {
    Connection::accepted(2, 1)
}

fn reset(mut conn: Connection, old: u8, ev: Evidence) -> Death {
    conn.flags |= CONN_RST;
    judge(&mut conn, old, &Evidence { err: ECONNRESET, ..ev }, GOODBYE)
}

/// The peer's FIN reaches a proxy that looks like `at_fin`.
fn after_peer_fin(at_fin: &Evidence) -> (Connection, Evidence) {
    let mut conn = proxy();
    let with_fin =
        Evidence { rcv_nxt: at_fin.rcv_nxt + 1, bytes_received: at_fin.bytes_received + 1, ..*at_fin };
    conn.on_peer_fin(&with_fin);
    (conn, with_fin)
}

fn write(ev: Evidence, bytes: u32) -> Evidence {
    let end = ev.write_seq.wrapping_add(bytes);
    Evidence {
        write_seq: end,
        snd_nxt: end,
        lsndtime: ev.now,
        bytes_sent: ev.bytes_sent + u64::from(bytes),
        ..ev
    }
}

#[test]
fn stale_reuse_is_one_lost_request_in_close_wait_and_in_last_ack() {
    for (old, fin) in [(CLOSE_WAIT, 0), (LAST_ACK, 1)] {
        let (conn, at_fin) = after_peer_fin(&answered());
        let mut ev = write(at_fin, GOODBYE + 1);
        ev.write_seq = ev.write_seq.wrapping_add(fin);
        let death = reset(conn, old, ev);
        assert_eq!(death.cause, Cause::RequestAfterFin);
        assert_eq!(death.request, Some(Counter::LostAfterFin));
        assert_eq!(death.reset_received, Some(Counter::ResetAfterPeerFin));
        assert_eq!(death.end, Counter::ClosedPeer);
        assert_eq!(death.lost_quiet, 9_999);
        assert!(death.fin_then_rst);
    }
}

#[test]
fn a_goodbye_after_the_fin_is_no_request() {
    for (old, fin) in [(CLOSE_WAIT, 0), (LAST_ACK, 1)] {
        for bytes in [0, 24, 31, GOODBYE] {
            let (conn, at_fin) = after_peer_fin(&answered());
            let mut ev = write(at_fin, bytes);
            ev.write_seq = ev.write_seq.wrapping_add(fin);
            let death = reset(conn, old, ev);
            assert_eq!((death.cause, death.request), (Cause::ResetAfterPeerFin, None), "{bytes} bytes");
        }
    }
}

#[test]
fn a_request_that_crosses_the_fin_is_lost_only_with_a_reset() {
    let (conn, at_fin) = after_peer_fin(&asked_again(1, false));
    let death = reset(conn, CLOSE_WAIT, at_fin);
    assert_eq!((death.cause, death.request), (Cause::RequestCrossedFin, Some(Counter::LostCrossedFin)));
    assert_eq!(death.lost_quiet, 9_998);
    let mut conn = conn;
    let death = judge(&mut conn, LAST_ACK, &at_fin, GOODBYE);
    assert_eq!(
        (death.cause, death.request),
        (Cause::PeerClosedBeforeResponse, Some(Counter::PeerClosedBeforeResponse))
    );
}

#[test]
fn a_retransmission_hides_the_quiet_time() {
    let ev = Evidence { bytes_retrans: 300, ..asked_again(1, false) };
    let (conn, at_fin) = after_peer_fin(&ev);
    assert_eq!(reset(conn, CLOSE_WAIT, at_fin).lost_quiet, UNKNOWN);
    let death = reset(proxy(), ESTABLISHED, ev);
    assert_eq!((death.request, death.lost_quiet), (Some(Counter::LostNoFin), UNKNOWN));
}

#[test]
fn without_a_fin_the_quiet_time_before_the_request_tells() {
    let death = reset(proxy(), ESTABLISHED, asked_again(1, true));
    assert_eq!(death.cause, Cause::RequestWithoutFin);
    assert_eq!(death.reset_received, Some(Counter::ResetReusedRequest));
    assert_eq!(death.request, Some(Counter::LostNoFin));
    assert_eq!(death.end, Counter::ClosedReset);
    assert_eq!(death.lost_quiet, 9_998);
    let busy = Evidence { lrcvtime: asked_again(1, true).lsndtime - (HZ - 1), ..asked_again(1, true) };
    let death = reset(proxy(), ESTABLISHED, busy);
    assert_eq!((death.cause, death.request), (Cause::ResetReusedRequest, None));
    let quiet = Evidence { lrcvtime: busy.lsndtime - HZ, ..busy };
    assert_eq!(reset(proxy(), ESTABLISHED, quiet).request, Some(Counter::LostNoFin));
}

#[test]
fn phases_of_a_reset_on_the_proxy_side() {
    let phase = |ev| reset(proxy(), ESTABLISHED, ev).reset_received;
    let first = Evidence { bytes_received: 0, ..asked_again(1, false) };
    assert_eq!(phase(first), Some(Counter::ResetFirstRequest));
    assert_eq!(phase(asked_again(HZ, true)), Some(Counter::ResetWaiting));
    assert_eq!(phase(asked_again(HZ - 1, true)), Some(Counter::ResetReusedRequest));
    assert_eq!(phase(asked_again(HZ, false)), Some(Counter::ResetReusedRequest));
    assert_eq!(phase(Evidence { now: 90_001 + HZ - 1, ..answered() }), Some(Counter::ResetResponse));
    assert_eq!(phase(Evidence { now: 90_001 + HZ, ..answered() }), Some(Counter::ResetIdle));
    let unused = Evidence { bytes_sent: 0, bytes_received: 0, ..answered() };
    assert_eq!(phase(unused), Some(Counter::ResetIdle));
}

#[test]
fn phases_of_a_reset_on_the_upstream_side() {
    let phase = |ev| reset(upstream(), ESTABLISHED, ev).reset_received;
    let asked = Evidence { lrcvtime: 95_000, ..answered() };
    assert_eq!(phase(asked), Some(Counter::ResetAnswering));
    let answered_now = Evidence { lsndtime: 95_000, ..answered() };
    assert_eq!(phase(answered_now), Some(Counter::ResetIdle));
    let in_flight = Evidence { snd_nxt: answered_now.snd_nxt.wrapping_add(9), ..answered_now };
    assert_eq!(phase(in_flight), Some(Counter::ResetAnswering));
}

#[test]
fn data_on_a_closed_socket_is_no_received_reset() {
    let mut conn = upstream();
    let closing = Evidence { shutdown: 3, ..answered() };
    conn.on_local_fin(&closing);
    let late = Evidence { data_segs_in: 2, dead: true, ..closing };
    let death = reset(conn, FIN_WAIT1, late);
    assert_eq!((death.cause, death.reset_received), (Cause::DataAfterClose, None));
    assert_eq!(death.end, Counter::ClosedLocal);
    assert!(death.may_be_followed() && !death.time_wait);
    let bare = Evidence { dead: true, ..closing };
    let death = reset(conn, FIN_WAIT1, bare);
    assert_eq!(death.reset_received, Some(Counter::ResetAfterLocalClose));
}

#[test]
fn time_wait_is_entered_with_a_fin_or_as_an_orphan_whose_peer_is_silent() {
    let closing = Evidence { shutdown: 3, ..answered() };
    let judge_at = |old, ev: Evidence| {
        let mut conn = upstream();
        conn.on_local_fin(&closing);
        judge(&mut conn, old, &ev, GOODBYE)
    };
    let orphan = Evidence { dead: true, ..closing };
    assert!(judge_at(FIN_WAIT2, orphan).time_wait);
    assert!(judge_at(FIN_WAIT2, Evidence { done: true, ..closing }).time_wait);
    assert!(judge_at(CLOSING, Evidence { done: true, ..closing }).time_wait);
    let late_data = judge_at(FIN_WAIT2, Evidence { data_segs_in: 2, ..orphan });
    assert_eq!((late_data.time_wait, late_data.cause), (false, Cause::DataAfterClose));
    let no_linger = judge_at(FIN_WAIT2, Evidence { linger2: -1, ..orphan });
    assert_eq!((no_linger.time_wait, no_linger.cause), (false, Cause::Aborted));
    let unacknowledged = Evidence { snd_una: closing.snd_una.wrapping_sub(1), done: true, ..closing };
    assert!(!judge_at(CLOSING, unacknowledged).time_wait);
}

#[test]
fn resets_of_ours_are_told_apart() {
    let unread = Evidence { copied_seq: 1_101, shutdown: 3, ..answered() };
    let end = |ev| judge(&mut upstream(), ESTABLISHED, &ev, GOODBYE);
    assert_eq!((end(unread).cause, end(unread).end), (Cause::UnreadDataAtClose, Counter::ClosedReset));
    let linger = Evidence { shutdown: 3, ..answered() };
    assert_eq!((end(linger).cause, end(linger).end), (Cause::Aborted, Counter::ClosedReset));
    let alive = |old, err| {
        let mut conn = proxy();
        conn.flags |= CONN_RST_SENT;
        judge(&mut conn, old, &Evidence { err, ..answered() }, GOODBYE)
    };
    let keepalive = alive(ESTABLISHED, ETIMEDOUT);
    assert_eq!((keepalive.reset_sent, keepalive.end), (Some(Counter::SentTimeout), Counter::ClosedTimeout));
    assert_eq!(alive(ESTABLISHED, 103).reset_sent, Some(Counter::SentAbort));
    assert_eq!(alive(FIN_WAIT2, 0).reset_sent, Some(Counter::SentTimeout));
    assert_eq!(alive(FIN_WAIT1, 0).reset_sent, Some(Counter::SentOther));
}

#[test]
fn an_unread_close_notify_at_close_is_benign() {
    let with_notify = Evidence { rcv_nxt: answered().rcv_nxt + 24, bytes_received: 224, ..answered() };
    let (mut conn, at_fin) = after_peer_fin(&with_notify);
    let death = judge(&mut conn, CLOSE_WAIT, &Evidence { shutdown: 3, ..at_fin }, GOODBYE);
    assert_eq!((death.cause, death.end), (Cause::UnreadDataAtClose, Counter::ClosedPeer));
    assert_eq!((death.request, death.reset_received), (None, None));
    assert_eq!(death.anomaly, None);
}

#[test]
fn giving_up_counts_after_a_second_and_once() {
    let give_up = |ev: Evidence| {
        let mut conn = proxy();
        let counted = conn.on_local_fin(&Evidence { shutdown: 3, ..ev });
        let at_end = judge(&mut conn, FIN_WAIT2, &Evidence { shutdown: 3, dead: true, ..ev }, GOODBYE);
        assert_eq!(at_end.request, None, "not a second time");
        assert_eq!(at_end.anomaly, at_end.cause.is_anomaly().then_some(at_end.cause));
        (counted, at_end.cause)
    };
    let acked = Some(Counter::LocalClosedBeforeResponseAcked);
    let unacked = Some(Counter::LocalClosedBeforeResponseUnacked);
    assert_eq!(give_up(asked_again(HZ, true)), (acked, Cause::GaveUpAcked));
    assert_eq!(give_up(asked_again(HZ, false)), (unacked, Cause::GaveUpUnacked));
    assert_eq!(give_up(asked_again(HZ - 1, true)), (None, Cause::ClosedByUs));
    assert_eq!(give_up(answered()), (None, Cause::ClosedByUs));
}

#[test]
fn a_half_close_gives_up_only_with_the_other_half() {
    let mut conn = proxy();
    let ev = asked_again(HZ, true);
    assert_eq!(conn.on_local_fin(&Evidence { shutdown: 2, ..ev }), None);
    let counted = conn.on_application_close(&Evidence { shutdown: 3, ..ev }, true);
    assert_eq!(counted, Some(Counter::LocalClosedBeforeResponseAcked));
}

#[test]
fn failed_connects() {
    let fresh = Evidence { now: 10, hz: HZ, write_seq: 7, ..Evidence::default() };
    let fail = |bound, ev: Evidence, rst: bool| {
        let mut conn = Connection::connecting(2, bound, &fresh);
        conn.flags |= if rst { CONN_RST } else { 0 };
        judge(&mut conn, SYN_SENT, &ev, GOODBYE)
    };
    let sent = Evidence { write_seq: 8, snd_nxt: 8, local_port: 4_000, ..fresh };
    let refused = fail(false, Evidence { err: 111, ..sent }, true);
    assert_eq!((refused.cause, refused.reset_received), (Cause::Refused, Some(Counter::ResetHandshake)));
    let by_icmp = fail(false, Evidence { err: 111, ..sent }, false);
    assert_eq!((by_icmp.cause, by_icmp.reset_received), (Cause::Unreachable, None));
    assert_eq!(fail(false, Evidence { err: EHOSTUNREACH, ..sent }, false).cause, Cause::Unreachable);
    assert_eq!(
        fail(false, Evidence { err: ETIMEDOUT, total_retrans: 1, ..sent }, false).cause,
        Cause::ConnectTimeout
    );
    assert_eq!(fail(false, Evidence { total_retrans: 1, ..sent }, false).cause, Cause::ConnectTimeout);
    assert_eq!(fail(false, sent, false).cause, Cause::Abandoned);
    let read_already = Evidence { error_queued: true, ..sent };
    assert_eq!(fail(false, read_already, false).cause, Cause::Unreachable);
    assert_eq!(fail(false, Evidence { total_retrans: 1, ..read_already }, false).cause, Cause::Unreachable);
    assert_eq!(
        fail(false, Evidence { err: ETIMEDOUT, total_retrans: 6, ..read_already }, false).cause,
        Cause::ConnectTimeout
    );
    assert_eq!(fail(false, Evidence { snd_nxt: 7, ..sent }, false).cause, Cause::ConnectFailed);
    assert_eq!(fail(false, fresh, false).cause, Cause::NoLocalPort);
    assert_eq!(fail(true, fresh, false).cause, Cause::ConnectFailed);
    assert_eq!(fail(false, Evidence { local_port: 4_000, ..fresh }, false).cause, Cause::ConnectFailed);
}

#[test]
fn without_request_rules_nothing_is_said_about_requests() {
    let mut conn = proxy();
    conn.flags |= CONN_NO_REQUEST_RULES;
    let death = reset(conn, ESTABLISHED, asked_again(1, true));
    assert_eq!((death.request, death.reset_received), (None, Some(Counter::ResetIdle)));
    let (mut conn, at_fin) = after_peer_fin(&asked_again(1, false));
    conn.flags |= CONN_NO_REQUEST_RULES;
    assert_eq!(reset(conn, CLOSE_WAIT, at_fin).request, None);
}

#[test]
fn idle_at_the_peers_fin() {
    let mut conn = proxy();
    assert_eq!(conn.on_peer_fin(&answered()), Some(9_999));
    let notify = Evidence { rcv_nxt: 1_226, lrcvtime: 100_000, bytes_received: 225, ..answered() };
    assert_eq!(proxy().on_peer_fin(&notify), Some(10_000), "our own last data, not the close_notify");
    assert_eq!(proxy().on_peer_fin(&asked_again(5, true)), None, "a request is unanswered");
    let owed = Evidence { lrcvtime: 95_000, ..answered() };
    assert_eq!(upstream().on_peer_fin(&owed), None, "an answer is owed");
    assert_eq!(upstream().on_peer_fin(&Evidence { lsndtime: 95_000, ..answered() }), Some(5_000));
}

#[test]
fn times_compare_across_the_wrap_of_jiffies() {
    let ev = Evidence {
        lrcvtime: u32::MAX - 10,
        lsndtime: u32::MAX.wrapping_add(HZ),
        now: HZ + 1,
        ..asked_again(1, true)
    };
    let death = reset(proxy(), ESTABLISHED, ev);
    assert_eq!((death.request, death.lost_quiet), (Some(Counter::LostNoFin), HZ + 10));
}

prop_compose! {
    fn any_evidence()(
        seqs in any::<[u32; 5]>(), times in any::<[u32; 3]>(), segments in 0..4u32, retrans in 0..3u32,
        bytes in prop::array::uniform3(0..400u64), err in prop::sample::select(vec![0, 32, 101, 103, 104, 110, 111, 113]),
        linger2 in -1..2i32, local_port in any::<u16>(), shutdown in 0..4u8, [dead, done, error_queued] in any::<[bool; 3]>(),
    ) -> Evidence {
        Evidence {
            now: times[0], hz: HZ, write_seq: seqs[0], snd_nxt: seqs[1], snd_una: seqs[2], rcv_nxt: seqs[3],
            copied_seq: seqs[4], lsndtime: times[1], lrcvtime: times[2], data_segs_in: segments, total_retrans: retrans,
            bytes_sent: bytes[0], bytes_retrans: bytes[1], bytes_received: bytes[2], err, linger2, local_port, shutdown,
            dead, done, error_queued,
        }
    }
}

prop_compose! {
    fn any_connection()(
        opened_ns in any::<u64>(), flags in 0..CONN_ADOPTED * 2, mark_seq in any::<u32>(),
        segments_at_close in 0..4u32, quiet_at_fin in any::<u32>(), port_at_connect in 0..=u32::from(u16::MAX),
    ) -> Connection {
        Connection {
            opened_ns,
            slot: 2,
            flags,
            mark_seq,
            segments_at_close,
            quiet_at_fin,
            port_at_connect,
            netns: 0,
            seen: 0,
            pid: 0,
            first_fin: 0,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn every_death_is_judged_and_consistent(
        conn in any_connection(), ev in any_evidence(), goodbye in 0..1_000u32,
        old in prop::sample::select(vec![ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING]),
    ) {
        use Counter as C;
        let mut first = conn;
        let death = judge(&mut first, old, &ev, goodbye);
        let mut second = conn;
        prop_assert_eq!(death, judge(&mut second, old, &ev, goodbye), "deterministic");
        let opened = conn.flags & (CONN_OPENED | CONN_ADOPTED) != 0;
        let closed = (C::ClosedLocal..=C::ClosedTimeout).contains(&death.end);
        let failed = (C::ConnectRefused..=C::ConnectOther).contains(&death.end);
        prop_assert_eq!((closed, failed), (opened, !opened));
        // Exactly one phase for a believed reset, none otherwise.
        if let Some(phase) = death.reset_received {
            prop_assert!(conn.has(CONN_RST));
            prop_assert!((C::ResetHandshake..=C::ResetAnswering).contains(&phase));
            prop_assert!(!death.time_wait);
        } else {
            prop_assert!(!conn.has(CONN_RST) || death.cause == Cause::DataAfterClose);
            prop_assert!(!matches!(death.request, Some(C::LostCrossedFin | C::LostAfterFin | C::LostNoFin)));
        }
        // The upstream side never asks.
        if !conn.has(CONN_PROXY) || conn.has(CONN_NO_REQUEST_RULES) {
            prop_assert!(!matches!(death.request, Some(C::LostCrossedFin | C::LostAfterFin | C::LostNoFin)));
        }
        if let Some(C::LostNoFin) = death.request {
            prop_assert_eq!(death.reset_received, Some(C::ResetReusedRequest));
        }
        if let Some(C::LostCrossedFin | C::LostAfterFin) = death.request {
            prop_assert_eq!(death.reset_received, Some(C::ResetAfterPeerFin));
        }
        prop_assert!(death.lost_quiet == UNKNOWN || death.request.is_some());
        // What is counted as an anomaly is reported as one.
        let anomalous = death.request.is_some() || death.reset_received.is_some() || death.cause.is_anomaly();
        let gave_up = first.flags & (CONN_GAVE_UP_ACKED | CONN_GAVE_UP_UNACKED) != 0;
        prop_assert_eq!(death.anomaly.is_some(), anomalous || gave_up);
    }
}
