//! Who listens where on this host, from `/proc`: asked for by readers, never during a scrape.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::{
    namespaces::processes,
    processes::{process_name, sockets},
};
use crate::model::observation::Process;

/// The state LISTEN as `/proc/net/tcp` prints it.
const LISTEN: &str = "0A";

/// A listening socket and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; IPv4-mapped IPv6 is IPv4.
    pub address: SocketAddr,
    /// The holder with the lowest number: of a master and its workers, the master.
    pub process: Process,
}

/// All listening sockets of all network namespaces that have a process. Costs a look at every open file.
pub fn scan() -> Vec<Listener> {
    let mut found: BTreeMap<u32, std::path::PathBuf> = BTreeMap::new();
    found.extend(processes().filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path))));
    let mut namespaces = HashSet::new();
    let mut addresses = HashMap::new();
    for process in found.values() {
        let Ok(namespace) = fs::metadata(process.join("ns/net")) else { continue };
        if namespaces.insert(namespace.ino()) {
            addresses.extend(
                ["net/tcp", "net/tcp6"].into_iter().flat_map(|table| listening(&process.join(table))),
            );
        }
    }
    let mut listeners = Vec::new();
    for (pid, path) in found {
        for inode in sockets(&path) {
            if let Some(address) = addresses.remove(&inode) {
                listeners.push(Listener { address, process: Process { name: process_name(&path), pid } });
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
/// addresses. `None` where nobody does, or where several namespaces have somebody who does.
pub fn accepting(listeners: &[Listener], upstream: SocketAddr) -> Option<&Process> {
    let of_port = || listeners.iter().filter(|listener| listener.address.port() == upstream.port());
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

    #[test]
    fn our_own_listener_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let listeners = scan();
        let found = accepting(&listeners, address).expect("it is found");
        assert_eq!(found.pid, std::process::id());
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
            address: address.parse().expect("an address"),
            process: Process { name: name.into(), pid },
        };
        let asked = "127.0.0.1:3000".parse().expect("an address");
        let pid = |listeners: &[Listener]| accepting(listeners, asked).map(|process| process.pid);
        assert_eq!(pid(&[listener("0.0.0.0:3000", "a", 1), listener("127.0.0.1:3000", "b", 2)]), Some(2));
        assert_eq!(pid(&[listener("[::]:3000", "a", 1), listener("127.0.0.1:3001", "b", 2)]), Some(1));
        assert_eq!(pid(&[listener("0.0.0.0:3000", "a", 1), listener("0.0.0.0:3000", "b", 2)]), None);
        assert_eq!(pid(&[listener("0.0.0.0:3000", "a", 1), listener("0.0.0.0:3000", "a", 2)]), Some(1));
        assert_eq!(pid(&[]), None);
    }
}
