//! The agent's own state, as the exporter asks for it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    loader::{Kernel, closed_limit},
    programs::Programs,
};
use crate::{
    config::Config,
    containers::{Containers, Source},
    model::source::{AgentSource, AgentState, HookState},
    recorder::Recorder,
};

/// What is known when everything is attached, and the counts that grow afterwards.
#[derive(Debug)]
pub struct Agent {
    limits: AgentState,
    programs: Programs,
    pairs_expired: AtomicU64,
    config_ok: AtomicBool,
    recorder: Arc<Recorder>,
    asks_conntrack: bool,
    containers: Arc<Containers>,
}

impl Agent {
    /// The state of `kernel` under `config`.
    pub fn new(
        kernel: &Kernel,
        config: &Config,
        recorder: Arc<Recorder>,
        containers: Arc<Containers>,
    ) -> Arc<Self> {
        let hooks = kernel
            .hooks
            .iter()
            .map(|attached| HookState { hook: attached.hook.name.to_owned(), mode: attached.mode });
        Arc::new(Self {
            limits: AgentState {
                pairs_limit: config.max_pairs.into(),
                tracked_connections_limit: config.max_connections.into(),
                closed_connections_limit: closed_limit(config.max_connections),
                hooks: hooks.collect(),
                ..AgentState::default()
            },
            programs: Programs::of(&kernel.ebpf),
            pairs_expired: AtomicU64::new(0),
            config_ok: AtomicBool::new(true),
            recorder,
            asks_conntrack: config.conntrack,
            containers,
        })
    }

    /// Counts pairs that were dropped.
    pub fn expired(&self, pairs: u64) {
        self.pairs_expired.fetch_add(pairs, Ordering::Relaxed);
    }

    /// Notes whether the configuration was accepted when it was read again.
    pub fn reloaded(&self, accepted: bool) {
        self.config_ok.store(accepted, Ordering::Relaxed);
    }
}

impl AgentSource for Agent {
    fn state(&self) -> AgentState {
        AgentState {
            pairs_expired: self.pairs_expired.load(Ordering::Relaxed),
            name_errors: [Source::Docker, Source::Kubernetes]
                .map(|source| (source.name(), self.containers.errors(source))),
            incident_file_errors: self.recorder.file_errors(),
            lookups: if self.asks_conntrack { self.recorder.lookups().results().into() } else { Vec::new() },
            programs: self.programs.statistics(),
            config_ok: self.config_ok.load(Ordering::Relaxed),
            ..self.limits.clone()
        }
    }
}
