//! Nothing is lost yet, but it is the upstream that closes idle connections.

use finwatch_ebpf::wire::Counter;

use super::race;
use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Confidence, Finding, Harm, HarmClass, Subject},
        idle::IdleTime,
        kinds::Kind,
    },
};

/// Closes that make a habit.
const CLOSES: u64 = 5;
/// Connections that lived for so many times the upstream's timeout were used again meanwhile.
const REUSED: f64 = 2.0;

pub(super) fn rule(_: &Observation, pair: &Pair) -> Option<Finding> {
    if !facts::is_proxy(pair) || facts::is_folded(pair) || pair.counts.sum(&facts::LOST) > 0 {
        return None;
    }
    let time = IdleTime::of(&pair.peer_close_idle).filter(|time| time.count >= CLOSES)?;
    // A restart closes the whole pool once, and after a burst all of it has been idle for the same time.
    if !facts::recurs(pair, &[Counter::ClosedPeer]) {
        return None;
    }
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let own = IdleTime::of(&pair.local_close_idle);
    let equal = own.is_some_and(|own| own.equals(&time));
    let verdict = if equal {
        format!(
            "No request is lost yet, but {upstream} and {proxy} both close idle connections after {time}: equal \
             timeouts, so either may be first, and a request that meets the upstream's close is lost."
        )
    } else {
        format!(
            "No request is lost yet, but {upstream} closes idle connections, after {time}, before {proxy} does: a \
             request sent at that moment is lost."
        )
    };
    let long_lived = {
        let durations = &pair.connection_duration;
        durations.count - durations.at_most(time.latest() * REUSED).min(durations.count)
    };
    let mut evidence = vec![race::closes_line(&time)];
    evidence.extend(race::own_line(own.as_ref(), proxy));
    if long_lived > 0 {
        evidence.push(format!(
            "{} lived more than {REUSED} times as long: used again",
            facts::many(long_lived, "connection")
        ));
    }
    let confidence = if equal {
        Confidence::high("both ends were seen to close after the same time")
    } else if long_lived > 0 {
        Confidence::high("the upstream was seen to close, and connections are used again after quiet times")
    } else {
        Confidence::medium(
            "the upstream was seen to close; no connection outlived that time for long, so it does not show whether \
             the proxy would use them again",
        )
    };
    let candidates = race::candidates(pair, Some(&time));
    Some(Finding {
        kind: Kind::LatentRace,
        subject: Subject::Pair(pair.labels.clone()),
        verdict,
        evidence,
        confidence,
        changes: race::changes(pair, &time, &candidates),
        candidates,
        harm: Harm::none(HarmClass::Latent),
    })
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The upstream is the one that closes idle connections. Nothing is lost yet; as soon as a \
                request meets a close, one is. Equal timeouts at both ends (60 = 60) are named as such: \
                either may be first.",
        evidence: "`peer_close_idle_seconds`, the proxy's own closes after quiet times, \
                `connection_duration_seconds` (connections that live on are used again).",
        fires: format!(
            "no lost request; {CLOSES} closes or more share an idle time; closes by the upstream recur."
        ),
        silent: "a restart of the upstream (once, idle times spread); closes right after an answer \
                (`Connection: close`); a proxy that closes its idle connections first.",
        remedy: "as for the keep-alive race, before the first 502.",
    }
}
