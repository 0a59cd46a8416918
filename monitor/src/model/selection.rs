//! Which connections the user wants to know about, and which remote ends are named: what the programs decide in the
//! kernel, for sockets that are listed by other means.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

const MAPPED_V4_PREFIX: u8 = 96;

/// The filters, and the ranges of proxies.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    include_ports: Vec<u16>,
    exclude_ports: Vec<u16>,
    include_nets: Vec<Ipv6Net>,
    exclude_nets: Vec<Ipv6Net>,
    proxy_ranges: Vec<Ipv6Net>,
    no_request_rules: Vec<(Option<Ipv6Addr>, u16)>,
}

impl Selection {
    /// Ports of the accepting end, and networks of the remote end. Where any is included, all others are left out.
    pub fn new(
        [include_ports, exclude_ports]: [&[u16]; 2],
        [include_nets, exclude_nets]: [&[IpNet]; 2],
        proxy_ranges: &[IpNet],
    ) -> Self {
        Self {
            include_ports: include_ports.into(),
            exclude_ports: exclude_ports.into(),
            include_nets: include_nets.iter().map(mapped).collect(),
            exclude_nets: exclude_nets.iter().map(mapped).collect(),
            proxy_ranges: proxy_ranges.iter().map(mapped).collect(),
            no_request_rules: Vec::new(),
        }
    }

    /// The same, where the rules about requests do not apply to these upstreams; without an address to the port's all.
    #[must_use]
    pub fn without_requests(mut self, upstreams: &[(Option<IpAddr>, u16)]) -> Self {
        let canonical = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        self.no_request_rules = upstreams.iter().map(|(ip, port)| (ip.map(canonical), *port)).collect();
        self
    }

    /// Whether the rules about requests apply to an upstream.
    pub fn has_requests(&self, (address, port): (Ipv6Addr, u16)) -> bool {
        !self.no_request_rules.iter().any(|(ip, number)| *number == port && ip.is_none_or(|ip| ip == address))
    }

    /// Whether a connection is wanted, by its accepting end's port and its remote address.
    pub fn wants(&self, port: u16, remote: Ipv6Addr) -> bool {
        let port_wanted = if self.exclude_ports.contains(&port) {
            false
        } else {
            self.include_ports.is_empty() || self.include_ports.contains(&port)
        };
        // The smallest network decides; of two alike, that which excludes.
        let included = smallest(&self.include_nets, remote);
        let net_wanted = match smallest(&self.exclude_nets, remote) {
            Some(excluded) => included.is_some_and(|included| included > excluded),
            None => self.include_nets.is_empty() || included.is_some(),
        };
        port_wanted && net_wanted
    }

    /// Whether a remote proxy is shown by its address.
    pub fn names(&self, proxy: Ipv6Addr) -> bool {
        smallest(&self.proxy_ranges, proxy).is_some()
    }
}

/// The longest prefix of a network that holds the address.
fn smallest(networks: &[Ipv6Net], address: Ipv6Addr) -> Option<u8> {
    networks.iter().filter(|network| network.contains(&address)).map(Ipv6Net::prefix_len).max()
}

/// A network as the programs see it: IPv4 as `::ffff:a.b.c.d`.
fn mapped(network: &IpNet) -> Ipv6Net {
    let (address, prefix) = match network.network() {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), network.prefix_len() + MAPPED_V4_PREFIX),
        IpAddr::V6(address) => (address, network.prefix_len()),
    };
    Ipv6Net::new_assert(address, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().expect("a network")).collect()
    }

    fn wants(ports: [&[u16]; 2], include: &[&str], exclude: &[&str], port: u16, remote: &str) -> bool {
        let remote: IpAddr = remote.parse().expect("an address");
        let remote = match remote {
            IpAddr::V4(remote) => remote.to_ipv6_mapped(),
            IpAddr::V6(remote) => remote,
        };
        Selection::new(ports, [&nets(include), &nets(exclude)], &[]).wants(port, remote)
    }

    #[test]
    fn ports() {
        assert!(wants([&[], &[]], &[], &[], 80, "10.0.0.1"));
        assert!(wants([&[80], &[]], &[], &[], 80, "10.0.0.1"));
        assert!(!wants([&[80], &[]], &[], &[], 81, "10.0.0.1"));
        assert!(!wants([&[], &[80]], &[], &[], 80, "10.0.0.1"));
        assert!(wants([&[], &[80]], &[], &[], 81, "10.0.0.1"));
    }

    #[test]
    fn the_smallest_network_decides() {
        let none: [&[u16]; 2] = [&[], &[]];
        assert!(wants(none, &["10.1.0.0/16"], &["10.0.0.0/8"], 80, "10.1.0.1"));
        assert!(!wants(none, &["10.1.0.0/16"], &["10.0.0.0/8"], 80, "10.2.0.1"));
        assert!(!wants(none, &["10.0.0.0/8"], &["10.1.0.0/16"], 80, "10.1.0.1"));
        assert!(!wants(none, &["10.0.0.0/8"], &[], 80, "192.0.2.1"));
        assert!(!wants(none, &["10.0.0.0/8"], &["10.0.0.0/8"], 80, "10.1.0.1"));
        assert!(wants(none, &[], &["10.0.0.0/8"], 80, "2001:db8::1"));
        assert!(!wants(none, &[], &["2001:db8::/32"], 80, "2001:db8::1"));
    }

    #[test]
    fn proxies_in_the_ranges_are_named() {
        let selection = Selection::new([&[], &[]], [&[], &[]], &nets(&["10.0.0.0/8", "::1/128"]));
        assert!(selection.names("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(selection.names("::1".parse().expect("an address")));
        assert!(!selection.names("::ffff:192.0.2.1".parse().expect("an address")));
    }
}
