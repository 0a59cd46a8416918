//! What deploy/ hands to the agent: flags that exist, and the capabilities it asks for.

use std::{collections::BTreeSet, fs};

use clap::Parser as _;
use finwatch::{
    cli::args::{Cli, Command, LogArgs, Options},
    config::Config,
    kernel::rights,
};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/finwatch.service");

fn unit() -> String {
    fs::read_to_string(UNIT).expect("deploy/systemd/finwatch.service")
}

/// What a setting is set to, each time it is.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    let assignment = |line: &'a str| line.split_once('=').filter(|(name, _)| *name == setting);
    unit.lines().filter_map(|line| Some(assignment(line)?.1.trim())).collect()
}

#[test]
fn commands_of_the_unit_can_be_run() {
    let unit = unit();
    // Those that its comments suggest, too.
    let suggested = unit.lines().filter_map(|line| line.strip_prefix("#   ExecStart=/"));
    let commands: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/")).collect();
    assert_eq!(commands.len(), 1);
    for command in commands.into_iter().chain(suggested) {
        let words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words[0], "usr/bin/finwatch");
        let parsed = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(matches!(parsed.command, Command::Run(_)), "{command}");
    }
}

#[test]
fn the_unit_grants_what_is_needed_and_no_more() {
    let unit = unit();
    let needed: BTreeSet<String> =
        rights::NEEDED.map(|(capability, _)| capability.to_string()).into_iter().collect();
    for setting in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        let values = values(&unit, setting);
        let granted: BTreeSet<String> =
            values.iter().flat_map(|value| value.split_whitespace()).map(str::to_owned).collect();
        assert_eq!(granted, needed, "{setting}");
    }
}

#[test]
fn the_unit_makes_the_run_directory() {
    let unit = unit();
    let config = Config::load(LogArgs::default(), Options::default(), None).expect("the defaults are valid");
    let directories = values(&unit, "RuntimeDirectory");
    assert_eq!(directories.len(), 1);
    assert_eq!(config.run_dir.strip_prefix("/run").expect("below /run").to_str(), Some(directories[0]));
    assert_eq!(values(&unit, "Type"), ["notify"], "`finwatch run` tells when it is ready");
}
