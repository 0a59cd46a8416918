//! SIGHUP: reads the configuration again.

use std::sync::Arc;

use anyhow::Result;
use tokio::{signal::unix::Signal, task::spawn_blocking};

use super::args::{LogArgs, RunArgs};
use crate::{config::Config, kernel::agent::Agent, naming::Naming, web::Web};

/// What may change while the daemon runs.
pub(super) struct Reloader {
    /// The flags, which go on to win over the file.
    pub(super) flags: (LogArgs, RunArgs),
    /// What the daemon began with.
    pub(super) config: Config,
    /// Takes TLS and passwords.
    pub(super) web: Arc<Web>,
    /// Takes names.
    pub(super) names: Arc<Naming>,
    /// Is told how it went.
    pub(super) agent: Arc<Agent>,
}

impl Reloader {
    /// Reads everything again at each signal, for ever.
    pub(super) async fn run(self, mut hangup: Signal) {
        let this = Arc::new(self);
        while hangup.recv().await.is_some() {
            let reloading = this.clone();
            let reloaded =
                spawn_blocking(move || reloading.reload()).await.unwrap_or_else(|error| Err(error.into()));
            this.agent.reloaded(reloaded.is_ok());
            match reloaded {
                Ok(()) => tracing::info!("the configuration was read again"),
                Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
            }
        }
        std::future::pending::<()>().await;
    }

    /// All of it or nothing: names change only where the web config could be used too.
    fn reload(&self) -> Result<()> {
        let (log, run) = self.flags.clone();
        let config = Config::load(log, run.options, run.config.as_deref())?;
        self.web.reload()?;
        self.names.rename(config.names.clone());
        if self.config.needs_restart(&config) {
            tracing::warn!(
                "the configuration changed in more than names; the rest takes effect at the next start"
            );
        }
        Ok(())
    }
}
