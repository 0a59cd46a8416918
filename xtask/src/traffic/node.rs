//! The upstream: a real Node.js server, and how long it really keeps an idle connection.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::namespace::Namespace;
use crate::{daemon::metrics, host, interrupt, process::Running, setup::lab};

/// An upstream as they are in practice.
const SERVER: &str = include_str!("server.js");
/// The same with frameworks.
const EXPRESS: &str = include_str!("express.js");
const FASTIFY: &str = include_str!("fastify.js");
/// With TLS, and with HTTP/2.
const TLS: &str = include_str!("tls.js");
const H2: &str = include_str!("h2.js");
/// One that does what the path asks for.
const BEHAVIOURS: &str = include_str!("behaviours.js");
/// A client that does what it is asked for.
const AGENT: &str = include_str!("agent.js");
/// How long Node.js may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How much longer than the timeout asked for an idle connection may last: Node.js adds a second from version 20 on.
const MARGIN: Duration = Duration::from_secs(5);
/// Connections measured, started at different phases of the server's busy loop.
const SAMPLES: u32 = 8;
const STAGGER: Duration = Duration::from_millis(13);

/// What a Node.js server is to be.
#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    /// The Node.js that runs it, if not the host's.
    pub(crate) program: Option<&'a Path>,
    /// The program.
    pub(crate) script: &'static str,
    /// Lines of the program after the server's creation.
    pub(crate) more: &'a str,
    /// Its `keepAliveTimeout`.
    pub(crate) keep_alive: Duration,
    /// Where it listens; a port of 0 is any.
    pub(crate) address: &'a str,
    /// See `address`.
    pub(crate) port: u16,
    /// Processes that answer, beside one that hands out connections; 0 for one process in all.
    pub(crate) workers: u32,
    /// Where it runs, if not beside us.
    pub(crate) namespace: Option<&'a Namespace>,
}

impl Server<'_> {
    /// One that closes idle connections, and whose event loop is blocked at times.
    pub(crate) const fn busy(keep_alive: Duration) -> Self {
        Self {
            program: None,
            script: SERVER,
            more: "",
            keep_alive,
            address: "127.0.0.1",
            port: 0,
            workers: 0,
            namespace: None,
        }
    }

    /// The same with Express.
    pub(crate) const fn express(keep_alive: Duration) -> Self {
        Self { script: EXPRESS, ..Self::busy(keep_alive) }
    }

    /// The same with Fastify.
    pub(crate) const fn fastify(keep_alive: Duration) -> Self {
        Self { script: FASTIFY, ..Self::busy(keep_alive) }
    }

    /// The same by TLS; `more` hands it key and certificate.
    pub(crate) const fn tls(keep_alive: Duration) -> Self {
        Self { script: TLS, ..Self::busy(keep_alive) }
    }

    /// One that speaks HTTP/2; see h2.js.
    pub(crate) const fn h2(keep_alive: Duration) -> Self {
        Self { script: H2, ..Self::busy(keep_alive) }
    }

    /// A client with a pool of so many connections; see agent.js.
    pub(crate) const fn agent(limit: u32) -> Self {
        Self { script: AGENT, workers: limit, ..Self::busy(Duration::ZERO) }
    }

    /// One that does what the path asks for; see behaviours.js.
    pub(crate) const fn obeying(keep_alive: Duration) -> Self {
        Self { script: BEHAVIOURS, ..Self::busy(keep_alive) }
    }
}

/// A Node.js server under way; dropping it ends it.
pub(crate) struct Node {
    running: Running,
    keep_alive: Duration,
    address: String,
    port: u16,
    _dir: TempDir,
}

/// How long idle connections lasted. On a busy machine the shortest may be too short, since the answer before it was read late, and
/// the longest too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleTimeout {
    pub(crate) shortest: Duration,
    /// Half of them no longer.
    pub(crate) median: Duration,
    pub(crate) longest: Duration,
}

impl IdleTimeout {
    /// One that is known.
    pub(crate) const fn of(time: Duration) -> Self {
        Self { shortest: time, median: time, longest: time }
    }
}

impl Node {
    /// Starts a busy server with that keepAliveTimeout.
    pub(crate) fn start(keep_alive: Duration) -> Result<Self> {
        Self::serve(&Server::busy(keep_alive))
    }

    /// Starts a server.
    pub(crate) fn serve(server: &Server<'_>) -> Result<Self> {
        let node = server.program.map(Path::to_owned).or_else(|| host::find_program("node"));
        let node = node.context("node is not on PATH: `cargo xtask setup --for demo`")?;
        let dir =
            tempfile::Builder::new().prefix("finwatch-node-").tempdir().context("a directory for Node.js")?;
        let (script, out) = (dir.path().join("server.js"), dir.path().join("out"));
        let source = format!("{}\n{}\n", server.script, server.more);
        fs::write(&script, source).context("writing server.js")?;
        let log = File::create(&out).context("the server's output")?;
        let mut command =
            server.namespace.map_or_else(|| host::command(&node), |within| within.command(&node));
        command.arg(&script).env("KEEP_ALIVE_MS", server.keep_alive.as_millis().to_string());
        command.env("ADDRESS", server.address).env("PORT", server.port.to_string());
        command.env("NODE_PATH", lab::directory().join("node_modules"));
        command.env("WORKERS", server.workers.to_string());
        command.stdout(log.try_clone().context("the server's output")?).stderr(log);
        let mut running = Running::spawn("node", &mut command)?;
        let said = || fs::read_to_string(&out).unwrap_or_default();
        let port = interrupt::poll(START_LIMIT, || {
            if let Some(status) = running.ended()? {
                bail!("node ended ({status}): {}", said());
            }
            let said = said();
            said.ends_with('\n').then(|| said.trim().parse().with_context(|| said.clone())).transpose()
        })?;
        let port = port.context("the Node.js server did not listen in time")?;
        Ok(Self {
            running,
            keep_alive: server.keep_alive,
            address: server.address.to_owned(),
            port,
            _dir: dir,
        })
    }

    /// See `address`.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.id()
    }

    /// Where it listens, as finwatch names it.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Fails once the server is gone.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.ended()? {
            Some(status) => bail!("the Node.js server ended ({status})"),
            None => Ok(()),
        }
    }

    /// How many connections it has accepted, this question's not counted.
    pub(crate) fn connections(&self) -> Result<u64> {
        let answer = metrics::get(&format!("http://{}/connections", self.address()))?;
        answer.trim().parse().with_context(|| format!("no count: {answer}"))
    }

    /// Opens connections, asks once on each and waits for the server to close them.
    pub(crate) fn measure_idle_timeout(&self) -> Result<IdleTimeout> {
        measure_idle_timeout((&self.address, self.port), self.keep_alive + MARGIN)
    }
}

/// The same of any server.
pub(crate) fn measure_idle_timeout(address: (&str, u16), limit: Duration) -> Result<IdleTimeout> {
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = (0..SAMPLES)
            .map(|sample| {
                scope.spawn(move || {
                    interrupt::pause(STAGGER * sample)?;
                    idle_time(address, limit)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a measuring thread panicked")))
            .collect::<Result<_>>()
    })?;
    times.sort();
    match times[..] {
        [shortest, .., longest] => Ok(IdleTimeout { shortest, median: times[times.len() / 2], longest }),
        _ => bail!("nothing measured"),
    }
}

/// From the end of one answer to the server's FIN.
fn idle_time(address: (&str, u16), limit: Duration) -> Result<Duration> {
    let mut stream = TcpStream::connect(address).context("connecting to the server")?;
    stream.set_read_timeout(Some(limit)).context("a read timeout")?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").context("asking the server")?;
    let mut buffer = [0; 4096];
    let mut last = None;
    loop {
        let read = stream.read(&mut buffer).with_context(|| {
            format!("the server had not closed an idle connection after {} s", limit.as_secs())
        })?;
        match (read, last) {
            (0, Some(last)) => return Ok(Instant::duration_since(&Instant::now(), last)),
            (0, None) => bail!("the server closed without an answer"),
            _ => {
                ensure!(buffer.starts_with(b"HTTP/1.1 200") || last.is_some(), "the server refused");
                last = Some(Instant::now());
            }
        }
    }
}
