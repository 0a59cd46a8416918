//! The Unix socket that `triage`, `incidents` and `top` ask the daemon through.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// The socket's name in the run directory.
const NAME: &str = "finwatch.sock";
/// Owner and group may ask, nobody else: what a host talks to is not everybody's business.
const MODE: u32 = 0o660;

/// Where the daemon that uses this run directory listens.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(NAME)
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}: {error}; give a writable directory with --run-dir")]
pub struct SocketError {
    path: PathBuf,
    error: io::Error,
}

/// The listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    /// Takes connections.
    pub listener: UnixListener,
    /// Removes the file when it is dropped.
    pub file: SocketFile,
}

/// The socket's file.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "the socket's file is gone already");
        }
    }
}

impl Socket {
    /// Listens in `run_dir`, whose lock the caller holds: what is left of an earlier daemon's socket is replaced.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn bind(run_dir: &Path) -> Result<Self, SocketError> {
        let path = path(run_dir);
        let bound = || {
            // Under another name first, so that nobody meets the socket before its mode is right.
            let making = path.with_extension("new");
            match fs::remove_file(&making) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&making)?;
            fs::set_permissions(&making, fs::Permissions::from_mode(MODE))?;
            fs::rename(&making, &path)?;
            Ok(listener)
        };
        match bound() {
            Ok(listener) => Ok(Self { listener, file: SocketFile(path.clone()) }),
            Err(error) => Err(SocketError { path: path.clone(), error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_daemon_left_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let Socket { listener, file } = Socket::bind(directory.path()).expect("a socket");
        drop(listener);
        std::mem::forget(file);
        assert!(path(directory.path()).exists());
        let second = Socket::bind(directory.path()).expect("a socket");
        let (asked, connected) =
            tokio::join!(second.listener.accept(), tokio::net::UnixStream::connect(path(directory.path())));
        assert!(asked.is_ok() && connected.is_ok());
        drop(second);
        assert!(!path(directory.path()).exists());
    }
}
