//! The Helm chart and the plain manifests, judged by Helm, by Kubernetes' schemas and by those of the Prometheus operator.

mod monitors;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

use super::Tally;
use crate::{host, process, setup, setup::python};

const SCRIPT: &str = include_str!("chart.py");
const LIMIT: Duration = Duration::from_mins(5);

/// Lints, renders, validates and compares.
pub(super) fn run() -> Result<Tally> {
    if !python::has_helm() {
        eprintln!("  SKIPPED chart: Helm's library is not published for this architecture");
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    let rendered = setup::types::directory().join("monitors.json");
    let mut judge = host::command(python::program("python3"));
    judge.args(["-c", SCRIPT]).arg(host::root().join("deploy/helm/finwatch"));
    process::run("chart.py", judge.arg(host::root().join("deploy/kubernetes")).arg(&rendered), LIMIT)?;
    monitors::judge(&fs::read_to_string(rendered).context("the monitors")?)?;
    Ok(Tally::ONE_PASSED)
}
