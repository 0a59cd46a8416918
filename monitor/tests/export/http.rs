//! The server and its clients, good and bad.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use finwatch::export::{
    http::{self, App},
    server,
};
use flate2::read::GzDecoder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time,
};

use crate::{
    parsed::parse,
    support::{busy_pairs, exporter},
};

struct Server {
    address: SocketAddr,
    app: Arc<App>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    fn starting() -> Self {
        let listener = server::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let listener = TcpListener::from_std(listener).expect("within a runtime");
        let address = listener.local_addr().expect("an address");
        let app = Arc::new(App::starting("hooks are being attached"));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let task = tokio::spawn(server::serve(listener, http::router(Arc::clone(&app)), shutdown));
        Self { address, app, stop, task }
    }

    fn ready(pairs: u16) -> Self {
        let server = Self::starting();
        server.app.ready(exporter(busy_pairs(pairs)));
        server
    }

    /// Ends it and returns how long that took.
    async fn stop(self) -> Duration {
        let begun = Instant::now();
        self.stop.send(()).expect("a running server");
        self.task.await.expect("a server that ends well");
        begun.elapsed()
    }
}

struct Response {
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

async fn request(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("a request");
    stream
}

/// A response that ends as HTTP says it must.
async fn response(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("a response");
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("UTF-8");
    let chunked = head.contains("transfer-encoding: chunked");
    let body =
        if chunked { unchunked(&bytes[end..]).expect("the last chunk") } else { bytes[end..].to_vec() };
    Response { head, body }
}

/// The body, if it is complete.
fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(line + 2..line + 2 + size)?);
        bytes = bytes.get(line + 4 + size..)?;
    }
}

async fn get(address: SocketAddr, path: &str) -> Response {
    response(request(address, &format!("GET {path} HTTP/1.1")).await).await
}

/// A client that asks for everything and takes nothing.
async fn stalled(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_it_says_so() {
    let server = Server::starting();
    for path in ["/readyz", "/metrics"] {
        let response = get(server.address, path).await;
        assert!(response.head.starts_with("HTTP/1.1 503 "), "{}", response.head);
        assert_eq!(response.text(), "not ready: hooks are being attached\n");
    }
    assert!(get(server.address, "/healthz").await.head.starts_with("HTTP/1.1 200 "));
    assert!(get(server.address, "/").await.text().contains("Not ready: hooks are being attached."));
    server.app.waits_for("pairs are being adopted");
    assert_eq!(get(server.address, "/readyz").await.text(), "not ready: pairs are being adopted\n");
    server.app.ready(exporter(busy_pairs(1)));
    assert_eq!(get(server.address, "/readyz").await.text(), "ready\n");
    assert!(get(server.address, "/").await.text().contains("<th>13 of 4096</th>"));
    let missing = get(server.address, "/metric").await;
    assert!(missing.head.starts_with("HTTP/1.1 404 ") && missing.text().contains("/metrics"));
    assert!(server.stop().await < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_scrapes_at_once_both_are_whole() {
    let server = Server::ready(100);
    let (one, two) = tokio::join!(get(server.address, "/metrics"), get(server.address, "/metrics"));
    for response in [one, two] {
        assert!(response.head.contains("content-type: text/plain; version=0.0.4\r\n"), "{}", response.head);
        assert!(parse(response.text()).len() > 30);
    }
    let counted = get(server.address, "/metrics").await;
    assert!(counted.text().contains("\nfinwatch_scrape_duration_seconds_count 2\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_for_those_who_ask() {
    let server = Server::ready(100);
    let plain = get(server.address, "/metrics").await;
    assert!(!plain.head.contains("content-encoding"), "{}", plain.head);
    let ask = |encoding| request(server.address, encoding);
    let gzip = response(ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: gzip").await).await;
    assert!(gzip.head.contains("content-encoding: gzip\r\n"), "{}", gzip.head);
    assert!(gzip.body.len() * 10 < plain.body.len(), "{} of {}", gzip.body.len(), plain.body.len());
    let mut text = String::new();
    GzDecoder::new(&gzip.body[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(parse(&text).len(), parse(plain.text()).len());
    let zstd = response(ask("GET /metrics HTTP/1.1\r\nAccept-Encoding: zstd").await).await;
    assert!(zstd.head.contains("content-encoding: zstd\r\n"), "{}", zstd.head);
    assert!(zstd.body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) && zstd.body.len() * 10 < plain.body.len());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded() {
    let server = Server::ready(1);
    let ask = |head: String| async move { get(server.address, &head).await.head };
    let with = |headers: usize, length: usize| {
        let header = format!("X: {}\r\n", "x".repeat(length));
        // The last one is the request's own.
        format!("/healthz HTTP/1.1\r\n{}X:", header.repeat(headers))
    };
    assert!(ask(with(90, 10)).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(with(2, 15_000)).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(with(101, 10)).await.starts_with("HTTP/1.1 431 "));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_hold_nothing() {
    let server = Server::ready(1000);
    for _ in 0..20 {
        let mut stream = stalled(server.address).await;
        stream.read_exact(&mut [0; 64]).await.expect("the beginning");
        drop(stream);
    }
    // Well before the deadline that ends a stalled scrape.
    let next =
        time::timeout(Duration::from_secs(5), get(server.address, "/metrics")).await.expect("a scrape");
    assert!(parse(next.text()).len() > 30);
    server.stop().await;
}

/// As many as are written at once give their places to one that waits, and what they got is visibly cut off.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_give_their_places_to_others() {
    let server = Server::ready(1000);
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = stalled(server.address).await;
        stream.read_exact(&mut [0; 64]).await.expect("the beginning");
        slow.push(stream);
    }
    assert!(get(server.address, "/healthz").await.head.starts_with("HTTP/1.1 200 "));
    let next = get(server.address, "/metrics").await;
    assert!(parse(next.text()).len() > 30);
    let mut cut = 0;
    for mut stream in slow {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest).await;
        cut += usize::from(read.is_err() || !rest.ends_with(b"0\r\n\r\n"));
    }
    assert!(cut >= 1, "one has made room");
    server.stop().await;
}

/// As many as may be connected at once.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_clients_do_not_keep_others_out_for_long() {
    let server = Server::ready(1000);
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(stalled(server.address).await);
    }
    let next =
        time::timeout(Duration::from_secs(15), get(server.address, "/healthz")).await.expect("a response");
    assert_eq!(next.text(), "ok\n");
    server.stop().await;
    drop(clients);
}

/// Twice as many as may be connected at once, and nobody waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_make_room() {
    let server = Server::ready(1);
    // Its request is under way: it is no silent one.
    let busy = request(server.address, "GET /metrics HTTP/1.1").await;
    let mut silent = Vec::new();
    for _ in 0..128 {
        silent.push(TcpStream::connect(server.address).await.expect("a connection"));
    }
    assert_eq!(get(server.address, "/healthz").await.text(), "ok\n");
    assert!(parse(response(busy).await.text()).len() > 30);
    // Those that came first had to go; those that came last may still ask.
    let first = silent.remove(0).read(&mut [0]).await;
    assert!(first.is_err() || first.is_ok_and(|length| length == 0), "it was closed");
    let mut last = silent.pop().expect("the last");
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("a request");
    assert_eq!(response(last).await.text(), "ok\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_waits_for_nobody_for_longer_than_a_second() {
    let server = Server::ready(1000);
    let mut reading = stalled(server.address).await;
    reading.read_exact(&mut [0; 64]).await.expect("the beginning");
    let silent = TcpStream::connect(server.address).await.expect("a connection");
    let mut half = TcpStream::connect(server.address).await.expect("a connection");
    half.write_all(b"GET /metr").await.expect("half a request");
    assert!(server.stop().await < Duration::from_secs(1));
    drop((reading, silent, half));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_under_way_is_finished_at_shutdown() {
    let server = Server::ready(50);
    let mut stream = request(server.address, "GET /metrics HTTP/1.1").await;
    let mut begun = vec![0; 64];
    stream.read_exact(&mut begun).await.expect("the beginning");
    let reading = tokio::spawn(async move {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("the rest");
        rest
    });
    server.stop().await;
    assert!(reading.await.expect("a reader").ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_port_in_use_is_told_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port").into_std().expect("a listener");
    let address = taken.local_addr().expect("an address");
    let error = server::bind(address).expect_err("a port in use").to_string();
    let port = address.port();
    assert_eq!(
        error,
        format!(
            "cannot listen on {address}: the port is in use; `ss -ltnp 'sport = :{port}'` shows by whom, and --listen \
             ADDR:PORT chooses another"
        )
    );
}

#[tokio::test]
async fn an_address_of_another_host_is_told_with_the_remedy() {
    let error =
        server::bind("192.0.2.1:9778".parse().expect("an address")).expect_err("not ours").to_string();
    assert!(error.contains("this host does not have that address"), "{error}");
}
