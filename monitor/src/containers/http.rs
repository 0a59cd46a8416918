//! One GET of JSON over a connection that is there.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest answer that is read: some thousand pods.
const MAX_ANSWER: usize = 64 << 20;

/// What was answered: `None` for "there is no such thing".
pub(super) async fn get<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Option<T>, String> {
    let told = |error: &dyn ToString| error.to_string();
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    // Ends with the answer.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| told(&error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        status => return Err(format!("it answers {status}")),
    }
    let body =
        Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| told(&error))?;
    serde_json::from_slice(&body.to_bytes()).map(Some).map_err(|error| told(&error))
}
