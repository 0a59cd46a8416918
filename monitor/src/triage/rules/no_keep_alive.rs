//! Connections carry one exchange each: keep-alive is off, toward all upstreams of a proxy or toward one.

use finwatch_ebpf::wire::Counter;

use super::pool_too_small;
use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Candidate, Change, Confidence, Finding, Harm, HarmClass, Subject},
        idle::QUIET_SECONDS,
        kinds::Kind,
        remedies,
    },
};

/// Fewer connections tell nothing about a habit.
pub(super) const OPENED: u64 = 30;
/// Fewer a second harm nobody: health checks and cron jobs open a connection for each exchange.
pub(super) const RATE: f64 = 1.0;
/// This part of the connections lives for less than a second.
pub(super) const SHORT_LIVED: f64 = 0.8;
/// And this part of the closes follows an exchange within a second.
const AT_ONCE: f64 = 0.8;
/// This part of them is closed by one end: it is that end that ends them.
const BY_ONE_END: f64 = 0.8;

pub(super) fn rule(observation: &Observation) -> Vec<Finding> {
    let flagged = |pair: &&Pair| fires(observation, pair);
    observation.pairs.iter().filter(flagged).map(|pair| finding(observation, pair)).collect()
}

fn fires(observation: &Observation, pair: &Pair) -> bool {
    let opened = pair.counts.get(Counter::Opened);
    let durations = &pair.connection_duration;
    let at_once = by_proxy(pair) + by_upstream(pair);
    facts::is_proxy(pair)
        && !facts::is_folded(pair)
        && opened >= OPENED
        && facts::rate(opened, observation.window.seconds) >= RATE
        && durations.count >= OPENED
        && facts::share(durations.at_most(QUIET_SECONDS), durations.count) >= SHORT_LIVED
        && facts::share(at_once, pair.counts.sum(&facts::CLOSED)) >= AT_ONCE
        && !pool_too_small::keeps_some(pair)
}

/// Connections that the proxy closed within a second of an exchange.
pub(super) fn by_proxy(pair: &Pair) -> u64 {
    pair.local_close_idle.at_most(QUIET_SECONDS)
}

fn by_upstream(pair: &Pair) -> u64 {
    pair.peer_close_idle.at_most(QUIET_SECONDS)
}

/// Whether connections are visibly kept: they are open although hardly any was opened, or many live on.
fn keeps(pair: &Pair) -> bool {
    let durations = &pair.connection_duration;
    let short_lived = facts::share(durations.at_most(QUIET_SECONDS), durations.count);
    facts::established(pair) > 0 && (pair.counts.get(Counter::Opened) < OPENED || short_lived < SHORT_LIVED)
}

/// Another upstream of the same proxy toward which connections are kept.
fn kept_elsewhere<'a>(observation: &'a Observation, pair: &Pair) -> Option<&'a Pair> {
    observation.pairs.iter().find(|other| {
        facts::is_proxy(other)
            && other.labels.proxy == pair.labels.proxy
            && other.labels.workload == pair.labels.workload
            && other.labels.upstream != pair.labels.upstream
            && !fires(observation, other)
            && keeps(other)
    })
}

fn finding(observation: &Observation, pair: &Pair) -> Finding {
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let opened = pair.counts.get(Counter::Opened);
    let seconds = observation.window.seconds;
    let elsewhere = kept_elsewhere(observation, pair);
    let (local, peer) = (by_proxy(pair), by_upstream(pair));
    let proxy_ends = facts::share(local, local + peer) >= BY_ONE_END;
    let rate = facts::per_second(facts::rate(opened, seconds));
    let (kind, verdict) = match elsewhere {
        Some(other) => (
            Kind::OneUpstreamWithoutKeepAlive,
            format!(
                "{proxy} opens a connection for every exchange with {upstream}, {rate} a second, although it keeps \
                 those to {}.",
                other.labels.upstream
            ),
        ),
        None => (
            Kind::KeepAliveNotInEffect,
            format!(
                "{proxy} opens {rate} connections a second to {upstream}, for an exchange or a few each: keep-alive is off, or its pool far \
                 too small."
            ),
        ),
    };
    let durations = &pair.connection_duration;
    let mut evidence = vec![
        format!("{} opened in {}", facts::many(opened, "connection"), facts::span(seconds)),
        format!(
            "{} of them lived less than a second",
            facts::percent(facts::share(durations.at_most(QUIET_SECONDS), durations.count))
        ),
        format!(
            "closed within a second of an exchange: {} by {proxy}, {} by the upstream",
            facts::number(local),
            facts::number(peer)
        ),
    ];
    let time_wait = pair.counts.get(Counter::TimeWaitEntered);
    if time_wait > 0 {
        evidence.push(format!(
            "{} entered TIME_WAIT on this host, each holding a local port for 60 s; {} there now",
            facts::number(time_wait),
            facts::number(pair.in_state("time_wait"))
        ));
    }
    Finding {
        kind,
        subject: Subject::Pair(pair.labels.clone()),
        verdict,
        evidence,
        confidence: if proxy_ends {
            Confidence::high("the kernel saw the proxy close after each exchange")
        } else {
            Confidence::medium(
                "the upstream closes after its answer: the proxy may ask for it (Connection: close or HTTP/1.0, as nginx \
                 does by default up to 1.29.6), or the upstream's own keep-alive is off",
            )
        },
        candidates: pair.listener.clone().map(Candidate::Listening).into_iter().collect(),
        changes: changes(pair),
        harm: Harm::none(HarmClass::Latent),
    }
}

fn changes(pair: &Pair) -> Vec<Change> {
    remedies::turn_on(&pair.labels.proxy, &pair.configured_upstream(), facts::established(pair))
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "Every exchange opens a connection: slower, and each leaves a port in TIME_WAIT. Where the \
                proxy closes, the proxy is the reason; where the upstream closes after its answer, either \
                may be: the kernel cannot tell `Connection: close` asked for by the proxy from an upstream \
                whose keep-alive is off.",
        evidence: "`connections_opened_total`, `connection_duration_seconds`, closes within a second of an \
                exchange by either end, `time_wait_entered_total`.",
        fires: format!(
            "{OPENED} connections or more, {RATE} a second or more; {short_lived} of them live less \
                than a second, {at_once} of the closes follow an exchange within a second; none are kept.",
            short_lived = facts::percent(SHORT_LIVED),
            at_once = facts::percent(AT_ONCE)
        ),
        silent: "health checks; a proxy that closes idle connections after its own timeout; `Connection: \
                close` on some answers only; many short connections through a pool that is kept but too \
                small.",
        remedy: "nginx before 1.29.7 needs `keepalive` in `upstream`, `proxy_http_version 1.1` and \
                `proxy_set_header Connection \"\"`; later ones have them by default. Then keep the \
                proxy's idle timeout below the upstream's.",
    }
}

pub(super) fn explained_one() -> Explanation {
    Explanation {
        means: "The same toward one upstream, while the same proxy keeps connections to another: that \
                upstream's configuration differs.",
        evidence: "as above, for each upstream of a proxy (same name, same workload).",
        fires: "as above, and another upstream of the proxy has open connections that are kept.".into(),
        silent: "an upstream that is not used at all.",
        remedy: "as above, in the block of that upstream only.",
    }
}
