//! A peer that stops answering.

use std::{mem::MaybeUninit, time::Duration};

use crate::{
    harness::{
        lab::{Connection, Lab},
        netns,
        peer::Unreachable,
    },
    sequence::sequences,
};

sequences! {
    /// The peer no longer answers keep-alive probes.
    keepalive_timeout near "keepalive_answered"
        on Proxy "7->2 2->1 RST-out 1->7" => ["opened", "closed:timeout", "sent:timeout"]
        run Crafted(|lab| {
            let mut connection = kept_alive(lab);
            failed(&connection, libc::ETIMEDOUT);
            connection.close();
        });

    /// The peer answers keep-alive probes.
    keepalive_answered near "keepalive_timeout"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle>1"]
        run Crafted(|lab| {
            let mut connection = kept_alive(lab);
            connection.peer.await_segment("a probe", |segment| segment.seq != connection.peer.receive_next);
            connection.peer.ack();
            connection.peer.fin();
            connection.close_last();
        });

    /// A request is never acknowledged until the kernel gives up (`TCP_USER_TIMEOUT`).
    user_timeout near "gave_up_unacked"
        on Proxy "7->2 2->1 1->7" => ["opened", "closed:timeout"]
        run Crafted(|lab| {
            let mut connection = hurried(lab);
            connection.request(200);
            failed(&connection, libc::ETIMEDOUT);
            connection.close();
        });

    /// The same where ICMP host unreachable came meanwhile: the error is that one.
    timeout_after_icmp near "user_timeout"
        on Proxy "7->2 2->1 1->7" => ["opened", "closed:timeout"]
        run Crafted(|lab| {
            let mut connection = hurried(lab);
            connection.write(200);
            connection.peer.unreachable_data(Unreachable::Host);
            failed(&connection, libc::EHOSTUNREACH);
            connection.close();
        });

    /// A request is sent again until the retries are used up.
    retransmission_timeout near "user_timeout"
        on Proxy "7->2 2->1 1->7" => ["opened", "closed:timeout"]
        run Crafted(|lab| {
            lab.retransmit_after("200ms");
            netns::sysctl("ipv4/tcp_retries2", "1");
            let mut connection = lab.used();
            connection.request(200);
            failed(&connection, libc::ETIMEDOUT);
            connection.close();
        });

    /// The peer never acknowledges our FIN: the orphan is given up.
    fin_never_acknowledged near "clean_close_by_local"
        on Proxy "7->2 2->1 1->4 4->7" => ["opened", "closed:local", "incident:timed_out", "local_close_idle<1"]
        run Crafted(|lab| {
            lab.retransmit_after("200ms");
            netns::sysctl("ipv4/tcp_orphan_retries", "1");
            let mut connection = lab.used();
            connection.close();
            for _ in 0..2 {
                connection.peer.await_segment("FIN", |segment| segment.fin);
            }
            std::thread::sleep(Duration::from_millis(1_500));
        });

    /// The peer's FIN came first and ours is never acknowledged.
    last_ack_never_comes near "clean_close_by_peer"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1", "incident:timed_out"]
        run Crafted(|lab| {
            lab.retransmit_after("200ms");
            netns::sysctl("ipv4/tcp_orphan_retries", "1");
            let mut connection = lab.used();
            connection.peer.fin();
            connection.close();
            for _ in 0..2 {
                connection.peer.await_segment("FIN", |segment| segment.fin);
            }
            std::thread::sleep(Duration::from_millis(1_500));
        });
}

/// A used connection with keep-alive after 1 s, one probe.
fn kept_alive(lab: &Lab) -> Connection {
    let connection = lab.used();
    let second = Duration::from_secs(1);
    let keepalive = socket2::TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
    connection.socket().set_tcp_keepalive(&keepalive).expect("an option");
    connection
}

/// A used connection that is given up soon when nothing is acknowledged.
fn hurried(lab: &Lab) -> Connection {
    lab.retransmit_after("200ms");
    let connection = lab.used();
    connection.socket().set_tcp_user_timeout(Some(Duration::from_millis(900))).expect("an option");
    connection
}

/// Waits until the kernel has given the connection up.
fn failed(connection: &Connection, error: i32) {
    let error_found =
        connection.socket().recv(&mut [MaybeUninit::uninit(); 1]).map_err(|error| error.raw_os_error());
    assert_eq!(error_found, Err(Some(error)));
}
