//! The scenarios, in the order of the page.

mod connections;
mod races;
mod upstreams;

use super::scenario::Scenario;

/// All of them, by case.
pub(super) fn all() -> Vec<&'static Scenario> {
    let groups = [races::SCENARIOS, connections::SCENARIOS, upstreams::SCENARIOS];
    let mut all: Vec<_> = groups.into_iter().flatten().collect();
    all.sort_by_key(|scenario| scenario.case);
    all
}
