//! Asks the sources: at once about what is new, ever more rarely about what they do not know or while they fail.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, interval, timeout};

use super::{Containers, Docker, Kubernetes, Source};

/// How often it is looked whether a name is wanted.
const ROUND: Duration = Duration::from_secs(1);
/// A source has to answer within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest pause before a source is asked again.
const MAX_PAUSE: Duration = Duration::from_mins(5);

enum Asked {
    Docker(Docker),
    Kubernetes(Kubernetes),
}

/// A source, and when it may be asked again.
struct Way {
    asked: Asked,
    works: bool,
    pause: Duration,
    next: Instant,
    /// What it was asked about and did not know.
    unknown: BTreeSet<Arc<str>>,
}

/// Fills in names, for ever.
pub struct Resolver {
    containers: Arc<Containers>,
    ways: Vec<Way>,
}

impl Resolver {
    /// From these sources.
    pub fn new(containers: Arc<Containers>, docker: Docker, kubernetes: Option<Kubernetes>) -> Self {
        let asked = [Asked::Docker(docker)].into_iter().chain(kubernetes.map(Asked::Kubernetes));
        let ways = asked.map(|asked| Way {
            asked,
            works: true,
            pause: ROUND,
            next: Instant::now(),
            unknown: BTreeSet::new(),
        });
        Self { containers, ways: ways.collect() }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let containers = &self.containers;
            futures_util::future::join_all(self.ways.iter_mut().map(|way| way.round(containers))).await;
        }
    }
}

impl Way {
    const fn source(&self) -> Source {
        match self.asked {
            Asked::Docker(_) => Source::Docker,
            Asked::Kubernetes(_) => Source::Kubernetes,
        }
    }

    async fn names(&self, wanted: &BTreeSet<Arc<str>>) -> Result<HashMap<Arc<str>, String>, String> {
        let asking = async {
            match &self.asked {
                Asked::Docker(docker) => docker.names(wanted).await,
                Asked::Kubernetes(kubernetes) => kubernetes.names(wanted).await,
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(format!("nothing came for {PATIENCE:?}")))
    }

    async fn round(&mut self, containers: &Containers) {
        let wanted = containers.wanted(self.source());
        let news = self.works && !wanted.is_subset(&self.unknown);
        if wanted.is_empty() || !(news || Instant::now() >= self.next) {
            return;
        }
        let answer = self.names(&wanted).await;
        self.note(answer.as_ref().err(), containers);
        let found = answer.unwrap_or_default();
        let unknown: BTreeSet<_> =
            wanted.into_iter().filter(|workload| !found.contains_key(workload)).collect();
        let settled = self.works && unknown.is_empty();
        self.pause = if settled || (news && self.works) { ROUND } else { (self.pause * 2).min(MAX_PAUSE) };
        self.next = Instant::now() + self.pause;
        self.unknown = unknown;
        containers.learn(found);
    }

    /// Counts failures; only the first of a row is a message, and the end of the row.
    fn note(&mut self, error: Option<&String>, containers: &Containers) {
        let source = self.source();
        match error {
            Some(error) => {
                containers.count_error(source);
                if self.works {
                    tracing::warn!("{} tells no names, so ids are shown: {error}", source.name());
                }
            }
            None if !self.works => tracing::info!("{} tells names again", source.name()),
            None => {}
        }
        self.works = error.is_none();
    }
}
