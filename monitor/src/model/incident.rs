//! One anomaly as people and machines read it: the format of the API, of `--json` and of the incident file.

mod filter;
mod reading;
mod text;

pub use filter::IncidentFilter;
pub use reading::Surroundings;

use std::time::SystemTime;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{labels::Labels, observation::Process};

/// One anomaly with its evidence. What the kernel does not tell is absent, never a guess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// Counts the incidents of this run of the daemon, from 1.
    pub id: u64,
    /// When it happened; RFC 3339, UTC, milliseconds.
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    /// When it happened on CLOCK_MONOTONIC, in nanoseconds.
    pub monotonic_ns: u64,
    /// The pair it counts for, as every metric of the pair is labelled.
    pub pair: Labels,
    /// This host's end: `ip:port`.
    pub local: String,
    /// The other end: `ip:port`.
    pub remote: String,
    /// Who really answered, `ip:port`, where `remote` is a service's address that was translated (kube-proxy, DNAT); absent
    /// where it was not, and where connection tracking was not asked or does not know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backend: Option<String>,
    /// The network namespace: `host`, or its inode number.
    pub netns: String,
    /// The local process; `None` when unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Process>,
    /// What happened.
    pub cause: IncidentCause,
    /// The series in which it counts, without the pair's labels; the most telling comes first.
    pub counted_in: Vec<String>,
    /// The state that the socket left, as `ss` and the metric `sockets` name it.
    pub state: String,
    /// What the application sees in `errno`; absent where no error was pending.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<u32>,
    /// The connection's own story, oldest first; the last event is the incident itself.
    pub timeline: Vec<TimelineEvent>,
    /// What the socket told when it ended; absent where the socket was gone already.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traffic: Option<Traffic>,
    /// How long the connection was quiet before the last request; absent where a retransmission hides it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quiet_ms: Option<u64>,
    /// Offsets and quiet times are this exact, in milliseconds: one tick of the kernel's clock.
    pub resolution_ms: u32,
    /// The connection is older than the daemon: its beginning was not seen.
    pub adopted: bool,
}

impl IncidentRecord {
    /// Who talked to whom.
    pub fn pair_text(&self) -> String {
        format!("{} -> {}", self.pair.proxy, self.pair.upstream)
    }
}

/// What a connection had carried when it ended. FINs are not counted as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Data bytes sent, those sent again left out.
    pub bytes_sent: u64,
    /// Data bytes received.
    pub bytes_received: u64,
    /// Bytes written that the other end has not acknowledged.
    pub bytes_unacked: u32,
    /// Bytes written after the peer's FIN.
    pub bytes_after_peer_fin: u32,
    /// Segments that were sent again, SYN included.
    pub retransmits: u32,
    /// Smoothed round trip time in microseconds, 0 when never measured.
    pub srtt_us: u32,
}

/// One step of a connection's story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// Milliseconds after the incident: negative before it.
    pub offset_ms: i64,
    /// What happened.
    pub event: EventKind,
    /// Data bytes it is about, where they are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
}

/// What happens on a connection, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The handshake was over.
    Opened,
    /// Data was received for the last time; after our close, nobody could read it.
    DataReceived,
    /// Data was sent for the last time.
    DataSent,
    /// The peer's FIN came, before ours.
    PeerFin,
    /// We sent our FIN, before the peer's.
    LocalFin,
    /// A reset came.
    RstReceived,
    /// We sent a reset.
    RstSent,
    /// The connection ended without a reset.
    Closed,
    /// The kernel gave up: the other end no longer answered.
    TimedOut,
    /// connect() failed.
    ConnectFailed,
}

/// What happened: the name of the metric's family, shortened, and its label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum IncidentCause {
    /// connect() was answered by a reset
    ConnectRefused,
    /// connect() was answered by ICMP
    ConnectUnreachable,
    /// connect() was given up after at least one SYN retransmission
    ConnectTimeout,
    /// connect() found no free local port
    ConnectNoLocalPort,
    /// connect() failed otherwise
    ConnectOther,
    /// A request crossed the peer's FIN and was lost
    RequestCrossedFin,
    /// A request was written after the peer's FIN and was lost
    RequestAfterFin,
    /// A request after a quiet time was answered by a reset, without any FIN
    RequestNoFin,
    /// The peer's FIN came instead of an answer
    PeerClosedBeforeResponse,
    /// We gave up on a request that the peer had acknowledged
    LocalClosedBeforeResponseAcked,
    /// We gave up on a request that the peer never acknowledged
    LocalClosedBeforeResponseUnacked,
    /// Reset received after our FIN
    ResetAfterLocalClose,
    /// Reset received after the peer's FIN, nothing lost
    ResetAfterPeerFin,
    /// Reset received upon the connection's first request
    ResetFirstRequest,
    /// Reset received while waiting for an answer
    ResetWaiting,
    /// Reset received upon a request on a connection that was in use
    ResetReusedRequest,
    /// Reset received during a response or right after it
    ResetResponse,
    /// Reset received on an idle connection
    ResetIdle,
    /// Reset received by the upstream while it answers
    ResetAnswering,
    /// Data came after we had closed; we answered with a reset
    ResetSentDataAfterClose,
    /// The kernel gave up: the other end no longer answered
    TimedOut,
}

/// Wall time as text.
mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests;
