//! `cargo test` as a step: its lines go to the terminal, its results are summed.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Tally, summary::note_failure};
use crate::{host, process, process::Running, unseen, vm::chosen::MACHINE};

/// The integration test that needs a kernel which may be traced.
pub(crate) const KERNEL: &str = "kernel";

/// What a `cargo test` came to.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    /// The names of the tests that failed.
    failed: Vec<String>,
    /// What each binary printed of them.
    told: Vec<String>,
}

impl Outcome {
    /// Takes in a line of what is printed; `telling` says whether failures are being told.
    fn read(&mut self, line: &str, telling: &mut bool) {
        if let Some(of_binary) = result(line) {
            self.tally = self.tally + of_binary;
            *telling = false;
        }
        self.failed.extend(failure(line));
        match self.told.last_mut().filter(|_| *telling) {
            Some(told) => {
                told.push_str(line);
                told.push('\n');
            }
            None if line == "failures:" => {
                *telling = true;
                self.told.push(String::new());
            }
            None => {}
        }
    }

    /// For the summary: what was printed of the tests that failed.
    fn noted(self) -> Tally {
        self.told.into_iter().for_each(note_failure);
        self.tally
    }
}

/// Runs a `cargo test` and sums what its binaries report; what fails without a failed test counts as one.
pub(crate) fn run(args: &[&str], limit: Duration) -> Result<Tally> {
    Ok(played(args, limit)?.noted())
}

fn played(args: &[&str], limit: Duration) -> Result<Outcome> {
    let mut command = host::cargo();
    let mut running = Running::spawn("cargo test", command.arg("test").args(args).stdout(Stdio::piped()))?;
    let out = running.child().stdout.take().context("the pipe was asked for")?;
    let summing = thread::spawn(move || {
        let (mut outcome, mut telling) = (Outcome::default(), false);
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            println!("{line}");
            outcome.read(&line, &mut telling);
        }
        outcome
    });
    let status = running.wait(limit)?;
    let mut outcome = summing.join().ok().context("reading what cargo test printed")?;
    if !status.success() && outcome.tally.failed == 0 {
        outcome.tally.failed = 1;
    }
    Ok(outcome)
}

/// Where kernel tests listen.
const TESTS_LISTEN_AT: std::ops::Range<u16> = 20_000..31_000;

/// Runs the kernel tests; those that fail while there were transitions of tests' sockets that nobody could see, once more: any of
/// them may have been of theirs.
pub(crate) fn run_kernel(limit: Duration) -> Result<Tally> {
    unseen::watch();
    let before = unseen::transitions().len();
    let args = ["--workspace", "--test", KERNEL, "--"];
    let outcome = played(&[&args[..], &["--skip", MACHINE]].concat(), limit)?;
    let (tally, failed) = (outcome.tally, &outcome.failed);
    let mut landed = unseen::transitions().split_off(before);
    landed.retain(|line| is_of_a_test(line));
    if landed.is_empty() || failed.is_empty() || failed.len() != tally.failed {
        return Ok(outcome.noted());
    }
    eprintln!("{failed:?} once more, since nobody could see:\n{}", landed.join("\n"));
    let failed: Vec<_> = failed.iter().map(String::as_str).collect();
    let again = run(&[&args[..], &["--exact"], &failed].concat(), limit)?;
    Ok(Tally { passed: tally.passed + again.passed, failed: again.failed, ..tally })
}

/// Whether a traced transition is of a socket at a port where tests listen.
fn is_of_a_test(line: &str) -> bool {
    let port = |word: &str| word.strip_prefix("sport=").or(word.strip_prefix("dport="))?.parse().ok();
    line.split(' ').filter_map(port).any(|port| TESTS_LISTEN_AT.contains(&port))
}

/// The name in `test faults::one ... FAILED`.
fn failure(line: &str) -> Option<String> {
    Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned())
}

/// The figures of `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
pub(crate) fn result(line: &str) -> Option<Tally> {
    let figures = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    let of = |name: &str| {
        let part = figures.split("; ").find_map(|part| part.strip_suffix(name))?;
        part.trim().parse().ok()
    };
    Some(Tally { passed: of(" passed")?, failed: of(" failed")?, skipped: of(" ignored")? })
}

/// Arguments for every unit and integration test but the kernel's.
pub(crate) fn without_kernel() -> Result<Vec<String>> {
    let metadata = process::output(host::cargo().args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: Value = serde_json::from_str(&metadata.context("cargo metadata failed")?)?;
    let mut args: Vec<String> = ["--workspace", "--lib", "--bins"].map(str::to_owned).into();
    for name in test_targets(&metadata).into_iter().filter(|name| name != KERNEL) {
        args.extend(["--test".to_owned(), name]);
    }
    Ok(args)
}

/// The names of the workspace's integration tests.
fn test_targets(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    });
    tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect()
}

/// The names of the kernel tests, without running them.
pub(crate) fn kernel_tests() -> Result<Vec<String>> {
    let mut list = host::cargo();
    list.args(["test", "--quiet", "--workspace", "--test", KERNEL, "--", "--list", "--format", "terse"]);
    let output = list.output().context("listing the kernel tests")?;
    ensure!(
        output.status.success(),
        "the kernel tests do not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let line =
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 4 filtered out; finished in 0.00s";
        assert_eq!(result(line), Some(Tally { passed: 12, failed: 0, skipped: 3 }));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(result(line), Some(Tally { passed: 1, failed: 2, skipped: 0 }));
        assert_eq!(result("test result_of_something ... ok"), None);
    }

    #[test]
    fn transitions_of_tests_are_told_by_their_ports() {
        assert!(is_of_a_test("inet_sock_set_state: sport=24003 dport=40122 saddr=127.0.0.1"));
        assert!(is_of_a_test("inet_sock_set_state: sport=40122 dport=30000 saddr=127.0.0.1"));
        assert!(!is_of_a_test("inet_sock_set_state: sport=40122 dport=80 saddr=127.0.0.1"));
    }

    #[test]
    fn failures_are_told_binary_by_binary() {
        let (mut outcome, mut telling) = (Outcome::default(), false);
        let printed = "test one ... FAILED\n\nfailures:\n\n---- one stdout ----\nwhy\n\nfailures:\n    one\n\n\
                       test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\ntest two ... ok\n";
        printed.lines().for_each(|line| outcome.read(line, &mut telling));
        assert_eq!(outcome.failed, ["one"]);
        assert_eq!(outcome.tally, Tally { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(outcome.told, ["\n---- one stdout ----\nwhy\n\nfailures:\n    one\n\n"]);
    }

    #[test]
    fn failures_are_named() {
        assert_eq!(failure("test faults::disk::full ... FAILED").as_deref(), Some("faults::disk::full"));
        assert_eq!(failure("test faults::disk::full ... ok"), None);
        assert_eq!(failure("test result: FAILED. 1 passed; 2 failed"), None);
    }

    #[test]
    fn integration_tests_are_found() {
        let metadata = serde_json::json!({"packages": [{"targets": [
            {"kind": ["bin"], "name": "finwatch"}, {"kind": ["test"], "name": "kernel"}, {"kind": ["test"], "name": "text"},
        ]}]});
        assert_eq!(test_targets(&metadata), ["kernel", "text"]);
    }
}
