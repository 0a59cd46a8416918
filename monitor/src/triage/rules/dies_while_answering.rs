//! The upstream resets in the middle of an answer.

use finwatch_ebpf::wire::Counter;

use crate::{
    model::observation::{Observation, Pair},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Candidate, Confidence, Finding, Harm, Subject},
        kinds::Kind,
    },
};

/// Fewer are one crash of a small pool.
const RESETS: u64 = 3;

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let resets = pair.counts.get(Counter::ResetResponse);
    if !facts::is_proxy(pair) || resets < RESETS || !facts::recurs(pair, &[Counter::ResetResponse]) {
        return None;
    }
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let closed = pair.counts.sum(&facts::CLOSED);
    Some(Finding {
        kind: Kind::UpstreamDiesWhileAnswering,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{upstream} resets connections while it answers {proxy}, again and again: {} in {}.",
            facts::many(resets, "time"),
            facts::span(observation.window.seconds)
        ),
        evidence: vec![format!(
            "{} received less than a second after a part of an answer (phase response), on {} of the connections that \
             ended",
            facts::many(resets, "RST"),
            facts::percent(facts::share(resets, closed))
        )],
        confidence: Confidence::medium(
            "workers that crash or are killed do this; so does a server that answers before it has read the whole \
             request and then closes, whose answer may have arrived complete",
        ),
        candidates: pair.listener.clone().map(Candidate::Listening).into_iter().collect(),
        changes: Vec::new(),
        harm: Harm::lost(resets),
    })
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The upstream sends a reset in the middle of an answer, or right behind it.",
        evidence: "`resets_received_total{phase=\"response\"}`: the last byte of the answer came less than \
                a second before.",
        fires: format!("{RESETS} or more, and they recur."),
        silent: "one crash of a worker (all at one time); resets on idle connections; resets after our own \
                close; aborts of ours.",
        remedy: "look for crashes, out-of-memory kills and worker timeouts in the upstream's log at these \
                times; for a server that answers before it has read the request (413, authentication), let \
                it read the body or close gracefully.",
    }
}
