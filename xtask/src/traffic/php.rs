//! A real PHP-FPM in the foreground, with few workers.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::nginx::Nginx;
use crate::{host, interrupt, process::Running};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Takes as many milliseconds as the query says.
const SCRIPT: &str = "<?php usleep(1000 * (int) $_SERVER['QUERY_STRING']); echo \"ok\\n\";";

/// A PHP-FPM under way; dropping it ends it.
pub(crate) struct PhpFpm {
    running: Running,
    port: u16,
    dir: TempDir,
}

impl PhpFpm {
    /// With these lines for its pool.
    pub(crate) fn start(pool: &str) -> Result<Self> {
        let program = host::php_fpm().context("PHP-FPM is not installed")?;
        let dir =
            tempfile::Builder::new().prefix("finwatch-php-").tempdir().context("a directory for PHP-FPM")?;
        let (port, log) = (host::free_port()?, dir.path().join("log"));
        let config = format!(
            "[global]\ndaemonize = no\nerror_log = {}\n[www]\nuser = root\ngroup = root\n\
             listen = 127.0.0.1:{port}\n{pool}\n",
            log.display()
        );
        fs::write(dir.path().join("fpm.conf"), config).context("writing fpm.conf")?;
        fs::write(dir.path().join("index.php"), SCRIPT).context("writing index.php")?;
        let mut command = host::command(program);
        // Without php.ini; its workers are this user, whose directory it is.
        command.args(["-n", "-F", "-R", "-y"]).arg(dir.path().join("fpm.conf"));
        let running = Running::spawn("php-fpm", &mut command)?;
        let mut php = Self { running, port, dir };
        let up = interrupt::poll(START_LIMIT, || {
            php.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.context("PHP-FPM did not listen in time")?;
        Ok(php)
    }

    /// An nginx of one worker in front of it, which passes the query on.
    pub(crate) fn nginx(&self) -> Result<Nginx> {
        let (php, script) = (self.port, self.dir.path().join("index.php"));
        Nginx::start(1, |port| {
            format!(
                "log_format outcome '$status $request_method $upstream_status'; access_log access.log outcome;
                upstream php {{ server 127.0.0.1:{php} max_fails=0; keepalive 8; keepalive_timeout 5s; }}
                server {{ listen 127.0.0.1:{port}; location / {{
                    fastcgi_pass php; fastcgi_keep_conn on; fastcgi_param SCRIPT_FILENAME {};
                    fastcgi_param REQUEST_METHOD GET; fastcgi_param QUERY_STRING $query_string;
                }} }}",
                script.display()
            )
        })
    }

    /// What its processes are called.
    pub(crate) fn name(&self) -> Result<String> {
        let path = format!("/proc/{}/comm", self.running.id());
        Ok(fs::read_to_string(&path).with_context(|| format!("reading {path}"))?.trim_end().to_owned())
    }

    /// Fails once it is gone.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.ended()? {
            Some(status) => bail!("PHP-FPM ended ({status}): {}", self.log()),
            None => Ok(()),
        }
    }

    /// Where it listens, on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it says of its workers.
    pub(crate) fn log(&self) -> String {
        let path: PathBuf = self.dir.path().join("log");
        fs::read_to_string(path).unwrap_or_default()
    }
}
