//! `cargo xtask test`: every test, step by step, with a summary.

mod cargo;
mod chart;
mod dependencies;
mod docker;
pub(crate) mod findings;
mod fuzz;
pub(crate) mod leftovers;
mod nginx_node;
mod only;
mod package;
mod prometheus;
mod schema;
pub(crate) mod software;
mod summary;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

pub(crate) use self::{
    cargo::{KERNEL, kernel_tests, result},
    summary::{Tally, tell_failure},
};
use self::{leftovers::Host, only::Only, summary::Summary};
use crate::{
    bench,
    host::{self, Profile},
    interrupt, lab, process,
    setup::{self, Purpose},
    soak, vm,
};

const MINUTE: Duration = Duration::from_mins(1);

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A test that cannot run here is a failure; CI=true in the environment says the same
    #[arg(long)]
    ci: bool,
    /// Also play what takes too long for every change: a release runs this
    #[arg(long)]
    full: bool,
    /// Only the steps and scenarios whose names hold this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: Only,
}

/// `cargo xtask test`; its last line is the totals, also when it fails.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let ci = args.ci || env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    setup::ensure(if args.full { Purpose::FullTest } else { Purpose::Test })?;
    let before = Host::now();
    let only = &args.only;
    let full = args.full;
    let mut run = Run { summary: Summary::default(), ci, full: args.full, only: only.clone() };

    run.step("fmt", || one("cargo fmt", &["fmt", "--all", "--check"], MINUTE))?;
    run.step("clippy", || {
        let args = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        one("cargo clippy", &args, 30 * MINUTE)
    })?;
    run.step("unit tests", || {
        let args = cargo::without_kernel()?;
        cargo::run(&args.iter().map(String::as_str).collect::<Vec<_>>(), 30 * MINUTE)
    })?;
    run.step("doc tests", || cargo::run(&["--workspace", "--doc"], 10 * MINUTE))?;
    run.step("fuzz", fuzz::run)?;
    run.step("dependencies", || Ok(dependencies::run()))?;
    run.step("dashboards against Grafana's types", schema::run)?;
    run.step("Helm chart", chart::run)?;
    run.traced("kernel tests", kernel_tests, || cargo::run_kernel(30 * MINUTE))?;
    run.step("kernels", || vm::step(full))?;
    let scenarios = || Ok(nginx_node::SCENARIOS.map(str::to_owned).into());
    run.traced("nginx-node", scenarios, || nginx_node::run(&host::build_finwatch(Profile::Debug)?))?;
    run.played("findings: nginx and Node.js", &findings::scenarios(), |wanted| {
        findings::run(&host::build_finwatch(Profile::Debug)?, wanted)
    })?;
    run.played("findings: other software", &software::scenarios(), |wanted| {
        software::run(&host::build_finwatch(Profile::Debug)?, wanted)
    })?;
    run.played("lab", &lab::tested(), |wanted| lab::run(&host::build_finwatch(Profile::Debug)?, wanted))?;
    let checks = || Ok(prometheus::CHECKS.map(str::to_owned).into());
    run.traced("prometheus", checks, || prometheus::run(&host::build_finwatch(Profile::Debug)?, full))?;
    let smoke = || Ok(vec!["bench --smoke".to_owned()]);
    run.traced("bench smoke", smoke, || {
        bench::smoke(&host::build_finwatch(Profile::Debug)?, &[])?;
        Ok(Tally::ONE_PASSED)
    })?;
    let short = || Ok(vec!["soak".to_owned()]);
    run.traced("soak", short, || {
        soak::short(&host::build_finwatch(Profile::Debug)?)?;
        Ok(Tally::ONE_PASSED)
    })?;
    if run.full {
        let checks = || Ok(docker::CHECKS.map(str::to_owned).into());
        run.traced("Docker's names", checks, || docker::run(&host::build_finwatch(Profile::Debug)?))?;
        run.played("lab: a newer nginx", &lab::with_newer_nginx(), |wanted| {
            lab::run_with_newer_nginx(&host::build_finwatch(Profile::Debug)?, wanted)
        })?;
        run.played("package life cycle", &package::SCENARIOS, package::run)?;
    }
    run.step("nothing left behind", || before.nothing_new().map(|()| Tally::ONE_PASSED))?;

    if !run.full {
        println!("\nthe long steps were left out: --full plays them, too");
    }
    anyhow::ensure!(!run.summary.is_empty(), "no step and no scenario is named like \"{only}\"");
    let total = run.summary.print();
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A command that passes or fails as a whole.
fn one(name: &str, args: &[&str], limit: Duration) -> Result<Tally> {
    process::run(name, host::cargo().args(args), limit).map(|()| Tally::ONE_PASSED)
}

/// The steps so far.
struct Run {
    summary: Summary,
    ci: bool,
    /// Whether the long steps are played, too.
    full: bool,
    only: Only,
}

impl Run {
    /// Runs one step; its failure is noted, and the next one follows. Only a signal ends the run.
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<Tally>) -> Result<()> {
        if !self.only.wants(name) {
            return Ok(());
        }
        self.run(name, step)
    }

    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Tally>) -> Result<()> {
        println!("\n=== {name}");
        let start = Instant::now();
        let tally = step().unwrap_or_else(|error| {
            tell_failure(format!("{name}: {error:#}"));
            Tally::ONE_FAILED
        });
        interrupt::check()?;
        self.summary.add(name, tally, start.elapsed());
        Ok(())
    }

    /// A step of scenarios, each of which can be played by itself; it is handed those that are wanted.
    fn played(
        &mut self,
        name: &'static str,
        scenarios: &[&'static str],
        step: impl FnOnce(&[&'static str]) -> Result<Tally>,
    ) -> Result<()> {
        let wanted = self.only.among(name, scenarios);
        if wanted.is_empty() {
            return Ok(());
        }
        let list = || Ok(wanted.iter().map(|name| (*name).to_owned()).collect());
        self.excused(name, list, || step(&wanted))
    }

    /// A step that traces the kernel: where that is not allowed, its tests are named and counted as skipped.
    fn traced(
        &mut self,
        name: &'static str,
        list: impl FnOnce() -> Result<Vec<String>>,
        step: impl FnOnce() -> Result<Tally>,
    ) -> Result<()> {
        if !self.only.wants(name) {
            return Ok(());
        }
        self.excused(name, list, step)
    }

    fn excused(
        &mut self,
        name: &'static str,
        list: impl FnOnce() -> Result<Vec<String>>,
        step: impl FnOnce() -> Result<Tally>,
    ) -> Result<()> {
        let ci = self.ci;
        let strict = |tally: Tally| if ci { tally.without_excuses() } else { tally };
        let Some(missing) = cannot_trace() else { return self.run(name, || step().map(strict)) };
        self.run(name, || {
            let tests = list()?;
            eprintln!("SKIPPED: {} tests of \"{name}\" cannot run here: {missing}", tests.len());
            for test in &tests {
                eprintln!("  SKIPPED {test}");
            }
            Ok(strict(Tally { skipped: tests.len(), ..Tally::default() }))
        })
    }
}

/// Why tests that trace the kernel cannot run here.
fn cannot_trace() -> Option<&'static str> {
    if host::is_root() {
        host::missing_rights()
    } else {
        Some("they make network namespaces and load eBPF: run as root")
    }
}
