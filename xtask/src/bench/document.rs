//! docs/cost.md: the benchmark's table with what it was measured on.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::{report::Report, tracer::COUNTING};
use crate::host;

/// Writes the document.
pub(crate) fn write(report: &Report, walks: &str, rounds: u32, seconds: u64) -> Result<()> {
    let path = host::root().join("docs/cost.md");
    let machine = machine();
    let (table, requests) = (report.table(), report.requests_table());
    let text = format!(
        "# What it costs\n\n\
         Written by `cargo xtask bench --rounds {rounds} --seconds {seconds} --write-docs`: nginx proxying to nginx \
         without keep-alive, on loopback, under\n`wrk -c32 -t2`. Every request opens and closes a connection, the most \
         that can be asked of finwatch; with keep-alive it has next to nothing to do.\n{rounds} rounds of {seconds} s \
         in turns; each figure is a median, with the least and the largest. BPF time is the kernel's own statistics, \
         taken in runs\nof their own. The last row is the least that can be counted at every state change, for \
         comparison:\n\n    bpftrace -e '{COUNTING}'\n\nMeasured on {machine}.\n\n{table}\n## Following requests\n\n\
         The same with keep-alive on both ends, where finwatch without `--requests` has next to nothing to do. Each \
         request is one send and one receive on either end of\neither hop, and receives that find nothing: \
         BPF runs per request tells how many of these calls a program saw.\n\n{requests}\n\
         ## A walk over the sockets\n\n\
         What is there now is read from the kernel's tables, at most once in `--snapshot-age` (5 s) and only while somebody \
         asks. Half of the sockets\nare established, half in TIME_WAIT, in a network namespace of their own. The empty \
         iterator is a program that returns at once: what\nthe kernel itself takes to go over them, and the least that any \
         walk can cost. What finwatch adds is one look into a large table per\nsocket (the connection's record, or the \
         closed connection's), whose cost is the memory's. The daemon's memory does not depend on\nthe number of \
         sockets.\n\n{walks}"
    );
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Processor, kernel and versions.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let models = info.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let models: Vec<&str> = models.map(|(_, model)| model.trim()).collect();
    let release = read("/proc/sys/kernel/osrelease");
    // What follows the version names a build, which nobody else has.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    format!(
        "{} x {}, Linux {}, {}, {}",
        models.len(),
        models.first().unwrap_or(&"unknown processor"),
        kernel,
        version("nginx", "-v"),
        version("bpftrace", "--version"),
    )
}

/// The first line a program prints about itself.
fn version(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let Ok(output) = output else { return format!("no {program}") };
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).lines().next().unwrap_or(program).to_owned()
}
