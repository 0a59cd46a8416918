//! What nginx's own logs say happened.

use std::collections::BTreeMap;

/// How nginx words a failed attempt on an upstream connection; each attempt logs exactly one of these lines, the ones it
/// retries included.
const FAILURES: [&str; 8] = [
    "upstream prematurely closed connection while reading response header",
    "recv() failed",
    "readv() failed",
    "writev() failed",
    "send() failed",
    "connect() failed",
    // This one names the address: no local port is left, for instance.
    "connect() to ",
    "upstream timed out",
];

/// The access log, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Requests answered.
    pub(crate) all: u64,
    /// Those answered 502.
    pub(crate) bad_gateway: u64,
}

impl Answers {
    /// Counts lines that begin with the status.
    pub(crate) fn count(access_log: &str) -> Self {
        access_log.lines().fold(Self::default(), |count, line| Self {
            all: count.all + 1,
            bad_gateway: count.bad_gateway + u64::from(line.starts_with("502 ")),
        })
    }
}

/// The error log, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Failed attempts on upstream connections, by nginx's words.
    pub(crate) by_message: BTreeMap<&'static str, u64>,
    /// The same by the kernel's error number, where nginx tells one.
    pub(crate) by_errno: BTreeMap<i32, u64>,
    /// Errors that say something else.
    pub(crate) unknown: Vec<String>,
}

impl Failures {
    /// Counts one line per failed attempt.
    pub(crate) fn count(error_log: &str) -> Self {
        let mut count = Self::default();
        for line in error_log.lines() {
            let message = FAILURES.into_iter().find(|message| line.contains(message));
            match message.filter(|_| line.contains(", upstream: \"")) {
                Some(message) => {
                    *count.by_message.entry(message).or_default() += 1;
                    if let Some(number) = errno(line) {
                        *count.by_errno.entry(number).or_default() += 1;
                    }
                }
                None if is_error(line) => count.unknown.push(line.to_owned()),
                None => {}
            }
        }
        count
    }

    /// The same of one upstream's address: lines about others do not count.
    pub(crate) fn toward(error_log: &str, upstream: &str) -> Self {
        let ours =
            |line: &&str| !line.contains(", upstream: \"") || line.contains(&format!("://{upstream}/"));
        Self::count(&error_log.lines().filter(ours).collect::<Vec<_>>().join("\n"))
    }

    /// How many attempts failed.
    pub(crate) fn all(&self) -> u64 {
        self.by_message.values().sum()
    }
}

/// The number in `recv() failed (104: Connection reset by peer) while`.
fn errno(line: &str) -> Option<i32> {
    line.split('(').find_map(|part| part.split_once(": ")?.0.parse().ok())
}

fn is_error(line: &str) -> bool {
    ["[error]", "[crit]", "[alert]", "[emerg]"].iter().any(|level| line.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR_LOG: &str = r#"2026/01/01 00:00:00 [notice] 7#7: start worker processes
2026/01/01 00:00:02 [error] 8#8: *5 upstream prematurely closed connection while reading response header from upstream, client: 127.0.0.1, server: , request: "POST / HTTP/1.1", upstream: "http://127.0.0.1:9/", host: "a"
2026/01/01 00:00:02 [error] 8#8: *6 recv() failed (104: Connection reset by peer) while reading response header from upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:9/", host: "a"
2026/01/01 00:00:02 [error] 8#8: *7 recv() failed (104: Connection reset by peer) while reading response header from upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:9/", host: "a"
2026/01/01 00:00:02 [info] 8#8: *8 client 127.0.0.1 closed keepalive connection
2026/01/01 00:00:03 [crit] 8#8: *9 open() failed (13: Permission denied)
"#;

    #[test]
    fn each_failed_attempt_counts_once() {
        let failures = Failures::count(ERROR_LOG);
        assert_eq!(failures.all(), 3);
        assert_eq!(failures.by_message.get("recv() failed"), Some(&2));
        assert_eq!(failures.by_errno, [(104, 2)].into());
        assert_eq!(failures.unknown.len(), 1);
        assert_eq!(Failures::toward(ERROR_LOG, "127.0.0.1:9"), failures);
        assert_eq!(Failures::toward(ERROR_LOG, "127.0.0.1:90").all(), 0);
    }

    #[test]
    fn the_clients_status_decides_not_the_attempts() {
        let answers = Answers::count("200 GET 502, 200\n502 POST 502\n200 POST 200\n");
        assert_eq!(answers, Answers { all: 3, bad_gateway: 1 });
    }
}
