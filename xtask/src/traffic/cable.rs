//! Two network namespaces with a cable between them, and a firewall at one end of it.

use std::{process::Command, time::Duration};

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

    /// From now on a firewall at the server's end tracks connections, and forgets those that are quiet for so long.
    pub(crate) fn firewall(&self, forgets: Duration, unknown: Unknown) -> Result<()> {
        let verdict = match unknown {
            Unknown::Dropped => "drop",
            Unknown::Reset => "reject with tcp reset",
        };
        let rules = format!(
            "table inet firewall {{\nchain arriving {{\ntype filter hook input priority 0;\n\
             ct state established accept\ntcp flags & (syn | ack) == syn accept\nmeta l4proto tcp {verdict}\n}}\n}}"
        );
        // The settings are there once the rules are; without the second a segment would begin a connection anew.
        let settings = format!(
            "cd /proc/sys/net/netfilter && echo {} >nf_conntrack_tcp_timeout_established && echo 0 >nf_conntrack_tcp_loose",
            forgets.as_secs()
        );
        for command in [["nft", &rules].as_slice(), &["sh", "-c", &settings]] {
            let status = self.at_server().args(command).status().context("ip of iproute2")?;
            ensure!(status.success(), "{}: {status}", command.join(" "));
        }
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
