//! A process that never closes what its peers have closed.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::interrupt;
use crate::{account::Account, daemon::watch::Watch, traffic::python::Python};

/// What leaks.
const SERVER: &str = include_str!("leak.py");
/// Connections that leak.
const LEAKED: u64 = 14;
/// More than the age at which finwatch speaks of a leak and the age of what it has walked before.
const LONG: Duration = Duration::from_secs(68);

/// Clients ask, are answered and close; the server keeps their connections.
pub(super) fn never_closed(binary: &Path, account: &mut Account) -> Result<()> {
    let server = Python::server(SERVER)?;
    let watch = Watch::begin(binary)?;
    for _ in 0..LEAKED {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).context("connecting")?;
        client.write_all(b"ask").context("asking")?;
        client.read_exact(&mut [0; 3]).context("the answer")?;
    }
    interrupt::pause(Duration::from_secs(2))?;
    watch.verdict_on(account, server.port())?.no_trouble()?;
    interrupt::pause(LONG)?;
    let verdict = watch.verdict_on(account, server.port())?;
    let told = verdict.only_of_kind("close_wait_leak")?;
    told.says(&format!("python3 does not close {LEAKED} connections"))?;
    told.says(&format!("{LEAKED} sockets in CLOSE_WAIT, the oldest for "))?;
    told.says(&format!("process: {}", server.pid()))?;
    account.same("sockets in CLOSE_WAIT", verdict.accepted_in("close_wait"), LEAKED)
}
