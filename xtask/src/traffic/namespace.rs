//! A network namespace of our own, on its own or with a link to us.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    nginx::Nginx,
    node::{Node, Server},
    proxy::Proxy,
};
use crate::{host, process::typed};

/// An address within that is not of the loopback net, where the kernel uses ports in TIME_WAIT again after a second.
pub(crate) const WITHIN: &str = "198.18.0.1";
/// This host's own address toward a namespace that is beside us.
pub(crate) const HERE: &str = "198.18.0.2";
/// Where a range of local ports begins.
const FIRST_PORT: u16 = 40_000;
/// Longer than any traffic here: the upstream closes no idle connection.
const LONG: Duration = Duration::from_mins(2);
/// How many there were: tells those of one process apart.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A namespace; dropping it removes it, and the link to it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// One on its own, for a guest.
    pub(crate) fn for_guest() -> Result<Self> {
        Self::new("guest")
    }

    /// Where it can be entered.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// Does something within, on a thread of its own.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let namespace =
                    File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), network)
                    .context("entering a network namespace")?;
                act()
            });
            thread.join().map_err(|_| anyhow!("what was done in namespace {} panicked", self.name))?
        })
    }

    /// Within, Node.js at this port of [`WITHIN`] and nginx that closes after each exchange, so that each leaves a local
    /// port in TIME_WAIT.
    pub(crate) fn unkept(&self, port: u16) -> Result<(Node, Nginx)> {
        let address = WITHIN;
        let server = Server { address, port, namespace: Some(self), ..Server::obeying(LONG) };
        let node = Node::serve(&server)?;
        let mut proxy = Proxy::to(node.address());
        // Without Connection: close nginx is the one that closes.
        proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
        let nginx = Nginx::in_namespace(self, &[proxy])?;
        Ok((node, nginx))
    }

    /// One on its own that has [`WITHIN`]; `what` tells namespaces that exist at the same time apart.
    pub(crate) fn alone(what: &str) -> Result<Self> {
        let namespace = Self::new(what)?;
        namespace.ip(&["address", "add", &format!("{WITHIN}/32"), "dev", "lo"])?;
        Ok(namespace)
    }

    /// One on its own with so many local ports.
    pub(crate) fn with_ports(ports: u16) -> Result<Self> {
        let namespace = Self::alone("ports")?;
        let range = format!("{FIRST_PORT} {}", FIRST_PORT + (ports - 1));
        namespace.set("/proc/sys/net/ipv4/ip_local_port_range", &range)?;
        Ok(namespace)
    }

    /// Lays a link to a network where nobody is; returns an address in it.
    pub(crate) fn link_to_nobody(&self) -> Result<&'static str> {
        self.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "far"])?;
        self.ip(&["address", "add", "198.18.1.1/24", "dev", "eth0"])?;
        self.ip(&["link", "set", "far", "up"])?;
        self.ip(&["link", "set", "eth0", "up"])?;
        Ok("198.18.1.9")
    }

    /// Writes a setting of the namespace's own.
    pub(crate) fn set(&self, path: &str, value: &str) -> Result<()> {
        run(self.command("sh").args(["-c", "echo \"$1\" > \"$2\"", "sh", value, path]))
    }

    /// From now on a firewall applies this rule to what arrives, as nftables has it.
    pub(crate) fn firewall(&self, rule: &str) -> Result<()> {
        let table = format!(
            "table inet firewall {{\nchain arriving {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}"
        );
        run(self.command("nft").arg(table))
    }

    /// One that reaches [`HERE`] over a link.
    pub(crate) fn beside_us() -> Result<Self> {
        let namespace = Self::new("beside")?;
        let link = format!("finwatch{}", process::id() % 1_000_000);
        let peer = ["peer", "name", "eth0", "netns", &namespace.name];
        run(ip().args(["link", "add", &link, "type", "veth"]).args(peer))?;
        run(ip().args(["address", "add", &format!("{HERE}/32"), "peer", WITHIN, "dev", &link]))?;
        run(ip().args(["link", "set", &link, "up"]))?;
        namespace.ip(&["address", "add", &format!("{WITHIN}/32"), "peer", HERE, "dev", "eth0"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        Ok(namespace)
    }

    fn new(what: &str) -> Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("finwatch-{what}-{}-{number}", process::id());
        run(ip().args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        run(self.command("ip").args(args))
    }

    /// A file of /proc/net, as it is within.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let path = format!("/proc/thread-self/net/{name}");
        self.within(|| fs::read_to_string(&path).with_context(|| format!("reading {path}")))
    }

    /// A command within.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = ip();
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

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
    ensure!(output.status.success(), "{}: {}", typed(command), said.trim());
    Ok(())
}
