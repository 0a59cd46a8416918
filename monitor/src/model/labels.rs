//! What a pair prints as, and which records print alike.

use std::{collections::HashSet, net::Ipv6Addr};

use finwatch_ebpf::{
    histogram::SLOTS,
    wire::{Counter, Histogram, KEY_EXTERNAL, KEY_FOLDED, PairKey, SIDE_PROXY},
};
use serde::{Deserialize, Serialize};

use super::{
    names::Names,
    source::{HistogramId, NameSource, PairSource},
};

/// `proxy` and `upstream` of the records that take all pairs for which there was no room.
pub const FOLDED: &str = "other";
/// `proxy` where the remote address lies outside the configured ranges.
pub const EXTERNAL: &str = "external";

/// The labels of every pair family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Labels {
    /// Whether this host opened or accepted the connections.
    pub side: Side,
    /// The local process, or the remote address.
    pub proxy: String,
    /// The accepting end.
    pub upstream: String,
    /// The local process's unit, container or pod.
    pub workload: String,
}

/// This host's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// It opened the connection.
    Proxy,
    /// It accepted the connection.
    Upstream,
}

impl Side {
    /// The side as label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Upstream => "upstream",
        }
    }

    const fn of(key: &PairKey) -> Self {
        if key.side == SIDE_PROXY { Self::Proxy } else { Self::Upstream }
    }
}

/// Which processes' pairs are shown. A process is known only where it opened the connection: pairs with
/// side=upstream, and the folded ones, always are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFilter {
    /// Show only these; empty for all.
    pub include: HashSet<String>,
    /// Leave these out.
    pub exclude: HashSet<String>,
}

impl ProcessFilter {
    fn shows(&self, key: &PairKey, labels: &Labels) -> bool {
        if labels.side == Side::Upstream || key.flags & KEY_FOLDED != 0 {
            return true;
        }
        (self.include.is_empty() || self.include.contains(&labels.proxy))
            && !self.exclude.contains(&labels.proxy)
    }
}

/// The records that print one set of labels.
#[derive(Debug)]
pub struct Group {
    /// What they print.
    pub labels: Labels,
    /// Where they are.
    pub slots: Vec<u32>,
}

impl Group {
    /// The sum of a counter.
    pub fn counter(&self, pairs: &dyn PairSource, counter: Counter) -> u64 {
        self.slots.iter().map(|&slot| pairs.counter(slot, counter)).fold(0, u64::saturating_add)
    }

    /// The sum of a histogram.
    pub fn histogram(&self, pairs: &dyn PairSource, id: HistogramId) -> Histogram {
        let mut sum = Histogram { sum: 0, slots: [0; SLOTS] };
        for &slot in &self.slots {
            let one = pairs.histogram(slot, id);
            sum.sum = sum.sum.saturating_add(one.sum);
            for (total, count) in sum.slots.iter_mut().zip(one.slots) {
                *total = total.saturating_add(count);
            }
        }
        sum
    }
}

/// All pairs that the filter shows, grouped and ordered by their labels.
pub fn groups(pairs: &dyn PairSource, names: &dyn NameSource, filter: &ProcessFilter) -> Vec<Group> {
    let addresses = names.addresses();
    let mut shown: Vec<(Labels, u32)> = (0..pairs.slots())
        .filter_map(|slot| {
            let key = pairs.key(slot)?;
            let labels = labels(&key, &addresses, || names.workload(&key, pairs.pid(slot)).to_string());
            filter.shows(&key, &labels).then_some((labels, slot))
        })
        .collect();
    shown.sort_unstable();
    let mut groups: Vec<Group> = Vec::with_capacity(shown.len());
    for (labels, slot) in shown {
        match groups.last_mut() {
            Some(last) if last.labels == labels => last.slots.push(slot),
            _ => groups.push(Group { labels, slots: vec![slot] }),
        }
    }
    groups
}

/// The labels of one record, with the names of its addresses.
pub fn labels(key: &PairKey, names: &Names, workload: impl FnOnce() -> String) -> Labels {
    let side = Side::of(key);
    if key.flags & KEY_FOLDED != 0 {
        return Labels { side, proxy: FOLDED.into(), upstream: FOLDED.into(), workload: String::new() };
    }
    let proxy = match side {
        Side::Proxy => process_name(&key.proxy),
        Side::Upstream if key.flags & KEY_EXTERNAL != 0 => EXTERNAL.into(),
        Side::Upstream => {
            let address = Ipv6Addr::from(key.proxy);
            names.proxy(address).map_or_else(|| address.to_canonical().to_string(), ToOwned::to_owned)
        }
    };
    Labels { side, proxy, upstream: upstream(names, key.upstream.into(), key.port), workload: workload() }
}

/// An accepting end as the label `upstream` prints it: by its name, where it has one.
pub fn upstream(names: &Names, address: Ipv6Addr, port: u16) -> String {
    names.upstream(address, port).map_or_else(|| endpoint(address, port), ToOwned::to_owned)
}

/// An address with its port as every label prints it; IPv4-mapped IPv6 is IPv4.
pub fn endpoint(address: Ipv6Addr, port: u16) -> String {
    match address.to_ipv4_mapped() {
        Some(address) => format!("{address}:{port}"),
        None => format!("[{address}]:{port}"),
    }
}

/// A process's name from the kernel's NUL-padded bytes. The many `kworker/...` threads that close sockets for others
/// share one name.
pub fn process_name(comm: &[u8]) -> String {
    let name = comm.split(|&byte| byte == 0).next().unwrap_or_default();
    if name.starts_with(b"kworker/") {
        return "kworker".into();
    }
    harmless(&String::from_utf8_lossy(name))
}

/// Replaces what terminals and dashboards may obey, as invalid UTF-8 is replaced.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character moves the cursor, turns the direction of writing or takes no room: a name with it could look like
/// another.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{61c}' | '\u{180e}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}' | '\u{fff9}'..='\u{fffb}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    use finwatch_ebpf::wire::SIDE_UPSTREAM;
    use proptest::prelude::*;

    use super::*;

    fn key(side: u8, flags: u8, proxy: [u8; 16], upstream: &str) -> PairKey {
        let upstream = match upstream.parse().expect("an address") {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            std::net::IpAddr::V6(v6) => v6,
        };
        PairKey { side, flags, port: 443, reserved: 0, upstream: upstream.octets(), proxy, cgroup: 7 }
    }

    fn comm(name: &[u8]) -> [u8; 16] {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name);
        comm
    }

    fn print(key: &PairKey) -> String {
        let Labels { side, proxy, upstream, workload } = labels(key, &Names::default(), || "unit".into());
        format!("{} {proxy} {upstream} {workload}", side.name())
    }

    #[test]
    fn the_proxy_side_is_named_by_its_process() {
        assert_eq!(print(&key(SIDE_PROXY, 0, comm(b"nginx"), "10.0.0.1")), "proxy nginx 10.0.0.1:443 unit");
        assert_eq!(
            print(&key(SIDE_PROXY, 0, comm(b"kworker/u8:3-ev"), "::1")),
            "proxy kworker [::1]:443 unit"
        );
        assert_eq!(
            print(&key(SIDE_PROXY, 0, *b"sixteen bytes ok", "::1")),
            "proxy sixteen bytes ok [::1]:443 unit"
        );
    }

    #[test]
    fn the_upstream_side_is_named_by_its_remote_address() {
        let remote =
            "192.168.1.9".parse::<std::net::Ipv4Addr>().expect("an address").to_ipv6_mapped().octets();
        assert_eq!(
            print(&key(SIDE_UPSTREAM, 0, remote, "fe80::1")),
            "upstream 192.168.1.9 [fe80::1]:443 unit"
        );
        assert_eq!(
            print(&key(SIDE_UPSTREAM, KEY_EXTERNAL, [0; 16], "10.0.0.1")),
            "upstream external 10.0.0.1:443 unit"
        );
    }

    #[test]
    fn folded_records_carry_nothing_of_their_key() {
        assert_eq!(print(&key(SIDE_PROXY, KEY_FOLDED, comm(b"x"), "::1")), "proxy other other ");
        assert_eq!(print(&key(SIDE_UPSTREAM, KEY_FOLDED, [0; 16], "::1")), "upstream other other ");
    }

    #[test]
    fn nothing_that_terminals_obey_is_left() {
        assert_eq!(process_name(b"a\x1b[31mb\n\0rest"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(process_name("ngi\u{200b}nx\u{202e}c\u{85}".as_bytes()), "ngi\u{fffd}nx\u{fffd}c\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_key_prints_harmlessly(
            side: u8, flags: u8, port: u16, upstream: [u8; 16], proxy: [u8; 16], cgroup: u64,
        ) {
            let key = PairKey { side, flags, port, reserved: 0, upstream, proxy, cgroup };
            prop_assert!(!print(&key).contains(is_harmful));
        }

        #[test]
        fn valid_names_print_as_they_are(name in "[a-zA-Z0-9_.:\"\\\\ -]{1,15}") {
            prop_assume!(!name.starts_with("kworker/"));
            prop_assert_eq!(process_name(&comm(name.as_bytes())), name);
        }
    }
}
