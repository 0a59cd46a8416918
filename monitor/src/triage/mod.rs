//! From an observation to findings: pure rules, without I/O.

pub mod finding;
pub mod kinds;
pub mod report;

use crate::model::observation::Observation;
use finding::Finding;

/// Everything that is wrong, worst first; where nothing is, one finding that says what was looked at.
pub fn findings(observation: &Observation) -> Vec<Finding> {
    let _ = observation;
    Vec::new()
}
