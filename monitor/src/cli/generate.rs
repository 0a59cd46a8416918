//! `finwatch completions` and `finwatch man`: made from the definitions that parse the command line.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{args::Cli, ask::print};

/// Flags of `finwatch completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: Shell,
}

/// Flags of `finwatch man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write a page for finwatch and one for each subcommand into this directory. [default: print the main page]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the completions.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(args: CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "finwatch", &mut script);
    let script = String::from_utf8(script).context("the completions are no text")?;
    print(&script, ExitCode::SUCCESS)
}

/// Prints or writes the manual.
///
/// # Errors
/// When it cannot be written.
pub fn man(args: &ManArgs) -> Result<ExitCode> {
    let Some(dir) = &args.dir else {
        return print(&page(Cli::command())?, ExitCode::SUCCESS);
    };
    let mut command = Cli::command();
    // Gives subcommands the flags that are valid after each.
    command.build();
    let mut pages = vec![("finwatch.1".to_owned(), command.clone())];
    pages.extend(command.get_subcommands().filter(|command| command.get_name() != "help").map(|command| {
        let name = format!("finwatch-{}", command.get_name());
        (format!("{name}.1"), command.clone().display_name(name))
    }));
    for (file, command) in pages {
        let path = dir.join(file);
        fs::write(&path, page(command)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: clap::Command) -> Result<String> {
    let mut page = Vec::new();
    // The page's name is the command's whole one.
    let title = command.get_display_name().unwrap_or("finwatch").to_owned();
    Man::new(command).title(title).render(&mut page).context("the page cannot be written")?;
    String::from_utf8(page).context("the page is no text")
}
