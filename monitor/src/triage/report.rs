//! Findings as text.

use super::finding::Finding;
use crate::model::observation::Observation;

/// How text is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// No line is wider, in columns; at least 60.
    pub width: usize,
    /// Whether colours may be used.
    pub color: bool,
}

/// What `finwatch triage` prints.
pub fn report(observation: &Observation, findings: &[Finding], style: Style) -> String {
    let _ = (observation, findings, style);
    String::new()
}
