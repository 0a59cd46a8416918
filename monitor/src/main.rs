//! The `finwatch` command.

use std::process::ExitCode;

use clap::Parser as _;
use finwatch::cli::{
    args::{Cli, Command},
    check, generate, incidents, run, top, triage,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(cli.log, *args).map(|()| ExitCode::SUCCESS),
        Command::Triage(args) => triage::run(cli.log, &args),
        Command::Incidents(args) => incidents::run(cli.log, &args),
        Command::Top(args) => top::run(cli.log, &args),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(&args),
        Command::Check(args) => check::run(cli.log, &args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("finwatch: {error:#}");
        ExitCode::from(2)
    })
}
