//! Requests are lost because the upstream closes idle connections that the proxy still uses.

use finwatch_ebpf::wire::Counter;

use super::{race, silent_drop};
use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Confidence, Finding, Harm, Subject},
        idle::{DOMINANT, IdleTime, MIN_SAMPLES, QUIET_SECONDS},
        kinds::Kind,
        remedies,
    },
};

/// So many lost requests leave no doubt; fewer may stem from one restart beside an upstream that closes in time.
const CLEAR: u64 = 3;
/// This part of the lost requests came after about the time at which the upstream closes.
const CONSISTENT: f64 = 0.5;

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let lost = pair.counts.sum(&facts::LOST);
    if !facts::is_proxy(pair) || lost == 0 || silent_drop::quiet_losses(pair).is_some() {
        return None;
    }
    let closes = IdleTime::of(&pair.peer_close_idle);
    let time = closes.or_else(|| IdleTime::of(&pair.lost_request_idle));
    match time {
        Some(time) => Some(timed(observation, pair, lost, &time, closes.is_some())),
        // Without a time it is a restart, unless it goes on.
        None => facts::recurs(pair, &facts::LOST).then(|| untimed(observation, pair, lost)),
    }
}

fn timed(observation: &Observation, pair: &Pair, lost: u64, time: &IdleTime, seen_closing: bool) -> Finding {
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let own = IdleTime::of(&pair.local_close_idle);
    let lost_text = facts::many(lost, "request");
    let verdict = match own {
        Some(own) if own.equals(time) => format!(
            "{lost_text} lost: {upstream} and {proxy} both close idle connections after {time} (equal timeouts), so \
             now and then the upstream is first while a request is on its way."
        ),
        _ => format!(
            "{lost_text} lost: {upstream} closes connections that were idle for {time}, and {proxy} still sends \
             requests on them."
        ),
    };
    let mut evidence = vec![losses(observation, pair, lost)];
    if seen_closing {
        evidence.push(race::closes_line(time));
    }
    evidence.extend(quiet_line(pair));
    evidence.extend(race::own_line(own.as_ref(), proxy));
    let candidates = race::candidates(pair, Some(time));
    Finding {
        kind: Kind::KeepAliveRace,
        subject: Subject::Pair(pair.labels.clone()),
        verdict,
        evidence,
        confidence: confidence(pair, lost, time, seen_closing),
        changes: race::changes(pair, time, &candidates),
        candidates,
        harm: Harm::lost(lost),
    }
}

fn confidence(pair: &Pair, lost: u64, time: &IdleTime, seen_closing: bool) -> Confidence {
    let quiet = &pair.lost_request_idle;
    let near = quiet.count - quiet.at_most(time.low).min(quiet.count);
    if !seen_closing {
        Confidence::medium(
            "the time is that of the lost requests; too few closes were seen to show the upstream's own",
        )
    } else if quiet.count == 0 {
        Confidence::medium("how long the connections had been quiet before the lost requests is not known")
    } else if facts::share(near, quiet.count) < CONSISTENT {
        Confidence::medium(
            "most lost requests came before that time was over: a restart or a count limit may be in it",
        )
    } else if lost < CLEAR {
        Confidence::medium("few requests, which one restart explains as well; the timeouts race in any case")
    } else {
        Confidence::high("the kernel saw the upstream's closes and the resets that answered the requests")
    }
}

fn untimed(observation: &Observation, pair: &Pair, lost: u64) -> Finding {
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let after_answers = pair.peer_close_idle.at_most(QUIET_SECONDS);
    let mut evidence = vec![losses(observation, pair, lost)];
    if pair.peer_close_idle.count > 0 {
        evidence.push(format!(
            "the upstream closed {} with nothing unanswered, {} of them within a second of an answer, and at no one \
             idle time",
            facts::many(pair.peer_close_idle.count, "connection"),
            facts::number(after_answers)
        ));
    }
    evidence.extend(quiet_line(pair));
    Finding {
        kind: Kind::KeepAliveRace,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{} lost: {upstream} closes connections on which {proxy} still sends requests, at no one idle time.",
            facts::many(lost, "request")
        ),
        evidence,
        confidence: Confidence::low(
            "no idle timeout stands out: a limit of requests per connection, workers that are recycled and \
             repeated restarts look the same",
        ),
        candidates: race::candidates(pair, None),
        changes: remedies::send_again(proxy, &pair.configured_upstream()),
        harm: Harm::lost(lost),
    }
}

fn losses(observation: &Observation, pair: &Pair, lost: u64) -> String {
    let count = |counter| pair.counts.get(counter);
    let parts = facts::listed(&[
        (count(Counter::LostNoFin), "answered by RST without any FIN"),
        (count(Counter::LostAfterFin), "written after the upstream's FIN"),
        (count(Counter::LostCrossedFin), "crossed by its FIN"),
    ]);
    let seconds = observation.window.seconds;
    format!("{} lost in {}: {parts}", facts::many(lost, "request"), facts::span(seconds))
}

fn quiet_line(pair: &Pair) -> Option<String> {
    let quiet = &pair.lost_request_idle;
    let words = match (IdleTime::of(quiet), quiet.mean()) {
        (Some(time), _) => format!("{time}"),
        (None, Some(mean)) => format!("{mean:.1} s on average"),
        (None, None) => return None,
    };
    Some(format!("before {} the connection was quiet for {words}", facts::many(quiet.count, "lost request")))
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The upstream closes idle connections after some time; the proxy keeps them for longer and \
                now and then sends a request on one that is just being closed. The request is answered by \
                a reset, and a client may get a 502. Retries of the proxy hide part of it.",
        evidence: "`requests_on_peer_closed_socket_total` (exact, by timing), the time at which the upstream \
                closes (`peer_close_idle_seconds`, else `lost_request_idle_seconds`), the proxy's own \
                closes.",
        fires: format!(
            "one lost request is enough where an idle time stands out: a bucket that holds {:.0}% of \
                the closes that came after a quiet second, and at least {} of them. Where none stands out: \
                when losses recur. High confidence from {CLEAR} lost requests on.",
            DOMINANT * 100.0,
            MIN_SAMPLES
        ),
        silent: "a restart of the upstream closes connections of every idle time, once; half-closes; TLS \
                goodbyes (no more than `--goodbye-bytes` after the FIN); a proxy that closes its idle \
                connections itself.",
        remedy: "the side that reuses must have the shorter timeout: the proxy's below the time measured, \
                or the upstream's above the proxy's. Equal is not enough. The finding prints the \
                directives.",
    }
}
