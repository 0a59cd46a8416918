//! connect(): what it can end in, and the ways a connection comes to be.

use std::{thread, time::Duration};

use crate::{
    harness::{
        lab::{Connection, disconnect, set_option},
        netns,
        peer::{Peer, Unreachable},
        until,
    },
    sequence::sequences,
};

sequences! {
    /// The peer answers the SYN with RST.
    refused near "refused_by_icmp"
        on Proxy "7->2 RST-in 2->7" => ["connect:refused", "received:handshake"]
        run Crafted(|lab| {
            let (socket, peer) = lab.dial();
            peer.refuse();
            failed(&socket, libc::ECONNREFUSED);
        });

    /// A firewall answers the SYN with ICMP port unreachable (REJECT).
    refused_by_icmp near "refused"
        on Proxy "7->2 2->7" => ["connect:unreachable"]
        run Crafted(|lab| {
            let (socket, peer) = lab.dial();
            peer.unreachable(Unreachable::Port);
            failed(&socket, libc::ECONNREFUSED);
        });

    /// A router answers the SYN with ICMP host unreachable.
    host_unreachable near "syn_timeout"
        on Proxy "7->2 2->7" => ["connect:unreachable"]
        run Crafted(|lab| {
            let (socket, peer) = lab.dial();
            peer.unreachable(Unreachable::Host);
            failed(&socket, libc::EHOSTUNREACH);
        });

    /// A router answers the SYN with ICMP network unreachable.
    net_unreachable near "host_unreachable"
        on Proxy "7->2 2->7" => ["connect:unreachable"]
        run Crafted(|lab| {
            let (socket, peer) = lab.dial();
            peer.unreachable(Unreachable::Net);
            failed(&socket, libc::ENETUNREACH);
        });

    /// Nobody answers the SYN until the kernel gives up.
    syn_timeout near "gave_up_connecting"
        on Proxy "7->2 2->7" => ["connect:timeout"]
        run Crafted(|lab| {
            netns::sysctl("ipv4/tcp_syn_retries", "1");
            netns::sysctl_if_there("ipv4/tcp_syn_linear_timeouts", "0");
            let (socket, _peer) = lab.dial();
            failed(&socket, libc::ETIMEDOUT);
        });

    /// The application gives up connecting after the SYN was sent again.
    gave_up_connecting near "abandoned_connect"
        on Proxy "7->2 2->7" => ["connect:timeout"]
        run Crafted(|lab| {
            let (socket, peer) = lab.dial();
            peer.await_segment("a second SYN", |segment| segment.syn);
            drop(socket);
        });

    /// The application gives up connecting before the SYN was sent again.
    abandoned_connect near "gave_up_connecting"
        on Proxy "7->2 2->7" => ["connect:abandoned"]
        run Crafted(|lab| drop(lab.dial()));

    /// Three times no local port is left: `bind()` holds the whole range.
    no_local_port near "port_of_its_own_in_use"
        on Proxy "7->2 2->7 7->2 2->7 7->2 2->7" => ["connect:no_local_port*3"]
        run Crafted(|lab| {
            netns::sysctl("ipv4/ip_local_port_range", "40000 40001");
            let _held: Vec<_> = [40_000, 40_001].map(|port| {
                let socket = lab.socket();
                socket.bind(&lab.family.socket_address((lab.family.any(), port))).expect("a free port");
                socket
            }).into();
            for _ in 0..3 {
                assert_eq!(lab.try_dial(&lab.socket()), Err(libc::EADDRNOTAVAIL));
            }
        });

    /// Two connections use up the range toward this upstream; a third finds no local port.
    no_local_port_left near "port_of_its_own_in_use"
        on Proxy "7->2 2->1 7->2 2->1 7->2 2->7 1->8 8->9 9->7 1->8 8->9 9->7"
            => ["opened*2", "closed:peer*2", "connect:no_local_port", "peer_close_idle*2"]
        run Crafted(|lab| {
            netns::sysctl("ipv4/ip_local_port_range", "40000 40001");
            let connections = [lab.connect(), lab.connect()];
            assert_eq!(lab.try_dial(&lab.socket()), Err(libc::EADDRNOTAVAIL));
            for mut connection in connections {
                connection.exchange();
                connection.peer.fin();
                connection.close_last();
            }
        });

    /// The application bound a port whose 4-tuple is in use.
    port_of_its_own_in_use near "no_local_port"
        on Proxy "7->2 2->1 7->2 2->7 1->8 8->9 9->7"
            => ["opened", "closed:peer", "connect:other", "peer_close_idle"]
        run Crafted(|lab| {
            let bound = || {
                let socket = lab.socket();
                socket.set_reuse_address(true).expect("an option");
                socket.bind(&lab.family.socket_address((lab.family.any(), 40_002))).expect("a shared port");
                socket
            };
            let second = bound();
            let mut connection = lab.connect_socket(bound());
            assert_eq!(lab.try_dial(&second), Err(libc::EADDRNOTAVAIL));
            drop(second);
            connection.exchange();
            connection.peer.fin();
            connection.close_last();
        });

    /// No route: connect() fails at once, without any transition.
    no_route near "net_unreachable"
        on Proxy "" => []
        run Crafted(|lab| {
            lab.block_route();
            let error = lab.try_dial(&lab.socket()).expect_err("no route");
            assert!(matches!(error, libc::EHOSTUNREACH | libc::ENETUNREACH), "{error}");
        });

    /// `connect(AF_UNSPEC)` ends an attempt to connect.
    disconnected_while_connecting near "abandoned_connect"
        on Proxy "7->2 2->7" => ["connect:abandoned"]
        run Crafted(|lab| {
            let (socket, _peer) = lab.dial();
            disconnect(&socket);
        });

    /// Both ends send a SYN at once; this one still counts as the end that connected.
    simultaneous_open near "clean_close_by_peer"
        on Proxy "7->2 2->3 3->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Crafted(|lab| {
            let (socket, mut peer) = lab.dial();
            peer.syn_with(0);
            peer.await_segment("SYN and ACK", |segment| segment.syn && segment.has_ack);
            peer.ack();
            let mut connection = Connection::new(socket, peer);
            connection.exchange();
            connection.peer.fin();
            connection.close_last();
        });

    /// A Fast Open child works before the handshake is complete.
    fast_open near "clean_close_by_local"
        on Upstream "3->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Crafted(|lab| {
            netns::sysctl("ipv4/tcp_fastopen", &(1 + 2 + 0x200).to_string());
            let listener = lab.listen();
            set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16);
            let mut peer = lab.peer();
            peer.syn_with(100);
            peer.await_syn_ack();
            let mut connection = Connection::new(lab.take(&listener), peer);
            connection.read(100);
            connection.peer.ack();
            connection.request(50);
            connection.peer.ack();
            connection.close_first();
        });

    /// The peer's RST ends the handshake of a connection it was opening: there never was a socket.
    reset_before_accept near "refused"
        on Upstream "" => []
        run Crafted(|lab| {
            let _listener = lab.listen();
            let mut peer = lab.peer();
            peer.syn_with(0);
            peer.await_syn_ack();
            peer.rst();
            thread::sleep(Duration::from_millis(50));
        });

    /// An ACK out of nowhere reaches a listener, as after a restart: answered by RST, no connection, no pair.
    stray_ack_to_listener near "reset_before_accept"
        on Upstream "RST-out" => []
        run Crafted(|lab| {
            let _listener = lab.listen();
            stray(&lab.peer());
        });

    /// A segment reaches a port where nobody listens: answered by RST, no connection, no pair.
    closed_port near "stray_ack_to_listener"
        on Upstream "RST-out?" => []
        run Crafted(|lab| {
            let mut peer = lab.peer();
            peer.syn_with(0);
            peer.receive_rst();
        });
}

fn stray(peer: &Peer) {
    peer.ack_stray();
    peer.receive_rst();
}

/// Waits until connect() has failed, with this error.
fn failed(socket: &socket2::Socket, error: i32) {
    let found = until("connect() fails", || socket.take_error().expect("an option"));
    assert_eq!(found.raw_os_error(), Some(error));
}
