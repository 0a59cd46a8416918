//! Keeps the last incidents, and tells those who follow.

pub mod backends;
pub mod file;
pub mod intake;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::broadcast;

use self::backends::Lookups;
use crate::model::incident::{IncidentFilter, IncidentRecord};

/// Incidents that a follower may be behind before it loses some; it is told how many.
const FOLLOWER_BACKLOG: usize = 256;

/// The last incidents, in memory: bounded, the oldest make room. Shared by those who record and those who read.
#[derive(Debug)]
pub struct Recorder {
    kept: Mutex<VecDeque<Arc<IncidentRecord>>>,
    capacity: usize,
    followers: broadcast::Sender<Arc<IncidentRecord>>,
    file_errors: AtomicU64,
    lookups: Lookups,
}

impl Recorder {
    /// Keeps at most `capacity` incidents.
    pub fn new(capacity: usize) -> Self {
        let (followers, _) = broadcast::channel(FOLLOWER_BACKLOG);
        Self {
            kept: Mutex::default(),
            capacity,
            followers,
            file_errors: AtomicU64::new(0),
            lookups: Lookups::default(),
        }
    }

    /// Those of the kept incidents that `filter` takes, oldest first.
    pub fn latest(&self, filter: &IncidentFilter) -> Vec<Arc<IncidentRecord>> {
        self.kept().iter().filter(|record| filter.takes(record)).cloned().collect()
    }

    /// Every incident from now on. A receiver that is too slow gets `RecvError::Lagged` with the number it lost.
    pub fn follow(&self) -> broadcast::Receiver<Arc<IncidentRecord>> {
        self.followers.subscribe()
    }

    /// Keeps an incident and tells the followers.
    pub fn record(&self, record: Arc<IncidentRecord>) {
        let mut kept = self.kept();
        if kept.len() == self.capacity {
            kept.pop_front();
        }
        kept.push_back(record.clone());
        // Under the lock, so that followers see the same order. Nobody may be following.
        drop(self.followers.send(record));
    }

    /// Incidents that could not be written to the incident file.
    pub fn file_errors(&self) -> u64 {
        self.file_errors.load(Ordering::Relaxed)
    }

    /// What became of questions to the kernel's connection tracking.
    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    fn count_file_error(&self) {
        self.file_errors.fetch_add(1, Ordering::Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<IncidentRecord>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::model::incident::{IncidentCause, tests::record};

    fn numbered(id: u64) -> Arc<IncidentRecord> {
        Arc::new(IncidentRecord { id, ..record() })
    }

    fn ids(records: &[Arc<IncidentRecord>]) -> Vec<u64> {
        records.iter().map(|record| record.id).collect()
    }

    #[test]
    fn the_oldest_make_room() {
        let recorder = Recorder::new(3);
        (1..=5).for_each(|id| recorder.record(numbered(id)));
        assert_eq!(ids(&recorder.latest(&IncidentFilter::default())), [3, 4, 5]);
    }

    #[test]
    fn filters_are_applied() {
        let recorder = Recorder::new(3);
        (1..=2).for_each(|id| recorder.record(numbered(id)));
        let other = IncidentRecord { id: 3, cause: IncidentCause::ResetIdle, ..record() };
        recorder.record(Arc::new(other));
        let filter = IncidentFilter { causes: vec![IncidentCause::ResetIdle], ..IncidentFilter::default() };
        assert_eq!(ids(&recorder.latest(&filter)), [3]);
    }

    #[test]
    fn a_slow_follower_is_told_how_many_it_lost() {
        let recorder = Recorder::new(1);
        let mut follower = recorder.follow();
        let total = FOLLOWER_BACKLOG as u64 + 7;
        (1..=total).for_each(|id| recorder.record(numbered(id)));
        assert_eq!(follower.try_recv(), Err(TryRecvError::Lagged(7)));
        let rest: Vec<u64> =
            std::iter::from_fn(|| follower.try_recv().ok()).map(|record| record.id).collect();
        assert_eq!(rest, (8..=total).collect::<Vec<_>>());
    }
}
