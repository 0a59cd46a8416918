//! What both keep-alive races share: whose timeout it is, and how to put the two in order.

use crate::{
    model::observation::Pair,
    triage::{
        facts,
        finding::{Candidate, Change},
        fingerprints::{self, Role},
        idle::IdleTime,
        remedies,
    },
};

/// Who may close after `time`, what listens on this host first.
pub(super) fn candidates(pair: &Pair, time: Option<&IdleTime>) -> Vec<Candidate> {
    let known = time.map(|time| fingerprints::closers(time, Role::Server)).unwrap_or_default().into_iter();
    let listener = pair.listener.clone();
    let may_be = |candidate: &Candidate| match (&listener, candidate) {
        (Some(process), Candidate::IdleTime { product, .. }) => remedies::may_be(&process.name, product),
        _ => true,
    };
    let known: Vec<_> = known.filter(may_be).collect();
    listener.map(Candidate::Listening).into_iter().chain(known).collect()
}

/// Either end's timeout, so that the proxy's is the shorter one.
pub(super) fn changes(pair: &Pair, time: &IdleTime, candidates: &[Candidate]) -> Vec<Change> {
    let proxy = &pair.labels.proxy;
    let listener = pair.listener.as_ref().map(|process| process.name.as_str());
    let mut changes = remedies::close_sooner(proxy, &pair.configured_upstream(), time.earliest());
    changes.extend(remedies::close_later(proxy, listener, candidates, Some(time)));
    changes
}

/// `75 of 83 connections that the upstream closed after a quiet time were closed after 5.0 s`.
pub(super) fn closes_line(time: &IdleTime) -> String {
    let idle = facts::many(time.of, "idle connection");
    if time.count == time.of {
        format!("the upstream closed {idle}, each after {time}")
    } else {
        format!("the upstream closed {idle}, {} of them after {time}", facts::number(time.count))
    }
}

/// When the proxy itself closes idle connections, where that shows.
pub(super) fn own_line(own: Option<&IdleTime>, proxy: &str) -> Option<String> {
    own.map(|own| format!("{proxy} itself closed {} after {own}", facts::many(own.count, "idle connection")))
}
