//! What the packages are made of is there, and has one version.

use std::collections::BTreeSet;

use clap::Parser as _;
use finwatch::cli::args::{Cli, Command};
use toml::Value;

use crate::{path, text};

fn package() -> Value {
    let manifest: Value = toml::from_str(&text("monitor/Cargo.toml")).expect("cargo reads it, too");
    manifest["package"]["metadata"]["deb"].clone()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|word| word.as_str().expect("text")).collect()
}

#[test]
fn the_debian_package_is_made_of_files_that_are_there() {
    let package = package();
    let mut installed = BTreeSet::new();
    for asset in package["assets"].as_array().expect("a list") {
        let [source, place, mode] = words(asset)[..] else { panic!("{asset}: source, place and mode") };
        assert!(["644", "755"].contains(&mode), "{asset}");
        if !source.contains("target/") {
            assert!(path("monitor").join(source).is_file(), "{source}");
        }
        let name = if place.ends_with('/') { source.rsplit('/').next().expect("a name") } else { "" };
        assert!(installed.insert(format!("/{place}{name}")), "{place}{name} comes twice");
    }
    for file in words(&package["conf-files"]) {
        assert!(installed.contains(file), "{file} is not installed");
    }
    let unit = &package["systemd-units"];
    let file = format!("{}.service", unit["unit-name"].as_str().expect("text"));
    assert!(path("monitor").join(unit["unit-scripts"].as_str().expect("text")).join(file).is_file());
}

#[test]
fn there_is_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = text("deploy/helm/finwatch/Chart.yaml");
    assert!(chart.contains(&format!("\nversion: {version}\n")), "{chart}");
    assert!(chart.contains(&format!("\nappVersion: \"{version}\"\n")), "{chart}");
    let compose = text("deploy/compose/compose.yaml");
    assert!(compose.contains(&format!("image: finwatch:${{FINWATCH_VERSION:-{version}}}")), "{compose}");
}

#[test]
fn the_manifests_start_it_with_flags_that_exist() {
    for manifest in ["finwatch", "finwatch-all-namespaces"] {
        let text = text(&format!("deploy/kubernetes/{manifest}.yaml"));
        let (_, rest) = text.split_once("args:\n").expect("arguments");
        let args = rest.lines().map_while(|line| line.trim().strip_prefix("- "));
        let cli = Cli::try_parse_from(["finwatch"].into_iter().chain(args));
        let Command::Run(run) = cli.unwrap_or_else(|error| panic!("{manifest}: {error}")).command else {
            panic!("{manifest} starts something else than the daemon");
        };
        assert_eq!(run.options.kubernetes, Some(true), "{manifest}");
        assert!(text.contains("name: NODE_NAME"), "{manifest}");
    }
}

#[test]
fn compose_mounts_what_is_there() {
    let compose = text("deploy/compose/compose.yaml");
    let mounts = compose.lines().filter_map(|line| line.trim().strip_prefix("- .")?.split_once(':'));
    let mounts: Vec<String> = mounts.map(|(mount, _)| format!("deploy/compose/.{mount}")).collect();
    assert_eq!(mounts.len(), 3, "{mounts:?}");
    for mount in mounts {
        assert!(path(&mount).exists(), "{mount}");
    }
}
