//! Names of pods and containers, for the ids that control groups have. Asked for when a new one appears, by a task of its
//! own: a scrape reads what is known, and an id stays an id until its name comes.

mod docker;
mod http;
mod kubernetes;
mod resolver;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::{
    docker::Docker,
    kubernetes::{Kubernetes, KubernetesError, KubernetesOptions},
    resolver::Resolver,
};

/// Workloads that wait for a name; more than these keep their ids.
const MAX_WANTED: usize = 4096;

/// Who knows names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A container engine that speaks Docker's API.
    Docker,
    /// The cluster's API server.
    Kubernetes,
}

impl Source {
    /// The source as label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// How the workloads begin that it may know.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Docker => "container/",
            Self::Kubernetes => "pod/",
        }
    }
}

/// What is known, and what is wanted.
#[derive(Debug, Default)]
pub struct Containers {
    names: RwLock<HashMap<Arc<str>, Arc<str>>>,
    wanted: Mutex<BTreeSet<Arc<str>>>,
    errors: [AtomicU64; 2],
}

impl Containers {
    /// The workload by its name, or as it is.
    pub fn name(&self, workload: Arc<str>) -> Arc<str> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&workload).cloned().unwrap_or(workload)
    }

    /// Takes note of every workload there is, as control groups have them. Names of others are forgotten.
    pub fn need(&self, workloads: &BTreeSet<Arc<str>>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.retain(|workload, _| workloads.contains(workload));
        let unnamed = workloads.iter().filter(|workload| !names.contains_key(*workload)).take(MAX_WANTED);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = unnamed.cloned().collect();
    }

    /// Requests that failed, by source.
    pub fn errors(&self, source: Source) -> u64 {
        self.errors[source as usize].load(Ordering::Relaxed)
    }

    fn count_error(&self, source: Source) {
        self.errors[source as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn wanted(&self, source: Source) -> BTreeSet<Arc<str>> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().filter(|workload| workload.starts_with(source.prefix())).cloned().collect()
    }

    fn learn(&self, found: HashMap<Arc<str>, String>) {
        // In the order of `need`, so that neither waits for the other.
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.retain(|workload| !found.contains_key(workload));
        names.extend(found.into_iter().map(|(workload, name)| (workload, name.into())));
    }
}
