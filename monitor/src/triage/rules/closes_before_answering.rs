//! The upstream closes or resets a connection with a request unanswered.

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
const CLOSES: u64 = 3;
/// Every way in which a request goes unanswered that is no lost request by timing.
const COUNTERS: [Counter; 4] = [
    Counter::PeerClosedBeforeResponse,
    Counter::ResetWaiting,
    Counter::ResetFirstRequest,
    Counter::ResetReusedRequest,
];

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let count = |counter| pair.counts.get(counter);
    // Resets upon a request after a quiet time are lost requests, which the races speak of.
    let quick = count(Counter::ResetReusedRequest).saturating_sub(count(Counter::LostNoFin));
    let [fin, waiting, first] =
        [Counter::PeerClosedBeforeResponse, Counter::ResetWaiting, Counter::ResetFirstRequest].map(count);
    let all = fin + waiting + first + quick;
    let counters = if quick > 0 { &COUNTERS[..] } else { &COUNTERS[..3] };
    if !facts::is_proxy(pair) || all < CLOSES || !facts::recurs(pair, counters) {
        return None;
    }
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let mut reason = String::from(
        "the kernel saw requests acknowledged and not answered; workers that are recycled (max_requests), crash or \
         are killed look alike",
    );
    let certain = fin + waiting > 0;
    if !certain {
        reason = "the requests were reset at once: a server that refuses what it does not speak (TLS, a proxy protocol) \
                  looks like one that dies"
            .into();
    }
    Some(Finding {
        kind: Kind::ClosesBeforeAnswering,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "{upstream} closes connections instead of answering {proxy}, again and again: {} in {}.",
            facts::many(all, "request"),
            facts::span(observation.window.seconds)
        ),
        evidence: vec![
            facts::listed(&[
                (fin, "unanswered at the upstream's FIN"),
                (waiting, "reset a second or more after they were acknowledged"),
                (first, "reset on a connection upon which nothing was ever answered"),
                (quick, "reset right after an earlier answer"),
            ]),
            format!("{} ended in all", facts::many(pair.counts.sum(&facts::CLOSED), "connection")),
        ],
        confidence: if certain { Confidence::high(&reason) } else { Confidence::medium(&reason) },
        candidates: pair.listener.clone().map(Candidate::Listening).into_iter().collect(),
        changes: Vec::new(),
        harm: Harm::lost(all),
    })
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "A request that reached the upstream is not answered: it closes or resets the connection \
                instead. nginx: \"upstream prematurely closed connection\".",
        evidence: "`peer_closed_before_response_total`; `resets_received_total` in the phases `waiting`, \
                `first_request` and, where no long quiet time came before, `reused_request`.",
        fires: format!("{CLOSES} or more, and they recur."),
        silent: "one crash or restart (all at one time); half-closes that are answered; requests lost to a \
                keep-alive race.",
        remedy: "look for workers that are recycled (`max_requests`, `max_requests_jitter`), crash or are \
                killed by a timeout; drain them before they end.",
    }
}
