//! A real nginx in the foreground, as the current user, with everything it writes in one temporary directory.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{host, interrupt, process::Running};

/// How long nginx may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// An nginx under way; dropping it ends it.
pub(crate) struct Nginx {
    running: Running,
    port: u16,
    dir: TempDir,
}

/// How nginx keeps connections to its upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pool {
    /// So many idle connections, each for so long.
    Kept { connections: usize, timeout: Duration },
    /// A new connection for each request.
    Off,
}

impl Nginx {
    /// One worker in front of one upstream.
    pub(crate) fn proxy(upstream: u16, pool: Pool) -> Result<Self> {
        let (kept, connection) = match pool {
            Pool::Kept { connections, timeout } => {
                (format!("keepalive {connections}; keepalive_timeout {}ms;", timeout.as_millis()), "\"\"")
            }
            Pool::Off => (String::new(), "close"),
        };
        Self::start(1, |port| {
            format!(
                "log_format outcome '$status $request_method $upstream_status';
                access_log access.log outcome;
                upstream node {{ server 127.0.0.1:{upstream} max_fails=0; {kept} }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://node;
                        proxy_http_version 1.1;
                        proxy_set_header Connection {connection};
                    }}
                }}"
            )
        })
    }

    /// So many workers that serve what `http` describes for a port.
    pub(crate) fn start(workers: usize, http: impl Fn(u16) -> String) -> Result<Self> {
        let nginx =
            host::find_program("nginx").context("nginx is not installed: `cargo xtask setup --for demo`")?;
        let dir =
            tempfile::Builder::new().prefix("finwatch-nginx-").tempdir().context("a directory for nginx")?;
        let port = host::free_port()?;
        // Workers of a root master would run as nobody, who cannot enter our directory.
        let user = if host::is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; worker_processes {workers}; pid nginx.pid; error_log error.log info; {user}
            events {{ worker_connections 4096; }}
            http {{
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                {}
            }}",
            http(port)
        );
        fs::write(dir.path().join("nginx.conf"), config).context("writing nginx.conf")?;
        let mut command = host::command(nginx);
        command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf"]);
        let running = Running::spawn("nginx", &mut command)?;
        let mut nginx = Self { running, port, dir };
        let up = interrupt::poll(START_LIMIT, || {
            nginx.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.context("nginx did not listen in time")?;
        Ok(nginx)
    }

    /// Where it listens, on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Fails once nginx is gone.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.ended()? {
            Some(status) => bail!("nginx ended ({status}): {}", self.error_log()?),
            None => Ok(()),
        }
    }

    /// Its access log so far.
    pub(crate) fn access_log(&self) -> Result<String> {
        self.read("access.log")
    }

    /// Its error log so far.
    pub(crate) fn error_log(&self) -> Result<String> {
        self.read("error.log")
    }

    fn read(&self, name: &str) -> Result<String> {
        let path: PathBuf = self.dir.path().join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}
