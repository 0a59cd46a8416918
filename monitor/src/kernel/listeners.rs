//! Who listens where on this host, from `/proc`: asked for by readers and incidents, never during a scrape.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    namespaces::{inode, processes},
    processes::{printed_name, sockets},
};
use crate::model::observation::Process;

/// For so long an answer stands: finding out means a look at every open file.
const KEPT: Duration = Duration::from_secs(30);
/// Where the answer is that nobody listens, it stands for so long.
const DOUBTED: Duration = Duration::from_secs(5);
/// What `/proc/net/tcp` calls LISTEN; listening sockets come first in it.
const LISTEN: &str = "0A";

/// A listening socket and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The inode number of its network namespace.
    pub netns: u32,
    /// Where it listens; IPv4-mapped IPv6 is IPv4.
    pub address: SocketAddr,
    /// The holder with the lowest number: of a master and its workers, the master.
    pub process: Process,
}

/// Who listens where, as of not long ago.
#[derive(Debug, Default)]
pub struct Listeners {
    known: Mutex<Option<(Instant, Arc<[Listener]>)>>,
}

impl Listeners {
    /// All listening sockets. Looks at every open file, if the last look is old.
    pub fn all(&self) -> Arc<[Listener]> {
        self.as_of(KEPT)
    }

    /// The process that accepts connections to this address, in this namespace where it is known.
    pub fn accepting(&self, netns: Option<u32>, address: SocketAddr) -> Option<Process> {
        accepting(&self.all(), netns, address)
            .cloned()
            .or_else(|| accepting(&self.as_of(DOUBTED), netns, address).cloned())
    }

    fn as_of(&self, age: Duration) -> Arc<[Listener]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, listeners)) if at.elapsed() < age => listeners.clone(),
            _ => {
                let listeners: Arc<[Listener]> = scan().into();
                *known = Some((Instant::now(), listeners.clone()));
                listeners
            }
        }
    }
}

/// All listening sockets of all network namespaces that have a process.
fn scan() -> Vec<Listener> {
    let mut found: Vec<_> =
        processes().filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path))).collect();
    found.sort_unstable();
    let mut namespaces = HashSet::new();
    let mut addresses = HashMap::new();
    for (_, process) in &found {
        let Some(netns) = inode(&process.join("ns/net")).filter(|netns| namespaces.insert(*netns)) else {
            continue;
        };
        let tables = ["net/tcp", "net/tcp6"].into_iter().flat_map(|table| listening(&process.join(table)));
        addresses.extend(tables.map(|(socket, address)| (socket, (netns, address))));
    }
    let mut listeners = Vec::new();
    for (pid, path) in found {
        for socket in sockets(&path) {
            if let Some((netns, address)) = addresses.remove(&socket) {
                let process = Process { name: printed_name(&path), pid };
                listeners.push(Listener { netns, address, process });
            }
        }
    }
    listeners
}

/// The listening sockets of a table by inode number. They come first in it:
/// <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_ipv4.c#L2600-L2625>.
fn listening(table: &Path) -> Vec<(u64, SocketAddr)> {
    let Ok(file) = File::open(table) else { return Vec::new() };
    let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
    lines.map_while(|line| entry(&line)).collect()
}

/// A line of `/proc/net/tcp` or `tcp6`; `None` where it is no listening socket.
fn entry(line: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields[1].split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((fields.get(9)?.parse().ok()?, SocketAddr::new(ip(address)?, port)))
}

/// Words of 32 bits in memory order, each printed as a number.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (index, four) in octets.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(8 * index)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// Who accepts connections to `upstream`, an address of this host: who listens on just that address, else on all
/// addresses. `None` where nobody does, or where it may be this process or that.
pub fn accepting(listeners: &[Listener], netns: Option<u32>, upstream: SocketAddr) -> Option<&Process> {
    let inside = |listener: &&Listener| netns.is_none_or(|netns| listener.netns == netns);
    let of_port =
        || listeners.iter().filter(inside).filter(|listener| listener.address.port() == upstream.port());
    let exact = of_port().filter(|listener| listener.address.ip() == upstream.ip());
    let any = of_port().filter(|listener| {
        let ip = listener.address.ip();
        ip.is_unspecified() && (ip.is_ipv6() || upstream.is_ipv4())
    });
    only(exact).or_else(|| only(any))
}

/// The process, if all of them are of one name; of several, the first.
fn only<'a>(mut listeners: impl Iterator<Item = &'a Listener>) -> Option<&'a Process> {
    let first = &listeners.next()?.process;
    listeners.all(|other| other.process.name == first.name).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::kernel::loader::own_netns;

    #[test]
    fn our_own_listener_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let listeners = scan();
        let found = accepting(&listeners, Some(own_netns()), address).expect("it is found");
        assert_eq!(found.pid, std::process::id());
        assert_eq!(accepting(&listeners, Some(1), address), None, "another namespace");
    }

    #[test]
    fn lines_of_both_families() {
        let v4 = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 4711 1";
        let v6 = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A \
                  00000000:00000000 00:00000000 00000000 0 0 815 1";
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(entry(v4), Some((4711, address("127.0.0.1:3000"))));
        assert_eq!(entry(v6), Some((815, address("[::]:80"))));
        assert_eq!(entry(&v4.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn the_exact_address_wins_and_ambiguity_is_unknown() {
        let listener = |address: &str, name: &str, pid| Listener {
            netns: 1,
            address: address.parse().expect("an address"),
            process: Process { name: name.into(), pid },
        };
        let asked = "127.0.0.1:3000".parse().expect("an address");
        let pid = |listeners: &[Listener]| accepting(listeners, None, asked).map(|process| process.pid);
        assert_eq!(pid(&[listener("0.0.0.0:3000", "a", 1), listener("127.0.0.1:3000", "b", 2)]), Some(2));
        assert_eq!(pid(&[listener("[::]:3000", "a", 1), listener("127.0.0.1:3001", "b", 2)]), Some(1));
        assert_eq!(pid(&[listener("0.0.0.0:3000", "a", 1), listener("0.0.0.0:3000", "b", 2)]), None);
        assert_eq!(pid(&[listener("0.0.0.0:3000", "a", 1), listener("0.0.0.0:3000", "a", 2)]), Some(1));
        assert_eq!(pid(&[]), None);
    }
}
