//! A real nginx in the foreground, as the current user, with everything it writes in one temporary directory.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::{
    Seen,
    logs::{Answers, Failures},
    namespace::Namespace,
    proxy::Proxy,
};
use crate::{host, interrupt, process::Running};

/// How long nginx may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The socket of one in a namespace, in its directory.
const SOCKET: &str = "nginx.sock";

/// The first that keeps upstream connections unless told not to.
const KEEPS: [u32; 3] = [1, 29, 7];
/// What is started instead of the host's nginx.
static CHOSEN: Mutex<Option<PathBuf>> = Mutex::new(None);

/// As long as this is there, another nginx than the host's is started.
pub(crate) struct Chosen(());

impl Chosen {
    /// This one.
    pub(crate) fn instead(program: PathBuf) -> Self {
        choose(Some(program));
        Self(())
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        choose(None);
    }
}

fn choose(program: Option<PathBuf>) {
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = program;
}

/// The nginx that is started.
pub(crate) fn program() -> Result<PathBuf> {
    let chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let program = chosen.or_else(|| host::find_program("nginx"));
    program.context("nginx is not installed: `cargo xtask setup --for demo`")
}

/// What it prints of its version.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = host::command(program).arg("-v").output().context("starting nginx")?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Whether it keeps upstream connections unless told not to.
fn keeps_by_default(version: &str) -> bool {
    let numbers = version.rsplit('/').next().unwrap_or_default();
    let numbers = numbers.split('.').map(|number| number.parse().unwrap_or(0)).collect::<Vec<u32>>();
    numbers.as_slice() >= KEEPS.as_slice()
}

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
    /// As this nginx does by default.
    Default,
}

impl Nginx {
    /// One worker in front of one upstream.
    pub(crate) fn proxy(upstream: u16, pool: Pool) -> Result<Self> {
        let mut proxy = Proxy::to(format!("127.0.0.1:{upstream}"));
        match pool {
            Pool::Kept { connections, timeout } => {
                let timeout = timeout.as_millis();
                proxy.upstream(&format!("keepalive {connections}; keepalive_timeout {timeout}ms;"));
                proxy.location("proxy_http_version 1.1; proxy_set_header Connection \"\";");
            }
            Pool::Default => proxy.as_it_comes(),
            Pool::Off => proxy.location("proxy_http_version 1.1; proxy_set_header Connection close;"),
        }
        Self::in_front(&[proxy])
    }

    /// One worker that serves these, told apart by the first part of the path: `/0/`, `/1/` and so on.
    pub(crate) fn in_front(proxies: &[Proxy]) -> Result<Self> {
        Self::with_workers(1, proxies)
    }

    /// The same with so many workers.
    pub(crate) fn with_workers(workers: usize, proxies: &[Proxy]) -> Result<Self> {
        let kept = keeps_by_default(&version(&program()?)?);
        Self::start(workers, |port| Proxy::http(proxies, &format!("127.0.0.1:{port}"), kept))
    }

    /// The same in a namespace, where it listens at [`SOCKET`] only: nobody outside reaches another address.
    pub(crate) fn in_namespace(namespace: &Namespace, proxies: &[Proxy]) -> Result<Self> {
        let kept = keeps_by_default(&version(&program()?)?);
        let http = Proxy::http(proxies, &format!("unix:{SOCKET}"), kept);
        Self::launch(Some(namespace), 1, 0, &http)
    }

    /// So many workers that serve what `http` describes for a port.
    pub(crate) fn start(workers: usize, http: impl Fn(u16) -> String) -> Result<Self> {
        let port = host::free_port()?;
        Self::launch(None, workers, port, &http(port))
    }

    fn launch(namespace: Option<&Namespace>, workers: usize, port: u16, http: &str) -> Result<Self> {
        let nginx = program()?;
        let dir =
            tempfile::Builder::new().prefix("finwatch-nginx-").tempdir().context("a directory for nginx")?;
        // Workers of a root master would run as nobody, who cannot enter our directory.
        let user = if host::is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; worker_processes {workers}; pid nginx.pid; error_log error.log info; {user}
            events {{ worker_connections 4096; }}
            http {{
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                {http}
            }}"
        );
        fs::write(dir.path().join("nginx.conf"), config).context("writing nginx.conf")?;
        let mut command = namespace.map_or_else(|| host::command(&nginx), |within| within.command(&nginx));
        // Paths within the configuration are relative to the prefix; that of a Unix socket is to the working directory.
        command.current_dir(dir.path()).arg("-p").arg(dir.path()).args(["-c", "nginx.conf"]);
        let running = Running::spawn("nginx", &mut command)?;
        let mut nginx = Self { running, port, dir };
        let up = interrupt::poll(START_LIMIT, || {
            nginx.check()?;
            Ok(nginx.answers().then_some(()))
        })?;
        up.context("nginx did not listen in time")?;
        Ok(nginx)
    }

    fn answers(&self) -> bool {
        match self.port {
            0 => UnixStream::connect(self.socket()).is_ok(),
            port => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
        }
    }

    /// Where one in a namespace listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// Where it listens, on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens, as finwatch names it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What its logs say so far.
    pub(crate) fn seen(&self) -> Result<Seen> {
        Ok(Seen {
            answers: Answers::count(&self.access_log()?),
            failures: Failures::count(&self.error_log()?),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_tells_whether_connections_are_kept() {
        assert!(!keeps_by_default("nginx version: nginx/1.22.1"));
        assert!(!keeps_by_default("nginx version: nginx/1.29.6"));
        assert!(keeps_by_default("nginx version: nginx/1.29.7"));
        assert!(keeps_by_default("nginx version: nginx/1.30.6"));
    }
}
