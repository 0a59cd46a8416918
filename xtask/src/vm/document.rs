//! docs/kernels.md: what each kernel offers, as `finwatch check` found it there, and which tests passed on it.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Outcome, chosen::CHECK};
use crate::host;

const INTRODUCTION: &str = "\
# Kernels

Written by `cargo xtask vm --all --document`, which boots the newest kernel of each Debian suite in a virtual machine, has
`finwatch check` tell what the kernel offers, and runs there the kernel tests that run on every host, with the same exact
counts. The same eBPF object is loaded everywhere. `cargo xtask test
--full` tests 5.10, 6.1, 6.12 and the newest so, by each sequence and what touches the kernel in a way of its own.
";

/// Writes it.
pub(super) fn write(outcomes: &[Outcome]) -> Result<()> {
    let path = host::root().join("docs/kernels.md");
    fs::write(&path, text(outcomes)?).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn text(outcomes: &[Outcome]) -> Result<String> {
    let mut text = INTRODUCTION.to_owned();
    let columns: Vec<Kernel> = outcomes.iter().map(Kernel::of).collect::<Result<_>>()?;
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let row = |first: &str, cell: &dyn Fn(&Kernel) -> String| {
        line(std::iter::once(first.to_owned()).chain(columns.iter().map(cell)).collect())
    };
    text += "\n";
    text += &row("", &|kernel| kernel.release.clone());
    text += &line(vec!["---".to_owned(); columns.len() + 1]);
    text += &row("Debian suite", &|kernel| kernel.suite.to_owned());
    let names: Vec<&String> = columns.iter().flat_map(|kernel| kernel.found.keys()).collect();
    let mut seen: Vec<&String> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    for name in &seen {
        text +=
            &row(name, &|kernel| kernel.found.get(*name).map_or("no".to_owned(), |found| found.0.clone()));
    }
    text += &row("tests passed", &|kernel| kernel.passed.to_string());
    let mut limits: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for kernel in &columns {
        for (name, (status, detail)) in &kernel.found {
            if status != "yes" {
                limits.entry(format!("{name}: {detail}")).or_default().push(&kernel.release);
            }
        }
    }
    if !limits.is_empty() {
        text += "\nWhat is partial:\n\n";
    }
    for (limit, kernels) in limits {
        writeln!(text, "- {limit} ({})", kernels.join(", ")).context("writing to a string")?;
    }
    Ok(text)
}

/// A column.
struct Kernel {
    release: String,
    suite: &'static str,
    /// By hook: whether it is there, and what `check` says about it.
    found: BTreeMap<String, (String, String)>,
    passed: usize,
}

impl Kernel {
    fn of(outcome: &Outcome) -> Result<Self> {
        let (_, printed) = outcome.report.step(CHECK);
        let check: Value = serde_json::from_str(printed)
            .with_context(|| format!("{}: `finwatch check --json` printed no JSON", outcome.name()))?;
        let mut found = BTreeMap::new();
        for row in check["checks"].as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let hook = text("what").strip_prefix("hook ").map(str::to_owned);
            let Some(name) = hook.map(|hook| format!("`{hook}`")).or_else(|| requests(&text("what"))) else {
                continue;
            };
            let status = match text("status").as_str() {
                "ok" => "yes",
                "degraded" => "partial",
                _ => "no",
            };
            found.insert(name, (status.to_owned(), text("detail")));
        }
        Ok(Self {
            release: outcome.report.release.clone().unwrap_or_default(),
            suite: outcome.suite,
            found,
            passed: outcome.tally.passed,
        })
    }
}

fn requests(what: &str) -> Option<String> {
    (what == "requests").then(|| "requests (`--requests`)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{test::Tally, vm::report::Report};

    #[test]
    fn limits_are_told_once_with_their_kernels() {
        let outcome = |release: &str, status: &str| Outcome {
            suite: "a",
            version: "1".to_owned(),
            tally: Tally { passed: 3, failed: 0, skipped: 0 },
            report: Report {
                release: Some(release.to_owned()),
                steps: vec![(
                    CHECK.to_owned(),
                    Some(0),
                    format!(
                        r#"{{"checks": [{{"what": "hook x", "status": "{status}", "detail": "half"}}]}}"#
                    ),
                )],
            },
            told: String::new(),
        };
        let text =
            text(&[outcome("5", "degraded"), outcome("6", "degraded"), outcome("7", "ok")]).expect("JSON");
        assert!(text.contains("| `x` | partial | partial | yes |\n"), "{text}");
        assert!(text.ends_with("- `x`: half (5, 6)\n"), "{text}");
        assert!(text.contains("| tests passed | 3 | 3 | 3 |\n"), "{text}");
    }
}
