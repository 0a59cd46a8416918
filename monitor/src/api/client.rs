//! Asks the daemon.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time};

use super::routes::{VERSION, VERSION_HEADER};

/// The daemon answers within this time, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer that is read: some ten thousand pairs.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer. Each is one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no finwatch daemon answers at {0}: start one with `finwatch run`, name its directory with --run-dir, or run this as root, which watches without one"
    )]
    NoDaemon(PathBuf),
    /// The socket is not for us.
    #[error("{0} may be used by its owner and group only: run this as root, or as a member of that group")]
    Permission(PathBuf),
    /// It runs another version.
    #[error(
        "the daemon is finwatch {daemon} and this is {VERSION}: restart the daemon, or use its own binary"
    )]
    Version {
        /// The daemon's.
        daemon: String,
    },
    /// It says why not.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("the daemon at {path} does not answer: {problem}; its log may say why")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
}

/// The daemon behind a socket.
#[derive(Clone, Debug)]
pub struct Daemon {
    path: PathBuf,
}

impl Daemon {
    /// The daemon that listens there.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for `/question?query`, JSON.
    ///
    /// # Errors
    /// When there is no daemon, no answer, or one that is not understood.
    pub async fn ask<T: DeserializeOwned>(&self, question: &str) -> Result<T, AskError> {
        let answered = time::timeout(PATIENCE, async {
            let body = self.open(question).await?;
            let bytes =
                Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| self.broken(&error))?;
            serde_json::from_slice(&bytes.to_bytes()).map_err(|error| self.broken(&error))
        });
        answered.await.map_err(|_elapsed| self.broken(&format_args!("nothing came for {PATIENCE:?}")))?
    }

    /// The answer to a question while it comes.
    ///
    /// # Errors
    /// When there is no daemon, or it refuses.
    pub async fn open(&self, question: &str) -> Result<Incoming, AskError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Ends with the answer.
        tokio::spawn(connection);
        let request = Request::get(question).header("host", "finwatch").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let version = response.headers().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        match version {
            Some(VERSION) => {}
            Some(daemon) => return Err(AskError::Version { daemon: daemon.to_owned() }),
            None => return Err(self.broken(&"what listens there is no finwatch")),
        }
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let said = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        Err(AskError::Refused(
            said.ok().filter(|said| !said.is_empty()).unwrap_or_else(|| status.to_string()),
        ))
    }

    fn unreachable(&self, error: &io::Error) -> AskError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NoDaemon(self.path.clone())
            }
            io::ErrorKind::PermissionDenied => AskError::Permission(self.path.clone()),
            _ => self.broken(error),
        }
    }

    fn broken(&self, problem: &dyn ToString) -> AskError {
        AskError::Broken { path: self.path.clone(), problem: problem.to_string() }
    }
}
