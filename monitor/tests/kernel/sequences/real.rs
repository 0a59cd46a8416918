//! Two real stacks: both ends of a connection are this host's, and each has its own record.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Socket, Type};

use crate::{
    harness::{
        PATIENCE,
        lab::{Family, QUIET, address, tick},
        netns,
    },
    sequence::{Real, sequences},
};

sequences! {
    /// Loopback; the end that connected closes first.
    loopback_closed_by_proxy near "loopback_closed_by_upstream"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        on Upstream "3->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Real(|family, port| {
            let (mut proxy, mut upstream, real) = loopback(family, port);
            exchange(&mut proxy, &mut upstream);
            close(proxy, upstream);
            real
        });

    /// Loopback; the end that accepted closes first.
    loopback_closed_by_upstream near "loopback_closed_by_proxy"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        on Upstream "3->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Real(|family, port| {
            let (mut proxy, mut upstream, real) = loopback(family, port);
            exchange(&mut proxy, &mut upstream);
            close(upstream, proxy);
            real
        });

    /// Loopback; a request is written after the upstream's FIN.
    loopback_stale_reuse near "loopback_closed_by_upstream"
        on Proxy "7->2 2->1 1->8 RST-in 8->7"
            => ["opened", "closed:peer", "received:after_peer_fin", "lost:after_fin", "fin_then_rst:received",
                "peer_close_idle<1", "lost_idle<1"]
        on Upstream "3->1 1->4 4->5 5->7 RST-out?"
            => ["opened", "closed:local", "time_wait", "sent:data_after_close?", "fin_then_rst:sent?", "local_close_idle<1"]
        run Real(|family, port| {
            let (mut proxy, mut upstream, real) = loopback(family, port);
            exchange(&mut proxy, &mut upstream);
            drop(upstream);
            read_end(&mut proxy);
            // Longer than a delayed acknowledgment: the FIN is acknowledged alone.
            thread::sleep(std::time::Duration::from_millis(250));
            proxy.write_all(&[b'r'; 200]).expect("room to write");
            reset(&mut proxy);
            real
        });

    /// Loopback; the upstream closes with the request unread.
    loopback_lost_without_fin near "loopback_closed_by_upstream"
        on Proxy "7->2 2->1 RST-in 1->7"
            => ["opened", "closed:reset", "received:reused_request", "lost:no_fin", "lost_idle>1"]
        on Upstream "3->1 1->7 RST-out" => ["opened", "closed:reset", "sent:unread_data_at_close"]
        run Real(|family, port| {
            let (mut proxy, mut upstream, real) = loopback(family, port);
            exchange(&mut proxy, &mut upstream);
            thread::sleep(QUIET);
            proxy.write_all(&[b'r'; 200]).expect("room to write");
            upstream.peek(&mut [0]).expect("the request has come");
            drop(upstream);
            reset(&mut proxy);
            real
        });

    /// Loopback; nobody listens. The RST that answers the SYN belongs to no connection.
    loopback_refused near "loopback_closed_by_proxy"
        on Proxy "7->2 RST-in 2->7" => ["connect:refused", "received:handshake"]
        on Upstream "RST-out?" => []
        run Real(|family, port| {
            let ip = family.loopback();
            let socket = Socket::new(family.domain(), Type::STREAM, None).expect("a socket");
            let error = socket.connect(&family.socket_address((ip, port))).expect_err("nobody listens");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            Real { upstream: SocketAddr::new(ip, port), remote: ip }
        });

    /// Two namespaces joined by a veth pair; the end that connected closes first.
    veth_closed_by_proxy near "veth_closed_by_upstream"
        on Proxy "7->2 2->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        on Upstream "3->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        run Real(|family, port| veth(family, port, close));

    /// Two namespaces joined by a veth pair; the end that accepted closes first.
    veth_closed_by_upstream near "veth_closed_by_proxy"
        on Proxy "7->2 2->1 1->8 8->9 9->7" => ["opened", "closed:peer", "peer_close_idle<1"]
        on Upstream "3->1 1->4 4->5 5->7" => ["opened", "closed:local", "time_wait", "local_close_idle<1"]
        run Real(|family, port| veth(family, port, |proxy, upstream| close(upstream, proxy)));
}

/// A connection over loopback.
pub(crate) fn loopback(family: Family, port: u16) -> (TcpStream, TcpStream, Real) {
    let ip = family.loopback();
    let listener = listen(family, port);
    let proxy = connect(family, ip, port);
    let upstream = accept(&listener);
    (proxy, upstream, Real { upstream: SocketAddr::new(ip, port), remote: ip })
}

/// A connection between two namespaces, which sees one exchange before its end.
fn veth(family: Family, port: u16, end: fn(TcpStream, TcpStream)) -> Real {
    let [here, there] = [3, 4].map(|host| address(family, host));
    let (tell, told) = mpsc::channel();
    let (linked, link) = mpsc::channel();
    thread::scope(|scope| {
        // The other namespace lives as long as its sockets, which come here.
        let other = scope.spawn(move || {
            netns::enter_new();
            tell.send(nix::unistd::gettid()).expect("the other end waits");
            link.recv().expect("the link comes");
            netns::ip(&addresses("veth1", 4));
            let listener = listen(family, port);
            tell.send(nix::unistd::gettid()).expect("the other end waits");
            accept(&listener)
        });
        let tid = told.recv().expect("the other end starts");
        netns::ip(&format!(
            "link add veth0 type veth peer name veth1 netns {tid}\n{}",
            addresses("veth0", 3)
        ));
        linked.send(()).expect("the other end waits");
        told.recv().expect("the other end listens");
        let mut proxy = connect(family, there, port);
        let mut upstream = other.join().expect("the other end accepts");
        exchange(&mut proxy, &mut upstream);
        end(proxy, upstream);
    });
    Real { upstream: SocketAddr::new(there, port), remote: here }
}

fn addresses(device: &str, host: u8) -> String {
    let [v4, v6] = [Family::V4, Family::V6].map(|family| address(family, host));
    format!("link set {device} up\naddr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad\n")
}

fn listen(family: Family, port: u16) -> TcpListener {
    let socket = Socket::new(family.domain(), Type::STREAM, None).expect("a socket");
    socket.bind(&family.socket_address((family.any(), port))).expect("a free port");
    socket.listen(16).expect("a listener");
    socket.into()
}

fn connect(family: Family, ip: IpAddr, port: u16) -> TcpStream {
    let socket = Socket::new(family.domain(), Type::STREAM, None).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.connect(&family.socket_address((ip, port))).expect("a listener is there");
    socket.into()
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream
}

/// A request and its answer.
pub(crate) fn exchange(proxy: &mut TcpStream, upstream: &mut TcpStream) {
    proxy.write_all(&[b'r'; 200]).expect("room to write");
    upstream.read_exact(&mut [0; 200]).expect("the request");
    tick();
    upstream.write_all(&[b'a'; 300]).expect("room to write");
    proxy.read_exact(&mut [0; 300]).expect("the answer");
    tick();
}

/// One end closes, the other sees it and follows.
fn close(first: TcpStream, mut last: TcpStream) {
    drop(first);
    read_end(&mut last);
}

fn read_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0]).expect("the end of the stream"), 0);
}

fn reset(stream: &mut TcpStream) {
    // Where a softirq is put off it comes later than the call that provokes it. Asked for nothing, poll() waits for that, and
    // not for the peer's FIN.
    let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let patience = PollTimeout::try_from(PATIENCE).expect("a minute");
    assert_eq!(poll(&mut wanted, patience).expect("an open socket"), 1, "the reset has come");
    // In CLOSE_WAIT the end of the stream comes first and the error is EPIPE.
    let outcome = stream.read(&mut [0]).map_err(|error| error.raw_os_error());
    assert!(matches!(outcome, Ok(0) | Err(Some(libc::ECONNRESET | libc::EPIPE))), "{outcome:?}");
}
