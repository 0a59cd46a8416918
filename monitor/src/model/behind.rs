//! Who answered behind the addresses of services, by recorded incidents.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    incident::{IncidentCause, IncidentRecord},
    labels::Labels,
};

/// Recorded incidents of one cause behind which one address answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The address, `ip:port`; absent for those of which it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The cause.
    pub cause: IncidentCause,
    /// How many there are.
    pub incidents: u64,
}

/// Adds up the incidents of each pair, of those pairs of which at least one was translated.
pub fn tally(records: &[Arc<IncidentRecord>]) -> BTreeMap<&Labels, Vec<Behind>> {
    let mut pairs: BTreeMap<&Labels, BTreeMap<(Option<&str>, IncidentCause), u64>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.backend.is_some()) {
        pairs.entry(&record.pair).or_default();
    }
    for record in records {
        if let Some(counts) = pairs.get_mut(&record.pair) {
            *counts.entry((record.backend.as_deref(), record.cause)).or_default() += 1;
        }
    }
    let behind = |((backend, cause), incidents): ((Option<&str>, _), _)| Behind {
        backend: backend.map(ToOwned::to_owned),
        cause,
        incidents,
    };
    pairs.into_iter().map(|(pair, counts)| (pair, counts.into_iter().map(behind).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::incident::tests::record;

    fn one(upstream: &str, backend: Option<&str>, cause: IncidentCause) -> Arc<IncidentRecord> {
        let pair = Labels { upstream: upstream.into(), ..record().pair };
        Arc::new(IncidentRecord { pair, backend: backend.map(ToOwned::to_owned), cause, ..record() })
    }

    #[test]
    fn backends_are_counted_by_pair_and_cause() {
        use IncidentCause::{RequestAfterFin, RequestNoFin};
        let (a, b) = (Some("10.244.1.7:8080"), Some("10.244.2.9:8080"));
        let records = [
            one("10.96.0.10:80", a, RequestNoFin),
            one("10.96.0.10:80", b, RequestNoFin),
            one("10.96.0.10:80", None, RequestNoFin),
            one("10.96.0.10:80", a, RequestNoFin),
            one("10.96.0.10:80", a, RequestAfterFin),
            one("10.96.0.11:80", a, RequestAfterFin),
            one("10.0.0.7:8080", None, RequestNoFin),
        ];
        let tally = tally(&records);
        let behind = |backend: Option<&str>, cause, incidents| Behind {
            backend: backend.map(ToOwned::to_owned),
            cause,
            incidents,
        };
        let told: Vec<_> = tally.into_iter().map(|(pair, behind)| (pair.upstream.as_str(), behind)).collect();
        let first = vec![
            behind(None, RequestNoFin, 1),
            behind(a, RequestAfterFin, 1),
            behind(a, RequestNoFin, 2),
            behind(b, RequestNoFin, 1),
        ];
        let second = vec![behind(a, RequestAfterFin, 1)];
        assert_eq!(told, [("10.96.0.10:80", first), ("10.96.0.11:80", second)]);
    }
}
