//! Asks the connection tracking of the agent's own network namespace about one connection; never for its table.

pub mod message;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};

use message::{Answer, Ends};

/// More than the kernel puts into one answer.
const BUFFER: usize = 8_192;
/// Nothing is between these.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Why it cannot be asked. Each is one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// Without the right.
    #[error("CAP_NET_ADMIN is missing; give that capability")]
    NotAllowed,
    /// Without a part of the kernel.
    #[error("the kernel has no nf_conntrack_netlink; load that module, `modprobe nf_conntrack_netlink`")]
    NotThere,
    /// Anything else.
    #[error("the kernel does not answer: {0}")]
    Broken(io::Error),
}

/// What a refusal means: `nfnetlink_rcv` and `nfnetlink_rcv_msg` in
/// <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nfnetlink.c>, which asks for the module first.
impl From<io::Error> for ConntrackError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::NotAllowed,
            Some(libc::EPROTONOSUPPORT | libc::EINVAL) => Self::NotThere,
            _ => Self::Broken(error),
        }
    }
}

/// The way to the kernel, open while it answers.
#[derive(Default)]
pub struct Conntrack {
    socket: Option<Socket>,
    sequence: u32,
}

impl Conntrack {
    /// Whether it can be asked.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn probe(&mut self) -> Result<(), ConntrackError> {
        self.ask(&Ends { source: NOBODY, destination: NOBODY }).map(drop)
    }

    /// Who answers on the connection between these ends. Takes as long as a look into a hash table: the kernel has answered when
    /// the question is sent, and nothing is waited for.
    ///
    /// # Errors
    /// When the kernel refuses. The next call tries anew.
    pub fn ask(&mut self, ends: &Ends) -> Result<Answer, ConntrackError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connected()?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let answer = exchange(&socket, ends, self.sequence)?;
        // After an error something might still come.
        self.socket = Some(socket);
        Ok(answer)
    }
}

fn connected() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    Ok(socket)
}

fn exchange(socket: &Socket, ends: &Ends, sequence: u32) -> io::Result<Answer> {
    let question = message::question(ends, sequence);
    socket.send(&question, 0)?;
    let mut buffer = [0; BUFFER];
    let length = socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT)?;
    message::read(buffer.get(..length).unwrap_or_default(), ends, sequence)
}
