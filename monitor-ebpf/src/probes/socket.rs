//! Reading sockets through the running kernel's offsets.

use core::{arch::asm, ffi::c_void, ptr::read_volatile};

use aya_ebpf::helpers::generated::{
    bpf_jiffies64, bpf_ktime_get_ns, bpf_skc_to_tcp_sock, bpf_skc_to_tcp_timewait_sock,
};
use finwatch_ebpf::{
    evidence::Evidence,
    requests::Position,
    wire::{ClosedKey, FEATURE_TYPED_CGROUP},
};

use crate::{
    maps::{OFFSETS, offset, setting},
    process::follow,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const NS_PER_SECOND: u64 = 1_000_000_000;
const SOCK_DEAD: u64 = 1;
const SOCK_DONE: u64 = 1 << 1;
/// How many segments of a backlog are looked at; neighbours are merged when they come.
const BACKLOG_LOOKS: u32 = 4;
/// How often a lock that another CPU holds is looked at before it is taken for free: far longer than a segment takes.
const LOCK_LOOKS: u32 = 256;

/// A socket of any kind (`struct sock_common`), as a tracepoint hands it over; never null.
#[derive(Clone, Copy)]
pub struct Common(*const c_void);

/// A full TCP socket (`struct tcp_sock`), checked by the kernel.
#[derive(Clone, Copy)]
pub struct Tcp(*const c_void);

/// Loads a field, where anybody uses it. The verifier knows the pointer's type and the offset's value and checks the access
/// against BTF.
#[inline(always)]
pub fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: as `field` says; T is an integer.
    unsafe { *field(base, offset) }
}

/// The same each time, for what another CPU changes.
#[inline(always)]
fn load_again<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: as `field` says; T is an integer.
    unsafe { read_volatile(field(base, offset)) }
}

#[inline(always)]
fn field<T>(base: *const c_void, offset: u32) -> *const T {
    // The verifier refuses the program where this is outside the pointed-to struct.
    base.wrapping_byte_add(offset as usize).cast()
}

impl Common {
    /// A socket from a tracepoint's argument.
    #[inline(always)]
    pub fn new(sk: *const c_void) -> Option<Self> {
        (!sk.is_null()).then_some(Self(sk))
    }

    /// What live connections are keyed by.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// How far the address is from that of our constants: a plain number to the verifier, which refuses to reckon with a
    /// pointer, but takes what is between two.
    #[inline(always)]
    pub fn distance(self) -> u64 {
        let mut distance = self.address();
        // SAFETY: one subtraction.
        unsafe {
            asm!(
                "{distance} -= {constants}",
                distance = inlateout(reg) distance,
                constants = in(reg) &raw const OFFSETS,
                options(pure, nomem, nostack),
            );
        }
        distance
    }

    /// The socket's state.
    #[inline(always)]
    pub fn state(self) -> u8 {
        load(self.0, offset!(state))
    }

    /// The full TCP socket, unless it is a mini-socket or another protocol's.
    #[inline(always)]
    pub fn tcp(self) -> Option<Tcp> {
        // SAFETY: the pointer is a BTF pointer to a socket; the helper checks state and protocol.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) };
        (!tcp.is_null()).then_some(Tcp(tcp.cast_const().cast()))
    }

    /// The state that a timewait mini-socket stands for (TIME_WAIT or FIN_WAIT2), as `ss` prints it.
    #[inline(always)]
    pub fn substate(self) -> Option<u8> {
        // SAFETY: as in `tcp`.
        let time_wait = unsafe { bpf_skc_to_tcp_timewait_sock(self.0.cast_mut()) };
        (!time_wait.is_null()).then(|| load(time_wait.cast_const().cast(), offset!(substate)))
    }

    /// The address of a request mini-socket's listening socket.
    #[inline(always)]
    pub fn listener(self) -> u64 {
        load(self.0, offset!(listener))
    }

    /// Whether it is an Internet socket.
    #[inline(always)]
    pub fn is_inet(self) -> bool {
        matches!(load::<u16>(self.0, offset!(family)), AF_INET | AF_INET6)
    }

    /// The remote address; IPv4 as `::ffff:a.b.c.d`.
    #[inline(always)]
    pub fn remote(self) -> [u8; 16] {
        self.ip(offset!(daddr), offset!(v6_daddr))
    }

    /// The local address; IPv4 as `::ffff:a.b.c.d`.
    #[inline(always)]
    pub fn local(self) -> [u8; 16] {
        self.ip(offset!(rcv_saddr), offset!(v6_rcv_saddr))
    }

    #[inline(always)]
    fn ip(self, v4: u32, v6: u32) -> [u8; 16] {
        let words: [u32; 4] = if load::<u16>(self.0, offset!(family)) == AF_INET {
            [0, 0, 0xffff_u32.to_be(), load(self.0, v4)]
        } else {
            [load(self.0, v6), load(self.0, v6 + 4), load(self.0, v6 + 8), load(self.0, v6 + 12)]
        };
        // SAFETY: the same sixteen bytes.
        unsafe { core::mem::transmute(words) }
    }

    /// The remote port, host byte order.
    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(load(self.0, offset!(dport)))
    }

    /// The bound local port, 0 when there is none (any more).
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        load(self.0, offset!(num))
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        let net: *const c_void = load(self.0, offset!(net));
        load(net, offset!(net_inum))
    }

    /// Both ends, with the given local port (the socket may have lost its own).
    #[inline(always)]
    pub fn endpoints(self, local_port: u16) -> ClosedKey {
        ClosedKey {
            netns: self.netns(),
            local_port,
            remote_port: self.remote_port(),
            local: self.local(),
            remote: self.remote(),
        }
    }
}

impl Tcp {
    /// The local port, host byte order; kept after the end.
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        u16::from_be(load(self.0, offset!(sport)))
    }

    /// The user that made the socket.
    #[inline(always)]
    pub fn uid(self) -> u32 {
        load(self.0, offset!(uid))
    }

    /// The inode number that `/proc` shows for it; `None` for an orphan, or where the kernel does not tell.
    #[inline(always)]
    pub fn inode(self) -> Option<u64> {
        if offset!(socket_inode) == 0 {
            return None;
        }
        let socket: *const c_void = load(self.0, offset!(socket));
        (!socket.is_null()).then(|| follow(socket as u64, offset!(socket_inode)))
    }

    /// Smoothed round trip time in microseconds.
    #[inline(always)]
    pub fn srtt_us(self) -> u32 {
        load::<u32>(self.0, offset!(srtt_us)) >> 3
    }

    /// Connections that wait for accept().
    #[inline(always)]
    pub fn backlog(self) -> u32 {
        load(self.0, offset!(ack_backlog))
    }

    /// How many may wait.
    #[inline(always)]
    pub fn max_backlog(self) -> u32 {
        load(self.0, offset!(max_ack_backlog))
    }

    /// Jiffies since data last went in either direction.
    #[inline(always)]
    pub fn quiet(self) -> u32 {
        let now = now();
        let sent: u32 = load(self.0, offset!(lsndtime));
        let received: u32 = load(self.0, offset!(lrcvtime));
        now.wrapping_sub(sent).min(now.wrapping_sub(received))
    }

    /// What tells who has spoken last, and nothing else: a walk looks at each socket.
    #[inline(always)]
    pub fn exchange(self) -> Evidence {
        Evidence {
            snd_nxt: load(self.0, offset!(snd_nxt)),
            snd_una: load(self.0, offset!(snd_una)),
            lsndtime: load(self.0, offset!(lsndtime)),
            lrcvtime: load(self.0, offset!(lrcvtime)),
            bytes_sent: load(self.0, offset!(bytes_sent)),
            bytes_received: load(self.0, offset!(bytes_received)),
            ..Evidence::default()
        }
    }

    /// When data was last sent, to a jiffy, in nanoseconds of CLOCK_MONOTONIC.
    #[inline(always)]
    pub fn last_sent_ns(self) -> u64 {
        let ago = now().wrapping_sub(load(self.0, offset!(lsndtime)));
        now_ns().saturating_sub(u64::from(ago) * NS_PER_SECOND / u64::from(setting!(hz).max(1)))
    }

    /// How far the application has come.
    #[inline(always)]
    pub fn position(self) -> Position {
        let flags: u64 = load(self.0, offset!(flags));
        Position {
            state: load(self.0, offset!(state)),
            write_seq: load(self.0, offset!(write_seq)),
            copied_seq: load(self.0, offset!(copied_seq)),
            rcv_nxt: load(self.0, offset!(rcv_nxt)),
            peer_fin: flags & SOCK_DONE != 0,
            dead: flags & SOCK_DEAD != 0,
        }
    }

    /// Whether no application has it yet: a connection that waits for accept().
    #[inline(always)]
    pub fn is_unaccepted(self) -> bool {
        let socket: *const c_void = load(self.0, offset!(socket));
        socket.is_null()
    }

    /// The id of the cgroup in which the socket was made; an accepted socket has its listener's. Up to 5.14 the
    /// lowest bit marks a value that is no pointer:
    /// <https://github.com/torvalds/linux/blob/v5.10/include/linux/cgroup-defs.h#L784-L803>.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        if offset!(cgroup_data) == 0 {
            return 0;
        }
        if setting!(features) & FEATURE_TYPED_CGROUP != 0 {
            let cgroup: *const c_void = load(self.0, offset!(cgroup_data));
            let node: *const c_void = load(cgroup, offset!(cgroup_kn));
            return load(node, offset!(kn_id));
        }
        cgroup_of(self.0 as u64)
    }

    /// Looks at the socket while the application closes it. Segments count as received when they come, but those that
    /// come while the application has the socket locked wait in its backlog until it has finished closing. Data among
    /// them will meet a closed socket: it is not counted as received before the end.
    #[inline(always)]
    pub fn evidence_at_close(self) -> Evidence {
        // First: what the count has and the backlog has not yet is on its way there under the lock.
        let counted: u32 = load_again(self.0, offset!(data_segs_in));
        for _ in 0..LOCK_LOOKS {
            if load_again::<u32>(self.0, offset!(slock)) == 0 {
                break;
            }
        }
        let waiting = u32::from(self.data_in_backlog());
        Evidence { data_segs_in: counted.wrapping_sub(waiting), ..self.evidence() }
    }

    /// Whether one of the first segments in the backlog brings data; a FIN alone counts one.
    #[inline(always)]
    fn data_in_backlog(self) -> bool {
        let mut skb: *const c_void = load_again(self.0, offset!(backlog));
        for _ in 0..BACKLOG_LOOKS {
            if skb.is_null() {
                return false;
            }
            if length(skb) > 1 {
                return true;
            }
            skb = load(skb, offset!(skb_next));
        }
        false
    }

    /// Looks at the socket.
    #[inline(always)]
    pub fn evidence(self) -> Evidence {
        let flags: u64 = load(self.0, offset!(flags));
        Evidence {
            now: now(),
            hz: setting!(hz),
            write_seq: load(self.0, offset!(write_seq)),
            snd_nxt: load(self.0, offset!(snd_nxt)),
            snd_una: load(self.0, offset!(snd_una)),
            rcv_nxt: load(self.0, offset!(rcv_nxt)),
            copied_seq: load(self.0, offset!(copied_seq)),
            lsndtime: load(self.0, offset!(lsndtime)),
            lrcvtime: load(self.0, offset!(lrcvtime)),
            data_segs_in: load(self.0, offset!(data_segs_in)),
            total_retrans: load(self.0, offset!(total_retrans)),
            bytes_sent: load(self.0, offset!(bytes_sent)),
            bytes_retrans: load(self.0, offset!(bytes_retrans)),
            bytes_received: load(self.0, offset!(bytes_received)),
            err: load(self.0, offset!(err)),
            linger2: load(self.0, offset!(linger2)),
            local_port: self.local_port(),
            shutdown: load(self.0, offset!(shutdown)),
            dead: flags & SOCK_DEAD != 0,
            done: flags & SOCK_DONE != 0,
            error_queued: load::<u32>(self.0, offset!(error_queue)) != 0,
        }
    }
}

/// A segment's length in sequence numbers: its data, and one for a FIN. What TCP notes of a segment begins with `seq` and
/// `end_seq`: <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp.h#L929-L978>.
#[inline(always)]
pub fn length(skb: *const c_void) -> u32 {
    let seq: u32 = load(skb, offset!(skb_cb));
    let end_seq: u32 = load(skb, offset!(skb_cb) + 4);
    end_seq.wrapping_sub(seq)
}

/// [`Tcp::cgroup`] of the full socket at an address, 0 when that cannot be read.
#[inline(always)]
pub fn cgroup_of(socket: u64) -> u64 {
    let cgroup = follow(socket, offset!(cgroup_data));
    if offset!(cgroup_data) == 0 || cgroup & 1 != 0 {
        return 0;
    }
    follow(follow(cgroup, offset!(cgroup_kn)), offset!(kn_id))
}

/// An address or a name in words: copied so, and not byte by byte.
#[inline(always)]
pub fn words(bytes: [u8; 16]) -> [u64; 2] {
    // SAFETY: the same sixteen bytes.
    unsafe { core::mem::transmute(bytes) }
}

/// An address or a name as records have it.
#[inline(always)]
pub fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: the same sixteen bytes.
    unsafe { core::mem::transmute(words) }
}

/// Jiffies now, low 32 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "TCP's own times are the low 32 bits")]
pub fn now() -> u32 {
    jiffies() as u32
}

/// Jiffies now.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_jiffies64() }
}

/// CLOCK_MONOTONIC now.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_ktime_get_ns() }
}
