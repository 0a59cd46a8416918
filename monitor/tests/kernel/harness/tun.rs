//! A TUN device: the kernel's stack at one end, this process at the other, raw IP packets between.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use super::{PATIENCE, netns::ip, until};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// A TCP segment the kernel sent.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "TCP's flags are independent of each other")]
pub(crate) struct Segment {
    /// Where it comes from.
    pub(crate) source: (IpAddr, u16),
    /// Where it goes to.
    pub(crate) destination: (IpAddr, u16),
    /// Sequence number.
    pub(crate) seq: u32,
    /// SYN is set.
    pub(crate) syn: bool,
    /// FIN is set.
    pub(crate) fin: bool,
    /// RST is set.
    pub(crate) rst: bool,
    /// ACK is set.
    pub(crate) has_ack: bool,
    /// Bytes of payload.
    pub(crate) len: u32,
    /// The whole packet, for ICMP errors that quote it.
    pub(crate) raw: Vec<u8>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [(self.syn, " SYN"), (self.fin, " FIN"), (self.rst, " RST"), (self.has_ack, " ACK")];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        write!(f, "{:?} to {:?} seq {} length {}{flags}", self.source, self.destination, self.seq, self.len)
    }
}

/// The device, and the segments read from it that nobody has asked for yet.
pub(crate) struct Tun {
    file: File,
    queue: RefCell<VecDeque<Segment>>,
}

impl Tun {
    /// Makes the device in the calling thread's namespace, with `/24` and `/64` addresses.
    pub(crate) fn new(v4: &str, v6: &str) -> Self {
        let file =
            OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun opens");
        attach(&file);
        ip(&format!("link set tun0 up\naddr add {v4}/24 dev tun0\naddr add {v6}/64 dev tun0 nodad\n"));
        let tun = Self { file, queue: RefCell::default() };
        let v6: Ipv6Addr = v6.parse().expect("an IPv6 address");
        let v6 = format!("{:032x}", v6.to_bits());
        // The kernel makes an address local a moment after it has taken it.
        until("the IPv6 address is local", || {
            let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").expect("IPv6 is there");
            let local = |line: &str| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields[0] == v6 && fields[1] == "80" && fields[8].starts_with('8')
            };
            routes.lines().any(local).then_some(())
        });
        tun
    }

    /// Sends one IP packet into the kernel, which has processed it when this returns.
    pub(crate) fn send(&self, packet: &[u8]) {
        let written = (&self.file).write(packet).expect("the device takes a packet");
        assert_eq!(written, packet.len());
    }

    /// The first segment that `wanted` accepts; others stay queued.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Segment {
        self.wait_for(PATIENCE, wanted).unwrap_or_else(|| {
            panic!("no {what} from the kernel within {PATIENCE:?}; queued: {:#?}", self.queue.borrow())
        })
    }

    /// The first segment that `wanted` accepts, if one comes in time.
    pub(crate) fn wait_for(&self, limit: Duration, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let end = Instant::now() + limit;
        loop {
            self.drain();
            let mut queue = self.queue.borrow_mut();
            if let Some(at) = queue.iter().position(&wanted) {
                return queue.remove(at);
            }
            drop(queue);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.poll(left.min(Duration::from_millis(200)));
        }
    }

    fn drain(&self) {
        let mut packet = vec![0; 65_536];
        while self.poll(Duration::ZERO) {
            let length = (&self.file).read(&mut packet).expect("the device gives a packet");
            self.queue.borrow_mut().extend(parse(&packet[..length]));
        }
    }

    fn poll(&self, limit: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = libc::c_int::try_from(limit.as_millis()).expect("a short time");
        // SAFETY: `poll` is one valid pollfd, alive during the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, limit) };
        ready == 1
    }
}

fn attach(file: &File) {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("16 bits");
    // SAFETY: TUNSETIFF reads and writes the ifreq it is given, which lives on this stack.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(status, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
}

/// TCP only; what else a kernel says on a new interface (multicast listener reports) is of no interest.
fn parse(packet: &[u8]) -> Option<Segment> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match sliced.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { return None };
    Some(Segment {
        source: (source, tcp.source_port()),
        destination: (destination, tcp.destination_port()),
        seq: tcp.sequence_number(),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        has_ack: tcp.ack(),
        len: u32::try_from(tcp.payload().len()).expect("a packet is small"),
        raw: packet.to_vec(),
    })
}
