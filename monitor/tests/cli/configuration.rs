//! docs/configuration.md: every flag and every key of the configuration file, from the types that parse them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::Path,
};

use clap::{Arg, Command, CommandFactory as _};
use finwatch::cli::args::{Cli, Options};

const INTRODUCTION: &str = "\
# Flags and configuration

`finwatch run --config FILE` reads a TOML file. Its keys are the names of the flags of `finwatch run` without the dashes before
them; what may be repeated is a list; flags win over the file; a key that is not known is refused. Nothing is required. A text
stands in quotes, a whole number does not.

This file is generated: `UPDATE_DOCS=1 cargo test -p finwatch --test cli configuration` writes it, the same test checks it.

    listen = \"0.0.0.0:9778\"
    max-pairs = 8192
    include-port = [80, 443]
    web-config = \"/etc/finwatch/web.yml\"

    [names.upstreams]
    \"10.0.0.5:8080\" = \"checkout\"
    \"10.0.1.0/24\" = \"search\"

    [names.proxies]
    \"10.2.0.0/16\" = \"edge\"

## Names

Only the file gives names. `[names.upstreams]` names accepting ends: an address with a port, an address, or a network.
`[names.proxies]` names addresses that connect to this host, and networks of them. The most specific entry decides, an address
with its port before all others. A name has 1 to 64 bytes and replaces the address in the labels `upstream` and `proxy`, in
`triage`, `top` and `incidents`; pairs that print the same then are added up. `ephemeral_ports_*` go on to tell addresses, since
ports are held toward these. A proxy outside of `--proxy-ranges` is `external`, whatever its address.

With `--kubernetes` the workload of a pod is `namespace/pod/container`. In a pod it takes a service account that may `list`
`pods` in the whole cluster, and `NODE_NAME` in the environment (`fieldRef: spec.nodeName`); elsewhere `--kubernetes-api`,
`--kubernetes-token`, `--kubernetes-ca` and `--node-name`. The server is asked when a container shows that has no name yet, for this
node's pods only. Containers of Docker and Podman are `container/name` where `--docker-socket` is there and may be used. What has no
name is shown by its id; requests that failed count in `finwatch_workload_name_errors_total`.

Names and the contents of the web config ([web-config.md](web-config.md)) are read again on SIGHUP, all or nothing:
`finwatch_config_last_reload_successful` is 0 while what was read last was refused and what was before is in force. Every other
change takes effect at the next start.
";

/// The keys that the file's type knows, as its own refusal of any other lists them.
fn keys() -> BTreeSet<String> {
    let refusal = toml::from_str::<Options>("no-such-key = 1").expect_err("there is none");
    let (_, known) = refusal.message().split_once("expected one of ").expect("a list of keys");
    known.split(", ").map(|key| key.trim_matches('`').to_owned()).collect()
}

fn flags(command: &Command) -> Vec<&Arg> {
    command
        .get_arguments()
        .filter(|flag| flag.get_long().is_some_and(|long| !["help", "version"].contains(&long)))
        .collect()
}

fn name(flag: &Arg) -> &str {
    flag.get_long().expect("only those with a long name are asked for")
}

/// One line for a cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}

fn row(flag: &Arg) -> String {
    let takes_value = flag.get_action().takes_values();
    let value = flag.get_value_names().filter(|_| takes_value).unwrap_or_default();
    let value = value.iter().fold(name(flag).to_owned(), |told, value| told + " " + value);
    let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string).unwrap_or_default();
    let (help, default) = help.split_once("[default: ").unwrap_or((&help, ""));
    let values = flag.get_possible_values();
    let values: Vec<String> = values
        .iter()
        .filter(|_| takes_value)
        .map(|value| {
            let help = value.get_help().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("`{}`{help}", value.get_name())
        })
        .collect();
    let values = if values.is_empty() { String::new() } else { format!(" Values: {}.", values.join(", ")) };
    let what = cell(&format!("{help}{values}"));
    format!("| `--{value}` | {} | {what} |\n", cell(default.trim_end_matches(']')))
}

fn table(flags: &[&Arg]) -> String {
    let mut text = "\n| flag | default | what it does |\n|---|---|---|\n".to_owned();
    for flag in flags {
        text += &row(flag);
    }
    text
}

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut root = Cli::command();
    root.build();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "\n## finwatch {}\n\n{about}", command.get_name()).expect("a string");
        let mut sections: BTreeMap<&str, Vec<&Arg>> = BTreeMap::new();
        for flag in flags(command) {
            sections.entry(flag.get_help_heading().unwrap_or_default()).or_default().push(flag);
        }
        for (heading, flags) in &sections {
            if !heading.is_empty() {
                write!(text, "\n### {heading}\n").expect("a string");
            }
            text += &table(flags);
        }
    }
    text
}

#[test]
fn configuration_md_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let wanted = document();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).expect("docs/ is writable");
    }
    let have = fs::read_to_string(&path).unwrap_or_default();
    assert!(have == wanted, "docs/configuration.md is not what the types say; UPDATE_DOCS=1 rewrites it");
}

/// So the document, which lists flags, lists every key.
#[test]
fn configuration_keys_are_flags_and_names() {
    let mut root = Cli::command();
    root.build();
    let run = root.find_subcommand("run").expect("run");
    let mut told: BTreeSet<String> = flags(run).into_iter().map(|flag| name(flag).to_owned()).collect();
    assert!(told.remove("config"), "the file cannot name itself");
    told.insert("names".into());
    assert_eq!(keys(), told);
}
