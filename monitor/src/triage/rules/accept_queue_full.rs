//! Connections wait for accept() until there is no room.

use crate::{
    model::observation::{AcceptQueue, Observation},
    triage::{
        explanation::Explanation,
        facts,
        finding::{Candidate, Confidence, Finding, Harm, HarmClass, Subject},
        kinds::Kind,
        remedies,
    },
};

/// From here on a burst fills it.
const NEARLY: f64 = 0.8;
/// Fewer connections than this wait at times in any queue.
const WAITING: u64 = 8;

pub(super) fn rule(observation: &Observation) -> Vec<Finding> {
    observation.queues.iter().filter_map(|queue| of_queue(observation, queue)).collect()
}

fn of_queue(observation: &Observation, queue: &AcceptQueue) -> Option<Finding> {
    let share = facts::share(queue.length, queue.limit);
    let full = queue.length > 0 && queue.length >= queue.limit;
    if !full && (queue.length < WAITING || share < NEARLY) {
        return None;
    }
    let listener = queue.listener.as_ref().map(|process| process.name.as_str());
    let who = listener.unwrap_or("the process that listens there");
    let upstream = &queue.upstream;
    let waiting = format!("{} of {} connections", facts::number(queue.length), facts::number(queue.limit));
    let verdict = if full {
        format!(
            "The accept queue of {upstream} is full ({waiting}): new connects wait and time out; {who} accepts too slowly."
        )
    } else {
        format!("The accept queue of {upstream} is nearly full ({waiting}): {who} accepts too slowly.")
    };
    let somaxconn = observation.settings.somaxconn;
    let mut evidence =
        vec![format!("{waiting} wait for accept() ({}), netns {}", facts::percent(share), queue.netns)];
    evidence.extend(somaxconn.map(|somaxconn| format!("net.core.somaxconn = {somaxconn}")));
    Some(Finding {
        kind: Kind::AcceptQueueFull,
        subject: Subject::Queue {
            netns: queue.netns.clone(),
            upstream: upstream.clone(),
            workload: queue.workload.clone(),
        },
        verdict,
        evidence,
        confidence: Confidence::medium("seen at one moment: look again whether it lasts"),
        candidates: queue.listener.clone().map(Candidate::Listening).into_iter().collect(),
        changes: remedies::longer_queue(listener, queue.limit, somaxconn),
        harm: Harm::none(if full { HarmClass::FailedConnects } else { HarmClass::Imminent }),
    })
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "Connections are complete, but the process does not accept them fast enough. When the queue \
                is full the kernel drops what would complete: clients wait and time out.",
        evidence: "`accept_queue_length` against `accept_queue_limit`, as of one moment; \
                `net.core.somaxconn`.",
        fires: format!(
            "the queue is full; or {WAITING} connections or more wait and fill {nearly} of it.",
            nearly = facts::percent(NEARLY)
        ),
        silent: "a few connections that wait for a moment.",
        remedy: "find out why accept() is slow (one busy event loop, all workers occupied); a longer queue \
                only buys time.",
    }
}
