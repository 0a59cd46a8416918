//! Real Python servers: gunicorn and uvicorn from the environment that setup makes, and scripts of our own.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{host, interrupt, process::Running, setup::python};

/// What the servers serve.
const APP: &str = include_str!("app.py");
/// How long a server may take to listen, or a script to speak.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A server or script under way, with a directory of its own; dropping it ends it.
pub(crate) struct Python {
    running: Running,
    port: u16,
    dir: TempDir,
}

impl Python {
    /// gunicorn on a port of the loopback address; returns once it listens.
    pub(crate) fn gunicorn(args: &[&str]) -> Result<Self> {
        let mut gunicorn = Self::gunicorn_at(host::free_port()?, args)?;
        gunicorn.wait_listening()?;
        Ok(gunicorn)
    }

    /// gunicorn at this port; returns at once.
    pub(crate) fn gunicorn_at(port: u16, args: &[&str]) -> Result<Self> {
        let mut command = host::command(python::program("gunicorn"));
        command.args([
            "--bind",
            &format!("127.0.0.1:{port}"),
            "--log-level",
            "warning",
            "--graceful-timeout",
            "1",
        ]);
        Self::start("gunicorn", command.args(args).arg("app:wsgi"), port)
    }

    /// uvicorn on a port of the loopback address.
    pub(crate) fn uvicorn(args: &[&str], blocked_seconds: f32) -> Result<Self> {
        let port = host::free_port()?;
        let mut command = host::command(python::program("uvicorn"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).args(UVICORN);
        command.env("BLOCKED_SECONDS", blocked_seconds.to_string());
        let mut uvicorn = Self::start("uvicorn", command.args(args), port)?;
        uvicorn.wait_listening()?;
        Ok(uvicorn)
    }

    /// uvicorn started by a command that ends where its program's path is expected; returns at once.
    pub(crate) fn uvicorn_by(mut command: Command, args: &[&str], port: u16) -> Result<Self> {
        let command = command.arg(python::program("uvicorn")).args(["--port", &port.to_string()]);
        Self::start("uvicorn", command.args(UVICORN).args(args), port)
    }

    /// A script by itself, started by a command that ends where Python's path is expected.
    pub(crate) fn script(mut command: Command, source: &str, args: &[&str]) -> Result<Self> {
        let dir = directory()?;
        fs::write(dir.path().join("script.py"), source).context("writing the script")?;
        let command = command.arg(python::program("python3")).arg("script.py").args(args);
        Self::start_in(dir, "a Python script", command, 0)
    }

    /// A script by itself, on this host; its port is what it prints first.
    pub(crate) fn server(source: &str) -> Result<Self> {
        Self::server_with(source, &[])
    }

    /// The same with arguments.
    pub(crate) fn server_with(source: &str, args: &[&str]) -> Result<Self> {
        // `env` runs what follows it.
        let mut script = Self::script(host::command("env"), source, args)?;
        script.port = script.said(1)?[0].trim().parse().context("the script's port")?;
        Ok(script)
    }

    fn start(name: &str, command: &mut Command, port: u16) -> Result<Self> {
        let dir = directory()?;
        fs::write(dir.path().join("app.py"), APP).context("writing app.py")?;
        Self::start_in(dir, name, command, port)
    }

    fn start_in(dir: TempDir, name: &str, command: &mut Command, port: u16) -> Result<Self> {
        let log = |name: &str| File::create(dir.path().join(name)).context("the server's output");
        command.current_dir(&dir).env("PYTHONDONTWRITEBYTECODE", "1").stdout(log("out")?).stderr(log("log")?);
        let running = Running::spawn(name, command)?;
        Ok(Self { running, port, dir })
    }

    fn wait_listening(&mut self) -> Result<()> {
        let port = self.port;
        let up = interrupt::poll(START_LIMIT, || {
            self.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.with_context(|| format!("the server did not listen in time: {}", self.read("log"))).map(drop)
    }

    /// Fails once it is gone.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.ended()? {
            Some(status) => bail!("the server ended ({status}): {}", self.read("log")),
            None => Ok(()),
        }
    }

    /// The first lines it prints, once there are so many.
    pub(crate) fn said(&mut self, lines: usize) -> Result<Vec<String>> {
        let said = interrupt::poll(START_LIMIT, || {
            self.check()?;
            let said: Vec<String> = self.read("out").split_inclusive('\n').map(str::to_owned).collect();
            let whole = said.iter().filter(|line| line.ends_with('\n')).count();
            Ok((whole >= lines).then_some(said))
        })?;
        said.with_context(|| format!("the script did not speak in time: {}", self.read("log")))
    }

    /// What a script has printed once it has come to its end.
    pub(crate) fn printed(mut self, limit: Duration) -> Result<String> {
        let status = interrupt::poll(limit, || self.running.ended())?;
        let status =
            status.with_context(|| format!("the script did not end in time: {}", self.read("log")))?;
        ensure!(status.success(), "the script failed ({status}): {}", self.read("log"));
        Ok(self.read("out"))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.id()
    }
}

/// What each uvicorn is told.
const UVICORN: [&str; 5] = ["--log-level", "warning", "--no-access-log", "--lifespan=on", "app:asgi"];

fn directory() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(OsStr::new("finwatch-python-"))
        .tempdir()
        .context("a directory for Python")
}
