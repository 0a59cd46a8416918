//! The crafted peer: one TCP connection's far end, which sends exactly what it is told and acknowledges only when told.

use std::{net::IpAddr, rc::Rc};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, TcpHeader, icmpv4, icmpv6};

use super::tun::{Segment, Tun};

/// A peer's initial sequence number.
const INITIAL_SEQ: u32 = 0x1000_0000;
const WINDOW: u16 = 65_000;

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Port unreachable: a firewall's REJECT.
    Port,
    /// Host unreachable.
    Host,
    /// Network unreachable.
    Net,
}

/// The far end of one connection.
pub(crate) struct Peer {
    tun: Rc<Tun>,
    /// Its own address.
    pub(crate) here: (IpAddr, u16),
    /// The kernel's address.
    pub(crate) there: (IpAddr, u16),
    /// Next sequence number to send.
    pub(crate) send_next: u32,
    /// Next sequence number expected: everything before has been seen.
    pub(crate) receive_next: u32,
    /// What its segments acknowledge.
    pub(crate) acked: u32,
    fin_seen: bool,
    /// The kernel's SYN, for errors that quote it.
    syn: Option<Segment>,
}

impl Peer {
    /// A peer that waits for the kernel's SYN toward `here`.
    pub(crate) fn accept(tun: &Rc<Tun>, here: (IpAddr, u16)) -> Self {
        let syn = tun.wait("SYN", |segment| segment.destination == here && segment.syn && !segment.has_ack);
        let next = syn.seq.wrapping_add(1);
        let there = syn.source;
        let mut peer = Self::new(tun, here, there);
        (peer.receive_next, peer.syn) = (next, Some(syn));
        peer
    }

    /// A peer that has sent nothing yet.
    pub(crate) fn new(tun: &Rc<Tun>, here: (IpAddr, u16), there: (IpAddr, u16)) -> Self {
        Self {
            tun: Rc::clone(tun),
            here,
            there,
            send_next: INITIAL_SEQ,
            receive_next: 0,
            acked: 0,
            fin_seen: false,
            syn: None,
        }
    }

    /// Answers the SYN and takes the kernel's ACK.
    pub(crate) fn shake_hands(&mut self) {
        self.syn_ack();
        self.await_segment("ACK of the handshake", |segment| segment.has_ack && !segment.syn);
    }

    /// SYN and ACK.
    pub(crate) fn syn_ack(&mut self) {
        self.acked = self.receive_next;
        self.send(&TcpHeader { syn: true, ..self.acking() }, 0);
        self.send_next = self.send_next.wrapping_add(1);
    }

    /// A SYN alone, with `data` behind it (Fast Open).
    pub(crate) fn syn_with(&mut self, data: u32) {
        self.send(&TcpHeader { syn: true, ..self.header() }, data);
        self.send_next = self.send_next.wrapping_add(1 + data);
    }

    /// Takes the kernel's answer to our SYN.
    pub(crate) fn await_syn_ack(&mut self) {
        let answer = self.await_segment("SYN and ACK", |segment| segment.syn && segment.has_ack);
        self.receive_next = answer.seq.wrapping_add(1);
    }

    /// Opens a connection toward the kernel.
    pub(crate) fn connect(&mut self) {
        self.syn_with(0);
        self.await_syn_ack();
        self.ack();
    }

    /// Acknowledges everything seen.
    pub(crate) fn ack(&mut self) {
        self.acked = self.receive_next;
        self.send(&self.acking(), 0);
    }

    /// A SYN that opens nothing.
    pub(crate) fn stray_syn(&self) {
        self.send(&TcpHeader { syn: true, ..self.header() }, 0);
    }

    /// An ACK of what was never sent.
    pub(crate) fn ack_stray(&self) {
        self.send(&TcpHeader { acknowledgment_number: 0x2000_0000, ..self.acking() }, 0);
    }

    /// Sends data; acknowledges nothing new.
    pub(crate) fn data(&mut self, length: u32) {
        self.send(&TcpHeader { psh: true, ..self.acking() }, length);
        self.send_next = self.send_next.wrapping_add(length);
    }

    /// Sends data that acknowledges everything seen.
    pub(crate) fn answer(&mut self, length: u32) {
        self.acked = self.receive_next;
        self.data(length);
    }

    /// Sends data and FIN in one segment.
    pub(crate) fn data_fin(&mut self, length: u32) {
        self.send(&TcpHeader { fin: true, ..self.acking() }, length);
        self.send_next = self.send_next.wrapping_add(length + 1);
    }

    /// Sends FIN; acknowledges nothing new.
    pub(crate) fn fin(&mut self) {
        self.data_fin(0);
    }

    /// Sends RST.
    pub(crate) fn rst(&self) {
        self.rst_at(self.send_next);
    }

    /// Sends RST with this sequence number.
    pub(crate) fn rst_at(&self, seq: u32) {
        self.send(&TcpHeader { rst: true, sequence_number: seq, ..self.acking() }, 0);
    }

    /// RST that answers the SYN.
    pub(crate) fn refuse(&self) {
        self.send(&TcpHeader { rst: true, acknowledgment_number: self.receive_next, ..self.acking() }, 0);
    }

    /// An ICMP error about the kernel's SYN.
    pub(crate) fn unreachable(&self, what: Unreachable) {
        let quoted = &self.syn.as_ref().expect("the kernel's SYN").raw;
        self.icmp(what, &quoted[..quoted.len().min(88)]);
    }

    /// An ICMP error about the last segment that waits unread.
    pub(crate) fn unreachable_data(&mut self, what: Unreachable) {
        let segment = self.await_segment("data", |segment| segment.len > 0);
        self.icmp(what, &segment.raw[..segment.raw.len().min(88)]);
    }

    fn icmp(&self, what: Unreachable, quoted: &[u8]) {
        let mut packet = Vec::new();
        let written = match (self.here.0, self.there.0) {
            (IpAddr::V4(here), IpAddr::V4(there)) => {
                let header = match what {
                    Unreachable::Port => icmpv4::DestUnreachableHeader::Port,
                    Unreachable::Host => icmpv4::DestUnreachableHeader::Host,
                    Unreachable::Net => icmpv4::DestUnreachableHeader::Network,
                };
                PacketBuilder::ipv4(here.octets(), there.octets(), 64)
                    .icmpv4(Icmpv4Type::DestinationUnreachable(header))
                    .write(&mut packet, quoted)
            }
            (IpAddr::V6(here), IpAddr::V6(there)) => {
                let code = match what {
                    Unreachable::Port => icmpv6::DestUnreachableCode::Port,
                    Unreachable::Host => icmpv6::DestUnreachableCode::Address,
                    Unreachable::Net => icmpv6::DestUnreachableCode::NoRoute,
                };
                PacketBuilder::ipv6(here.octets(), there.octets(), 64)
                    .icmpv6(Icmpv6Type::DestinationUnreachable(code))
                    .write(&mut packet, quoted)
            }
            _ => unreachable!("both ends are of one family"),
        };
        written.expect("a packet in memory");
        self.tun.send(&packet);
    }

    /// Waits until `length` more bytes came in order.
    pub(crate) fn receive(&mut self, length: u32) {
        let wanted = self.receive_next.wrapping_add(length);
        while (wanted.wrapping_sub(self.receive_next)).cast_signed() > 0 {
            let next = self.receive_next;
            let segment = self.await_segment("data", |segment| {
                segment.len > 0 && segment.seq.wrapping_sub(next).cast_signed() <= 0
            });
            let end = segment.seq.wrapping_add(segment.len);
            if end.wrapping_sub(next).cast_signed() > 0 {
                self.receive_next = end;
                if segment.fin {
                    self.receive_next = end.wrapping_add(1);
                    self.fin_seen = true;
                }
            }
        }
    }

    /// Waits for the kernel's FIN.
    pub(crate) fn receive_fin(&mut self) {
        if !self.fin_seen {
            let segment = self.await_segment("FIN", |segment| segment.fin);
            self.receive_next = segment.seq.wrapping_add(segment.len + 1);
            self.fin_seen = true;
        }
    }

    /// Waits for the kernel's RST.
    pub(crate) fn receive_rst(&self) {
        self.await_segment("RST", |segment| segment.rst);
    }

    /// Waits for a segment of this connection.
    pub(crate) fn await_segment(&self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Segment {
        self.tun.wait(what, |segment| {
            segment.destination == self.here && segment.source == self.there && wanted(segment)
        })
    }

    fn header(&self) -> TcpHeader {
        TcpHeader::new(self.here.1, self.there.1, self.send_next, WINDOW)
    }

    fn acking(&self) -> TcpHeader {
        TcpHeader { ack: true, acknowledgment_number: self.acked, ..self.header() }
    }

    fn send(&self, tcp: &TcpHeader, payload: u32) {
        let ip = match (self.here.0, self.there.0) {
            (IpAddr::V4(here), IpAddr::V4(there)) => PacketBuilder::ipv4(here.octets(), there.octets(), 64),
            (IpAddr::V6(here), IpAddr::V6(there)) => PacketBuilder::ipv6(here.octets(), there.octets(), 64),
            _ => unreachable!("both ends are of one family"),
        };
        let payload = vec![b'x'; payload as usize];
        let mut packet = Vec::new();
        ip.tcp_header(tcp.clone()).write(&mut packet, &payload).expect("a packet in memory");
        self.tun.send(&packet);
    }
}
