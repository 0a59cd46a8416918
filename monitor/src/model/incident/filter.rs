//! Which incidents a reader wants.

use std::time::SystemTime;

use super::{IncidentCause, IncidentRecord};

/// Which incidents a reader wants; the default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Only those after this moment.
    pub since: Option<SystemTime>,
    /// Only those whose pair has this text in `PROXY -> UPSTREAM` or in its workload.
    pub pair: Option<String>,
    /// Only those of these causes; empty for all.
    pub causes: Vec<IncidentCause>,
}

impl IncidentFilter {
    /// Whether the reader wants this one.
    pub fn takes(&self, record: &IncidentRecord) -> bool {
        self.since.is_none_or(|since| record.time > since)
            && (self.causes.is_empty() || self.causes.contains(&record.cause))
            && self
                .pair
                .as_ref()
                .is_none_or(|text| record.pair_text().contains(text) || record.pair.workload.contains(text))
    }
}
