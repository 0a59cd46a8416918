//! From an observation to findings: pure rules, without I/O.

mod behind;
pub mod explanation;
pub mod facts;
pub mod finding;
pub mod fingerprints;
pub mod idle;
pub mod kinds;
mod layout;
pub mod looked_at;
mod pairs_table;
pub mod remedies;
pub mod report;
mod rules;
#[cfg(test)]
mod tests;

use crate::model::observation::Observation;
use finding::{Finding, Subject};
use kinds::Kind;

/// Everything that is wrong, worst first; where nothing is, a finding that says what was looked at.
pub fn findings(observation: &Observation) -> Vec<Finding> {
    let mut findings = rules::all(observation);
    drop_views_of_the_same(&mut findings);
    name_who_is_behind(&mut findings, observation);
    if !findings.iter().any(Finding::is_trouble) {
        findings.push(looked_at::nothing_wrong(observation));
    }
    findings.sort_by(|a, b| a.harm.order(&b.harm));
    findings
}

/// A service's address stands for many: which of them it was is told by the incidents.
fn name_who_is_behind(findings: &mut [Finding], observation: &Observation) {
    for finding in findings {
        let Subject::Pair(labels) = &finding.subject else { continue };
        let pair = observation.pairs.iter().find(|pair| pair.labels == *labels);
        finding.evidence.extend(pair.and_then(|pair| behind::line(finding.kind, pair)));
    }
}

/// What the upstream's side sees of these, it tells as a close of its own.
const SEEN_FROM_BOTH_SIDES: [Kind; 3] =
    [Kind::KeepAliveRace, Kind::ClosesBeforeAnswering, Kind::UpstreamDiesWhileAnswering];

/// Where both ends are on this host, the upstream's view of lost requests says nothing that the proxy's does not.
fn drop_views_of_the_same(findings: &mut Vec<Finding>) {
    let upstream_of = |finding: &Finding| match &finding.subject {
        Subject::Pair(labels) => Some(labels.upstream.clone()),
        _ => None,
    };
    let told: Vec<_> = findings
        .iter()
        .filter(|finding| SEEN_FROM_BOTH_SIDES.contains(&finding.kind))
        .filter_map(upstream_of)
        .collect();
    findings.retain(|finding| {
        let is_told = upstream_of(finding).is_some_and(|upstream| told.contains(&upstream));
        finding.kind != Kind::OwnSideCloses || !is_told
    });
}
