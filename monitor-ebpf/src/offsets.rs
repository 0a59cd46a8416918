//! Which kernel fields the programs read, and where they are in the running kernel.

/// Declares [`Offsets`] and [`FIELDS`] from one list, so that they cannot disagree.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $kernel_type:literal, $path:literal;)+) => {
        /// Byte offsets in the running kernel. The agent finds them in BTF before the programs load.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u32,)+
        }

        /// The fields in the order of [`Offsets`].
        pub const FIELDS: &[Field] = &[$(Field { kernel_type: $kernel_type, path: $path },)+];

        impl Offsets {
            /// Puts offsets, one per entry of [`FIELDS`], into their places.
            pub fn from_slice(offsets: &[u32]) -> Option<Self> {
                let mut offsets = offsets.iter().copied();
                let filled = Self { $($name: offsets.next()?,)+ };
                offsets.next().is_none().then_some(filled)
            }
        }
    };
}

/// One field of a kernel type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The struct's name in BTF.
    pub kernel_type: &'static str,
    /// The members on the way, separated by dots.
    pub path: &'static str,
}

fields! {
    /// `AF_INET` or `AF_INET6`.
    family = "sock_common", "skc_family";
    /// The socket's state.
    state = "sock_common", "skc_state";
    /// IPv4 remote address.
    daddr = "sock_common", "skc_daddr";
    /// IPv4 local address.
    rcv_saddr = "sock_common", "skc_rcv_saddr";
    /// IPv6 remote address.
    v6_daddr = "sock_common", "skc_v6_daddr";
    /// IPv6 local address.
    v6_rcv_saddr = "sock_common", "skc_v6_rcv_saddr";
    /// Remote port, network byte order.
    dport = "sock_common", "skc_dport";
    /// Local port, host byte order; 0 when none is bound.
    num = "sock_common", "skc_num";
    /// The network namespace.
    net = "sock_common", "skc_net";
    /// Flag bits, `SOCK_DEAD` and `SOCK_DONE` among them.
    flags = "sock_common", "skc_flags";
    /// The listening socket of a request mini-socket.
    listener = "sock_common", "skc_listener";
    /// The pending error.
    err = "sock", "sk_err";
    /// Which directions are shut down.
    shutdown = "sock", "sk_shutdown";
    /// The user that made the socket.
    uid = "sock", "sk_uid";
    /// The cgroup in which the socket was made.
    cgroup_data = "sock", "sk_cgrp_data";
    /// The file the socket belongs to; null before accept().
    socket = "sock", "sk_socket";
    /// Connections that wait for accept().
    ack_backlog = "sock", "sk_ack_backlog";
    /// How many may wait.
    max_ack_backlog = "sock", "sk_max_ack_backlog";
    /// The inode number that `/proc` shows, from the socket's file.
    socket_inode = "socket_alloc", "vfs_inode.i_ino";
    /// What a timewait mini-socket stands for.
    substate = "inet_timewait_sock", "tw_substate";
    /// Held while a segment is handled, or put into the backlog.
    slock = "sock", "sk_lock.slock";
    /// How many errors wait to be read with their packets.
    error_queue = "sock", "sk_error_queue.qlen";
    /// The first segment that came while the application had the socket locked.
    backlog = "sock", "sk_backlog.head";
    /// Local port, network byte order; kept after the end.
    sport = "inet_sock", "inet_sport";
    /// When data was last received.
    lrcvtime = "inet_connection_sock", "icsk_ack.lrcvtime";
    /// End of what was written.
    write_seq = "tcp_sock", "write_seq";
    /// End of what was sent.
    snd_nxt = "tcp_sock", "snd_nxt";
    /// End of what was acknowledged.
    snd_una = "tcp_sock", "snd_una";
    /// End of what was received.
    rcv_nxt = "tcp_sock", "rcv_nxt";
    /// End of what was read.
    copied_seq = "tcp_sock", "copied_seq";
    /// When data was last sent.
    lsndtime = "tcp_sock", "lsndtime";
    /// Data segments received.
    data_segs_in = "tcp_sock", "data_segs_in";
    /// Retransmitted segments.
    total_retrans = "tcp_sock", "total_retrans";
    /// Data bytes sent.
    bytes_sent = "tcp_sock", "bytes_sent";
    /// Data bytes retransmitted.
    bytes_retrans = "tcp_sock", "bytes_retrans";
    /// Bytes received.
    bytes_received = "tcp_sock", "bytes_received";
    /// Smoothed round trip time in eighths of a microsecond.
    srtt_us = "tcp_sock", "srtt_us";
    /// `TCP_LINGER2`.
    linger2 = "tcp_sock", "linger2";
    /// The next segment in a list.
    skb_next = "sk_buff", "next";
    /// TCP's notes on a segment: the sequence numbers of its first byte and of the one after its last.
    skb_cb = "sk_buff", "cb";
    /// The segment's flags, within TCP's notes.
    segment_flags = "tcp_skb_cb", "tcp_flags";
    /// The number of a segment's first byte.
    segment_seq = "tcp_skb_cb", "seq";
    /// The device a segment came in on.
    skb_dev = "sk_buff", "dev";
    /// The device's namespace.
    dev_net = "net_device", "nd_net";
    /// The namespace's inode number.
    net_inum = "net", "ns.inum";
    /// The cgroup's node.
    cgroup_kn = "cgroup", "kn";
    /// The cgroup's id.
    kn_id = "kernfs_node", "id";
    /// The thread group's leader.
    group_leader = "task_struct", "group_leader";
    /// The task's name.
    comm = "task_struct", "comm";
    /// The task's memory.
    mm = "task_struct", "mm";
    /// The executable.
    exe_file = "mm_struct", "exe_file";
    /// The executable's directory entry.
    file_dentry = "file", "f_path.dentry";
    /// The entry's name.
    dentry_name = "dentry", "d_name.name";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let mut numbers = [0; FIELDS.len()];
        for (number, index) in numbers.iter_mut().zip(0..) {
            *number = index;
        }
        let offsets = Offsets::from_slice(&numbers).expect("as many numbers as fields");
        assert_eq!(offsets.family, 0);
        assert_eq!(offsets.dentry_name as usize, FIELDS.len() - 1);
        assert_eq!(size_of::<Offsets>(), size_of_val(&numbers));
        assert_eq!(Offsets::from_slice(&numbers[1..]), None);
    }
}
