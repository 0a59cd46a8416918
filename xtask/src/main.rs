//! Setting up, running, testing, packaging and measuring finwatch.

mod account;
mod archive;
mod bench;
mod daemon;
mod demo;
mod host;
mod interrupt;
mod lab;
mod package;
mod process;
mod prometheus;
mod run;
mod setup;
mod soak;
mod test;
#[path = "../../monitor/tests/kernel/harness/tracefs.rs"]
mod tracefs;
mod traffic;
#[path = "../../monitor/tests/kernel/harness/unseen.rs"]
mod unseen;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a program ended by SIGINT exits, by convention.
const INTERRUPTED: u8 = 130;

/// Sets up, runs, tests, packages and measures finwatch.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what building, testing or measuring needs and this host lacks
    Setup(setup::Args),
    /// Builds finwatch and runs it on this host, with a demo of what it finds
    Run(run::Args),
    /// Lets real nginx lose requests to real Node.js and shows what finwatch makes of it
    Demo,
    /// Passes all tests
    Test(test::Args),
    /// Reproduces what the field describes, and writes docs/lab.md
    Lab(lab::Args),
    /// Makes the Debian package, the tarball and the container image
    Package,
    /// Measures what finwatch costs
    Bench(bench::Args),
    /// Lets connections come and go for half an hour and compares every count with the load's own
    Soak(soak::Args),
    /// A process of `soak`'s
    #[command(hide = true)]
    SoakLoad(soak::load::Args),
    /// Runs the kernel tests on other kernels, each in a virtual machine
    Vm(vm::Args),
    /// The first process of a virtual machine of `vm`
    #[command(hide = true)]
    Guest,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = |()| ExitCode::SUCCESS;
    let outcome = interrupt::install().and_then(|()| match cli.task {
        Task::Setup(args) => setup::command(&args).map(done),
        Task::Run(args) => run::command(&args).map(done),
        Task::Demo => demo::command().map(done),
        Task::Test(args) => test::command(&args),
        Task::Lab(args) => lab::command(&args).map(done),
        Task::Package => package::command().map(done),
        Task::Bench(args) => bench::command(&args).map(done),
        Task::Soak(args) => soak::command(&args).map(done),
        Task::SoakLoad(args) => soak::load::command(&args).map(done),
        Task::Vm(args) => vm::command(&args),
        Task::Guest => vm::guest::main(),
    });
    match outcome {
        Ok(code) => code,
        Err(_) if interrupt::seen() => {
            eprintln!("interrupted: everything started has been ended");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
