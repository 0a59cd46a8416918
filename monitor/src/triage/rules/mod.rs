//! One rule a file: from an observation to findings of one kind.

mod accept_queue_full;
mod answers_too_late;
mod close_wait_leak;
mod closes_before_answering;
mod connects;
mod dies_while_answering;
mod keep_alive_race;
mod latent_race;
mod no_keep_alive;
mod not_all_seen;
mod own_side_closes;
mod pool;
mod pool_too_small;
mod ports_running_out;
mod race;
mod silent_drop;

pub(super) use not_all_seen::gaps;

use super::{explanation::Explanation, finding::Finding, kinds::Kind};
use crate::model::observation::{Observation, Pair};

/// A rule that looks at the whole observation.
type Rule = fn(&Observation) -> Vec<Finding>;
/// A rule that looks at one pair.
type PairRule = fn(&Observation, &Pair) -> Option<Finding>;

const PAIR_RULES: [PairRule; 13] = [
    keep_alive_race::rule,
    latent_race::rule,
    silent_drop::rule,
    dies_while_answering::rule,
    closes_before_answering::rule,
    answers_too_late::rule,
    own_side_closes::rule,
    connects::refuses,
    connects::timeouts,
    connects::unreachable,
    pool_too_small::rule,
    pool::rule,
    close_wait_leak::rule,
];

const RULES: [Rule; 4] =
    [ports_running_out::rule, accept_queue_full::rule, no_keep_alive::rule, not_all_seen::rule];

/// What every rule says, in the order of the rules.
pub(super) fn all(observation: &Observation) -> Vec<Finding> {
    let of_pairs = observation
        .pairs
        .iter()
        .flat_map(|pair| PAIR_RULES.iter().filter_map(move |rule| rule(observation, pair)));
    let of_host = RULES.iter().flat_map(|rule| rule(observation));
    of_pairs.chain(of_host).collect()
}

/// What docs/findings.md says of a kind.
pub(super) fn explanation(kind: Kind) -> Explanation {
    match kind {
        Kind::KeepAliveRace => keep_alive_race::explained(),
        Kind::SilentDrop => silent_drop::explained(),
        Kind::UpstreamDiesWhileAnswering => dies_while_answering::explained(),
        Kind::ClosesBeforeAnswering => closes_before_answering::explained(),
        Kind::AnswersTooLate => answers_too_late::explained(),
        Kind::OwnSideCloses => own_side_closes::explained(),
        Kind::Refuses => connects::explained_refuses(),
        Kind::ConnectTimeouts => connects::explained_timeouts(),
        Kind::Unreachable => connects::explained_unreachable(),
        Kind::PortsRunningOut => ports_running_out::explained(),
        Kind::AcceptQueueFull => accept_queue_full::explained(),
        Kind::LatentRace => latent_race::explained(),
        Kind::KeepAliveNotInEffect => no_keep_alive::explained(),
        Kind::OneUpstreamWithoutKeepAlive => no_keep_alive::explained_one(),
        Kind::PoolTooSmall => pool_too_small::explained(),
        Kind::Pool => pool::explained(),
        Kind::CloseWaitLeak => close_wait_leak::explained(),
        Kind::NotAllSeen => not_all_seen::explained(),
        Kind::NothingWrong => not_all_seen::explained_nothing(),
    }
}
