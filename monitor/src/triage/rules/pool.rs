//! Every connection to an upstream is busy, and there are more and more.

use finwatch_ebpf::wire::Counter;

use super::no_keep_alive::SHORT_LIVED;
use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Candidate, Confidence, Finding, Harm, HarmClass, Subject},
        idle::QUIET_SECONDS,
        kinds::Kind,
        remedies,
    },
};

/// A smaller pool is busy as a whole by chance.
const CONNECTIONS: u32 = 16;
/// Grown by this part of what is open: below it, coming and going.
const GROWTH: f64 = 0.5;
/// Where a request waits upon this part of them, the upstream is slow, rather than the pool young.
const WAITING: f64 = 0.5;
/// No more than this part is free: each worker process of a proxy has a pool of its own, and one may have one to spare.
const FREE: f64 = 0.1;
/// This part of the closed connections had been quiet before: the pool has room between bursts.
const RESTED: f64 = 0.5;

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let open = facts::established(pair);
    let (waiting, free) = (pair.unanswered, pair.unused());
    let opened = pair.counts.get(Counter::Opened);
    let closed = pair.counts.sum(&facts::CLOSED);
    let slow = facts::share(waiting.into(), open.into()) >= WAITING;
    if !facts::is_proxy(pair)
        || facts::is_folded(pair)
        || open < CONNECTIONS
        || facts::share(free.into(), open.into()) > FREE
        || is_no_pool(pair)
        || rests(pair)
        || (is_young(pair) && !slow)
        || (grown_lately(pair) as f64) < f64::from(open) * GROWTH
    {
        return None;
    }
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let seconds = observation.window.seconds;
    Some(Finding {
        kind: Kind::Pool,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{} of {proxy} to {upstream} are busy, and their number grows: requests come faster than the upstream \
             answers.",
            if free == 0 {
                format!("All {}", facts::many(open, "connection"))
            } else {
                format!("{} of {}", facts::number(pair.busy()), facts::many(open, "connection"))
            }
        ),
        evidence: vec![
            format!(
                "{} established, {} busy, {} idle; upon {} a request has waited for a second or more",
                facts::number(open),
                facts::number(pair.busy()),
                facts::number(free),
                facts::number(waiting)
            ),
            format!(
                "{} opened and {} closed in {}",
                facts::many(opened, "connection"),
                facts::number(closed),
                facts::span(seconds)
            ),
        ],
        confidence: if slow {
            Confidence::medium(
                "a request is told by who spoke last: where either end speaks at any time (websockets, HTTP/2), see \
                 --no-request-rules",
            )
        } else {
            Confidence::low("most were used within the last second, and none waits for long")
        },
        candidates: pair.listener.clone().map(Candidate::Listening).into_iter().collect(),
        changes: remedies::more_at_a_time(
            proxy,
            pair.listener.as_ref().map(|listener| listener.name.as_str()),
            upstream,
            open,
        ),
        harm: Harm::none(HarmClass::Latent),
    })
}

/// Whether connections live no longer than an exchange: then nothing is kept that could be exhausted.
fn is_no_pool(pair: &Pair) -> bool {
    let durations = &pair.connection_duration;
    facts::share(durations.at_most(QUIET_SECONDS), durations.count) >= SHORT_LIVED
}

/// Whether its connections rest between uses until one end gives them up: then all are in use in a burst, and no longer.
fn rests(pair: &Pair) -> bool {
    let closes = [&pair.peer_close_idle, &pair.local_close_idle, &pair.lost_request_idle];
    let rested: u64 =
        closes.iter().map(|samples| samples.count - samples.at_most(QUIET_SECONDS).min(samples.count)).sum();
    let lately = lately(pair, &facts::CLOSED);
    facts::share(rested, pair.counts.sum(&facts::CLOSED)) >= RESTED && lately >= grown_lately(pair)
}

/// Whether it was opened in the second half of the window: at one moment of a burst all of a new pool is in use.
fn is_young(pair: &Pair) -> bool {
    pair.first_half.is_none_or(|first| first.get(Counter::Opened) == 0)
}

/// By how much the pool has grown in the second half of the window: one that is being filled after a start stops to.
fn grown_lately(pair: &Pair) -> u64 {
    lately(pair, &[Counter::Opened]).saturating_sub(lately(pair, &facts::CLOSED))
}

/// What was counted in the second half of the window.
fn lately(pair: &Pair, counters: &[Counter]) -> u64 {
    let before = pair.first_half.map_or(0, |first| first.sum(counters));
    pair.counts.sum(counters).saturating_sub(before)
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "Nearly every connection is in use and more are opened than closed: the upstream is slower than \
                requests come. Established, busy and idle connections of every pair are in the table of \
                pairs.",
        evidence: "`sockets{state=\"established\"}` less `idle_sockets` plus `unanswered_sockets` (busy), connections \
                opened and closed.",
        fires: format!(
            "{CONNECTIONS} connections or more, at most {free} of them idle, and their number grew in the second half of the window by \
                {growth} of them or more.",
            free = facts::percent(FREE),
            growth = facts::percent(GROWTH)
        ),
        silent: "a busy pool of steady size, or one that was filled in the first half of the window; a new one upon which no request waits; a pool that grows and has idle connections; one that is used in bursts and closed for being idle between them; connections of one exchange each.",
        remedy: "look at the upstream's speed first; HAProxy's `maxconn` \
                protects it meanwhile.",
    }
}
