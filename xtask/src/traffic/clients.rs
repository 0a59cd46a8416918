//! Clients that send plain requests, at a pace and so many at once.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::interrupt;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);
/// What a body has where its length is no matter.
const SMALL: usize = 2;

/// Sends so many requests at once, each on a connection of its own, and reads every answer.
pub(crate) fn at_once(port: u16, path: &str, count: usize) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| post(port, path))).collect();
        let all = threads.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")));
        all.collect()
    })
}

/// Goes on with `send` at that pace until the moment has come.
pub(crate) fn until(end: Instant, pace: Duration, mut send: impl FnMut() -> Result<()>) -> Result<()> {
    let mut next = Instant::now();
    while next < end {
        interrupt::pause(next.saturating_duration_since(Instant::now()))?;
        send()?;
        next = Instant::now().max(next + pace);
    }
    interrupt::pause(end.saturating_duration_since(Instant::now()))
}

/// One request that nginx does not send a second time; its answer is dropped, nginx's logs are what counts.
pub(crate) fn post(port: u16, path: &str) -> Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to nginx")?;
    stream.set_read_timeout(Some(LIMIT)).context("a read timeout")?;
    ask(stream, path, SMALL)
}

/// The same over a Unix socket.
pub(crate) fn post_at(socket: &Path, path: &str) -> Result<()> {
    upload_at(socket, path, SMALL)
}

/// The same with a body of so many bytes.
pub(crate) fn upload_at(socket: &Path, path: &str, bytes: usize) -> Result<()> {
    let stream = UnixStream::connect(socket).context("connecting to nginx")?;
    stream.set_read_timeout(Some(LIMIT)).context("a read timeout")?;
    ask(stream, path, bytes)
}

fn ask(mut stream: impl Read + Write, path: &str, bytes: usize) -> Result<()> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n"
    );
    let request = [head.as_bytes(), &vec![b' '; bytes]].concat();
    stream.write_all(&request).context("asking nginx")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("nginx's answer")?;
    ensure!(answer.starts_with(b"HTTP/1.1 "), "nginx did not answer");
    Ok(())
}
