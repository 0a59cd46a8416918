//! A real nginx, in the calling thread's namespace.

use std::{
    env, fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::until;

/// A running nginx with one process; dropping it ends it.
pub(crate) struct Nginx(Child);

impl Nginx {
    /// One that does what `http` says, once it listens there; its files are in `directory`.
    pub(crate) fn start(directory: &Path, listen: SocketAddr, http: &str) -> Self {
        let file = directory.join("nginx.conf");
        let text = format!(
            "daemon off; master_process off; user root; pid nginx.pid; error_log error.log info;
            events {{ worker_connections 256; }}
            http {{
                client_body_temp_path body; proxy_temp_path proxy;
                fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                {http}
            }}"
        );
        fs::write(&file, text).expect("a temporary file");
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "error.log"]);
        let nginx = Self(nginx.stdin(Stdio::null()).spawn().expect("nginx starts"));
        until("nginx listens", || TcpStream::connect(listen).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

/// Whether nginx can be started. If not, says so loudly; in CI that is a failure.
pub(crate) fn is_here(test: &str) -> bool {
    program_is_here("nginx", "-v", test)
}

/// Whether a program can be started, as [`is_here`].
pub(crate) fn program_is_here(program: &str, flag: &str, test: &str) -> bool {
    let started = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if started.is_err() {
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "CI may not skip what needs {program}");
        eprintln!("SKIPPED {test}: no {program} here");
    }
    started.is_ok()
}
