//! Some connections are kept, many find no room in the pool and are closed after one exchange.

use finwatch_ebpf::wire::Counter;

use super::no_keep_alive::{OPENED, RATE, by_proxy};
use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Confidence, Finding, Harm, HarmClass, Subject},
        idle::QUIET_SECONDS,
        kinds::Kind,
        remedies,
    },
};

/// This part of the closed connections was closed by the proxy right after an exchange.
const SURPLUS: f64 = 0.3;
/// A connection that lived so long was used for more than one exchange, or kept for one.
const KEPT_SECONDS: f64 = 10.0;

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let surplus = by_proxy(pair);
    let closed = pair.counts.sum(&facts::CLOSED);
    let seconds = observation.window.seconds;
    if !facts::is_proxy(pair)
        || facts::is_folded(pair)
        || surplus < OPENED
        || facts::rate(surplus, seconds) < RATE
        || facts::share(surplus, closed) < SURPLUS
        || short_lived(pair) < OPENED
        || !keeps_some(pair)
    {
        return None;
    }
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let open = facts::established(pair);
    Some(Finding {
        kind: Kind::PoolTooSmall,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{proxy} keeps some connections to {upstream}, but closes {} a second right after an exchange: its pool \
             has room for fewer than are used at a time.",
            facts::per_second(facts::rate(surplus, seconds))
        ),
        evidence: vec![
            format!(
                "{} of {} closed by {proxy} within a second of an exchange, {} opened, in {}",
                facts::number(surplus),
                facts::many(closed, "connection"),
                facts::number(pair.counts.get(Counter::Opened)),
                facts::span(seconds)
            ),
            format!(
                "kept: {} idle now, {} that lived more than {KEPT_SECONDS} s",
                facts::number(pair.unused()),
                facts::number(long_lived(pair))
            ),
        ],
        confidence: Confidence::medium(
            "a proxy that keeps connections for some requests and not for others (two locations, one of them without \
             keep-alive) looks the same",
        ),
        candidates: Vec::new(),
        changes: remedies::larger_pool(proxy, &pair.configured_upstream(), open),
        harm: Harm::none(HarmClass::Latent),
    })
}

/// Whether the proxy keeps connections at all: some live long, or it was seen to close idle ones. Idle ones alone prove
/// nothing: a connection that was opened before it is needed, for instance, is idle too.
pub(super) fn keeps_some(pair: &Pair) -> bool {
    let idle_closes = [&pair.peer_close_idle, &pair.local_close_idle]
        .map(|samples| samples.count - samples.at_most(QUIET_SECONDS).min(samples.count));
    long_lived(pair) > 0 && (pair.unused() > 0 || idle_closes.iter().sum::<u64>() > 0)
}

fn long_lived(pair: &Pair) -> u64 {
    let durations = &pair.connection_duration;
    durations.count - durations.at_most(KEPT_SECONDS).min(durations.count)
}

fn short_lived(pair: &Pair) -> u64 {
    pair.connection_duration.at_most(QUIET_SECONDS)
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The proxy keeps some connections, but more are used at a time than its pool has room for: \
                what is over is closed right after one exchange and opened again.",
        evidence: "closes by the proxy within a second of an exchange, beside connections that live on and \
                idle ones.",
        fires: format!(
            "{OPENED} such closes or more, {RATE} a second or more, {surplus} of all closes; and \
                connections that lived for more than {KEPT_SECONDS} s, with some idle now or closed after \
                a quiet time.",
            surplus = facts::percent(SURPLUS)
        ),
        silent: "the proxy's own idle timeout (quiet before the close); `Connection: close` answers (the \
                upstream closes).",
        remedy: "make room for as many idle connections as are busy at a time (nginx `keepalive`, per \
                worker process; Go `MaxIdleConnsPerHost`, 2 by default).",
    }
}
