//! The listening port, with TLS where the rules say so.

use std::{io, sync::Arc};

use axum::{Router, http::StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_util::either::Either;

use super::Web;
use crate::export::server::Accept;

/// The first byte of every TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// A listening port under rules.
pub struct Guarded {
    listener: TcpListener,
    web: Arc<Web>,
}

impl Guarded {
    /// Of this port.
    pub fn new(listener: TcpListener, web: Arc<Web>) -> Self {
        Self { listener, web }
    }
}

impl Accept for Guarded {
    type Stream = (TcpStream, Option<Arc<ServerConfig>>);
    type Opened = Either<TcpStream, Box<TlsStream<TcpStream>>>;

    async fn next(&self) -> io::Result<Self::Stream> {
        let (stream, _peer) = self.listener.accept().await?;
        Ok((stream, self.web.rules().tls.clone()))
    }

    async fn open((stream, tls): Self::Stream, router: Router) -> io::Result<(Self::Opened, Router)> {
        let Some(tls) = tls else { return Ok((Either::Left(stream), router)) };
        let mut first = [HANDSHAKE];
        stream.peek(&mut first).await?;
        if first != [HANDSHAKE] {
            return Ok((Either::Left(stream), speak_tls()));
        }
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        Ok((Either::Right(Box::new(stream)), router))
    }
}

/// Answers those who speak HTTP without TLS, in words that they understand.
fn speak_tls() -> Router {
    Router::new().fallback(async || (StatusCode::BAD_REQUEST, "this port speaks HTTPS; use https://\n"))
}
