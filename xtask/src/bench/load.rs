//! The load: wrk, through an nginx that keeps upstream connections or does not, to another nginx.

use std::{process::Stdio, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    host,
    process::{self, Running},
    traffic::nginx::Nginx,
};

/// What wrk may take beyond the time it is told.
const MARGIN: Duration = Duration::from_secs(20);

/// Whether the nginx in front keeps its connections to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Connections {
    /// One for each request.
    Closed,
    /// A pool of them.
    Kept,
}

/// What wrk reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
}

/// Two nginx under way.
pub(crate) struct Load {
    front: Nginx,
    // Named for its drop: it serves until the load is over.
    _back: Nginx,
}

impl Load {
    /// Starts both, with a worker for each CPU.
    pub(crate) fn start(connections: Connections) -> Result<Self> {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let quiet = "access_log off; error_log error.log error;";
        let back = Nginx::start(workers, |port| {
            format!(
                "{quiet} keepalive_requests 1000000000;
                server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"ok\\n\"; }} }}"
            )
        })?;
        let upstream = back.port();
        let front = Nginx::start(workers, |port| {
            let (kept, head) = match connections {
                Connections::Closed => ("", ""),
                Connections::Kept => (
                    "keepalive 64; keepalive_requests 1000000000;",
                    "proxy_http_version 1.1; proxy_set_header Connection \"\";",
                ),
            };
            format!(
                "{quiet} upstream back {{ server 127.0.0.1:{upstream}; {kept} }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{ proxy_pass http://back; {head} }}
                }}"
            )
        })?;
        Ok(Self { front, _back: back })
    }

    /// Runs wrk for that long, at least a second.
    pub(crate) fn run(&self, time: Duration) -> Result<Served> {
        let wrk =
            host::find_program("wrk").context("wrk is not installed: `cargo xtask setup --for bench`")?;
        let seconds = time.as_secs().max(1);
        let out = tempfile::NamedTempFile::new().context("a file for wrk's output")?;
        let mut command = host::command(wrk);
        command.args([
            "-c32",
            "-t2",
            &format!("-d{seconds}s"),
            &format!("http://127.0.0.1:{}/", self.front.port()),
        ]);
        command.stdout(out.reopen().context("wrk's output")?).stderr(Stdio::inherit());
        let status = Running::spawn("wrk", &mut command)?.wait(time + MARGIN)?;
        ensure!(status.success(), "{} failed ({status})", process::typed(&command));
        let said = std::fs::read_to_string(out.path()).context("wrk's output")?;
        served(&said)
    }
}

fn served(said: &str) -> Result<Served> {
    ensure!(!said.contains("Non-2xx"), "nginx did not serve every request: {said}");
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    let requests = said.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let served = rate.zip(requests).map(|(per_second, requests)| Served { requests, per_second });
    served.with_context(|| format!("wrk named no rate: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let said =
            "  22100 requests in 2.00s, 3.51MB read\nRequests/sec:  11034.56\nTransfer/sec:      1.75MB\n";
        assert_eq!(served(said).ok(), Some(Served { requests: 22100, per_second: 11034.56 }));
        assert!(served("  Non-2xx or 3xx responses: 7\nRequests/sec:  1.0\n").is_err());
        assert!(served("unable to connect").is_err());
    }
}
