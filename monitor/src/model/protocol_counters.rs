//! The counters in `/proc/net/snmp` and `/proc/net/netstat`: lines in pairs, names above values.

/// One counter of a protocol; `None` where the text does not have it.
pub fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    while let (Some(names), Some(values)) = (rows.next(), rows.next()) {
        let found = names.split(' ').zip(values.split(' ')).find(|(found, _)| *found == name);
        if let Some((_, value)) = found {
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "Ip: Forwarding InReceives\nIp: 1 7\nTcp: MaxConn InSegs\nTcp: -1 42\nTcpExt: InSegs\nTcpExt: 3\n";

    #[test]
    fn counters_are_found_by_protocol_and_name() {
        assert_eq!(counter(TEXT, "Tcp", "InSegs"), Some(42));
        assert_eq!(counter(TEXT, "TcpExt", "InSegs"), Some(3));
        assert_eq!(counter(TEXT, "Ip", "InReceives"), Some(7));
        assert_eq!(counter(TEXT, "Tcp", "OutSegs"), None);
        assert_eq!(counter(TEXT, "Tcp", "MaxConn"), None, "negative: no counter");
        assert_eq!(counter("Tcp: InSegs", "Tcp", "InSegs"), None);
    }
}
