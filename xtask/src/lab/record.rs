//! Results, kept as JSON under docs/lab, so that a run of some scenarios leaves those of the others.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    scenario::{Run, Scenario},
    software::kernel,
};
use crate::{account::Account, host, process};

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) date: String,
    /// As the programs print it.
    pub(super) software: Vec<String>,
    /// How long it took.
    pub(super) seconds: u64,
    pub(super) account: Account,
}

impl Record {
    /// A run that just ended.
    pub(super) fn new(scenario: &Scenario, seconds: u64, account: Account) -> Result<Self> {
        let date = process::output(host::command("date").args(["-u", "+%F"])).context("date does not run")?;
        let versions = scenario.software.iter().map(|software| software.version());
        Ok(Self { date, software: versions.chain([kernel()]).collect(), seconds, account })
    }

    /// The last one of that scenario, played that way.
    pub(super) fn read(scenario: &Scenario, run: Run) -> Result<Option<Self>> {
        let path = path(scenario, run);
        let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
        serde_json::from_str(&text).map(Some).with_context(|| format!("reading {}", path.display()))
    }

    /// Takes the place of the last one.
    pub(super) fn write(&self, scenario: &Scenario, run: Run) -> Result<()> {
        let path = path(scenario, run);
        fs::create_dir_all(directory()).context("making docs/lab")?;
        let text = serde_json::to_string_pretty(self).context("a record as JSON")? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn directory() -> PathBuf {
    host::root().join("docs/lab")
}

fn path(scenario: &Scenario, run: Run) -> PathBuf {
    let suffix = match run {
        Run::Scaled => "json",
        Run::Real => "real.json",
        Run::NewerNginx => "newer-nginx.json",
    };
    directory().join(format!("{}.{suffix}", scenario.name))
}
