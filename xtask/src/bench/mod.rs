//! `cargo xtask bench`: what finwatch costs where it costs most: a proxy that opens a connection for every request, and
//! a host with many sockets; and what following requests adds where connections are kept.

mod document;
mod load;
pub(crate) mod programs;
mod report;
mod tracer;
mod walk;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::{
    load::{Connections, Load},
    programs::Cost,
    report::Report,
    tracer::{Mode, Tracer, Usage},
};
use crate::{
    host::{self, Profile},
    setup::{self, Purpose},
};

/// Sockets that a smoke test walks over.
const SMOKE_SOCKETS: usize = 4_000;

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One short round, only to see that measuring works
    #[arg(long)]
    smoke: bool,
    /// Measure walks over the sockets only
    #[arg(long, conflicts_with_all = ["smoke", "write_docs"])]
    walk: bool,
    /// How long each measurement lasts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many rounds, each measuring every mode in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Also write the table, with what it was measured on, to docs/cost.md
    #[arg(long)]
    write_docs: bool,
}

/// One mode measured once.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    connections: Connections,
    mode: Mode,
    round: u32,
    requests_per_second: f64,
    /// Of the programs, with the kernel's statistics on; in a run of its own, since those cost something themselves.
    programs: Option<Cost>,
    tracer: Option<Usage>,
}

/// `cargo xtask bench`.
pub(crate) fn command(args: &Args) -> Result<()> {
    host::require_rights("bench")?;
    setup::ensure(if args.smoke { Purpose::Test } else { Purpose::Bench })?;
    let binary = host::build_finwatch(Profile::Release)?;
    if args.smoke {
        return smoke(&binary);
    }
    if args.walk {
        println!("\n{}", walk::table(&walk::measure(&binary, walk::MANY)?));
        return Ok(());
    }
    let report = measure(&binary, args.rounds, Duration::from_secs(args.seconds))?;
    let walks = walk::measure(&binary, walk::MANY)?;
    let path = host::target().join("bench.json");
    let all = serde_json::json!({ "load": report, "walks": walks });
    fs::write(&path, serde_json::to_string_pretty(&all)?)
        .with_context(|| format!("writing {}", path.display()))?;
    println!(
        "\n{}\n{}\n{}\n{}",
        report.table(),
        report.requests_table(),
        walk::table(&walks),
        path.display()
    );
    if args.write_docs {
        document::write(&report, &walk::table(&walks), args.rounds, args.seconds)?;
    }
    Ok(())
}

/// One round of two seconds: fails when a figure is missing, whatever its size.
pub(crate) fn smoke(binary: &Path) -> Result<()> {
    let report = measure(binary, 1, Duration::from_secs(2))?;
    let walks = walk::measure(binary, SMOKE_SOCKETS)?;
    println!("\n{}\n{}\n{}", report.table(), report.requests_table(), walk::table(&walks));
    walk::complete(&walks)?;
    report.complete()
}

fn measure(binary: &Path, rounds: u32, time: Duration) -> Result<Report> {
    let mut closed = vec![Mode::Untraced, Mode::Finwatch];
    if host::find_program("bpftrace").is_some() {
        closed.push(Mode::Bpftrace);
    }
    let kept = vec![Mode::Untraced, Mode::Finwatch, Mode::Requests, Mode::RequestsCoarse];
    let mut all = Vec::new();
    for (connections, mut modes) in [(Connections::Closed, closed), (Connections::Kept, kept)] {
        let load = Load::start(connections)?;
        for round in 0..rounds {
            for &mode in &modes {
                let measured = one(&load, connections, mode, round, binary, time)?;
                let rate = measured.requests_per_second;
                println!("{connections:?}, round {}: {mode:?}: {rate:.0} requests/s", round + 1);
                all.push(measured);
            }
            // Nothing is always first.
            modes.rotate_left(1);
        }
    }
    Ok(Report::new(all))
}

fn one(
    load: &Load,
    connections: Connections,
    mode: Mode,
    round: u32,
    binary: &Path,
    time: Duration,
) -> Result<Measured> {
    let Some(tracer) = Tracer::start(mode, binary)? else {
        let requests_per_second = load.run(time)?.per_second;
        return Ok(Measured { connections, mode, round, requests_per_second, programs: None, tracer: None });
    };
    let (served, usage) = tracer.usage(|| load.run(time))?;
    let requests_per_second = served.per_second;
    // Half as long: an average over some ten thousand runs either way.
    let programs = programs::cost(tracer.pid(), || load.run(time.div_f64(2.0)))?;
    Ok(Measured {
        connections,
        mode,
        round,
        requests_per_second,
        programs: Some(programs),
        tracer: Some(usage),
    })
}
