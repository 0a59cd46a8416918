//! The Helm chart and the plain manifests, judged by Helm and by Kubernetes' schemas.

use std::time::Duration;

use anyhow::Result;

use super::Tally;
use crate::{host, process, setup::python};

const SCRIPT: &str = include_str!("chart.py");
const LIMIT: Duration = Duration::from_mins(5);

/// Lints, renders, validates and compares.
pub(super) fn run() -> Result<Tally> {
    if !python::has_helm() {
        eprintln!("  SKIPPED chart: Helm's library is not published for this architecture");
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    let mut judge = host::command(python::program("python3"));
    judge.args(["-c", SCRIPT]).arg(host::root().join("deploy/helm/finwatch"));
    process::run("chart.py", judge.arg(host::root().join("deploy/kubernetes")), LIMIT)?;
    Ok(Tally::ONE_PASSED)
}
