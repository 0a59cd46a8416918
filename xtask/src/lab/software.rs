//! What takes part in a scenario, as it names its own version.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;

use crate::{
    host, process,
    setup::{lab, python},
    traffic::nginx,
};

/// A program or library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Software {
    Nginx,
    Node,
    OlderNode,
    Express,
    Fastify,
    HaProxy,
    Apache,
    PhpFpm,
    Gunicorn,
    Uvicorn,
    Grpcio,
    Nftables,
    Tomcat,
    Wrk,
}

impl Software {
    /// What it prints of its version; for a library what it was installed as.
    pub(super) fn version(self) -> String {
        let found = |name: &str| host::find_program(name).unwrap_or_else(|| name.into());
        match self {
            Self::Nginx => printed(&nginx::program().unwrap_or_default(), "-v"),
            Self::Node => format!("Node.js {}", printed(&found("node"), "--version")),
            Self::OlderNode => format!("Node.js {}", printed(&lab::older_node(), "--version")),
            Self::Express => library("express"),
            Self::Fastify => library("fastify"),
            Self::HaProxy => printed(&found("haproxy"), "-v"),
            Self::Apache => printed(&found("apache2"), "-v"),
            Self::PhpFpm => printed(&host::php_fpm().unwrap_or_default(), "-v"),
            Self::Gunicorn => printed(&python::program("gunicorn"), "--version"),
            Self::Uvicorn => printed(&python::program("uvicorn"), "--version"),
            Self::Grpcio => python_library("grpcio"),
            Self::Tomcat => debian("tomcat10-common"),
            Self::Wrk => printed(&found("wrk"), "--version"),
            Self::Nftables => printed(&found("nft"), "--version"),
        }
    }
}

/// The first line that the program prints.
fn printed(program: &Path, flag: &str) -> String {
    let output = host::command(program).arg(flag).stdin(Stdio::null()).output();
    let Ok(output) = output else { return format!("no {}", program.display()) };
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).lines().next().unwrap_or_default().trim().to_owned()
}

fn library(name: &str) -> String {
    let package = lab::directory().join("node_modules").join(name).join("package.json");
    let package = fs::read_to_string(package).unwrap_or_default();
    let package: Value = serde_json::from_str(&package).unwrap_or_default();
    format!("{name} {}", package["version"].as_str().unwrap_or("of no version"))
}

/// A library of Python's, as it names itself.
fn python_library(name: &str) -> String {
    let ask = format!("import importlib.metadata; print(importlib.metadata.version({name:?}))");
    let version = process::output(host::command(python::program("python3")).args(["-c", &ask]));
    format!("{name} {}", version.as_deref().unwrap_or("of no version"))
}

/// A package's version, where the program names none.
fn debian(package: &str) -> String {
    let version = process::output(host::command("dpkg-query").args(["--show", package]));
    version.unwrap_or_else(|| format!("no {package}")).replace('\t', " ")
}

/// The kernel's version; what follows it names a build, which nobody else has.
pub(super) fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim().split('-').next().unwrap_or_default())
}
