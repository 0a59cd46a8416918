//! Names from a container engine that speaks Docker's API on a Unix socket (Docker, Podman).

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use http_body_util::Empty;
use hyper::Request;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{Source, http};
use crate::model::labels::harmless;

/// Containers asked about in one round; the others follow.
const AT_ONCE: usize = 64;

/// The part of a container that is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    /// With a slash before it.
    name: String,
}

/// The engine behind a socket.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
}

impl Docker {
    /// The engine that listens there, or will.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) async fn names(
        &self,
        wanted: &BTreeSet<Arc<str>>,
    ) -> Result<HashMap<Arc<str>, String>, String> {
        let mut names = HashMap::new();
        if !self.socket.exists() {
            return Ok(names);
        }
        for workload in wanted.iter().take(AT_ONCE) {
            let Some(id) = workload.strip_prefix(Source::Docker.prefix()) else { continue };
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|error| format!("{}: {error}", self.socket.display()))?;
            let request = Request::get(format!("/containers/{id}/json")).header("host", "docker");
            let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
            if let Some(Container { name }) = http::get(stream, request).await? {
                let name = harmless(name.trim_start_matches('/'));
                names.insert(workload.clone(), format!("{}{name}", Source::Docker.prefix()));
            }
        }
        Ok(names)
    }
}
