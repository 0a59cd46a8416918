//! The kinds of findings.

use serde::{Deserialize, Serialize};

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Requests are lost to an upstream that closes idle connections.
    KeepAliveRace,
    /// The upstream closes idle connections; nothing is lost yet.
    LatentRace,
    /// Requests vanish on connections that were quiet for long.
    SilentDrop,
    /// The upstream resets while it answers.
    UpstreamDiesWhileAnswering,
    /// The upstream closes instead of answering.
    ClosesBeforeAnswering,
    /// This side gave up on requests.
    AnswersTooLate,
    /// This host is the upstream, and closes what proxies still use.
    OwnSideCloses,
    /// Connects are refused.
    Refuses,
    /// Connects are not answered.
    ConnectTimeouts,
    /// Connects are turned away by ICMP.
    Unreachable,
    /// No local port is left, or soon none will be.
    PortsRunningOut,
    /// Connections wait for accept().
    AcceptQueueFull,
    /// Every connection carries one exchange.
    KeepAliveNotInEffect,
    /// The same toward one of a proxy's upstreams only.
    OneUpstreamWithoutKeepAlive,
    /// Most connections find no room in the pool.
    PoolTooSmall,
    /// Every connection is busy and their number grows.
    Pool,
    /// The local process does not close what its peers closed.
    CloseWaitLeak,
    /// The agent did not see everything.
    NotAllSeen,
    /// Nothing is wrong.
    NothingWrong,
}
