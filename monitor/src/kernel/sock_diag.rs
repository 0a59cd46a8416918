//! Lists the TCP sockets of the calling thread's network namespace by netlink (`inet_diag`), as `ss` does.

use std::{
    cmp::Ordering,
    io,
    net::{IpAddr, Ipv6Addr},
};

use finwatch_ebpf::state;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::model::tally::{Listed, Speaker};

/// More than the kernel puts into one answer.
const BUFFER: usize = 65_536;
/// `INET_DIAG_CGROUP_ID`, from Linux 5.9 on.
const CGROUP_ID: u16 = 21;
/// `tcpi_last_data_sent` and `tcpi_last_data_recv` in `struct tcp_info`, milliseconds:
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/tcp.h#L229-L262>
const LAST_DATA: [usize; 2] = [44, 52];
/// `tcpi_unacked` there, segments.
const UNACKED: usize = 24;
/// `tcpi_bytes_received` there, and `tcpi_bytes_sent`, from Linux 4.19 on.
const BYTES: [usize; 2] = [128, 200];
/// The contract's QUIET.
const QUIET_MS: u32 = 1_000;

/// A listed socket by kind.
pub enum Kind {
    /// It listens.
    Listening,
    /// A handshake on the accepting end.
    Request,
    /// What is left of a closed connection.
    TimeWait,
    /// Any other.
    Full,
}

/// Hands every TCP socket to `each`, listening ones first.
///
/// # Errors
/// When the kernel refuses, or the list does not come to its end.
pub fn list(mut each: impl FnMut(Kind, &Listed)) -> io::Result<()> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut buffer = vec![0; BUFFER];
    let others = StateFlags::all() - StateFlags::LISTEN - StateFlags::CLOSE;
    for states in [StateFlags::LISTEN, others] {
        for family in [AF_INET, AF_INET6] {
            request(&socket, family, states.clone())?;
            while answer(&socket, &mut buffer, &mut each)? {}
        }
    }
    Ok(())
}

fn request(socket: &Socket, family: u8, states: StateFlags) -> io::Result<()> {
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

fn answer(socket: &Socket, buffer: &mut [u8], each: &mut impl FnMut(Kind, &Listed)) -> io::Result<bool> {
    let length = socket.recv(&mut &mut *buffer, 0)?;
    take(buffer.get(..length).ok_or_else(|| io::Error::other("an answer longer than any"))?, each)
}

/// Takes one answer, which holds many sockets; tells whether more will come.
///
/// # Errors
/// When the kernel refuses, or the answer is not what it should be.
pub fn take(answer: &[u8], each: &mut impl FnMut(Kind, &Listed)) -> io::Result<bool> {
    let mut rest = answer;
    while !rest.is_empty() {
        let message: NetlinkMessage<SockDiagMessage> =
            NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                let (kind, listed) = read(&response);
                each(kind, &listed);
            }
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
            }
            NetlinkPayload::Done(_) => return Ok(false),
            NetlinkPayload::Error(error) => {
                return Err(io::Error::from_raw_os_error(error.raw_code().saturating_abs()));
            }
            _ => {}
        }
        let aligned = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(aligned..).unwrap_or_default();
    }
    Ok(true)
}

fn read(response: &InetResponse) -> (Kind, Listed) {
    let header = &response.header;
    let kind = match (&header.timer, header.state) {
        (_, state::LISTEN) => Kind::Listening,
        (Some(Timer::TimeWait), _) => Kind::TimeWait,
        // What Fast Open makes is a full socket in the same state, and has what only a full socket has.
        (_, state::SYN_RECV) if header.inode == 0 && info(response).is_none() => Kind::Request,
        _ => Kind::Full,
    };
    let id = &header.socket_id;
    let listed = Listed {
        state: header.state,
        local: (mapped(id.source_address), id.source_port),
        remote: (mapped(id.destination_address), id.destination_port),
        inode: header.inode.into(),
        cgroup: cgroup(response),
        quiet: info(response).is_some_and(is_quiet),
        spoke_last: info(response).and_then(spoke_last),
        waiting: header.recv_queue,
        limit: header.send_queue,
    };
    (kind, listed)
}

fn info(response: &InetResponse) -> Option<&[u8]> {
    response.nlas.iter().find_map(|nla| match nla {
        Nla::TcpInfo(bytes) => Some(bytes.as_slice()),
        _ => None,
    })
}

fn number(info: &[u8], at: usize) -> Option<u32> {
    let bytes = info.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn is_quiet(info: &[u8]) -> bool {
    LAST_DATA.into_iter().all(|at| number(info, at).is_some_and(|quiet| quiet >= QUIET_MS))
}

/// As the evidence of an event tells it: where both spoke in one jiffy, this end did if something is unacknowledged.
fn spoke_last(info: &[u8]) -> Option<Speaker> {
    let bytes = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let [received, sent] = BYTES.map(bytes);
    let [since_sent, since_received] = LAST_DATA.map(|at| number(info, at));
    match (sent?, received?) {
        (0, 0) => None,
        (0, _) => Some(Speaker::Remote),
        (_, 0) => Some(Speaker::Local),
        _ => match since_sent?.cmp(&since_received?) {
            Ordering::Less => Some(Speaker::Local),
            Ordering::Greater => Some(Speaker::Remote),
            Ordering::Equal => (number(info, UNACKED)? > 0).then_some(Speaker::Local),
        },
    }
}

fn cgroup(response: &InetResponse) -> u64 {
    let found = response.nlas.iter().find_map(|nla| match nla {
        Nla::Other(attribute) if attribute.kind() == CGROUP_ID => {
            let mut bytes = [0; size_of::<u64>()];
            (attribute.value_len() == bytes.len()).then(|| attribute.emit_value(&mut bytes))?;
            Some(u64::from_ne_bytes(bytes))
        }
        _ => None,
    });
    found.unwrap_or(0)
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listener_is_listed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let mut found = 0;
        let listed = list(|kind, socket| {
            let ours = socket.local == (std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port);
            if matches!(kind, Kind::Listening) && ours {
                found += 1;
            }
        });
        // Some sandboxes have no inet_diag.
        assert!(listed.is_err() || found == 1, "{listed:?}, {found}");
    }

    #[test]
    fn whoever_sent_last_spoke_last() {
        let spoke = |sent: u64, received: u64, since: [u32; 2], unacked: u32| {
            let mut info = vec![0; 208];
            for (at, value) in LAST_DATA.into_iter().zip(since).chain([(UNACKED, unacked)]) {
                info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            for (at, value) in BYTES.into_iter().zip([received, sent]) {
                info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            }
            spoke_last(&info)
        };
        let (local, remote) = (Some(Speaker::Local), Some(Speaker::Remote));
        assert_eq!(spoke(9, 9, [1_000, 1_004], 0), local);
        assert_eq!(spoke(9, 9, [1_004, 1_000], 1), remote);
        assert_eq!([spoke(9, 9, [8, 8], 1), spoke(9, 9, [8, 8], 0)], [local, None]);
        assert_eq!(
            [spoke(9, 0, [8, 1], 0), spoke(0, 9, [1, 8], 0), spoke(0, 0, [1, 8], 0)],
            [local, remote, None]
        );
        assert_eq!(spoke_last(&[0; 100]), None, "an older kernel's");
    }

    #[test]
    fn quiet_is_quiet_in_both_directions() {
        let info = |sent: u32, received: u32| {
            let mut info = vec![0; 60];
            for (at, value) in LAST_DATA.into_iter().zip([sent, received]) {
                info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            is_quiet(&info)
        };
        assert!(info(1_000, 1_500));
        assert!(!info(999, 1_500));
        assert!(!info(5_000, 3));
        assert!(!is_quiet(&[0; 50]), "cut short");
    }
}
