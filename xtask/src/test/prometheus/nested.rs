//! What makes the kernel skip runs of a program: packets sent on every processor are taken in on one of them, by softirqs
//! that land in what it does at that moment, as those of network cards do.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    host, process,
    traffic::{
        namespace::Namespace,
        node::{Node, Server},
    },
};

/// Receive packet steering: the processors that take packets in, as a mask. The first.
const STEERING: (&str, &str) = ("/sys/class/net/lo/queues/rx-0/rps_cpus", "1");
/// Clients that keep no connection.
const CLIENTS: [&str; 5] = ["-t2", "-c32", "-d10", "-H", "Connection: close"];
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long they may take.
const LIMIT: Duration = Duration::from_mins(1);

/// Connections to Node.js, as many as there can be.
pub(super) fn interrupts() -> Result<()> {
    let namespace = Namespace::alone("nested")?;
    namespace.set(STEERING.0, STEERING.1)?;
    let node = Node::serve(&Server { namespace: Some(&namespace), ..Server::obeying(KEEP_ALIVE) })?;
    let wrk = host::find_program("wrk").context("wrk is not installed: `cargo xtask setup --for test`")?;
    let mut wrk = namespace.command(wrk);
    wrk.args(CLIENTS).arg(format!("http://{}/ok", node.address())).stdout(Stdio::null());
    process::run("wrk", &mut wrk, LIMIT)
}
