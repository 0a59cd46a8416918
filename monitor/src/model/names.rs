//! Names of addresses, as the configuration gives them. The most specific entry decides.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;

/// What an upstream's name is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NamedEnd {
    /// One port of one address.
    Endpoint(SocketAddr),
    /// Every port of a network's addresses.
    Net(IpNet),
}

/// Every name there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    endpoints: HashMap<SocketAddr, String>,
    upstreams: Nets,
    proxies: Nets,
}

impl Names {
    /// Of accepting ends, and of the addresses that connect to this host.
    pub fn new(
        upstreams: impl IntoIterator<Item = (NamedEnd, String)>,
        proxies: impl IntoIterator<Item = (IpNet, String)>,
    ) -> Self {
        let mut names = Self::default();
        for (end, name) in upstreams {
            match end {
                NamedEnd::Endpoint(endpoint) => drop(names.endpoints.insert(endpoint, name)),
                NamedEnd::Net(net) => names.upstreams.insert(net, name),
            }
        }
        for (net, name) in proxies {
            names.proxies.insert(net, name);
        }
        names
    }

    /// The name of an accepting end.
    pub fn upstream(&self, address: Ipv6Addr, port: u16) -> Option<&str> {
        let address = address.to_canonical();
        let endpoint = self.endpoints.get(&SocketAddr::new(address, port)).map(String::as_str);
        endpoint.or_else(|| self.upstreams.find(address))
    }

    /// The name of an address that connects to this host.
    pub fn proxy(&self, address: Ipv6Addr) -> Option<&str> {
        self.proxies.find(address.to_canonical())
    }
}

/// Networks with their names. A look-up costs a step for each length of prefix there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Nets {
    names: HashMap<IpNet, String>,
    lengths: BTreeSet<u8>,
}

impl Nets {
    fn insert(&mut self, net: IpNet, name: String) {
        self.lengths.insert(net.prefix_len());
        self.names.insert(net, name);
    }

    fn find(&self, address: IpAddr) -> Option<&str> {
        let longest_first = self.lengths.iter().rev();
        longest_first
            .filter_map(|length| IpNet::new(address, *length).ok())
            .find_map(|net| self.names.get(&net.trunc()).map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Ipv6Addr {
        match text.parse().expect("an address") {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn the_most_specific_decides() {
        let upstreams = [
            (NamedEnd::Net(net("0.0.0.0/0")), "anywhere"),
            (NamedEnd::Net(net("10.0.0.0/8")), "inside"),
            (NamedEnd::Net(net("10.1.0.0/16")), "shop"),
            (NamedEnd::Net(net("10.1.2.3/32")), "checkout"),
            (NamedEnd::Endpoint("10.1.2.3:8443".parse().expect("an endpoint")), "admin"),
            (NamedEnd::Net(net("fd00::/8")), "six"),
        ];
        let names = Names::new(upstreams.map(|(end, name)| (end, name.to_owned())), []);
        for (at, port, name) in [
            ("10.1.2.3", 8443, Some("admin")),
            ("10.1.2.3", 8080, Some("checkout")),
            ("10.1.2.4", 8443, Some("shop")),
            ("10.2.0.1", 80, Some("inside")),
            ("192.0.2.1", 80, Some("anywhere")),
            ("fd00::1", 80, Some("six")),
            ("2001:db8::1", 80, None),
        ] {
            assert_eq!(names.upstream(address(at), port), name, "{at}:{port}");
            assert_eq!(names.proxy(address(at)), None, "upstreams are no proxies");
        }
    }

    proptest! {
        /// As if every network were looked at.
        #[test]
        fn a_look_up_finds_the_longest_that_contains(
            nets in proptest::collection::vec((0_u32..16, 0_u8..=32), 0..40), at in 0_u32..16,
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(bits, length)| IpNet::new(IpAddr::from((bits << 28).to_be_bytes()), length).expect("a length").trunc())
                .collect();
            let address = IpAddr::from((at << 28).to_be_bytes());
            let names = Names::new([], nets.iter().map(|net| (*net, net.to_string())));
            let IpAddr::V4(v4) = address else { unreachable!("made of four bytes") };
            let longest = nets.iter().filter(|net| net.contains(&address)).max_by_key(|net| net.prefix_len());
            let longest = longest.map(ToString::to_string);
            prop_assert_eq!(names.proxy(v4.to_ipv6_mapped()), longest.as_deref());
        }
    }
}
