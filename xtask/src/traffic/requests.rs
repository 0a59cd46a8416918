//! Requests as clients send them, each on a connection of its own, and what came of them.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::AddAssign,
    thread,
    time::Duration,
};

/// How long an answer may take, unless the client is one that leaves.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);

/// What clients got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Answers by their status.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Clients that left before an answer came.
    pub(crate) left: u64,
    /// Connections that failed.
    pub(crate) failed: u64,
}

impl Answers {
    /// Answers of that status.
    pub(crate) fn with(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// Answers of any status.
    pub(crate) fn all(&self) -> u64 {
        self.by_status.values().sum()
    }
}

impl AddAssign for Answers {
    fn add_assign(&mut self, more: Self) {
        for (status, count) in more.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
        self.left += more.left;
        self.failed += more.failed;
    }
}

/// One request for each path, all at once.
pub(crate) fn at_once(port: u16, paths: &[&str], patience: Duration) -> Answers {
    thread::scope(|scope| {
        let clients: Vec<_> =
            paths.iter().map(|path| scope.spawn(move || ask(port, &get(path), patience))).collect();
        let mut answers = Answers::default();
        for client in clients {
            answers += client.join().unwrap_or_default();
        }
        answers
    })
}

/// One POST with so large a body.
pub(crate) fn post(port: u16, path: &str, body: usize) -> Answers {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {body}\r\n\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + body, b'x');
    ask(port, &request, PATIENT)
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").into_bytes()
}

fn ask(port: u16, request: &[u8], patience: Duration) -> Answers {
    let mut answers = Answers::default();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let exchange = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    match exchange().map(|answer| status(&answer)) {
        Ok(Some(status)) => *answers.by_status.entry(status).or_default() += 1,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            answers.left += 1;
        }
        Ok(None) | Err(_) => answers.failed += 1,
    }
    answers
}

/// The status of an answer: `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}
