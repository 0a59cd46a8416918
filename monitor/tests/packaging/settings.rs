//! The configuration file that packages install: every option, and nothing but the defaults.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, path::Path};

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
const WITHOUT_DEFAULT: [&str; 6] =
    ["incident-file", "kubernetes-api", "kubernetes-ca", "kubernetes-token", "node-name", "web-config"];

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

#[test]
fn what_it_gives_as_examples_can_be_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("finwatch.toml");
    let text = text(FILE);
    let shown = text.lines().map(|line| line.strip_prefix("#   ").unwrap_or(line));
    fs::write(&file, shown.flat_map(|line| [line, "\n"]).collect::<String>()).expect("our own directory");
    let config = Config::load(LogArgs::default(), Options::default(), Some(&file));
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address").to_ipv6_mapped();
    assert_eq!(config.names.upstream(address("10.0.0.5"), 8080), Some("checkout"));
    assert_eq!(config.names.proxy(address("10.2.3.4")), Some("edge"));
}
