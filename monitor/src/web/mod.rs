//! What guards the listening port: TLS, passwords and headers, as a web config file tells.

mod document;
mod guard;
mod listener;
mod passwords;
mod tls;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use axum::http::HeaderMap;
use tokio_rustls::rustls::ServerConfig;

use self::passwords::Passwords;
use crate::files::FileError;

pub use self::{guard::guarded, listener::Guarded};

/// Why a web config file cannot be used. Each is one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file that cannot be read, or is too open.
    #[error("web config: {0}")]
    File(#[from] FileError),
    /// The file is not what it should be.
    #[error("web config {path}, line {line}: {problem}; docs/web-config.md lists every key with its values")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where in the file, from 1.
        line: u64,
        /// What is wrong, with the key.
        problem: String,
    },
    /// The keys do not go together, or name something that is not what it should be.
    #[error("web config {path}: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the remedy.
        problem: String,
    },
}

/// What holds for each connection that comes.
#[derive(Default)]
pub(crate) struct Rules {
    /// Where TLS is spoken.
    tls: Option<Arc<ServerConfig>>,
    /// Who may ask; everybody where it is empty.
    passwords: Arc<Passwords>,
    /// What goes with every answer.
    headers: HeaderMap,
}

/// The rules of the listening port, which may change while it is served.
pub struct Web {
    file: Option<PathBuf>,
    rules: RwLock<Arc<Rules>>,
}

impl Web {
    /// As the file tells; plain HTTP for everybody without one.
    pub fn load(file: Option<&Path>) -> Result<Self, WebError> {
        let rules = file.map(document::read).transpose()?.unwrap_or_default();
        Ok(Self::of(file, rules))
    }

    /// As the text of the file at `path` tells.
    pub fn from_text(path: &Path, text: &str) -> Result<Self, WebError> {
        Ok(Self::of(Some(path), document::rules(path, text)?))
    }

    fn of(file: Option<&Path>, rules: Rules) -> Self {
        Self { file: file.map(Path::to_owned), rules: RwLock::new(Arc::new(rules)) }
    }

    /// Reads the file and those it names again. Connections that come from now on follow them, and where they cannot be
    /// used, what was.
    pub fn reload(&self) -> Result<(), WebError> {
        if let Some(file) = &self.file {
            let rules = Arc::new(document::read(file)?);
            *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        }
        Ok(())
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.rules().tls.is_some() { "https" } else { "http" }
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
