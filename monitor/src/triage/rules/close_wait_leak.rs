//! The local process does not close what its peers closed.

use std::collections::BTreeSet;

use crate::{
    model::{
        labels::Side,
        observation::{Observation, Pair},
    },
    triage::{
        explanation::Explanation,
        facts,
        finding::{Confidence, Finding, Harm, HarmClass, Subject},
        kinds::Kind,
    },
};

/// Fewer are half-closes, or a client that looks at its pool now and then.
const SOCKETS: u32 = 10;
/// A process that does its work notices an end within this time.
const AGE_SECONDS: f64 = 60.0;

pub(super) fn rule(_: &Observation, pair: &Pair) -> Option<Finding> {
    let count = pair.in_state("close_wait");
    let age = pair.oldest_close_wait_seconds.filter(|age| *age >= AGE_SECONDS)?;
    if count < SOCKETS {
        return None;
    }
    let labels = &pair.labels;
    let (who, peer) = match labels.side {
        Side::Proxy => (labels.proxy.clone(), &labels.upstream),
        Side::Upstream => {
            let listener = pair.listener.as_ref().map(|process| process.name.clone());
            (listener.unwrap_or_else(|| format!("the process at {}", labels.upstream)), &labels.proxy)
        }
    };
    // Of accepted connections only who listens is known.
    let listening = pair.listener.iter().filter(|_| labels.side == Side::Upstream).map(|process| process.pid);
    let pids: BTreeSet<u32> = pair.pids.iter().copied().chain(listening).collect();
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let mut evidence =
        vec![format!("{} in CLOSE_WAIT, the oldest for {}", facts::many(count, "socket"), facts::span(age))];
    if !pids.is_empty() {
        evidence.push(format!("process: {}", pids.join(", ")));
    }
    Some(Finding {
        kind: Kind::CloseWaitLeak,
        subject: Subject::Pair(labels.clone()),
        verdict: format!(
            "{who} does not close {} that {peer} closed: each holds a file descriptor, and a request sent on one is \
             lost.",
            facts::many(count, "connection")
        ),
        evidence,
        confidence: Confidence::high(
            "the kernel has the peer's FIN and waits for close(); a pool that looks at its connections only when it \
             takes one does this as well",
        ),
        candidates: Vec::new(),
        changes: Vec::new(),
        harm: Harm::none(HarmClass::Latent),
    })
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The peers closed, and the local process never does: file descriptors run out in the end, \
                and what is sent on such a connection is lost.",
        evidence: "`sockets{state=\"close_wait\"}`, and for how long the oldest is in it.",
        fires: format!("{SOCKETS} sockets or more, the oldest for {AGE_SECONDS} s or longer."),
        silent: "half-closes; sockets that pass through CLOSE_WAIT.",
        remedy: "the process must close connections of which it has read the end: a leak in the program, or \
                a pool without an idle check.",
    }
}
