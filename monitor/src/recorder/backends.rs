//! Who really answered on the connection of an incident, where connection tracking is asked for that (`--conntrack`).

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use finwatch_ebpf::wire::{Incident, SIDE_PROXY};

use super::Recorder;
use crate::kernel::{
    conntrack::{
        Conntrack, ConntrackError,
        message::{Answer, Ends},
    },
    loader::own_netns,
};

/// What became of the questions.
#[derive(Debug, Default)]
pub struct Lookups {
    translated: AtomicU64,
    untranslated: AtomicU64,
    untracked: AtomicU64,
    failed: AtomicU64,
}

impl Lookups {
    /// How often each came out, by the names of the metric.
    pub fn results(&self) -> [(&'static str, u64); 4] {
        [
            ("translated", &self.translated),
            ("untranslated", &self.untranslated),
            ("untracked", &self.untracked),
            ("failed", &self.failed),
        ]
        .map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }
}

/// Asks, counts, and says once when it can no longer be asked.
pub struct Backends {
    conntrack: Conntrack,
    recorder: Arc<Recorder>,
    own_netns: u32,
    works: bool,
}

impl Backends {
    /// Of the calling thread's network namespace, for `recorder`. Warns where it cannot be asked.
    pub fn new(recorder: Arc<Recorder>) -> Self {
        let conntrack = Conntrack::default();
        let mut backends = Self { conntrack, recorder, own_netns: own_netns(), works: true };
        let probed = backends.conntrack.probe();
        backends.note(probed.err().as_ref());
        backends
    }

    /// The address that the incident's connection was translated to.
    pub fn of(&mut self, incident: &Incident) -> Option<SocketAddr> {
        let ends = asked(incident, self.own_netns)?;
        let answer = self.conntrack.ask(&ends);
        self.note(answer.as_ref().err());
        let lookups = &self.recorder.lookups;
        let (result, backend) = match answer {
            Ok(Answer::Translated(backend)) => (&lookups.translated, Some(backend)),
            Ok(Answer::Untranslated) => (&lookups.untranslated, None),
            Ok(Answer::Untracked) => (&lookups.untracked, None),
            Err(_) => (&lookups.failed, None),
        };
        result.fetch_add(1, Ordering::Relaxed);
        backend
    }

    /// Says once that it cannot be asked, and once that it can be again.
    fn note(&mut self, error: Option<&ConntrackError>) {
        match error {
            Some(error) if self.works => tracing::warn!(
                "incidents do not tell the addresses behind those of services: {error}, or leave --conntrack out"
            ),
            None if !self.works => tracing::info!("connection tracking answers again"),
            _ => {}
        }
        self.works = error.is_none();
    }
}

/// The connection that can be asked about: one that this host opened, and that our own namespace can have seen.
fn asked(incident: &Incident, own_netns: u32) -> Option<Ends> {
    let ends = &incident.endpoints;
    let end = |address: [u8; 16], port| SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port);
    let (source, destination) = (end(ends.local, ends.local_port), end(ends.remote, ends.remote_port));
    // Where there was no local port there may be no address either.
    let opened =
        incident.key.side == SIDE_PROXY && source.port() != 0 && source.is_ipv4() == destination.is_ipv4();
    let within = ends.netns != own_netns && (source.ip().is_loopback() || destination.ip().is_loopback());
    (opened && !within).then_some(Ends { source, destination })
}

#[cfg(test)]
mod tests {
    use finwatch_ebpf::wire::{ClosedKey, PairKey, SIDE_UPSTREAM};

    use super::*;
    use crate::model::incident::tests::evidence;

    const OWN: u32 = 1;

    fn octets(address: &str) -> [u8; 16] {
        match address.parse().expect("an address") {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        }
    }

    fn between(netns: u32, local: &str, remote: &str) -> Incident {
        let (local, remote) = (octets(local), octets(remote));
        let endpoints = ClosedKey { netns, local_port: 43_512, remote_port: 80, local, remote };
        Incident { endpoints, ..evidence() }
    }

    fn text(incident: &Incident) -> Option<String> {
        asked(incident, OWN).map(|ends| format!("{} {}", ends.source, ends.destination))
    }

    #[test]
    fn what_this_host_opened_is_asked_about_in_either_version() {
        let pod = between(9, "10.244.1.5", "10.96.0.10");
        assert_eq!(text(&pod).as_deref(), Some("10.244.1.5:43512 10.96.0.10:80"));
        let v6 = between(OWN, "fd00::5", "fd00:96::10");
        assert_eq!(text(&v6).as_deref(), Some("[fd00::5]:43512 [fd00:96::10]:80"));
        let own = between(OWN, "127.0.0.1", "127.0.0.1");
        assert_eq!(text(&own).as_deref(), Some("127.0.0.1:43512 127.0.0.1:80"));
    }

    #[test]
    fn what_our_namespace_cannot_have_seen_is_not_asked_about() {
        for (local, remote) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("10.244.1.5", "127.0.0.1")] {
            assert_eq!(text(&between(9, local, remote)), None, "{local} {remote}");
        }
        let accepted = Incident {
            key: PairKey { side: SIDE_UPSTREAM, ..evidence().key },
            ..between(OWN, "10.244.1.5", "10.96.0.10")
        };
        assert_eq!(text(&accepted), None);
    }

    #[test]
    fn without_a_local_port_there_is_no_connection() {
        let mut never = between(OWN, "::", "10.96.0.10");
        assert_eq!(text(&never), None);
        never.endpoints.local_port = 0;
        never.endpoints.local = octets("10.0.0.1");
        assert_eq!(text(&never), None);
    }
}
