//! This side gives up on requests that the upstream has, but does not answer.

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

/// Fewer are clients that leave, as they always do.
const GIVEN_UP: u64 = 5;
/// And a smaller part of all connections that ended is, too.
const PART: f64 = 0.01;

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let acked = pair.counts.get(Counter::LocalClosedBeforeResponseAcked);
    let part = facts::share(acked, pair.counts.sum(&facts::CLOSED));
    if !facts::is_proxy(pair) || facts::is_folded(pair) || acked < GIVEN_UP || part < PART {
        return None;
    }
    let unacked = pair.counts.get(Counter::LocalClosedBeforeResponseUnacked);
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let mut evidence = vec![format!(
        "{} given up in {} that the upstream had acknowledged a second or more before",
        facts::many(acked, "request"),
        facts::span(observation.window.seconds)
    )];
    if unacked > 0 {
        evidence.push(format!("{} more that it never acknowledged", facts::number(unacked)));
    }
    Some(Finding {
        kind: Kind::AnswersTooLate,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{upstream} has not answered {} of {proxy} when {proxy} closed the connection.",
            facts::many(acked, "request")
        ),
        evidence,
        confidence: Confidence::medium(
            "the kernel does not tell a timeout of the proxy (504) from a client that left (499): the proxy's access \
             log does. Where both ends speak at any time (websockets, HTTP/2), see --no-request-rules",
        ),
        candidates: pair.listener.clone().map(Candidate::Listening).into_iter().collect(),
        changes: Vec::new(),
        harm: Harm::lost(acked),
    })
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The proxy closed connections upon which a request had waited for at least a second: its \
                timeout passed (504) or its client left (499).",
        evidence: "`local_closed_before_response_total{acked=\"true\"}`; requests that were never \
                acknowledged are told apart (silent drop).",
        fires: format!(
            "{GIVEN_UP} or more, and {part} or more of the connections that ended.",
            part = facts::percent(PART)
        ),
        silent: "a client or two that leave; requests given up within a second; our close after the answer.",
        remedy: "find out why the upstream is slow (its accept queue, its workers, what it waits for); only \
                then raise the proxy's timeout.",
    }
}
