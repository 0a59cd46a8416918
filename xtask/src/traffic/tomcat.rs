//! A real Tomcat in the foreground, configured as Debian ships it for a user, which serves one file.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::namespace::{Namespace, WITHIN};
use crate::{host, interrupt, process::Running};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Where Debian has its programs, and its configuration for users.
const HOME: &str = "/usr/share/tomcat10";
const SHIPPED: &str = "/usr/share/tomcat10/skel/conf";

/// Whether it is installed.
pub(crate) fn installed() -> bool {
    Path::new(HOME).join("bin/bootstrap.jar").exists() && Path::new(SHIPPED).join("server.xml").exists()
}

/// A Tomcat under way; dropping it ends it.
pub(crate) struct Tomcat {
    _running: Running,
    dir: TempDir,
}

impl Tomcat {
    /// At that port of [`WITHIN`] in a namespace beside us.
    pub(crate) fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        ensure!(installed(), "Tomcat is not installed: `cargo xtask setup --for lab`");
        let dir = tempfile::Builder::new()
            .prefix("finwatch-tomcat-")
            .tempdir()
            .context("a directory for Tomcat")?;
        let base = dir.path();
        for name in ["conf", "logs", "temp", "work", "webapps/ROOT"] {
            fs::create_dir_all(base.join(name)).context("a directory for Tomcat")?;
        }
        for entry in fs::read_dir(SHIPPED).context("reading Tomcat's configuration")?.flatten() {
            fs::copy(entry.path(), base.join("conf").join(entry.file_name())).context("copying it")?;
        }
        configure(&base.join("conf/server.xml"), port)?;
        for name in ["index.html", "ok"] {
            fs::write(base.join("webapps/ROOT").join(name), "ok\n").context("writing a file to serve")?;
        }
        let java = host::find_program("java").context("java is not installed")?;
        let log = File::create(base.join("log")).context("Tomcat's output")?;
        let mut command = namespace.command(java);
        command.args(["-Xmx96m", "-cp", &format!("{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar")]);
        for (property, value) in
            [("catalina.home", HOME.to_owned()), ("catalina.base", base.display().to_string())]
        {
            command.arg(format!("-D{property}={value}"));
        }
        command.arg(format!("-Djava.io.tmpdir={}/temp", base.display()));
        command.args(["org.apache.catalina.startup.Bootstrap", "start"]);
        command.stdout(log.try_clone().context("Tomcat's output")?).stderr(log);
        let mut running = Running::spawn("Tomcat", &mut command)?;
        let up = interrupt::poll(START_LIMIT, || {
            if let Some(status) = running.ended()? {
                bail!(
                    "Tomcat ended ({status}): {}",
                    fs::read_to_string(base.join("log")).unwrap_or_default()
                );
            }
            Ok(TcpStream::connect((WITHIN, port)).ok())
        })?;
        up.context("Tomcat did not listen in time")?;
        Ok(Self { _running: running, dir })
    }

    /// Connections that carried a request, by the clients' ports in its log.
    pub(crate) fn connections(&self) -> Result<u64> {
        let logs = fs::read_dir(self.dir.path().join("logs")).context("reading Tomcat's logs")?.flatten();
        let logs =
            logs.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"localhost_access_log"));
        let text: String = logs.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
        Ok(text.lines().collect::<BTreeSet<_>>().len() as u64)
    }
}

/// Puts what has to differ into the configuration: where it listens, and what its log tells.
fn configure(file: &Path, port: u16) -> Result<()> {
    let mut text = fs::read_to_string(file).context("reading server.xml")?;
    for (shipped, ours) in [
        ("<Connector port=\"8080\"", format!("<Connector address=\"{WITHIN}\" port=\"{port}\"")),
        (
            "pattern=\"%h %l %u %t &quot;%r&quot; %s %b\"",
            "pattern=\"%{remote}p\" buffered=\"false\"".to_owned(),
        ),
    ] {
        ensure!(text.contains(shipped), "server.xml has no {shipped}");
        text = text.replacen(shipped, &ours, 1);
    }
    fs::write(file, text).context("writing server.xml")
}
