//! Which addresses behind a service's a finding is about: those of its recorded incidents.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{facts, kinds::Kind};
use crate::model::{incident::IncidentCause, observation::Pair};

/// Addresses that are named; all are in the observation.
const MAX_NAMED: usize = 8;

/// `recorded behind 10.96.0.10:80: 10.244.1.7:8080 (40), 10.244.2.9:8080 (1), not known (2)`, where any is known.
pub(super) fn line(kind: Kind, pair: &Pair) -> Option<String> {
    let causes = causes(kind);
    let mut counts: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    for behind in pair.behind.iter().filter(|behind| causes.contains(&behind.cause)) {
        let count = counts.entry(behind.backend.as_deref()).or_default();
        *count = count.saturating_add(behind.incidents);
    }
    let unknown = counts.remove(&None).unwrap_or_default();
    let mut known: Vec<(&str, u64)> =
        counts.into_iter().filter_map(|(backend, count)| Some((backend?, count))).collect();
    if known.is_empty() {
        return None;
    }
    known.sort_by_key(|(_, count)| Reverse(*count));
    let one = |(name, count): &(&str, u64)| format!("{name} ({})", facts::number(*count));
    let mut parts: Vec<String> = known.iter().take(MAX_NAMED).map(one).collect();
    if known.len() > MAX_NAMED {
        parts.push(format!("{} more", facts::number((known.len() - MAX_NAMED) as u64)));
    }
    if unknown > 0 {
        parts.push(one(&("not known", unknown)));
    }
    Some(format!("recorded behind {}: {}", pair.labels.upstream, parts.join(", ")))
}

/// What is recorded of what a kind of finding counts. A connect that was refused is no longer tracked when it is asked about.
const fn causes(kind: Kind) -> &'static [IncidentCause] {
    use IncidentCause as Cause;
    match kind {
        Kind::KeepAliveRace => &[Cause::RequestCrossedFin, Cause::RequestAfterFin, Cause::RequestNoFin],
        Kind::SilentDrop => &[Cause::LocalClosedBeforeResponseUnacked, Cause::TimedOut, Cause::RequestNoFin],
        Kind::UpstreamDiesWhileAnswering => &[Cause::ResetResponse],
        Kind::ClosesBeforeAnswering => &[
            Cause::PeerClosedBeforeResponse,
            Cause::ResetWaiting,
            Cause::ResetFirstRequest,
            Cause::ResetReusedRequest,
        ],
        Kind::AnswersTooLate => &[Cause::LocalClosedBeforeResponseAcked],
        Kind::ConnectTimeouts => &[Cause::ConnectTimeout],
        Kind::Unreachable => &[Cause::ConnectUnreachable],
        _ => &[],
    }
}
