//! One look at a socket: the fields of `tcp_sock` at a transition or reset, and what they tell.

/// What the application still has to read when the peer's FIN brings a TLS `close_notify` along: one alert record
/// (TLS 1.3, TLS 1.2 with AES-GCM, TLS 1.2 with ChaCha20) and 1 for the FIN itself.
const UNREAD_CLOSE_NOTIFY: [u32; 3] = [25, 32, 24];

/// The fields of a socket at one moment. Times are the low 32 bits of jiffies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Jiffies now.
    pub now: u32,
    /// Jiffies in a second.
    pub hz: u32,
    /// End of what was written; SYN and FIN count one each.
    pub write_seq: u32,
    /// End of what was sent.
    pub snd_nxt: u32,
    /// End of what was acknowledged.
    pub snd_una: u32,
    /// End of what was received; the FIN counts one.
    pub rcv_nxt: u32,
    /// End of what the application has read.
    pub copied_seq: u32,
    /// When data was last sent.
    pub lsndtime: u32,
    /// When data was last received.
    pub lrcvtime: u32,
    /// Data segments received.
    pub data_segs_in: u32,
    /// Retransmitted segments, SYN included.
    pub total_retrans: u32,
    /// Data bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Data bytes retransmitted.
    pub bytes_retrans: u64,
    /// Bytes received; the peer's FIN counts one.
    pub bytes_received: u64,
    /// `sk_err`, positive.
    pub err: u32,
    /// `TCP_LINGER2`; negative means: no FIN_WAIT2.
    pub linger2: i32,
    /// Local port, host byte order.
    pub local_port: u16,
    /// `sk_shutdown`: bit 0 receive, bit 1 send.
    pub shutdown: u8,
    /// `SOCK_DEAD`: closed by the application.
    pub dead: bool,
    /// `SOCK_DONE`: the peer's FIN came.
    pub done: bool,
    /// `sk_error_queue` is not empty: of a socket that is connecting, an ICMP error waits there.
    pub error_queued: bool,
}

impl Evidence {
    /// [`Evidence::shutdown`]: nothing more is read.
    const SHUTDOWN_RECEIVE: u8 = 1;

    /// Whether the application has closed the socket, rather than one direction of it.
    #[inline]
    pub fn closed_by_application(&self) -> bool {
        self.dead || self.shutdown == 3
    }

    /// Whether nothing more will be read, so that data that still comes is answered by a reset.
    #[inline]
    pub fn receive_shut(&self) -> bool {
        self.shutdown & Self::SHUTDOWN_RECEIVE != 0
    }

    /// Whether any data came; `fin` says whether the peer's FIN has been counted.
    #[inline]
    pub fn received_data(&self, fin: bool) -> bool {
        self.bytes_received > u64::from(fin)
    }

    /// Whether something sent is unacknowledged. Our own FIN, `fin`, does not count.
    #[inline]
    pub fn in_flight(&self, fin: bool) -> bool {
        self.snd_nxt.wrapping_sub(self.snd_una) > u32::from(fin)
    }

    /// Whether everything written is acknowledged. Our own FIN, `fin`, does not count.
    #[inline]
    pub fn all_acknowledged(&self, fin: bool) -> bool {
        self.write_seq.wrapping_sub(self.snd_una) <= u32::from(fin)
    }

    /// Whether data was retransmitted, so that `lsndtime` is not the time of the first transmission.
    #[inline]
    pub fn retransmitted(&self) -> bool {
        self.bytes_retrans != 0
    }

    /// Whether data was sent after the last byte received: a request without an answer, seen from the proxy.
    /// `peer_fin` and `local_fin` say whether those FINs have been counted.
    #[inline]
    pub fn unanswered(&self, peer_fin: bool, local_fin: bool) -> bool {
        if self.bytes_sent == 0 {
            return false;
        }
        if !self.received_data(peer_fin) {
            return true;
        }
        match self.quiet_before() {
            0 => self.in_flight(local_fin),
            quiet => quiet > 0,
        }
    }

    /// Whether data came after the last byte sent: a request that is being answered, seen from the upstream.
    #[inline]
    pub fn owes_answer(&self, peer_fin: bool) -> bool {
        self.received_data(peer_fin) && (self.bytes_sent == 0 || self.quiet_before() < 0)
    }

    /// Jiffies between the last data received and the last data sent; negative when the receipt was later. After a
    /// retransmission it is only an upper bound.
    #[inline]
    pub fn quiet_before(&self) -> i32 {
        self.lsndtime.wrapping_sub(self.lrcvtime).cast_signed()
    }

    /// Jiffies for which a request has been unanswered: since it was sent, or, where a retransmission has moved that
    /// time, since the last data received.
    #[inline]
    pub fn unanswered_for(&self) -> u32 {
        let since = if self.retransmitted() { self.lrcvtime } else { self.lsndtime };
        self.now.wrapping_sub(since)
    }

    /// Jiffies since data last went in either direction; since our own last when all that came was a TLS
    /// `close_notify` with the FIN.
    #[inline]
    pub fn idle_at_fin(&self) -> u32 {
        let close_notify = UNREAD_CLOSE_NOTIFY.contains(&self.rcv_nxt.wrapping_sub(self.copied_seq));
        if close_notify { self.now.wrapping_sub(self.lsndtime) } else { self.idle() }
    }

    /// Jiffies since data last went in either direction.
    #[inline]
    pub fn idle(&self) -> u32 {
        let last = if self.quiet_before() > 0 { self.lsndtime } else { self.lrcvtime };
        self.now.wrapping_sub(last)
    }

    /// Jiffies since the last data received.
    #[inline]
    pub fn since_received(&self) -> u32 {
        self.now.wrapping_sub(self.lrcvtime)
    }
}
