//! This host is the upstream, and closes connections that proxies still use.

use finwatch_ebpf::wire::Counter;

use super::race;
use crate::{
    model::{
        counts::Counts,
        labels::{EXTERNAL, Side},
        observation::{Observation, Pair},
    },
    triage::{
        explanation::Explanation,
        facts,
        finding::{Confidence, Finding, Harm, Subject},
        idle::IdleTime,
        kinds::Kind,
        remedies,
    },
};

/// Fewer resets upon late data are one restart, or a client that was slow once.
const RESETS: u64 = 3;
/// A race is lost now and then. TLS clients say goodbye on every connection that is closed, and that is answered by
/// the same reset.
const GOODBYES: f64 = 0.5;
/// What listens where that is not known.
const UNKNOWN: &str = "the process";

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let labels = &pair.labels;
    if labels.side != Side::Upstream || labels.proxy == EXTERNAL || facts::is_folded(pair) {
        return None;
    }
    let lost_unread = unread(&pair.counts);
    if let Some(time) = IdleTime::of(&pair.local_close_idle) {
        let late = requests_after_close(pair);
        return (late + lost_unread >= RESETS).then(|| timed(observation, pair, &time, late, lost_unread));
    }
    // Without a time it is a restart, unless it goes on.
    let recurs = facts::recurs_by(pair, unread);
    (lost_unread >= RESETS && recurs).then(|| untimed(observation, pair, lost_unread))
}

fn timed(observation: &Observation, pair: &Pair, time: &IdleTime, late: u64, unread: u64) -> Finding {
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let listener = listener(pair);
    let who = listener.unwrap_or(UNKNOWN);
    let candidates = race::candidates(pair, Some(time));
    Finding {
        kind: Kind::OwnSideCloses,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "This host closes connections of {proxy} that were idle for {time}, while {proxy} still sends requests \
             on them: {who} at {upstream} gives up too soon."
        ),
        evidence: vec![
            resets(observation, late, unread),
            format!(
                "{} closed by this host, {} of them after {time}",
                facts::many(pair.counts.get(Counter::ClosedLocal), "connection"),
                facts::number(time.count)
            ),
        ],
        confidence: Confidence::medium(
            "the proxy's host shows whether these were requests: data after a close may be a TLS goodbye",
        ),
        changes: remedies::close_later("", listener, &candidates, Some(time)),
        candidates,
        harm: Harm::lost(late + unread),
    }
}

fn untimed(observation: &Observation, pair: &Pair, unread: u64) -> Finding {
    let (proxy, upstream) = (&pair.labels.proxy, &pair.labels.upstream);
    let who = listener(pair).unwrap_or(UNKNOWN);
    Finding {
        kind: Kind::OwnSideCloses,
        subject: Subject::Pair(pair.labels.clone()),
        verdict: format!(
            "This host closes connections with a request of {proxy} unread, again and again: {who} at {upstream} \
             does so at no one idle time."
        ),
        evidence: vec![
            resets(observation, 0, unread),
            format!("{} ended in all", facts::many(pair.counts.sum(&facts::CLOSED), "connection")),
        ],
        confidence: Confidence::low(
            "no idle timeout stands out: requests refused before they are read, a limit of requests per connection, \
             workers that are recycled and repeated restarts look the same",
        ),
        candidates: race::candidates(pair, None),
        changes: remedies::send_again(proxy, &pair.configured_upstream()),
        harm: Harm::lost(unread),
    }
}

fn listener(pair: &Pair) -> Option<&str> {
    pair.listener.as_ref().map(|process| process.name.as_str())
}

fn resets(observation: &Observation, late: u64, unread: u64) -> String {
    let parts = facts::listed(&[
        (late, "times data came after our close and was answered by RST"),
        (unread, "times we closed with a request unread, which sends RST"),
    ]);
    format!("in {}: {parts}", facts::span(observation.window.seconds))
}

/// Data that came after our close, unless so often that it is goodbyes.
fn requests_after_close(pair: &Pair) -> u64 {
    let late = pair.counts.get(Counter::SentDataAfterClose);
    let goodbyes = facts::share(late, pair.counts.get(Counter::ClosedLocal)) > GOODBYES;
    if goodbyes { 0 } else { late }
}

/// At least so many connections were closed with a request unread: of the resets before any FIN those that were neither
/// received nor an abort of ours. Unread data after the peer's FIN (a TLS goodbye) is not among them.
fn unread(counts: &Counts) -> u64 {
    let others = [Counter::ResetIdle, Counter::ResetAnswering, Counter::SentAbort];
    let before_fin = counts.get(Counter::ClosedReset).saturating_sub(counts.sum(&others));
    before_fin.min(counts.get(Counter::SentUnreadDataAtClose))
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "This host is the upstream: its process closes idle connections that a proxy still uses. \
                The proxy's host sees lost requests.",
        evidence: "`resets_sent_total` (`data_after_close`, `unread_data_at_close` before any FIN), and the \
                time at which this host closes idle connections.",
        fires: format!(
            "{RESETS} resets or more and an idle time that stands out; data after our close counts where it is no more \
                than {goodbyes} of the connections closed. Where no time stands out: {RESETS} connections \
                or more closed with a request unread, and they recur.",
            goodbyes = facts::percent(GOODBYES)
        ),
        silent: "TLS clients that say goodbye on every connection we close; unread goodbyes of peers that \
                closed first; one restart; clients outside the configured ranges; what the proxy's side shows on \
                this host already.",
        remedy: "raise this server's idle timeout above the proxy's; where no time stands out, look for \
                what this server closes without reading it.",
    }
}
