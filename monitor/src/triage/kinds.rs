//! The kinds of findings.

use serde::{Deserialize, Serialize};

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Requests are lost to an upstream that closes idle connections.
    KeepAliveRace,
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
    /// The upstream closes idle connections; nothing is lost yet.
    LatentRace,
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

impl Kind {
    /// Every kind, the worst first.
    pub const ALL: [Self; 19] = [
        Self::KeepAliveRace,
        Self::SilentDrop,
        Self::UpstreamDiesWhileAnswering,
        Self::ClosesBeforeAnswering,
        Self::AnswersTooLate,
        Self::OwnSideCloses,
        Self::Refuses,
        Self::ConnectTimeouts,
        Self::Unreachable,
        Self::PortsRunningOut,
        Self::AcceptQueueFull,
        Self::LatentRace,
        Self::KeepAliveNotInEffect,
        Self::OneUpstreamWithoutKeepAlive,
        Self::PoolTooSmall,
        Self::Pool,
        Self::CloseWaitLeak,
        Self::NotAllSeen,
        Self::NothingWrong,
    ];

    /// The name in the JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepAliveRace => "keep_alive_race",
            Self::SilentDrop => "silent_drop",
            Self::UpstreamDiesWhileAnswering => "upstream_dies_while_answering",
            Self::ClosesBeforeAnswering => "closes_before_answering",
            Self::AnswersTooLate => "answers_too_late",
            Self::OwnSideCloses => "own_side_closes",
            Self::Refuses => "refuses",
            Self::ConnectTimeouts => "connect_timeouts",
            Self::Unreachable => "unreachable",
            Self::PortsRunningOut => "ports_running_out",
            Self::AcceptQueueFull => "accept_queue_full",
            Self::LatentRace => "latent_race",
            Self::KeepAliveNotInEffect => "keep_alive_not_in_effect",
            Self::OneUpstreamWithoutKeepAlive => "one_upstream_without_keep_alive",
            Self::PoolTooSmall => "pool_too_small",
            Self::Pool => "pool",
            Self::CloseWaitLeak => "close_wait_leak",
            Self::NotAllSeen => "not_all_seen",
            Self::NothingWrong => "nothing_wrong",
        }
    }

    /// What heads a finding.
    pub const fn title(self) -> &'static str {
        match self {
            Self::KeepAliveRace => "keep-alive race",
            Self::SilentDrop => "connections silently forgotten on the way",
            Self::UpstreamDiesWhileAnswering => "upstream dies while answering",
            Self::ClosesBeforeAnswering => "upstream closes before answering",
            Self::AnswersTooLate => "upstream answers too late",
            Self::OwnSideCloses => "this host closes what a proxy still uses",
            Self::Refuses => "upstream refuses connections",
            Self::ConnectTimeouts => "connects time out",
            Self::Unreachable => "upstream unreachable",
            Self::PortsRunningOut => "local ports running out",
            Self::AcceptQueueFull => "accept queue full",
            Self::LatentRace => "latent keep-alive race",
            Self::KeepAliveNotInEffect => "keep-alive not in effect",
            Self::OneUpstreamWithoutKeepAlive => "one upstream without keep-alive",
            Self::PoolTooSmall => "pool too small",
            Self::Pool => "pool exhausted",
            Self::CloseWaitLeak => "connections left in CLOSE_WAIT",
            Self::NotAllSeen => "not everything was seen",
            Self::NothingWrong => "nothing wrong",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_json() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("a string"), kind.name());
        }
    }
}
