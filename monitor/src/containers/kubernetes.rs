//! Names from a cluster's API server: a list of this node's pods. A watch would bring every change of every pod; what is
//! needed is a name when a new container shows, so the list is asked for then.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use http_body_util::Empty;
use hyper::{Request, Uri, body::Bytes, header};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::http;
use crate::{files, model::pods::PodList};

/// Where a cluster puts what its pods need to ask the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the configuration says; what it leaves out is that of a pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// The API server.
    pub api: Option<String>,
    /// The file with the bearer token.
    pub token: Option<PathBuf>,
    /// The file with the authority that has signed the server's certificate.
    pub authority: Option<PathBuf>,
    /// This node.
    pub node: Option<String>,
}

/// Why the API server cannot be asked. Each is one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Nobody said which node this is.
    #[error(
        "--kubernetes needs this node's name: give --node-name, or NODE_NAME in the environment (fieldRef spec.nodeName)"
    )]
    NoNode,
    /// Nobody said where the API server is.
    #[error(
        "--kubernetes finds no API server: run in a pod with a service account, or give --kubernetes-api URL"
    )]
    NoServer,
    /// That is no address of a server.
    #[error("{0:?} is no address of an API server: expected one such as https://10.0.0.1:6443")]
    BadServer(String),
}

/// The API server.
#[derive(Debug)]
pub struct Kubernetes {
    https: bool,
    host: String,
    port: u16,
    path: String,
    token: Option<PathBuf>,
    authority: PathBuf,
}

impl Kubernetes {
    /// The server that the options, or the environment of a pod, name.
    pub fn new(options: &KubernetesOptions) -> Result<Self, KubernetesError> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let node = options.node.clone().or_else(|| variable("NODE_NAME")).ok_or(KubernetesError::NoNode)?;
        let api = options.api.clone().or_else(|| {
            let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
            // An IPv6 address stands there without brackets.
            Some(if host.contains(':') {
                format!("https://[{host}]:{port}")
            } else {
                format!("https://{host}:{port}")
            })
        });
        let api = api.ok_or(KubernetesError::NoServer)?;
        let bad = || KubernetesError::BadServer(api.clone());
        let uri: Uri = api.parse().map_err(|_| bad())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let account = Path::new(SERVICE_ACCOUNT);
        let token = account.join("token");
        Ok(Self {
            https,
            host: uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
            path: path(&node)?,
            token: options.token.clone().or_else(|| token.exists().then_some(token)),
            authority: options.authority.clone().unwrap_or_else(|| account.join("ca.crt")),
        })
    }

    /// The names of those of the wanted workloads that this node's pods have.
    pub(super) async fn names(
        &self,
        wanted: &BTreeSet<Arc<str>>,
    ) -> Result<HashMap<Arc<str>, String>, String> {
        let pods: PodList =
            self.list().await.map_err(|error| format!("{}:{}: {error}", self.host, self.port))?;
        let names = pods.names();
        let found = wanted.iter().filter_map(|workload| Some((workload.clone(), names.of(workload)?)));
        Ok(found.collect())
    }

    async fn list<T: for<'de> Deserialize<'de>>(&self) -> Result<T, String> {
        let request = self.request()?;
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        let answer = if self.https {
            let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
            let stream = self.connector()?.connect(name, stream).await.map_err(|error| error.to_string())?;
            http::get(stream, request).await?
        } else {
            http::get(stream, request).await?
        };
        answer.ok_or_else(|| "it knows no pods at all; is it an API server?".into())
    }

    /// The token and the authority are read each time: both are replaced now and then.
    fn request(&self) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::get(&self.path)
            .header(header::HOST, &self.host)
            .header(header::ACCEPT, "application/json");
        if let Some(path) = &self.token {
            let token = files::plain(path).map_err(|error| error.to_string())?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        request.body(Empty::new()).map_err(|error| error.to_string())
    }

    fn connector(&self) -> Result<TlsConnector, String> {
        let text = files::trusted(&self.authority).map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate =
                certificate.map_err(|error| format!("{}: {error}", self.authority.display()))?;
            roots.add(certificate).map_err(|error| format!("{}: {error}", self.authority.display()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The pods of one node, from the server's cache, which spares its database.
fn path(node: &str) -> Result<String, KubernetesError> {
    let selector = format!("spec.nodeName={node}");
    let query = serde_urlencoded::to_string([("fieldSelector", selector.as_str()), ("resourceVersion", "0")]);
    query.map(|query| format!("/api/v1/pods?{query}")).map_err(|_| KubernetesError::NoNode)
}
