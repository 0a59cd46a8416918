//! A real HAProxy in the foreground, and what its own statistics say.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{host, interrupt, process::Running};

/// How long HAProxy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// An HAProxy under way; dropping it ends it.
pub(crate) struct HaProxy {
    running: Running,
    port: u16,
    dir: TempDir,
}

impl HaProxy {
    /// One thread in front of one upstream: lines for `defaults`, for `backend`, and what follows the server's address.
    pub(crate) fn proxy(upstream: u16, defaults: &str, backend: &str, server: &str) -> Result<Self> {
        let haproxy = host::find_program("haproxy").context("haproxy is not installed")?;
        let dir = tempfile::Builder::new()
            .prefix("finwatch-haproxy-")
            .tempdir()
            .context("a directory for HAProxy")?;
        let port = host::free_port()?;
        let config = format!(
            "global
                nbthread 1
                log stdout format raw local0
                stats socket {}/stats mode 600
            defaults
                mode http
                log global
                option httplog
                timeout connect 2s
                timeout client 2m
                {defaults}
            frontend clients
                bind 127.0.0.1:{port}
                default_backend upstream
            backend upstream
                {backend}
                server only 127.0.0.1:{upstream} {server}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("haproxy.cfg"), config).context("writing haproxy.cfg")?;
        let log = File::create(dir.path().join("log")).context("HAProxy's log")?;
        let mut command = host::command(haproxy);
        command.arg("-db").arg("-f").arg(dir.path().join("haproxy.cfg"));
        command.stdout(log.try_clone().context("HAProxy's log")?).stderr(log);
        let mut haproxy = Self { running: Running::spawn("haproxy", &mut command)?, port, dir };
        let up = interrupt::poll(START_LIMIT, || {
            haproxy.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.context("HAProxy did not listen in time")?;
        Ok(haproxy)
    }

    /// Where it listens, on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.running.ended()? {
            bail!("HAProxy ended ({status}): {}", self.log());
        }
        Ok(())
    }

    /// Requests that it sent and got no answer to: it sends them again, or gives them up.
    pub(crate) fn failed_exchanges(&self) -> Result<u64> {
        Ok(self.server()?.count("wretr")? + self.server_aborts())
    }

    /// Requests upon which the server's end closed or reset the connection, by the log: whether HAProxy then answered 502
    /// or closed as well.
    pub(crate) fn server_aborts(&self) -> u64 {
        self.log()
            .lines()
            .filter(|line| termination(line).is_some_and(|state| state.starts_with('S')))
            .count() as u64
    }

    /// A line for each request, with how its session ended.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What it says of its server.
    pub(crate) fn server(&self) -> Result<Statistics> {
        self.statistics("upstream,only,")
    }

    /// What it says of its clients: what it answers by itself counts here alone.
    pub(crate) fn clients(&self) -> Result<Statistics> {
        self.statistics("clients,FRONTEND,")
    }

    fn statistics(&self, line: &str) -> Result<Statistics> {
        let stats = self.dir.path().join("stats");
        let mut socket = UnixStream::connect(stats).context("HAProxy's stats socket")?;
        socket.write_all(b"show stat\n").context("asking HAProxy")?;
        let mut table = String::new();
        socket.read_to_string(&mut table).context("HAProxy's answer")?;
        Statistics::read(&table, line).with_context(|| format!("HAProxy's statistics: {table}"))
    }
}

/// How a request's session ended: <https://docs.haproxy.org/2.6/configuration.html#8.5>.
fn termination(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace().skip_while(|field| *field != "upstream/only");
    fields.nth(6)
}

/// One line of `show stat`, by column.
#[derive(Debug)]
pub(crate) struct Statistics(BTreeMap<String, String>);

impl Statistics {
    fn read(table: &str, line: &str) -> Option<Self> {
        let mut lines = table.lines();
        let columns = lines.next()?.strip_prefix("# ")?.split(',');
        let values = lines.find(|other| other.starts_with(line))?.split(',');
        Some(Self(columns.zip(values).map(|(column, value)| (column.to_owned(), value.to_owned())).collect()))
    }

    /// A column's number.
    pub(crate) fn count(&self, column: &str) -> Result<u64> {
        let value = self.0.get(column).with_context(|| format!("HAProxy has no column {column}"))?;
        value.parse().with_context(|| format!("{column} is no number: {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_request_tells_how_it_ended() {
        let line = "127.0.0.1:4 [21/Nov/2026:17:11:12.251] clients upstream/only 0/0/0/-1/2 502 209 - - SH-- 1/1/0/0/0 0/0 \"GET /\"";
        assert_eq!(termination(line), Some("SH--"));
        assert_eq!(termination("Proxy clients started."), None);
    }

    #[test]
    fn the_servers_line_is_read_by_column() {
        let table =
            "# pxname,svname,econ,wretr,\nclients,FRONTEND,,,\nupstream,only,1,20,\nupstream,BACKEND,3,40,\n";
        let statistics = Statistics::read(table, "upstream,only,").expect("a server's line");
        assert_eq!(statistics.count("wretr").expect("a number"), 20);
        assert!(statistics.count("absent").is_err());
    }
}
