//! `cargo xtask setup`: finds what is missing, says what will be installed and why, and installs only that.

mod apt;
pub(crate) mod lab;
pub(crate) mod newer_nginx;
mod npm;
pub(crate) mod python;
mod subcommand;
mod toolchain;
pub(crate) mod types;

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};
use clap::ValueEnum;

use self::{
    apt::Package,
    subcommand::{DEB, DENY, Subcommand},
    toolchain::{Linker, Toolchain},
};
use crate::{host, process, traffic::tomcat, vm::machine};

/// Compiling bpf-linker, on a slow machine.
const LINKER_LIMIT: Duration = Duration::from_mins(30);

/// Flags of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the pieces are for; each includes building
    #[arg(long = "for", value_enum, default_value_t = Purpose::Build)]
    purpose: Purpose,
    /// Say what is missing and install nothing
    #[arg(long)]
    dry_run: bool,
}

/// What the pieces are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// Building finwatch
    Build,
    /// The demo with nginx and Node.js
    Demo,
    /// Every test but the long ones
    Test,
    /// Every test, the long ones too
    FullTest,
    /// The lab, which has more than its tests
    Lab,
    /// The packages
    Package,
    /// The measurements
    Bench,
}

/// `cargo xtask setup`.
pub(crate) fn command(args: &Args) -> Result<()> {
    let plan = Plan::find(args.purpose)?;
    if plan.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    plan.tell();
    if args.dry_run { Ok(()) } else { plan.carry_out() }
}

/// Installs what is missing, silently when nothing is.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let plan = Plan::find(purpose)?;
    if plan.is_empty() {
        return Ok(());
    }
    plan.tell();
    plan.carry_out()
}

/// What is missing.
struct Plan {
    packages: Vec<Package>,
    linker: Option<Linker>,
    /// Cargo's subcommands.
    subcommands: Vec<Subcommand>,
    /// Programs in Python, which come after the packages.
    python: bool,
    /// What npm installs, which comes after them as well.
    projects: Vec<&'static npm::Project>,
}

impl Purpose {
    fn tests(self) -> bool {
        matches!(self, Self::Test | Self::FullTest | Self::Lab)
    }

    fn packages(self) -> bool {
        matches!(self, Self::Package | Self::FullTest)
    }
}

impl Plan {
    fn find(purpose: Purpose) -> Result<Self> {
        let mut packages = Vec::new();
        let toolchain = Toolchain::find();
        if host::find_program("cc").is_none() {
            packages.push(Package::new("gcc", "the linker, and the C parts of libraries"));
            packages.push(Package::new("libc6-dev", "the C library to link with"));
        }
        if toolchain.is_none() {
            packages.push(Package::new("rustc-web", "a Rust compiler for the eBPF half"));
            packages.push(Package::new("libstd-rust-web-dev-bpf", "Rust's core library for eBPF"));
        }
        let mut program = |program: &str, package: &'static str, why: &'static str| {
            if host::find_program(program).is_none() {
                packages.push(Package::new(package, why));
            }
        };
        if !matches!(purpose, Purpose::Build | Purpose::Package) {
            program(
                "nginx",
                "nginx-light",
                "the proxy of demo and tests; its service is neither started nor enabled",
            );
            program("node", "nodejs", "the upstream of demo and tests");
            program("ip", "iproute2", "network namespaces for tests");
        }
        if purpose.tests() {
            program("tmux", "tmux", "the terminal in which `finwatch top` is tested");
            program("groff", "groff-base", "reads the manual pages");
            program("c++", "g++", "compiles libFuzzer, which makes up input for everything that reads any");
        }
        if purpose.tests() || purpose == Purpose::Bench {
            program("wrk", "wrk", "load for the measurements");
            program(
                "prometheus",
                "prometheus",
                "reads agents, evaluates dashboards and rules; its service is neither started nor enabled",
            );
        }
        if purpose.tests() {
            program("systemd-analyze", "systemd", "verifies the unit");
            program(
                "haproxy",
                "haproxy",
                "another proxy of tests; its service is neither started nor enabled",
            );
            program("apache2", "apache2-bin", "an upstream of the lab; the package has no service");
            program("curl", "curl", "a client of the HTTPS port");
            program("nft", "nftables", "a firewall that drops in silence, in a test's network namespace");
            program("ss", "iproute2", "what finwatch's queues are compared with");
            program(machine::QEMU, "qemu-system-x86", "boots other kernels, emulating a processor for each");
            program("xz", "xz-utils", "unpacks their modules");
            program("npm", "npm", "fetches what Grafana and the Prometheus operator publish as types");
        }
        if purpose.packages() {
            program("buildah", "buildah", "builds the container image without a daemon");
        }
        if purpose.packages() || purpose.tests() {
            program("strip", "binutils", "takes debugging symbols out of the binary");
        }
        if purpose == Purpose::FullTest {
            program("mmdebstrap", "mmdebstrap", "makes a Debian in which the package is installed");
            program("systemd-nspawn", "systemd-container", "boots it");
            program("lintian", "lintian", "judges the package");
            program(
                "dockerd",
                "docker.io",
                "starts a container that finwatch names; its service is neither started nor enabled",
            );
            program("docker-compose", "docker-compose", "judges the compose file; nothing is started");
        }
        if purpose == Purpose::Bench {
            program("bpftrace", "bpftrace", "what finwatch's cost is compared with");
            program("tcplife", "libbpf-tools", "the same: tcplife and tcpstates");
        }
        if purpose.tests() && host::php_fpm().is_none() {
            packages.push(Package::new(
                "php-fpm",
                "an upstream of the lab; its service is neither started nor enabled",
            ));
        }
        if purpose == Purpose::Lab && !tomcat::installed() {
            packages
                .push(Package::new("tomcat10-user", "an upstream of the lab; the package has no service"));
        }
        if purpose.tests() && !python::makes_environments() {
            packages.push(Package::new("python3-venv", "room for the Python servers of tests"));
        }
        if !packages.is_empty() && !apt::available() {
            bail!("{}", by_hand(&packages));
        }
        let linker = host::find_program("bpf-linker").is_none().then(|| Linker::fitting(toolchain));
        let python = purpose.tests() && !python::installed();
        let subcommands =
            purpose.packages().then_some(DEB).into_iter().chain(purpose.tests().then_some(DENY));
        let subcommands = subcommands.filter(|subcommand| !subcommand.is_installed()).collect();
        let mut projects = if purpose.tests() { vec![&types::TYPES, &lab::UPSTREAMS] } else { Vec::new() };
        projects.retain(|project| !project.installed());
        Ok(Self { packages, linker, subcommands, python, projects })
    }

    fn is_empty(&self) -> bool {
        let Self { packages, linker, subcommands, python, projects } = self;
        packages.is_empty() && linker.is_none() && subcommands.is_empty() && !python && projects.is_empty()
    }

    fn tell(&self) {
        println!("missing here, and to be installed:");
        for package in &self.packages {
            println!("  {:<24} {} (apt)", package.name, package.why);
        }
        if let Some(linker) = &self.linker {
            println!("  {:<24} links eBPF programs ({})", "bpf-linker", linker.how());
        }
        for subcommand in &self.subcommands {
            println!("  {:<24} {} (cargo install)", subcommand.package, subcommand.why);
        }
        if self.python {
            let dir = python::environment();
            println!("  {:<24} servers of tests (pip, in {})", "gunicorn, uvicorn, grpcio", dir.display());
            println!("  {:<24} judge the Helm chart (pip, there too)", "Helm, Kubernetes' schemas");
        }
        for project in &self.projects {
            let dir = project.directory();
            println!("  {:<24} {} (npm, in {})", project.name, project.why, dir.display());
        }
    }

    fn carry_out(&self) -> Result<()> {
        if !self.packages.is_empty() {
            apt::install(&self.packages)?;
        }
        if let Some(linker) = &self.linker {
            let mut install: Command = linker.install()?;
            println!("{}", process::typed(&install));
            process::run("cargo install bpf-linker", &mut install, LINKER_LIMIT)?;
        }
        for subcommand in &self.subcommands {
            subcommand.install()?;
        }
        if self.python {
            python::install()?;
        }
        for project in &self.projects {
            project.install()?;
        }
        Ok(())
    }
}

/// The sentence for a system without apt.
fn by_hand(packages: &[Package]) -> String {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let mut sentence = format!(
        "this system has no apt-get, so setup cannot install what is missing here (by Debian's names): {}",
        names.join(", ")
    );
    if names.contains(&"rustc-web") {
        sentence.push_str(
            "; for eBPF use either a rustup nightly (rustup toolchain install nightly --component rust-src, then \
             cargo install bpf-linker), or a Debian with rustc-web and libstd-rust-web-dev-bpf",
        );
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_both_ways() {
        let sentence = by_hand(&[Package::new("rustc-web", "")]);
        assert!(sentence.contains("nightly") && sentence.contains("libstd-rust-web-dev-bpf"), "{sentence}");
        assert!(!by_hand(&[Package::new("wrk", "")]).contains("nightly"));
    }
}
