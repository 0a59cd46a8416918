//! Recorded incidents, and what a sequence's counts say about them.

use std::collections::BTreeMap;

use finwatch::model::incident::{EventKind, IncidentCause, IncidentRecord};

use super::metrics::Side;

/// How often each cause is recorded.
pub(crate) type Causes = BTreeMap<IncidentCause, u32>;

/// The causes of one side of a pair.
pub(crate) fn causes(records: &[IncidentRecord], side: Side, upstream: &str) -> Causes {
    let mut causes = Causes::new();
    for record in of_pair(records, side, upstream) {
        *causes.entry(record.cause).or_default() += 1;
    }
    causes
}

/// The incidents of one side of a pair.
pub(crate) fn of_pair<'a>(
    records: &'a [IncidentRecord],
    side: Side,
    upstream: &'a str,
) -> impl Iterator<Item = &'a IncidentRecord> {
    records
        .iter()
        .filter(move |record| record.pair.side.name() == side.label() && record.pair.upstream == upstream)
}

/// The causes that what is counted stands for, in the short notation of the sequences' tables: an incident for each
/// connection on which something went wrong.
pub(crate) fn expected(counted: &[&str]) -> Causes {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for item in counted {
        let (item, count) = item.split_once('*').unwrap_or((item, "1"));
        let item = item.split(['<', '>']).next().unwrap_or(item);
        *counts.entry(item).or_default() += count.parse::<u32>().expect("a count");
    }
    let mut causes = Causes::new();
    for (item, cause, same_connections) in CAUSES {
        let count = counts.remove(item).unwrap_or(0);
        if count > 0 {
            *causes.entry(*cause).or_default() += count;
        }
        for other in *same_connections {
            if let Some(left) = counts.get_mut(other) {
                *left = left.saturating_sub(count);
            }
        }
    }
    causes.retain(|_, count| *count > 0);
    causes
}

/// What is counted, its cause, and what the same connections count besides.
const CAUSES: &[(&str, IncidentCause, &[&str])] = {
    use IncidentCause as C;
    &[
        ("connect:refused", C::ConnectRefused, &[]),
        ("connect:unreachable", C::ConnectUnreachable, &[]),
        ("connect:timeout", C::ConnectTimeout, &[]),
        ("connect:no_local_port", C::ConnectNoLocalPort, &[]),
        ("connect:other", C::ConnectOther, &[]),
        ("lost:crossed_fin", C::RequestCrossedFin, &["received:after_peer_fin"]),
        ("lost:after_fin", C::RequestAfterFin, &["received:after_peer_fin"]),
        ("lost:no_fin", C::RequestNoFin, &["received:reused_request"]),
        ("peer_closed_before_response", C::PeerClosedBeforeResponse, &["received:after_peer_fin"]),
        ("gave_up:true", C::LocalClosedBeforeResponseAcked, &["received:after_local_close"]),
        ("gave_up:false", C::LocalClosedBeforeResponseUnacked, &["received:after_local_close"]),
        ("received:after_local_close", C::ResetAfterLocalClose, &[]),
        ("received:after_peer_fin", C::ResetAfterPeerFin, &[]),
        ("received:first_request", C::ResetFirstRequest, &[]),
        ("received:waiting", C::ResetWaiting, &[]),
        ("received:reused_request", C::ResetReusedRequest, &[]),
        ("received:response", C::ResetResponse, &[]),
        ("received:idle", C::ResetIdle, &[]),
        ("received:answering", C::ResetAnswering, &[]),
        ("sent:data_after_close", C::ResetSentDataAfterClose, &[]),
        ("sent:timeout", C::TimedOut, &["closed:timeout"]),
        ("closed:timeout", C::TimedOut, &[]),
        ("incident:timed_out", C::TimedOut, &[]),
    ]
};

/// What is wrong with a record, whatever it is about.
pub(crate) fn wrong(record: &IncidentRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    let offsets: Vec<i64> = record.timeline.iter().map(|step| step.offset_ms).collect();
    if !offsets.is_sorted() || offsets.last() != Some(&0) {
        wrong.push(format!("the timeline is not in order: {offsets:?}"));
    }
    let upstream = if record.pair.side.name() == "proxy" { &record.remote } else { &record.local };
    if *upstream != record.pair.upstream {
        wrong.push(format!("the accepting end is {upstream}"));
    }
    let ours = std::process::id();
    match (&record.process, record.pair.side.name()) {
        (Some(process), _) if process.pid == ours && process.name == super::process_name() => {}
        // Its listening socket may be gone by now.
        (None, "upstream") => {}
        (other, _) => wrong.push(format!("the process is {other:?}, should be {ours}")),
    }
    wrong
}

/// The kinds of events, in order.
pub(crate) fn story(record: &IncidentRecord) -> Vec<EventKind> {
    record.timeline.iter().map(|step| step.event).collect()
}
