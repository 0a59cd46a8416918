//! What a client can hold under TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

use crate::secured::{Authority, Files, Server, TLS};

/// Longer than any deadline of the server.
const LONG: Duration = Duration::from_secs(30);

fn server() -> (Files, Server, TlsConnector) {
    let (files, authority) = (Files::new(), Authority::new());
    let (certificate, key) = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
    files.write("server.pem", &certificate);
    files.write("server.key", &key);
    let server = Server::start(&files.write("web.yml", TLS));
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("a certificate");
    roots.add(trusted).expect("an authority");
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (files, server, TlsConnector::from(Arc::new(client)))
}

async fn connect(address: SocketAddr, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    connector.connect(address.ip().into(), stream).await.expect("a handshake")
}

async fn healthy(address: SocketAddr, connector: &TlsConnector) -> bool {
    let mut stream = connect(address, connector).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer that ends as TLS says it must");
    answer.starts_with("HTTP/1.1 200 ")
}

/// Nobody says anything: before the handshake, in its middle, after it, in the middle of a request's head.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_stalls_is_cut_off() {
    let (_files, server, connector) = server();
    let silent = TcpStream::connect(server.address).await.expect("a connection");
    let mut half = TcpStream::connect(server.address).await.expect("a connection");
    // A record of 512 bytes, of which the first come.
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.expect("the beginning of a handshake");
    let quiet = connect(server.address, &connector).await;
    let mut slow = connect(server.address, &connector).await;
    slow.write_all(b"GET /metr").await.expect("half a request");
    for mut stream in [silent, half] {
        let end = time::timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("an end");
        assert!(end.is_ok_and(|bytes| bytes == 0), "closed, without a word");
    }
    for mut stream in [quiet, slow] {
        let mut answer = Vec::new();
        let _end = time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(healthy(server.address, &connector).await);
}

/// Twice as many as may be connected at once, stuck in their handshake, and nobody waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_make_room() {
    let (_files, server, connector) = server();
    let mut stalled = Vec::new();
    for _ in 0..128 {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        // The server may have closed it already.
        let _sent = stream.write_all(&[0x16, 3, 1]).await;
        stalled.push(stream);
    }
    assert!(healthy(server.address, &connector).await);
    let first = stalled.remove(0).read(&mut [0]).await;
    assert!(first.is_err() || first.is_ok_and(|length| length == 0), "it was closed");
}
