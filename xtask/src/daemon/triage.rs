//! What `finwatch triage` says about a daemon of our own.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::host;

/// The answer to `finwatch triage --json`.
pub(crate) struct Triage {
    /// Whether the exit status says that something is wrong.
    pub(crate) trouble: bool,
    /// The findings, worst first.
    pub(crate) findings: Vec<Value>,
    /// What they rest on.
    pub(crate) observation: Value,
}

impl Triage {
    /// Asks the daemon in `run_dir` about the time since.
    pub(crate) fn ask(binary: &Path, run_dir: &Path, since: Duration) -> Result<Self> {
        let since = format!("{}s", since.as_secs().max(1));
        let mut command = host::command(binary);
        command.args(["triage", "--json", "--since", &since, "--run-dir"]).arg(run_dir);
        let output = command.output().context("starting finwatch triage")?;
        let trouble = match output.status.code() {
            Some(0) => false,
            Some(1) => true,
            _ => bail!("finwatch triage: {}", String::from_utf8_lossy(&output.stderr).trim()),
        };
        let mut printed: Value =
            serde_json::from_slice(&output.stdout).context("finwatch triage prints JSON")?;
        let findings = serde_json::from_value(printed["findings"].take()).context("its findings")?;
        Ok(Self { trouble, findings, observation: printed["observation"].take() })
    }

    /// The findings whose subject names this upstream.
    pub(crate) fn about(&self, upstream: &str) -> impl Iterator<Item = &Value> {
        self.findings.iter().filter(move |finding| finding["subject"]["upstream"] == upstream)
    }
}

/// Whether the finding is about something wrong.
pub(crate) fn is_trouble(finding: &Value) -> bool {
    finding["harm"]["class"] != "informative"
}

/// Whether it is about what another client of the upstream does than `proxy`: the one that measures when the upstream closes
/// lets it close, which triage tells of.
pub(crate) fn is_of_other_client(finding: &Value, proxy: &str) -> bool {
    finding["subject"]["side"] == "proxy" && finding["subject"]["proxy"] != proxy
}
