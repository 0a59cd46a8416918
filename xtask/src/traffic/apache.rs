//! A real Apache httpd in the foreground, which serves one file.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{host, interrupt, process::Running};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Where Debian keeps its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

/// An Apache httpd under way; dropping it ends it.
pub(crate) struct Apache {
    running: Running,
    port: u16,
    dir: TempDir,
}

impl Apache {
    /// With its own defaults.
    pub(crate) fn start() -> Result<Self> {
        let apache = host::find_program("apache2").context("apache2 is not installed")?;
        let dir = tempfile::Builder::new()
            .prefix("finwatch-apache-")
            .tempdir()
            .context("a directory for Apache")?;
        // Its workers are another user.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open).context("opening the directory")?;
        let (port, root) = (host::free_port()?, dir.path().display());
        let config = format!(
            "ServerRoot {root}
            DefaultRuntimeDir {root}
            PidFile {root}/pid
            ServerName localhost
            Listen 127.0.0.1:{port}
            LoadModule mpm_event_module {MODULES}/mod_mpm_event.so
            LoadModule dir_module {MODULES}/mod_dir.so
            LoadModule authz_core_module {MODULES}/mod_authz_core.so
            User nobody
            Group nogroup
            ErrorLog {root}/error.log
            LogFormat \"%k\" requests_before
            CustomLog {root}/access.log requests_before
            DocumentRoot {root}
            DirectoryIndex ok\n"
        );
        fs::write(dir.path().join("httpd.conf"), config).context("writing httpd.conf")?;
        fs::write(dir.path().join("ok"), "ok\n").context("writing a file to serve")?;
        let mut command = host::command(apache);
        command.arg("-f").arg(dir.path().join("httpd.conf")).arg("-DFOREGROUND");
        let running = Running::spawn("apache2", &mut command)?;
        let mut apache = Self { running, port, dir };
        let up = interrupt::poll(START_LIMIT, || {
            if let Some(status) = apache.running.ended()? {
                bail!("Apache ended ({status}): {}", apache.read("error.log"));
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.context("Apache did not listen in time")?;
        Ok(apache)
    }

    /// Where it listens, on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that carried a request, by its log.
    pub(crate) fn connections(&self) -> u64 {
        self.read("access.log").lines().filter(|before| *before == "0").count() as u64
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}
