//! A network namespace of our own, with a loopback interface and one more address on it.

use std::{ffi::OsStr, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::host;

/// An address that is not of the loopback net: there the kernel uses ports in TIME_WAIT again after a second.
pub(crate) const ADDRESS: &str = "198.18.0.1";

/// A namespace; dropping it removes it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one with so many local ports.
    pub(crate) fn with_ports(ports: u16) -> Result<Self> {
        let namespace = Self { name: format!("finwatch-proof-{}", std::process::id()) };
        run(ip().args(["netns", "add", &namespace.name]))?;
        run(namespace.command("ip").args(["link", "set", "lo", "up"]))?;
        run(namespace.command("ip").args(["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]))?;
        let range = format!("{} {}", FIRST_PORT, FIRST_PORT + (ports - 1));
        let set = "echo \"$1\" > /proc/sys/net/ipv4/ip_local_port_range";
        run(namespace.command("sh").args(["-c", set, "sh", &range]))?;
        Ok(namespace)
    }

    /// A command within.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = ip();
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

/// Where the range begins.
const FIRST_PORT: u16 = 40_000;

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(ip().args(["netns", "delete", &self.name])) {
            eprintln!("network namespace {} stays: {error:#}", self.name);
        }
    }
}

fn ip() -> Command {
    host::command("ip")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("starting ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", crate::process::typed(command), said.trim());
    Ok(())
}
