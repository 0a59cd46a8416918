//! `headersTimeout` below `keepAliveTimeout`: older Node.js lines measure it from the end of the request before, and look at
//! it when a part of the next one's headers has come.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Times, losses};
use crate::{
    account::Account,
    daemon::watch::Watch,
    interrupt,
    setup::lab,
    traffic::{
        POOL, SETTLE, Stage,
        nginx::{Nginx, Pool},
        node::{IdleTimeout, Node, Server},
    },
};

/// 65, 40 and 60 s, divided by ten.
const KEEP_ALIVE: Duration = Duration::from_millis(6500);
const HEADERS: Duration = Duration::from_secs(4);
const POOL_TIME: Duration = Duration::from_secs(6);
/// Longer than the second and not as long as the others: no other timeout takes part. Older lines keep time in seconds.
const IDLE: Duration = Duration::from_millis(5100);
/// Connections of the client's pool, and how often all of it is used.
const CONNECTIONS: usize = 8;
const ROUNDS: u32 = 3;
/// Between the segments of a request's headers.
const BETWEEN: Duration = Duration::from_millis(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The older line, and headers in two segments.
pub(super) fn split(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let node = lab::older_node();
    ensure!(client(binary, account, Some(&node))? > 0, "no request was lost");
    Ok(())
}

/// The same with a Node.js in which that is mended.
pub(super) fn mended(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    client(binary, account, None).map(drop)
}

fn serve(program: Option<&Path>) -> Result<Node> {
    let more = format!("server.headersTimeout = {};", HEADERS.as_millis());
    Node::serve(&Server { program, more: &more, ..Server::obeying(KEEP_ALIVE) })
}

/// A client with a pool, which sends the headers of its requests in two segments; how many it got no answer to.
fn client(binary: &Path, account: &mut Account, program: Option<&Path>) -> Result<u64> {
    let node = serve(program)?;
    let watch = Watch::begin_at(binary, node.port())?;
    let mut failed = 0;
    for _ in 0..ROUNDS {
        let open = || {
            let stream = TcpStream::connect(node.address()).context("connecting to Node.js")?;
            stream.set_nodelay(true).context("TCP_NODELAY")?;
            stream.set_read_timeout(Some(PATIENCE)).context("a read timeout")?;
            Ok(stream)
        };
        let mut pool = (0..CONNECTIONS).map(|_| open()).collect::<Result<Vec<_>>>()?;
        ensure!(pool.iter_mut().all(ask), "Node.js did not answer on a new connection");
        interrupt::pause(IDLE)?;
        failed += pool.iter_mut().filter_map(|stream| (!ask(stream)).then_some(1)).sum::<u64>();
    }
    interrupt::pause(SETTLE)?;
    let verdict = watch.verdict_on(account, node.port())?;
    account.table(&["finwatch's counters", ""], verdict.failures(CLIENT)?);
    account.same("requests without an answer; the client's errors", verdict.failed(CLIENT)?, failed)?;
    let opened = verdict.count(CLIENT, "connections_opened_total", None)?;
    account.same("connections opened by the client; accepted by Node.js", opened, node.connections()?)?;
    Ok(failed)
}

/// What this process is called.
const CLIENT: &str = "xtask";

/// One request; whether it was answered.
fn ask(stream: &mut TcpStream) -> bool {
    let cookie = "c".repeat(200);
    let parts = ["GET /ok HTTP/1.1\r\nHost: localhost\r\n", &format!("Cookie: {cookie}\r\n\r\n")];
    let mut answer = Vec::new();
    let mut exchange = || -> std::io::Result<()> {
        stream.write_all(parts[0].as_bytes())?;
        thread::sleep(BETWEEN);
        stream.write_all(parts[1].as_bytes())?;
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"0\r\n\r\n") && !answer.ends_with(b"\r\n\r\nok\n") {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(())
    };
    exchange().is_ok()
}

/// The older line behind nginx, whose requests come in one segment each.
pub(super) fn nginx(binary: &Path, _: Times, account: &mut Account) -> Result<()> {
    let program = lab::older_node();
    let node = serve(Some(&program))?;
    let port = node.port();
    let nginx = Nginx::proxy(port, Pool::Kept { connections: POOL, timeout: POOL_TIME })?;
    let watch = Watch::begin_at(binary, port)?;
    let mut stage = Stage::of(node, IdleTimeout::of(IDLE), nginx);
    let seen = stage.play(Duration::from_mins(1), |burst, _| burst >= ROUNDS, |_, _| ())?;
    let verdict = watch.verdict_on(account, port)?;
    losses::compare(account, &verdict, &seen, [])?;
    let opened = verdict.count("nginx", "connections_opened_total", None)?;
    account.same("connections opened by nginx; accepted by Node.js", opened, stage.node().connections()?)
}
