//! Ends of connections that nobody could see all of: by so many each count of their pair may differ.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::unseen;

type Socket<'a> = [&'a str; 4];

/// How many of them there are so far, by side, accepting end and its port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unseen(BTreeMap<(&'static str, Ipv4Addr, u16), u64>);

impl Unseen {
    /// Those so far whose accepting end has one of these ports.
    pub(crate) fn now(ports: &[u16]) -> Self {
        Self::of(&unseen::transitions(), ports)
    }

    fn of(lines: &[String], ports: &[u16]) -> Self {
        // Sockets of the same ends come one after the other; of each there is a transition but once.
        let mut sockets: BTreeMap<Socket<'_>, BTreeMap<[&str; 2], u64>> = BTreeMap::new();
        for line in lines {
            let socket = ["saddr", "sport", "daddr", "dport"].map(|name| field(line, name));
            let step = ["oldstate", "newstate"].map(|name| field(line, name));
            *sockets.entry(socket).or_default().entry(step).or_default() += 1;
        }
        let mut ends = BTreeMap::new();
        for ([local, local_port, remote, remote_port], steps) in sockets {
            let count = steps.values().max().copied().unwrap_or(0);
            for (side, ip, port) in [("upstream", local, local_port), ("proxy", remote, remote_port)] {
                let (Ok(ip), Ok(port)) = (ip.parse(), port.parse()) else { continue };
                if ports.contains(&port) {
                    *ends.entry((side, ip, port)).or_default() += count;
                }
            }
        }
        Self(ends)
    }

    /// Those of a pair.
    pub(crate) fn of_pair(&self, side: &'static str, upstream: Ipv4Addr, port: u16) -> u64 {
        self.0.get(&(side, upstream, port)).copied().unwrap_or(0)
    }

    /// All of them.
    pub(crate) fn all(&self) -> u64 {
        self.0.values().sum()
    }
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start = line.find(&format!(" {name}=")).map_or(line.len(), |at| at + name.len() + 2);
    line[start..].split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_from_transitions() {
        let line = |sport, dport, old, new| {
            format!(
                " init-1 [000] ..s1. 5.0: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP \
                 sport={sport} dport={dport} saddr=127.0.0.1 daddr=127.0.0.2 saddrv6=::ffff:127.0.0.1 \
                 daddrv6=::ffff:127.0.0.2 oldstate={old} newstate={new}"
            )
        };
        let one_end = [line(40_000, 80, "A", "B"), line(40_000, 80, "B", "C"), line(40_000, 81, "A", "B")];
        let unseen = Unseen::of(&one_end, &[80]);
        assert_eq!(unseen, Unseen(BTreeMap::from([(("proxy", Ipv4Addr::new(127, 0, 0, 2), 80), 1)])));
        let both = [line(40_000, 80, "A", "B"), line(40_000, 80, "A", "B"), line(80, 40_000, "A", "B")];
        let unseen = Unseen::of(&both, &[80]);
        assert_eq!(unseen.all(), 3);
        assert_eq!(unseen.of_pair("upstream", Ipv4Addr::LOCALHOST, 80), 1);
    }
}
