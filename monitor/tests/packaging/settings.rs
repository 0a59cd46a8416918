//! The configuration file that packages install: every option, and nothing but the defaults.

use std::{collections::BTreeSet, fs, path::Path};

use clap::CommandFactory as _;
use finwatch::{
    cli::args::{Cli, LogArgs, Options},
    config::Config,
};

use crate::{path, text};

const FILE: &str = "deploy/finwatch.toml";
/// Flags that stand in no file.
const FLAGS_ONLY: [&str; 3] = ["config", "help", "version"];
/// What is off unless it is given: shown in the text, as it has no default.
const WITHOUT_DEFAULT: [&str; 1] = ["incident-file"];

fn loaded(file: Option<&Path>) -> String {
    let config = Config::load(LogArgs::default(), Options::default(), file);
    format!("{:#?}", config.unwrap_or_else(|error| panic!("{error}")))
}

/// "key" of a line that begins with `#key = `.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix('#')?.split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-').then_some(key)
}

#[test]
fn as_it_is_installed_it_changes_nothing() {
    assert_eq!(loaded(Some(&path(FILE))), loaded(None));
}

#[test]
fn what_it_shows_are_the_defaults() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("finwatch.toml");
    let text = text(FILE);
    let shown = text.lines().map(|line| if key(line).is_some() { &line[1..] } else { line });
    let shown: String = shown.flat_map(|line| [line, "\n"]).collect();
    fs::write(&file, shown).expect("our own directory");
    assert_eq!(loaded(Some(&file)), loaded(None));
}

#[test]
fn it_shows_every_option() {
    let mut cli = Cli::command();
    cli.build();
    let run = cli.find_subcommand("run").expect("a subcommand");
    let options = run.get_arguments().filter_map(clap::Arg::get_long);
    let options: BTreeSet<&str> = options.filter(|name| !FLAGS_ONLY.contains(name)).collect();
    let text = text(FILE);
    let shown: Vec<&str> = text.lines().filter_map(key).chain(WITHOUT_DEFAULT).collect();
    assert_eq!(shown.iter().copied().collect::<BTreeSet<_>>(), options);
    assert_eq!(shown.len(), options.len(), "one of them stands there twice");
    for option in WITHOUT_DEFAULT {
        assert!(text.contains(&format!("#   {option} = ")), "{option}");
    }
}
