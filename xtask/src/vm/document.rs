//! docs/kernels.md: what each kernel offers, as `finwatch check` found it there.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Outcome, chosen::CHECK};
use crate::host;

const INTRODUCTION: &str = "\
# Kernels

What of each hook there is, as `finwatch check` found it on the newest kernel of each Debian suite, booted in a virtual machine.
Written by `cargo xtask vm --document`, never by hand. The same eBPF object is loaded everywhere, and a hook that is degraded shows in
`finwatch_hook_attached` and in `finwatch check` on every host. `cargo xtask test` runs the kernel tests on 5.10, 6.1, 6.12 and the newest
kernel, `cargo xtask vm --all` on all of these; they expect the exact counts of [sequences.md](sequences.md) on each. Where a test's
expectation differs by kernel, it is by what stands here.
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
    if columns.iter().all(|kernel| kernel.passed > 0) {
        text += &row("tests passed", &|kernel| kernel.passed.to_string());
    }
    let mut limits: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for kernel in &columns {
        for (name, (status, detail)) in &kernel.found {
            if status == DEGRADED {
                limits.entry(format!("{name}: {detail}")).or_default().push(&kernel.release);
            }
        }
    }
    if !limits.is_empty() {
        text += "\nWhat is lost where a hook is degraded:\n\n";
    }
    for (limit, kernels) in limits {
        writeln!(text, "- {limit} ({})", kernels.join(", ")).context("writing to a string")?;
    }
    Ok(text)
}

/// As `finwatch check` says it.
const DEGRADED: &str = "degraded";
const REQUESTS: &str = "requests, where asked for, by";

/// A column.
struct Kernel {
    release: String,
    suite: &'static str,
    /// How many tests have passed, beside `finwatch check`.
    passed: usize,
    /// By hook: whether it is there, and what `check` says about it.
    found: BTreeMap<String, (String, String)>,
}

impl Kernel {
    fn of(outcome: &Outcome) -> Result<Self> {
        let (_, printed) = outcome.report.step(CHECK);
        let check: Value = serde_json::from_str(printed)
            .with_context(|| format!("{}: `finwatch check --json` printed no JSON", outcome.name()))?;
        let mut found = BTreeMap::new();
        for row in check["checks"].as_array().into_iter().flatten() {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let (what, detail) = (text("what"), text("detail"));
            if let Some(hook) = what.strip_prefix("hook ") {
                let status = match text("status").as_str() {
                    "ok" => "yes",
                    "degraded" => DEGRADED,
                    _ => "no",
                };
                found.insert(format!("`{hook}`"), (status.to_owned(), detail));
            } else if what == "requests" {
                found.insert(REQUESTS.to_owned(), (followed_by(&detail), String::new()));
            }
        }
        let release = outcome.report.release.clone().unwrap_or_default();
        Ok(Self { release, suite: outcome.suite, passed: outcome.tally.passed.saturating_sub(1), found })
    }
}

/// The hooks that a detail such as `can be followed: one, another` ends with.
fn followed_by(detail: &str) -> String {
    let hooks = detail.rsplit(": ").next().unwrap_or_default().split(", ");
    hooks.map(|hook| format!("`{hook}`")).collect::<Vec<_>>().join(", ")
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
            tally: Tally { passed: 3, ..Tally::default() },
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
        assert!(text.contains("| `x` | degraded | degraded | yes |\n"), "{text}");
        assert!(text.contains("| tests passed | 2 | 2 | 2 |\n"), "{text}");
        assert!(text.ends_with("- `x`: half (5, 6)\n"), "{text}");
        assert_eq!(followed_by("can be followed: one, another"), "`one`, `another`");
    }
}
