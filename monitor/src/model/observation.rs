//! What triage looks at: pairs, levels, ports and settings of one host over one stretch of time. The API's format.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    behind::Behind,
    counts::{Counts, PerConnection, Samples},
    labels::Labels,
};

/// Everything that is known about one stretch of time, as of its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Which stretch.
    pub window: Window,
    /// Every pair with events or sockets in it, ordered by labels.
    pub pairs: Vec<Pair>,
    /// Ephemeral ports held toward each destination, those that hold the most first.
    pub ports: Vec<PortUse>,
    /// Accept queues.
    pub queues: Vec<AcceptQueue>,
    /// The network namespaces.
    pub namespaces: Vec<Namespace>,
    /// The kernel's settings in the agent's own namespace.
    pub settings: KernelSettings,
    /// How far all this can be trusted.
    pub watch: Watch,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// How long it is.
    pub seconds: f64,
    /// How long it was asked to be; longer than `seconds` where the agent does not remember as much.
    pub asked_seconds: f64,
    /// For how long the agent has watched in all.
    pub watched_seconds: f64,
}

/// One pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Who.
    #[serde(flatten)]
    pub labels: Labels,
    /// The accepting ends that share the name which `upstream` is; empty where it is no name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SocketAddr>,
    /// The local processes: that which opened the first connection, or those that listen.
    pub pids: Vec<u32>,
    /// Who listens at the accepting end, where that is on this host and known.
    pub listener: Option<Process>,
    /// What happened in the window.
    pub counts: Counts,
    /// What of this happened in the first half of the window, where that is known: what happened in one half only was
    /// one event, a restart for instance.
    #[serde(default)]
    pub first_half: Option<Counts>,
    /// Quiet time at the peer's FIN, in the window.
    pub peer_close_idle: Samples,
    /// Quiet time at our FIN with nothing unanswered, in the window.
    pub local_close_idle: Samples,
    /// Quiet time before each lost request, in the window.
    pub lost_request_idle: Samples,
    /// ESTABLISHED to CLOSE, in the window.
    pub connection_duration: Samples,
    /// Its requests, where they are followed.
    #[serde(default)]
    pub requests: Option<Requests>,
    /// Sockets there are now by state, as `finwatch_sockets` names them; only those above 0.
    pub sockets: BTreeMap<String, u32>,
    /// Established and quiet for at least a second.
    pub idle: u32,
    /// Of these, those upon which a request waits for its answer.
    #[serde(default)]
    pub unanswered: u32,
    /// For how long the oldest socket in CLOSE_WAIT has been in it.
    pub oldest_close_wait_seconds: Option<f64>,
    /// The recorded incidents of the window by who answered behind the upstream's address, where that is a service's and
    /// connection tracking was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Behind>,
}

impl Pair {
    /// The accepting end as a proxy's configuration has it: an address, or where it has a name, every address of it.
    pub fn configured_upstream(&self) -> String {
        if self.addresses.is_empty() {
            return self.labels.upstream.clone();
        }
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// Connections in use now: used in the last second, or with a request that waits.
    pub fn busy(&self) -> u32 {
        self.in_state("established").saturating_sub(self.unused())
    }

    /// Connections that nothing uses now.
    pub fn unused(&self) -> u32 {
        self.idle.saturating_sub(self.unanswered)
    }

    /// How many sockets are in a state now.
    pub fn in_state(&self, state: &str) -> u32 {
        self.sockets.get(state).copied().unwrap_or(0)
    }
}

/// A pair's requests in the window; `counts` has how many were answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// From a request's first byte to its answer's.
    pub time_to_first_byte: Samples,
    /// How many of them each connection has carried that ended in the window.
    pub per_connection: PerConnection,
}

/// A process of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its thread group leader's name.
    pub name: String,
    /// Its number.
    pub pid: u32,
}

/// Ephemeral ports that one source address holds toward one destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortUse {
    /// `host`, or the namespace's inode number.
    pub netns: String,
    /// Local address.
    pub src: String,
    /// The destination, `ip:port`.
    pub upstream: String,
    /// What pairs print in its place, where it has a configured name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ports held.
    pub used: u32,
    /// Ports there are.
    pub limit: u32,
    /// What was held so many seconds earlier, where that is known: the present rate.
    pub earlier: Option<EarlierUse>,
}

impl PortUse {
    /// The destination as pairs print it.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.upstream)
    }
}

/// Ports held a while ago.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierUse {
    /// How long ago.
    pub seconds: f64,
    /// Ports held then.
    pub used: u32,
}

/// A listening socket's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptQueue {
    /// `host`, or the namespace's inode number.
    pub netns: String,
    /// Where it listens.
    pub upstream: String,
    /// The unit, container or pod.
    pub workload: String,
    /// Who listens, where that is known.
    pub listener: Option<Process>,
    /// Connections that wait for accept().
    pub length: u64,
    /// How many may wait.
    pub limit: u64,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `host`, or its inode number.
    pub netns: String,
    /// Its ephemeral ports, less the reserved ones.
    pub port_limit: u32,
    /// Timewait sockets it may hold, 0 when unknown.
    pub time_wait_limit: u64,
    /// Connections that could not enter TIME_WAIT in the window.
    pub time_wait_overflow: u64,
}

/// Settings that verdicts name; `None` where one cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSettings {
    /// `net.ipv4.ip_local_port_range`, as it stands.
    pub ip_local_port_range: Option<String>,
    /// `net.ipv4.tcp_tw_reuse`.
    pub tcp_tw_reuse: Option<u32>,
    /// `net.ipv4.tcp_fin_timeout`.
    pub tcp_fin_timeout: Option<u32>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
}

/// What the agent saw and did not see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Hooks that work only in part or not at all, each with what is missing.
    pub degraded_hooks: Vec<String>,
    /// Connections whose pair found no room, since the start.
    pub pairs_folded: u64,
    /// Connections that were not tracked for want of room, since the start.
    pub untracked_connections: u64,
    /// Program runs that the kernel skipped and no second program took over, since the start.
    pub missed_runs: u64,
    /// Connections whose end no program saw, since the start.
    pub missed_ends: u64,
    /// Incidents that were not recorded (limit per pair, full buffer), since the start. Counters have them.
    pub incidents_not_recorded: u64,
}
