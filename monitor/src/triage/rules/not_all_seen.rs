//! What the agent did not see.

use crate::{
    model::observation::Observation,
    triage::{
        explanation::Explanation,
        facts,
        finding::{Confidence, Finding, Harm, HarmClass, Subject},
        kinds::Kind,
    },
};

pub(super) fn rule(observation: &Observation) -> Vec<Finding> {
    let evidence = gaps(observation);
    if evidence.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        kind: Kind::NotAllSeen,
        subject: Subject::Host,
        verdict:
            "The agent has not seen everything: counts may be too low, and what is not reported may be there."
                .into(),
        evidence,
        confidence: Confidence::high("the agent's own counters"),
        candidates: Vec::new(),
        changes: Vec::new(),
        harm: Harm::none(HarmClass::Informative),
    }]
}

/// What keeps the findings from being complete, a line each. Incidents that were not recorded are not among them:
/// counters, from which findings stem, have them.
pub(in crate::triage) fn gaps(observation: &Observation) -> Vec<String> {
    let watch = &observation.watch;
    let mut gaps: Vec<String> = watch.degraded_hooks.clone();
    let counted = [
        (watch.pairs_folded, "connection", "counted under \"other\" for want of room (raise --max-pairs)"),
        (watch.untracked_connections, "connection", "not watched for want of room (raise --max-connections)"),
        (watch.missed_runs, "program run", "skipped by the kernel"),
        (watch.missed_ends, "connection", "ended unseen: the kernel ran no program"),
    ];
    let some = counted.iter().filter(|(count, ..)| *count > 0);
    gaps.extend(
        some.map(|(count, noun, what)| format!("{} {what}, since the start", facts::many(*count, noun))),
    );
    for namespace in observation.namespaces.iter().filter(|namespace| namespace.time_wait_overflow > 0) {
        gaps.push(format!(
            "netns {}: {} found no room in TIME_WAIT (limit {})",
            namespace.netns,
            facts::many(namespace.time_wait_overflow, "connection"),
            facts::number(namespace.time_wait_limit)
        ));
    }
    gaps
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "The agent's hooks do not work in full, tables were full, or the kernel skipped runs. \
                Counts may be too low.",
        evidence: "`hook_attached`, `pairs_folded_total`, `untracked_connections_total`, \
                `bpf_missed_runs_total`, `connections_missed_end_total`, `time_wait_overflow_total`.",
        fires: "one of these or more.".into(),
        silent: "incidents that were not recorded: counters have them.",
        remedy: "`finwatch check` names what is missing; raise the limit that was reached.",
    }
}

pub(super) fn explained_nothing() -> Explanation {
    Explanation {
        means: "Nothing of the above (or only what is worth knowing) was found. The report says what was \
                looked at: for how long, how many pairs, connections and resets, and whether every hook \
                works.",
        evidence: "the whole observation.",
        fires: "no other finding means trouble.".into(),
        silent: "(it is the silence.)",
        remedy: "where something is wrong all the same, look again with a longer window, and at \
                docs/limitations.md.",
    }
}
