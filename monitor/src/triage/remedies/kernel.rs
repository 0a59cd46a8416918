//! Settings of the kernel.

use crate::{
    model::observation::KernelSettings,
    triage::finding::{Change, End},
};

/// The largest usual range: above the ports that services listen on.
const WIDE_RANGE: &str = "10240 65535";
/// `tcp_tw_reuse` for every destination; 2, the default, is for loopback only.
const REUSE: u32 = 1;
/// Probes go out after this part of the time after which a connection is forgotten: one may be lost.
const PROBE_PART: u32 = 3;

fn sysctl(what: &str, directives: String) -> Change {
    Change {
        software: "Linux".into(),
        end: End::Host,
        what: what.into(),
        context: "/etc/sysctl.d/99-finwatch.conf on the proxy's host, in its network namespace; then sysctl --system"
            .into(),
        directives,
    }
}

/// More ports, and sooner free again. Names only what the settings lack.
pub fn ports(settings: &KernelSettings) -> Vec<Change> {
    let mut changes = Vec::new();
    let range =
        settings.ip_local_port_range.as_deref().map(|range| range.split_whitespace().collect::<Vec<_>>());
    let low: Option<u32> = range.and_then(|range| range.first()?.parse().ok());
    if low.is_none_or(|low| low > 10_240) {
        changes.push(sysctl(
            "use more ports (reserve those that services listen on: net.ipv4.ip_local_reserved_ports)",
            format!("net.ipv4.ip_local_port_range = {WIDE_RANGE}"),
        ));
    }
    if settings.tcp_tw_reuse != Some(REUSE) {
        changes.push(sysctl(
            "use ports in TIME_WAIT again after a second; both ends need TCP timestamps, which are on by default",
            format!("net.ipv4.tcp_tw_reuse = {REUSE}"),
        ));
    }
    changes
}

/// Probes that keep a connection in the memory of whatever forgets it after `seconds`.
pub fn tcp_keep_alive(proxy: &str, upstream: &str, seconds: u32) -> Vec<Change> {
    let probe = (seconds / PROBE_PART).max(1);
    let mut changes = vec![sysctl(
        "send the first keep-alive probe before the connection is forgotten; for sockets with SO_KEEPALIVE",
        format!("net.ipv4.tcp_keepalive_time = {probe}"),
    )];
    let mut proxy_change = |software: &str, context: String, directives: String| {
        changes.insert(
            0,
            Change {
                software: software.into(),
                end: End::Proxy,
                what: "send keep-alive probes on idle connections".into(),
                context,
                directives,
            },
        );
    };
    match proxy {
        "nginx" => proxy_change(
            "nginx",
            format!("the location {{}} with proxy_pass to {upstream}"),
            "proxy_socket_keepalive on;".into(),
        ),
        "haproxy" => proxy_change(
            "HAProxy",
            format!("the backend of {upstream}"),
            format!("option srvtcpka\nsrvtcpka-idle {probe}s"),
        ),
        _ => {}
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_so_already_is_named() {
        let mut settings = KernelSettings {
            ip_local_port_range: Some("32768\t60999".into()),
            tcp_tw_reuse: Some(2),
            ..KernelSettings::default()
        };
        assert_eq!(ports(&settings).len(), 2);
        settings.tcp_tw_reuse = Some(1);
        assert_eq!(ports(&settings)[0].directives, "net.ipv4.ip_local_port_range = 10240 65535");
        settings.ip_local_port_range = Some("1024 65535".into());
        assert_eq!(ports(&settings), []);
        assert_eq!(ports(&KernelSettings::default()).len(), 2, "unknown");
    }
}
