//! The ephemeral ports of a network namespace, from the two settings that bound them.

use finwatch_ebpf::levels::PORTS;

/// Words of a table with one bit per port.
const WORDS: usize = (PORTS / u64::BITS) as usize;

/// `ip_local_port_range` less `ip_local_reserved_ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
    /// Reserved ports, as inclusive ranges in ascending order that do not touch.
    reserved: Vec<(u16, u16)>,
}

impl PortRange {
    /// Reads both settings as the kernel prints them (`32768\t60999`, `8080,9000-9010`).
    pub fn parse(range: &str, reserved: &str) -> Option<Self> {
        let mut bounds = range.split_whitespace().map(str::parse);
        let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
        let reserved: Option<Vec<_>> =
            reserved.trim().split(',').filter(|part| !part.is_empty()).map(inclusive).collect();
        (low <= high).then_some(Self { low, high, reserved: reserved? })
    }

    /// How many ports connect() may choose from.
    pub fn limit(&self) -> u32 {
        let reserved: u32 = self.reserved_inside().map(|(first, last)| size(first, last)).sum();
        size(self.low, self.high) - reserved
    }

    /// Whether connect() may choose the port.
    pub fn offers(&self, port: u16) -> bool {
        let reserved = |&(first, last): &(u16, u16)| (first..=last).contains(&port);
        (self.low..=self.high).contains(&port) && !self.reserved.iter().any(reserved)
    }

    /// Whether any port of the range is reserved.
    pub fn has_reserved(&self) -> bool {
        self.reserved_inside().next().is_some()
    }

    /// The reserved ports, a bit each.
    pub fn reserved_bits(&self) -> [u64; WORDS] {
        let mut bits = [0; WORDS];
        for port in self.reserved_inside().flat_map(|(first, last)| first..=last) {
            bits[usize::from(port) / 64] |= 1 << (port % 64);
        }
        bits
    }

    fn reserved_inside(&self) -> impl Iterator<Item = (u16, u16)> {
        self.reserved
            .iter()
            .map(|&(first, last)| (first.max(self.low), last.min(self.high)))
            .filter(|(first, last)| first <= last)
    }
}

fn size(first: u16, last: u16) -> u32 {
    u32::from(last) - u32::from(first) + 1
}

fn inclusive(part: &str) -> Option<(u16, u16)> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(range: &str, reserved: &str) -> Option<u32> {
        PortRange::parse(range, reserved).map(|range| range.limit())
    }

    #[test]
    fn the_limit_is_the_inclusive_range_less_what_is_reserved_in_it() {
        assert_eq!(limit("32768\t60999\n", "\n"), Some(28_232));
        assert_eq!(limit("40000\t40009\n", ""), Some(10));
        assert_eq!(limit("40000\t40009", "39999-40001,40005,50000"), Some(7));
        assert_eq!(limit("40000 40009", "1-65535"), Some(0));
        assert_eq!(limit("0 65535", ""), Some(65_536));
    }

    #[test]
    fn what_is_no_setting_gives_none() {
        for (range, reserved) in [("", ""), ("5", ""), ("9 8", ""), ("a b", ""), ("1 2", "x"), ("1 2", "3-2")]
        {
            assert_eq!(PortRange::parse(range, reserved), None, "{range:?} {reserved:?}");
        }
    }

    proptest! {
        #[test]
        fn the_bits_are_the_ports_that_the_limit_lacks(low: u16, size in 0..500_u16, at in 0..600_u16, length in 0..80_u16) {
            let high = low.saturating_add(size);
            let first = low.saturating_add(at).saturating_sub(50);
            let reserved = format!("{first}-{}", first.saturating_add(length));
            let range = PortRange::parse(&format!("{low} {high}"), &reserved).expect("well-formed");
            let bits: u32 = range.reserved_bits().iter().map(|word| word.count_ones()).sum();
            prop_assert_eq!(bits + range.limit(), u32::from(high - low) + 1);
            prop_assert_eq!(bits > 0, range.has_reserved());
            let offered = (0..=u16::MAX).filter(|port| range.offers(*port)).count();
            prop_assert_eq!(u32::try_from(offered).expect("ports"), range.limit());
        }
    }
}
