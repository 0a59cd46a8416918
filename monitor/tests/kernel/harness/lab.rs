//! One sequence's place: a namespace with real sockets at one end and the crafted peer at the other.

use std::{
    io::Read as _,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    rc::Rc,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{PATIENCE, metrics::Side, netns, peer::Peer, trace::PORTS, tun::Tun};

/// Longer than the contract's QUIET by more than a tick of any clock involved.
pub(crate) const QUIET: Duration = Duration::from_millis(1_150);

/// How the two ends address each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// An IPv6 socket that speaks IPv4.
    Mapped,
}

/// All of them.
pub(crate) const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

impl Family {
    /// The domain of its sockets.
    pub(crate) fn domain(self) -> Domain {
        if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 }
    }

    /// The address a socket of this family takes for `ip`.
    pub(crate) fn socket_address(self, (ip, port): (IpAddr, u16)) -> SockAddr {
        let ip = match (self, ip) {
            (Self::Mapped, IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
            _ => ip,
        };
        SocketAddr::new(ip, port).into()
    }

    /// The wildcard address.
    pub(crate) fn any(self) -> IpAddr {
        if self == Self::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }

    /// The loopback address.
    pub(crate) fn loopback(self) -> IpAddr {
        if self == Self::V6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
    }
}

/// A port that no other sequence of this process uses.
pub(crate) fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS.start);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(PORTS.contains(&port), "more sequences than ports");
    port
}

/// One of this process's own addresses: no other test process uses the same, so that nothing else reaches the pairs.
pub(crate) fn address(family: Family, host: u8) -> IpAddr {
    let [high, low] = ((std::process::id() & 0x3fff) as u16).to_be_bytes();
    match family {
        Family::V6 => {
            Ipv6Addr::new(0xfd77, 0, 0, u16::from_be_bytes([high, low]), 0, 0, 0, host.into()).into()
        }
        _ => Ipv4Addr::new(10, 128 + high, low, host).into(),
    }
}

/// The place.
pub(crate) struct Lab {
    /// How the ends address each other.
    pub(crate) family: Family,
    /// Which end is the kernel's.
    pub(crate) side: Side,
    /// The accepting end, the sequence's own.
    pub(crate) upstream: (IpAddr, u16),
    /// The far end's addresses of either version.
    remotes: [IpAddr; 2],
    /// How long [`Self::quiet`] is.
    quiet: Duration,
    tun: Rc<Tun>,
}

/// A connection: a real socket and the crafted peer.
pub(crate) struct Connection {
    socket: Option<Socket>,
    /// The far end.
    pub(crate) peer: Peer,
}

impl Lab {
    /// In the calling thread's namespace.
    pub(crate) fn new(family: Family, side: Side, port: u16) -> Self {
        // Nothing is sent again in the seconds a sequence takes, unless it wants that.
        let tun = Tun::new(&address(Family::V4, 1).to_string(), &address(Family::V6, 1).to_string());
        let lab = Self {
            family,
            side,
            upstream: (address(family, if side == Side::Proxy { 2 } else { 1 }), port),
            remotes: [Family::V4, Family::V6].map(|family| address(family, 2)),
            quiet: QUIET,
            tun: Rc::new(tun),
        };
        lab.retransmit_after("8s");
        netns::sysctl("ipv4/tcp_early_retrans", "0");
        lab
    }

    /// The shortest retransmission timeout of connections made from now on.
    pub(crate) fn retransmit_after(&self, rto_min: &str) {
        let own = address(Family::V4, 1);
        let [v4, v6] = self.remotes;
        netns::ip(&format!(
            "route replace {v4}/32 dev tun0 src {own} rto_min {rto_min}\n\
             route replace {v6}/128 dev tun0 rto_min {rto_min}\n"
        ));
    }

    /// Makes the far end unreachable.
    pub(crate) fn block_route(&self) {
        let [v4, v6] = self.remotes;
        netns::ip(&format!(
            "route del {v4}/32\nroute add unreachable {v4}/32\nroute del {v6}/128\nroute add unreachable {v6}/128\n"
        ));
    }

    /// The far end's address.
    pub(crate) fn remote(&self) -> IpAddr {
        address(self.family, 2)
    }

    /// A socket, not yet connected.
    pub(crate) fn socket(&self) -> Socket {
        let socket = Socket::new(self.family.domain(), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("an option");
        socket
    }

    /// Begins to connect `socket` to the upstream; gives the error of connect() unless it is in progress.
    pub(crate) fn try_dial(&self, socket: &Socket) -> Result<(), i32> {
        match socket.connect(&self.family.socket_address(self.upstream)) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            Err(error) => Err(error.raw_os_error().expect("an error of the kernel")),
        }
    }

    /// Begins to connect and takes the SYN.
    pub(crate) fn dial(&self) -> (Socket, Peer) {
        let socket = self.socket();
        self.try_dial(&socket).expect("connect() is in progress");
        (socket, Peer::accept(&self.tun, self.upstream))
    }

    /// A connection the kernel's end opens.
    pub(crate) fn connect(&self) -> Connection {
        self.connect_socket(self.socket())
    }

    /// The same, with a socket prepared before.
    pub(crate) fn connect_socket(&self, socket: Socket) -> Connection {
        self.try_dial(&socket).expect("connect() is in progress");
        let mut peer = Peer::accept(&self.tun, self.upstream);
        peer.shake_hands();
        Connection::new(socket, peer)
    }

    /// A listening socket on the upstream's address.
    pub(crate) fn listen(&self) -> Socket {
        let socket = self.socket();
        socket.set_reuse_address(true).expect("an option");
        let address = self.family.socket_address((self.family.any(), self.upstream.1));
        socket.bind(&address).expect("a free port");
        socket.listen(16).expect("a listener");
        socket
    }

    /// A peer that has sent nothing yet, from a port of its own.
    pub(crate) fn peer(&self) -> Peer {
        static NEXT: AtomicU16 = AtomicU16::new(41_000);
        Peer::new(&self.tun, (self.remote(), NEXT.fetch_add(1, Ordering::Relaxed)), self.upstream)
    }

    /// A connection the kernel's end accepts.
    pub(crate) fn accept(&self) -> Connection {
        let listener = self.listen();
        let mut peer = self.peer();
        peer.connect();
        Connection::new(self.take(&listener), peer)
    }

    /// The next accepted connection.
    pub(crate) fn take(&self, listener: &Socket) -> Socket {
        let (socket, _) = super::until("a connection to accept", || listener.accept().ok());
        let address = socket.local_addr().expect("accepted").as_socket().expect("an IP address");
        assert_eq!(address.port(), self.upstream.1, "accepted at the upstream's port");
        socket
    }

    /// A connection from whichever end the kernel is.
    pub(crate) fn open(&self) -> Connection {
        match self.side {
            Side::Proxy => self.connect(),
            Side::Upstream => self.accept(),
        }
    }

    /// A connection that has seen one exchange.
    pub(crate) fn used(&self) -> Connection {
        let mut connection = self.open();
        connection.exchange();
        connection
    }

    /// Nothing happens for longer than the contract's QUIET.
    pub(crate) fn quiet(&self) {
        thread::sleep(self.quiet);
    }
}

/// Longer than a jiffy: what comes after it is later by the kernel's clock too.
pub(crate) fn tick() {
    thread::sleep(Duration::from_millis(25));
}

impl Connection {
    /// Pairs a socket with its peer.
    pub(crate) fn new(socket: Socket, peer: Peer) -> Self {
        socket.set_nonblocking(false).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self { socket: Some(socket), peer }
    }

    /// The real end.
    pub(crate) fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("not closed yet")
    }

    /// The real end writes.
    pub(crate) fn write(&self, length: usize) {
        let written = self.socket().send(&vec![b'r'; length]).expect("room to write");
        assert_eq!(written, length, "written at once");
    }

    /// The real end writes and the peer has it, unacknowledged.
    pub(crate) fn request(&mut self, length: u32) {
        self.write(length as usize);
        self.peer.receive(length);
    }

    /// The real end reads exactly this much.
    pub(crate) fn read(&self, length: usize) {
        self.socket().read_exact(&mut vec![0; length]).expect("data");
    }

    /// A request and its answer, all acknowledged in the end; a tick later.
    pub(crate) fn exchange(&mut self) {
        self.request(200);
        tick();
        self.peer.answer(300);
        self.read(300);
        tick();
    }

    /// What an upstream sees of an exchange: a request comes, is read and answered; the peer acknowledges.
    pub(crate) fn serve(&mut self) {
        self.peer.data(200);
        self.read(200);
        tick();
        self.request(300);
        self.peer.ack();
        tick();
    }

    /// The real end reads the end of the stream, or the reset.
    pub(crate) fn read_end(&self) {
        match self.socket().recv(&mut [MaybeUninit::uninit(); 1]) {
            Ok(0) => {}
            Ok(_) => panic!("data where the end should be"),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the end of the stream"),
        }
    }

    /// The real end closes.
    pub(crate) fn close(&mut self) {
        drop(self.socket.take().expect("not closed yet"));
    }

    /// The real end closes with `SO_LINGER` 0.
    pub(crate) fn abort(&mut self) {
        self.socket().set_linger(Some(Duration::ZERO)).expect("an option");
        self.close();
        self.peer.receive_rst();
    }

    /// The real end closes its sending half.
    pub(crate) fn shutdown_write(&mut self) {
        self.socket().shutdown(std::net::Shutdown::Write).expect("connected");
        self.peer.receive_fin();
    }

    /// The peer's FIN came before; the real end closes, and the peer acknowledges that.
    pub(crate) fn close_last(&mut self) {
        self.close();
        self.peer.receive_fin();
        self.peer.ack();
    }

    /// The real end closes first, the peer acknowledges, then closes too.
    pub(crate) fn close_first(&mut self) {
        self.close();
        self.peer.receive_fin();
        self.peer.ack();
        self.peer.fin();
    }

    /// Sets an option.
    pub(crate) fn set(&self, level: i32, name: i32, value: i32) {
        set_option(self.socket(), level, name, value);
    }
}

/// Sets an integer option that no crate knows.
pub(crate) fn set_option(socket: &Socket, level: i32, name: i32, value: i32) {
    let length = libc::socklen_t::try_from(size_of::<i32>()).expect("4");
    // SAFETY: the kernel reads `length` bytes of `value`, which lives during the call.
    let status =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    assert_eq!(status, 0, "setsockopt({level}, {name}): {}", std::io::Error::last_os_error());
}

/// Dissolves the association: `connect(AF_UNSPEC)`.
pub(crate) fn disconnect(socket: &Socket) {
    let unspecified = libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).expect("0"),
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).expect("16");
    // SAFETY: the kernel reads `length` bytes of `unspecified`, which lives during the call.
    let status = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, length) };
    assert_eq!(status, 0, "connect(AF_UNSPEC): {}", std::io::Error::last_os_error());
}
