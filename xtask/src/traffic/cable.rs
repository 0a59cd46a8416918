//! Two network namespaces with a cable between them, and a firewall at one end of it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::host;

/// A client's and a server's namespace; dropping it deletes both.
pub(crate) struct Cable {
    client: String,
    server: String,
}

/// What the firewall does to what it does not know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unknown {
    /// It drops it in silence.
    Dropped,
    /// It answers with a reset.
    Reset,
}

impl Cable {
    /// Lays it; `name` tells namespaces that exist at the same time apart.
    pub(crate) fn lay(name: &str) -> Result<Self> {
        let [client, server] = ["c", "s"].map(|end| format!("fw-{name}-{}-{end}", std::process::id()));
        let cable = Self { client, server };
        let Self { client, server } = &cable;
        for command in [
            format!("netns add {client}"),
            format!("netns add {server}"),
            format!("-n {client} link add veth0 type veth peer name veth0 netns {server}"),
            format!("-n {client} addr add 10.77.0.1/24 dev veth0"),
            format!("-n {server} addr add 10.77.0.2/24 dev veth0"),
            format!("-n {client} link set veth0 up"),
            format!("-n {server} link set veth0 up"),
        ] {
            let status = host::command("ip").args(command.split(' ')).status().context("ip of iproute2")?;
            ensure!(status.success(), "ip {command}: {status}");
        }
        Ok(cable)
    }

    /// The server's address.
    pub(crate) const fn server_address() -> &'static str {
        "10.77.0.2"
    }

    /// A command that runs what follows it at the client's end.
    pub(crate) fn at_client(&self) -> Command {
        inside(&self.client)
    }

    /// A command that runs what follows it at the server's end.
    pub(crate) fn at_server(&self) -> Command {
        inside(&self.server)
    }

    /// From now on the firewall at the server's end knows nothing of connections from these ports.
    pub(crate) fn forget(&self, ports: &[u16], unknown: Unknown, dir: &Path) -> Result<()> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let verdict = match unknown {
            Unknown::Dropped => "drop",
            Unknown::Reset => "reject with tcp reset",
        };
        let rules = dir.join("firewall");
        let text = format!(
            "table inet firewall {{ chain arriving {{ type filter hook input priority 0;
                tcp sport {{ {} }} {verdict}
            }}
            }}",
            ports.join(", ")
        );
        fs::write(&rules, text).context("writing the firewall's rules")?;
        let status =
            self.at_server().args(["nft", "--file"]).arg(rules).status().context("nft of nftables")?;
        ensure!(status.success(), "nft: {status}");
        Ok(())
    }
}

fn inside(namespace: &str) -> Command {
    let mut command = host::command("ip");
    command.args(["netns", "exec", namespace]);
    command
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            // Where one was never made there is nothing to delete.
            drop(host::command("ip").args(["netns", "delete", namespace]).status());
        }
    }
}
