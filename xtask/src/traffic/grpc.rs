//! A real gRPC server, and clients of it: those of grpcio.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

use super::{nginx::Nginx, proxy::Proxy, python::Python};
use crate::host;

const SERVER: &str = include_str!("grpc_server.py");
const CLIENT: &str = include_str!("grpc_client.py");
/// Clients, and how much longer than they call they may take.
const CHANNELS: u32 = 8;
const MARGIN: Duration = Duration::from_mins(1);

/// A gRPC server under way; dropping it ends it.
pub(crate) struct Grpc {
    server: Python,
}

/// What came of calls.
pub(crate) struct Calls {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

impl Grpc {
    /// One that says GOAWAY on connections of that age, and closes them when their calls are done, or after as long again.
    pub(crate) fn start(age: Duration) -> Result<Self> {
        let age = age.as_millis().to_string();
        Ok(Self { server: Python::server_with(SERVER, &[&age, &age])? })
    }

    /// Where it listens, on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// An nginx in front of it, which keeps connections for so long.
    pub(crate) fn nginx(&self, kept: Duration) -> Result<Nginx> {
        let mut proxy = Proxy::grpc(format!("127.0.0.1:{}", self.port()));
        proxy.upstream(&format!("keepalive 32; keepalive_timeout {}ms;", kept.as_millis()));
        Nginx::start(1, |port| Proxy::http(&[proxy.clone()], &format!("127.0.0.1:{port} http2"), false))
    }

    /// Calls from clients with a channel each, at that port for so long.
    pub(crate) fn call(port: u16, time: Duration) -> Result<Calls> {
        let arguments = [format!("127.0.0.1:{port}"), CHANNELS.to_string(), time.as_secs().to_string()];
        let arguments = arguments.each_ref().map(String::as_str);
        // `env` runs what follows it.
        let printed = Python::script(host::command("env"), CLIENT, &arguments)?.printed(time + MARGIN)?;
        let [answered, failed] = pair(&printed)?;
        Ok(Calls { answered, failed })
    }

    /// How many calls it has had, and on how many connections.
    pub(crate) fn told(&mut self) -> Result<[u64; 2]> {
        fs::write(self.server.path().join("tell"), "").context("asking the gRPC server")?;
        pair(&self.server.said(2)?[1])
    }
}

fn pair(printed: &str) -> Result<[u64; 2]> {
    let numbers = printed.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let numbers = numbers.with_context(|| format!("not two counts: {printed}"))?;
    numbers.try_into().ok().with_context(|| format!("not two counts: {printed}"))
}
