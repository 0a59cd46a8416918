//! What an incident tells of the evidence, on the host.

use finwatch_ebpf::{
    cause::{UNKNOWN, judge},
    evidence::Evidence,
    state::{CLOSE_WAIT, LAST_ACK, SYN_SENT},
    wire::{CONN_PEER_FIN, CONN_RST, ClosedConnection, ClosedKey, Connection, Incident, PairKey},
};

const KEY: PairKey =
    PairKey { side: 0, flags: 0, port: 80, reserved: 0, upstream: [2; 16], proxy: [0; 16], cgroup: 0 };
const ENDS: ClosedKey =
    ClosedKey { netns: 1, local_port: 4_000, remote_port: 80, local: [1; 16], remote: [2; 16] };

/// A connection that has asked 100 bytes and been answered 200; the peer's FIN came 50 jiffies ago.
fn after_fin() -> (Connection, Evidence) {
    let ev = Evidence {
        now: 10_000,
        hz: 250,
        write_seq: 101,
        snd_nxt: 101,
        snd_una: 101,
        lsndtime: 9_000,
        lrcvtime: 9_001,
        bytes_sent: 100,
        bytes_received: 201,
        done: true,
        ..Evidence::default()
    };
    let mut conn = Connection::connecting(2, false, &Evidence::default());
    conn.on_established(7);
    let _ = conn.on_peer_fin(&Evidence { now: 9_950, ..ev });
    (conn, ev)
}

fn incident(conn: &mut Connection, left: u8, ev: &Evidence) -> Incident {
    let verdict = judge(conn, left, ev, 80).verdict();
    Incident::of_death(1_000, KEY, ENDS, conn, &verdict, left, ev)
}

#[test]
fn fins_are_no_data() {
    let (mut conn, ev) = after_fin();
    conn.flags |= CONN_RST;
    // A request of 300 bytes, written 10 jiffies ago; then our FIN.
    let asked = Evidence { write_seq: 402, snd_nxt: 402, bytes_sent: 400, lsndtime: 9_990, ..ev };
    let told = incident(&mut conn, LAST_ACK, &asked);
    assert_eq!((told.bytes_sent, told.bytes_received), (400, 200));
    assert_eq!((told.bytes_unacked, told.bytes_after_fin), (300, 300));
    assert_eq!((told.since_received, told.since_sent, told.since_fin), (999, 10, 50));
    assert_eq!(told.quiet, 989);
    // Without our FIN the same numbers are one byte more.
    let told = incident(&mut conn, CLOSE_WAIT, &asked);
    assert_eq!((told.bytes_unacked, told.bytes_after_fin), (301, 301));
}

#[test]
fn retransmissions_hide_the_quiet_time_and_are_not_sent_bytes() {
    let (mut conn, ev) = after_fin();
    conn.flags |= CONN_RST;
    let again = Evidence { write_seq: 401, bytes_sent: 1_000, bytes_retrans: 600, total_retrans: 2, ..ev };
    let told = incident(&mut conn, CLOSE_WAIT, &again);
    assert_eq!((told.bytes_sent, told.retransmits, told.quiet), (400, 2, UNKNOWN));
}

#[test]
fn an_attempt_to_connect_has_no_story() {
    let mut conn = Connection::connecting(2, false, &Evidence::default());
    conn.flags |= CONN_RST;
    let told = incident(
        &mut conn,
        SYN_SENT,
        &Evidence { write_seq: 1, snd_nxt: 1, err: 111, ..Evidence::default() },
    );
    assert_eq!((told.bytes_unacked, told.bytes_after_fin, told.bytes_sent), (0, 0, 0));
    assert_eq!([told.since_received, told.since_sent, told.since_fin, told.quiet], [UNKNOWN; 4]);
}

#[test]
fn sequence_numbers_wrap() {
    let (mut conn, ev) = after_fin();
    conn.flags |= CONN_RST | CONN_PEER_FIN;
    conn.mark_seq = u32::MAX - 99;
    let told = incident(&mut conn, CLOSE_WAIT, &Evidence { write_seq: 200, snd_una: u32::MAX - 99, ..ev });
    assert_eq!((told.bytes_unacked, told.bytes_after_fin), (300, 300));
    let mark = conn.mark_seq;
    // What cannot be is nothing, not four billion bytes.
    let told = incident(&mut conn, LAST_ACK, &Evidence { write_seq: mark, snd_una: mark, ..ev });
    assert_eq!((told.bytes_unacked, told.bytes_after_fin), (0, 0));
}

#[test]
fn what_is_kept_of_a_closed_connection_is_told_later() {
    let (mut conn, _) = after_fin();
    conn.pid = 812;
    let closed = ClosedConnection::new(ENDS, &conn, 0, 1);
    let told = Incident::after_end(1_000, KEY, &closed, 6, 78, 10_200);
    assert_eq!((told.pid, told.since_fin, told.bytes_late, told.late), (812, 250, 78, 1));
    assert_eq!((told.opened_ns, told.since_sent, told.endpoints), (0, UNKNOWN, ENDS));
}
