//! A real Docker, whose containers finwatch shows by their names.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::Tally;
use crate::{
    daemon::Daemon,
    host, interrupt,
    process::{self, Running},
};

/// What is checked.
pub(super) const CHECKS: [&str; 1] = ["a container of Docker is shown by its name"];
/// What the container is called.
const NAME: &str = "checkout";
/// It has nothing of its own: the host's programs serve in it.
const HOSTS: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];
/// Docker asks for nothing that would outlast it: no bridge, no firewall rules, no forwarding.
const MODEST: [&str; 5] =
    ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--storage-driver=vfs"];
const REQUESTS: u64 = 5;
const LIMIT: Duration = Duration::from_mins(2);

/// A server in a container, requests, and the name that finwatch gives to the end that accepts them.
pub(super) fn run(binary: &Path) -> Result<Tally> {
    let docker = Docker::start()?;
    let port = host::free_port()?;
    let (text, socket) = (port.to_string(), docker.socket());
    let flags = ["--include-port", &text, "--docker-socket", socket.to_str().context("a path in UTF-8")?];
    let daemon = Daemon::private_with(binary, &flags)?;
    let container = docker.serve(&text)?;
    for _ in 0..REQUESTS {
        request(port)?;
    }
    let upstream = format!("127.0.0.1:{port}");
    let workload = format!("container/{NAME}");
    let labels = [("side", "upstream"), ("upstream", upstream.as_str()), ("workload", workload.as_str())];
    let named = interrupt::poll(LIMIT, || {
        let samples = daemon.scrape()?;
        let accepted = samples.sum("finwatch_connections_opened_total", &labels)?;
        Ok((accepted > 0).then_some((samples, accepted)))
    })?;
    let (samples, accepted) = named.with_context(|| format!("{workload} does not show: {}", docker.log()))?;
    // One more found the server up.
    ensure!(accepted == REQUESTS + 1, "{accepted} connections of {workload}, {} requests", REQUESTS + 1);
    let failed = samples.sum("finwatch_workload_name_errors_total", &[("source", "docker")])?;
    ensure!(failed == 0, "{failed} questions to Docker failed");
    println!("  {accepted} connections of {workload}, which Docker calls {}", &container[..12]);
    Ok(Tally::ONE_PASSED)
}

fn request(port: u16) -> Result<()> {
    let mut stream =
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to the container")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").context("asking")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the answer")?;
    ensure!(answer.starts_with(b"HTTP/1."), "no HTTP");
    Ok(())
}

/// A Docker of our own; dropping it ends it with its containers.
struct Docker {
    running: Option<Running>,
    dir: TempDir,
}

impl Docker {
    fn start() -> Result<Self> {
        let dockerd = host::find_program("dockerd")
            .context("dockerd is not installed: `cargo xtask setup --for full-test`")?;
        let dir = tempfile::Builder::new()
            .prefix("finwatch-docker-")
            .tempdir()
            .context("a directory for Docker")?;
        let log = std::fs::File::create(dir.path().join("log")).context("Docker's log")?;
        let at = |name: &str| dir.path().join(name);
        let mut command = host::command(dockerd);
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("pid")).arg(format!("--host=unix://{}", at("docker.sock").display()));
        command.args(MODEST).stdout(log.try_clone().context("Docker's log")?).stderr(log);
        let mut docker = Self { running: Some(Running::spawn("dockerd", &mut command)?), dir };
        let up = interrupt::poll(LIMIT, || {
            let ended = docker.running.as_mut().map(Running::ended).transpose()?.flatten();
            ensure!(ended.is_none(), "dockerd ended: {}", docker.log());
            Ok(docker.ask(&["version"]))
        })?;
        up.with_context(|| format!("dockerd does not answer: {}", docker.log()))?;
        Ok(docker)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn client(&self) -> Command {
        let mut command = host::command("docker");
        command.env("DOCKER_CONFIG", self.dir.path()).arg("--host");
        command.arg(format!("unix://{}", self.socket().display()));
        command
    }

    fn ask(&self, args: &[&str]) -> Option<String> {
        process::output(self.client().args(args))
    }

    /// Starts a server in a container on the host's network, and returns the container's id once it answers.
    fn serve(&self, port: &str) -> Result<String> {
        let root = self.dir.path().join("empty.tar");
        process::run("tar", host::command("tar").args(["-cf"]).arg(&root).args(["-T", "/dev/null"]), LIMIT)?;
        let image =
            self.ask(&["import", root.to_str().context("a path in UTF-8")?]).context("docker import")?;
        let volumes: Vec<String> = HOSTS.map(|path| format!("--volume={path}:{path}:ro")).into();
        let mut args = vec!["run", "--detach", "--network=host", "--name", NAME];
        args.extend(volumes.iter().map(String::as_str));
        args.extend([&image, "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", port]);
        let container = self.ask(&args).with_context(|| format!("docker run: {}", self.log()))?;
        let port: u16 = port.parse().context("a port")?;
        let up = interrupt::poll(LIMIT, || Ok(request(port).ok()))?;
        up.context("the container does not answer")?;
        Ok(container)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Where none was started there is none to remove.
        drop(self.ask(&["rm", "--force", NAME]));
        drop(self.running.take());
        // Docker leaves the place of its network namespace mounted.
        drop(process::output(host::command("umount").arg(self.dir.path().join("exec/netns/default"))));
    }
}
