//! The dashboards against the types that Grafana publishes: no field that Grafana has not, no unit, no option, no kind of
//! panel.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::Tally;
use crate::{host, process, setup};

/// The types, as strict as they can be.
const TYPES: &str = include_str!("dashboard.ts");
/// What must be complained about.
const FAULTS: &str = include_str!("faults.ts");
const LIMIT: Duration = Duration::from_mins(5);
const FLAGS: [&str; 5] = ["--noEmit", "--strict", "--skipLibCheck", "--target=es2022", "--module=nodenext"];

/// Checks every dashboard, and that faults are found.
pub(super) fn run() -> Result<Tally> {
    let dir = setup::types::directory();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).with_context(|| name.to_owned());
    write("dashboard.ts", TYPES)?;
    write("faults.ts", FAULTS)?;
    let mut checked = 0;
    let mut files = vec!["faults.ts".to_owned()];
    for entry in fs::read_dir(host::root().join("dashboards")).context("dashboards/")? {
        let path = entry.context("dashboards/")?.path();
        let name = stem(&path)?;
        let json = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        // As a literal: only there the compiler objects to fields that the type has not.
        let text = format!(
            "import type {{ Dashboard }} from './dashboard';\nexport const file: Dashboard = {json};\n"
        );
        files.push(format!("{name}.ts"));
        write(&format!("{name}.ts"), &text)?;
        checked += 1;
    }
    ensure!(checked > 0, "no dashboard to check");
    let mut compiler = host::command("node");
    let flags = FLAGS.iter().flat_map(|flag| flag.split('='));
    compiler.arg("node_modules/typescript/bin/tsc").args(flags).args(files).current_dir(&dir);
    process::run("tsc", &mut compiler, LIMIT)?;
    println!("{checked} dashboards are what Grafana's types say");
    Ok(Tally { passed: checked, failed: 0, skipped: 0 })
}

fn stem(path: &Path) -> Result<String> {
    let stem = path.file_stem().with_context(|| format!("{} has no name", path.display()))?;
    Ok(stem.to_string_lossy().into_owned())
}
