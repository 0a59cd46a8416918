//! `cargo xtask bench`: what finwatch costs, beside what else watches the same events; how that grows; and what many hosts
//! cost a Prometheus.

mod agent;
mod contention;
mod crowd;
mod document;
mod empty;
mod figure;
mod fleet;
mod growth;
mod load;
mod measured;
mod network;
mod peers;
mod programs;
mod report;
mod sections;
pub(crate) mod tables;
mod targets;
mod tracer;
pub(crate) mod usage;
mod walk;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use self::sections::{Amounts, Results, Section};
use crate::{
    host::{self, Profile},
    process,
    setup::{self, Purpose},
};

/// What runs on the host, each once.
const ON_THE_HOST: [&str; 6] = ["test", "--quiet", "--package", "finwatch", "--bench", "host"];
/// How long building and running that may take.
const LIMIT: Duration = Duration::from_mins(15);

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One short round of everything, only to see that measuring works
    #[arg(long)]
    smoke: bool,
    /// Measure only this. Repeatable
    #[arg(long, value_enum, value_name = "WHAT")]
    only: Vec<Section>,
    /// How long each measurement under load lasts
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many rounds under load, each measuring every watcher in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Also write what was measured into docs/cost.md and docs/sizing.md
    #[arg(long, conflicts_with = "smoke")]
    write_docs: bool,
}

/// `cargo xtask bench`.
pub(crate) fn command(args: &Args) -> Result<()> {
    host::require_rights("bench")?;
    setup::ensure(if args.smoke { Purpose::Test } else { Purpose::Bench })?;
    if args.smoke {
        return smoke(&host::build_finwatch(Profile::Debug)?, &args.only);
    }
    let binary = host::build_finwatch(Profile::Release)?;
    let amounts = Amounts::full(args.rounds, Duration::from_secs(args.seconds));
    let results = Results::measure(&binary, &args.only, amounts)?;
    println!("\n{}", results.text());
    let path = host::target().join("bench.json");
    fs::write(&path, serde_json::to_string_pretty(&results)?)
        .with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    if args.write_docs { results.write() } else { Ok(()) }
}

/// One short round of everything, or of what is named: fails when a figure is missing, whatever its size.
pub(crate) fn smoke(binary: &Path, only: &[Section]) -> Result<()> {
    if only.is_empty() {
        process::run("the benchmarks on the host", host::cargo().args(ON_THE_HOST), LIMIT)?;
    }
    let results = Results::measure(binary, only, Amounts::SMOKE)?;
    println!("\n{}", results.text());
    results.complete()
}
