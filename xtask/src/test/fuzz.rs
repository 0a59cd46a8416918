//! Every fuzz target, from the committed corpus on, with as many inputs as it is told here. The seed is always the
//! same, so that what fails fails again; `cargo fuzz run TARGET` searches for longer.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Tally, tell_failure};
use crate::{
    host,
    process::{self, Running},
};

/// Inputs for each target: two or three seconds of them each, on a quiet machine.
const RUNS: [(&str, u32); 9] = [
    ("api", 500),
    ("btf", 3_000),
    ("config", 3_000),
    ("http", 500),
    ("incidents", 3_000),
    ("labels", 200),
    ("netlink", 150),
    ("snapshots", 200),
    ("web_config", 3_000),
];
/// Building what the other tests have not.
const BUILD_LIMIT: Duration = Duration::from_mins(30);
/// One target, on a slow machine.
const LIMIT: Duration = Duration::from_mins(5);

/// Each target is one test.
pub(super) fn run() -> Result<Tally> {
    let mut build = host::cargo();
    build.args(["build", "--package", "finwatch-fuzz", "--features", "libfuzzer", "--bins"]);
    build.env("RUSTC_WORKSPACE_WRAPPER", host::root().join("fuzz/instrumented"));
    process::run("cargo build of the fuzz targets", &mut build, BUILD_LIMIT)?;
    let outcome = |(target, runs)| match play(target, runs) {
        Ok(()) => {
            println!("{target}: {runs} inputs");
            Tally::ONE_PASSED
        }
        Err(error) => {
            tell_failure(format!("{error:#}"));
            Tally::ONE_FAILED
        }
    };
    Ok(RUNS.into_iter().map(outcome).sum())
}

fn play(target: &str, runs: u32) -> Result<()> {
    let found = host::target().join("fuzz").join(target);
    // Empty, so that every run begins alike.
    if found.exists() {
        fs::remove_dir_all(&found)?;
    }
    fs::create_dir_all(&found)?;
    let mut command = host::command(host::target().join("debug").join(target));
    command.arg(format!("-runs={runs}")).args(["-seed=1", "-timeout=60", "-print_final_stats=1"]);
    command.arg(format!("-artifact_prefix={}/", found.display()));
    command.arg(&found).arg(host::root().join("fuzz/corpus").join(target));
    // What the parser of expositions says of infinities is of no interest.
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running::spawn(target, &mut command)?;
    let told = running.child().stderr.take().context("the pipe was asked for")?;
    let reading =
        thread::spawn(move || BufReader::new(told).lines().map_while(Result::ok).collect::<Vec<_>>());
    let status = running.wait(LIMIT)?;
    let told = reading.join().ok().context("reading what libFuzzer printed")?;
    let executed = told.iter().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executed = executed.and_then(|number| number.trim().parse().ok());
    ensure!(
        status.success() && executed >= Some(runs),
        "{target} fails ({status}):\n{}\nthe input is in {}; it belongs to fuzz/corpus/{target} once it is stood",
        told.join("\n"),
        found.display()
    );
    Ok(())
}
