//! What the chart renders for the Prometheus operator, judged by what the operator publishes: by its types, so that there
//! is no field that it has not, and by the rules for values.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{host, process, setup};

/// Each object by the rules; faults must be refused.
const RULES: &str = include_str!("monitors.mjs");
/// What the compiler must complain about.
const FAULTS: &str = include_str!("faults.ts");
const KINDS: [&str; 2] = ["PodMonitor", "ServiceMonitor"];
const COMPILE: [&str; 8] = [
    "node_modules/typescript/bin/tsc",
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "--target",
    "es2022",
    "--module",
    "nodenext",
];
const LIMIT: Duration = Duration::from_mins(5);

/// Judges them, a list in JSON.
pub(super) fn judge(rendered: &str) -> Result<()> {
    let dir = setup::types::directory();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).with_context(|| name.to_owned());
    let objects: Vec<Value> = serde_json::from_str(rendered).context("a list of objects")?;
    let mut types = String::new();
    for kind in KINDS {
        writeln!(
            types,
            "import type {{ I{kind} }} from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/{kind}';"
        )?;
        let of_kind = objects.iter().filter(|object| object["kind"] == kind);
        ensure!(of_kind.clone().next().is_some(), "no {kind} is rendered");
        // As literals: only there the compiler objects to fields that the type has not.
        for (number, object) in of_kind.enumerate() {
            writeln!(types, "export const rendered{kind}{number}: I{kind} = {object};")?;
        }
    }
    write("monitors.ts", &types)?;
    write("monitor-faults.ts", FAULTS)?;
    write("monitors.mjs", RULES)?;
    let mut compiler = host::command("node");
    compiler.args(COMPILE).args(["monitors.ts", "monitor-faults.ts"]).current_dir(&dir);
    process::run("tsc", &mut compiler, LIMIT)?;
    process::run("monitors.mjs", host::command("node").arg("monitors.mjs").current_dir(&dir), LIMIT)?;
    println!("{} monitors are what the Prometheus operator's types and rules say", objects.len());
    Ok(())
}
