//! What pairs print: names of addresses from the configuration, and of workloads from control groups.

use std::sync::{Arc, PoisonError, RwLock};

use finwatch_ebpf::wire::PairKey;

use crate::{
    cgroup::Workloads,
    containers::Containers,
    model::{
        names::Names,
        source::{NameSource, PairSource},
    },
};

/// Every name, as of the last refresh and the last reading of the configuration.
#[derive(Debug)]
pub struct Naming {
    workloads: Workloads,
    containers: Arc<Containers>,
    addresses: RwLock<Arc<Names>>,
}

impl Naming {
    /// With these names of addresses, and those of containers as they come.
    pub fn new(addresses: Names, containers: Arc<Containers>) -> Self {
        Self { workloads: Workloads::new(), containers, addresses: RwLock::new(Arc::new(addresses)) }
    }

    /// From now on addresses have these names.
    pub fn rename(&self, addresses: Names) {
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(addresses);
    }

    /// Names the workloads of what is new; to be called about once a second. Reads files.
    pub fn refresh(&self, pairs: &dyn PairSource, listeners: &[PairKey]) {
        self.workloads.refresh(pairs, listeners);
        self.containers.need(&self.workloads.known());
    }
}

impl NameSource for Naming {
    fn workload(&self, key: &PairKey, pid: u32) -> Arc<str> {
        self.containers.name(self.workloads.workload(key, pid))
    }

    fn addresses(&self) -> Arc<Names> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
