//! This host is the upstream, and closes connections that proxies still use.

use finwatch_ebpf::wire::Counter;

use super::race;
use crate::{
    model::{
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

pub(super) fn rule(observation: &Observation, pair: &Pair) -> Option<Finding> {
    let labels = &pair.labels;
    if labels.side != Side::Upstream || labels.proxy == EXTERNAL || facts::is_folded(pair) {
        return None;
    }
    let late = pair.counts.get(Counter::SentDataAfterClose);
    let unread = unread(pair);
    let all = late + unread;
    let closes = pair.counts.get(Counter::ClosedLocal);
    let time = IdleTime::of(&pair.local_close_idle)?;
    if all < RESETS || facts::share(late, closes) > GOODBYES {
        return None;
    }
    let (proxy, upstream) = (&labels.proxy, &labels.upstream);
    let listener = pair.listener.as_ref().map(|process| process.name.as_str());
    let who = listener.unwrap_or("the process");
    let candidates = race::candidates(pair, Some(&time));
    let changes = remedies::close_later("", listener, &candidates, Some(&time));
    Some(Finding {
        kind: Kind::OwnSideCloses,
        subject: Subject::Pair(labels.clone()),
        verdict: format!(
            "This host closes connections of {proxy} that were idle for {time}, while {proxy} still sends requests \
             on them: {who} at {upstream} gives up too soon."
        ),
        evidence: vec![
            format!(
                "in {}: {}",
                facts::span(observation.window.seconds),
                facts::listed(&[
                    (late, "times data came after our close and was answered by RST"),
                    (unread, "times we closed with a request unread, which sends RST"),
                ])
            ),
            format!(
                "{} closed by this host, {} of them after {time}",
                facts::many(closes, "connection"),
                facts::number(time.count)
            ),
        ],
        confidence: Confidence::medium(
            "the proxy's host shows whether these were requests: data after a close may be a TLS goodbye",
        ),
        candidates,
        changes,
        harm: Harm::lost(all),
    })
}

/// At least so many connections were closed with a request unread: of the resets before any FIN those that were neither
/// received nor an abort of ours. Unread data after the peer's FIN (a TLS goodbye) is not among them.
fn unread(pair: &Pair) -> u64 {
    let others = [Counter::ResetIdle, Counter::ResetAnswering, Counter::SentAbort];
    let before_fin = pair.counts.get(Counter::ClosedReset).saturating_sub(pair.counts.sum(&others));
    before_fin.min(pair.counts.get(Counter::SentUnreadDataAtClose))
}

pub(super) fn explained() -> Explanation {
    Explanation {
        means: "This host is the upstream: its process closes idle connections that a proxy still uses. \
                The proxy's host sees lost requests.",
        evidence: "`resets_sent_total` (`data_after_close`, `unread_data_at_close` before any FIN), and the \
                time at which this host closes idle connections.",
        fires: format!(
            "{RESETS} resets or more, an idle time that stands out, and no more than {goodbyes} resets \
                per connection closed.",
            goodbyes = facts::percent(GOODBYES)
        ),
        silent: "TLS clients that say goodbye on every connection we close; unread goodbyes of peers that \
                closed first; clients outside the configured ranges; a race that the proxy's side shows on \
                this host already.",
        remedy: "raise this server's idle timeout above the proxy's.",
    }
}
