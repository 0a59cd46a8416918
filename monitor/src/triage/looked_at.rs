//! What was looked at, so that silence can be trusted.

use finwatch_ebpf::wire::Counter;

use super::{
    facts,
    finding::{Confidence, Finding, Harm, HarmClass, Subject},
    kinds::Kind,
    rules::gaps,
};
use crate::model::observation::Observation;

/// A shorter window has hardly seen an idle timeout pass: the longest of the common ones are 60 to 75 s.
const LONG_ENOUGH_SECONDS: f64 = 60.0;

/// The window and what was counted in it, a line each.
pub fn lines(observation: &Observation) -> Vec<String> {
    let window = &observation.window;
    let sum =
        |counters: &[Counter]| observation.pairs.iter().map(|pair| pair.counts.sum(counters)).sum::<u64>();
    let mut lines = Vec::new();
    let asked = if window.seconds < window.asked_seconds {
        format!(" (asked for {})", facts::span(window.asked_seconds))
    } else {
        String::new()
    };
    lines.push(format!(
        "the last {}{asked}; the agent has watched for {}",
        facts::span(window.seconds),
        facts::span(window.watched_seconds)
    ));
    let resets: Vec<Counter> = facts::RESETS_RECEIVED.iter().map(|(counter, _)| *counter).collect();
    lines.push(format!(
        "{}, {} opened, {} closed",
        facts::many(observation.pairs.len() as u64, "pair"),
        facts::many(sum(&[Counter::Opened]), "connection"),
        facts::number(sum(&facts::CLOSED))
    ));
    lines.push(format!(
        "{} received, {} sent, {} lost",
        facts::many(sum(&resets), "reset"),
        facts::number(sum(&facts::RESETS_SENT)),
        facts::many(sum(&facts::LOST), "request")
    ));
    lines.push(format!(
        "ports toward {}, {}, {}",
        facts::many(observation.ports.len() as u64, "destination"),
        facts::many(observation.queues.len() as u64, "accept queue"),
        facts::many(observation.namespaces.len() as u64, "network namespace")
    ));
    lines.push(match observation.watch.degraded_hooks.len() as u64 {
        0 => "every hook works in full".into(),
        degraded => format!("{} in part or not at all", facts::many(degraded, "hook")),
    });
    lines
}

/// Says that nothing is wrong, and how far that goes.
pub(super) fn nothing_wrong(observation: &Observation) -> Finding {
    let sum =
        |counters: &[Counter]| observation.pairs.iter().map(|pair| pair.counts.sum(counters)).sum::<u64>();
    let ended = sum(&facts::CLOSED);
    let traffic = sum(&[Counter::Opened]) + ended;
    let lost = sum(&facts::LOST);
    let span = facts::span(observation.window.seconds);
    let open: u64 = observation.pairs.iter().map(|pair| u64::from(facts::established(pair))).sum();
    let (verdict, confidence) = if traffic == 0 && open == 0 {
        (
            format!("No connection was seen in {span}, so nothing can be said."),
            Confidence::low("there was nothing to look at"),
        )
    } else {
        let verdict = if lost > 0 {
            format!(
                "Nothing points to a lasting fault in {span}; {} lost at one time, as when an upstream restarts.",
                facts::many(lost, "request")
            )
        } else {
            format!("Nothing is wrong in what was seen in {span}.")
        };
        (verdict, trust(observation))
    };
    Finding {
        kind: Kind::NothingWrong,
        subject: Subject::Host,
        verdict,
        evidence: lines(observation),
        confidence,
        candidates: Vec::new(),
        changes: Vec::new(),
        harm: Harm::none(HarmClass::Informative),
    }
}

fn trust(observation: &Observation) -> Confidence {
    if !gaps(observation).is_empty() {
        Confidence::medium("the agent has not seen everything")
    } else if observation.window.seconds < LONG_ENOUGH_SECONDS {
        Confidence::medium("the window is short: idle timeouts of a minute do not show in it")
    } else {
        Confidence::high("every hook works and nothing was dropped")
    }
}
