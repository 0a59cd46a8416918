//! What is still held once everything is attached: by this very process, and by the daemon where one runs.

use std::fs;

use caps::Capability;

use super::{Finding, Status};
use crate::{
    config::Config,
    kernel::{
        lock,
        rights::{self, Lasting},
    },
};

/// Gives up what a daemon would, and says what is left.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    // First, while its files can be read.
    let daemon = daemon(config);
    let name = "once attached";
    let own = match rights::give_up(Lasting::from(config)) {
        Ok(()) => Finding::new(name, Status::Ok, told(&rights::held_by(None).unwrap_or_default())),
        Err(error) => {
            Finding::new(name, Status::Degraded, format!("capabilities cannot be given up: {error}"))
        }
    };
    [own].into_iter().chain(daemon).collect()
}

/// What a daemon that runs holds; no row where none does.
fn daemon(config: &Config) -> Option<Finding> {
    let pid = lock::last_holder(&config.run_dir)?;
    let name = |process: &str| fs::read_to_string(format!("/proc/{process}/comm")).ok();
    // The file outlives its writer, and the number may have been given anew.
    if name(&pid.to_string())? != name("self")? {
        return None;
    }
    let held = rights::held_by(Some(pid))?;
    Some(Finding::new("daemon", Status::Ok, format!("pid {pid}: {}", told(&held))))
}

fn told(held: &[Capability]) -> String {
    if held.is_empty() {
        return "holds no capability".to_owned();
    }
    let names: Vec<String> = held.iter().map(ToString::to_string).collect();
    format!("holds {}", names.join(", "))
}
