//! Takes connections, serves one request on each, and bounds what a client can hold.

use std::{
    collections::BTreeMap,
    io,
    net::{self, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Notify,
    task::JoinSet,
    time,
};
use tokio_io_timeout::TimeoutStream;

/// Connections served at once. The one that has waited longest for a request's head makes room for another; where each
/// has sent one, the others wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
/// What comes before a request has to be done after this long, and a request's head has to be there after as long again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// A client that takes nothing for this long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long responses may go on after shutdown was asked for.
const GRACE: Duration = Duration::from_millis(500);
/// Pause after `accept()` failed, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// An outage that lasts is spoken of this seldom.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "cannot listen on {0}: the port is in use; `ss -ltnp 'sport = :{port}'` shows by whom, and --listen ADDR:PORT \
         chooses another",
        port = .0.port()
    )]
    InUse(SocketAddr),
    /// The port is reserved for privileged processes.
    #[error(
        "cannot listen on {0}: no permission; choose a port from 1024 on with --listen ADDR:PORT, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    Permission(SocketAddr),
    /// The address is not this host's.
    #[error(
        "cannot listen on {0}: this host does not have that address; `ip address` shows those it has, and --listen \
         ADDR:PORT chooses one"
    )]
    NotAvailable(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}; --listen ADDR:PORT chooses another address")]
    Other(SocketAddr, io::Error),
}

/// Listens on the address (port 0: any free port), ready for a runtime that is yet to come.
pub fn bind(address: SocketAddr) -> Result<net::TcpListener, BindError> {
    let bound = net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::PermissionDenied => BindError::Permission(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotAvailable(address),
        _ => BindError::Other(address, error),
    })
}

/// Where connections come from.
pub trait Accept {
    /// A connection as it comes.
    type Stream: Send + 'static;
    /// What HTTP is spoken on.
    type Opened: AsyncRead + AsyncWrite + Send + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Does what comes before HTTP, such as a handshake; tells what answers there, most often `router`.
    fn open(
        stream: Self::Stream,
        router: Router,
    ) -> impl Future<Output = io::Result<(Self::Opened, Router)>> + Send + 'static;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    type Opened = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _peer)| stream)
    }

    async fn open(stream: TcpStream, router: Router) -> io::Result<(TcpStream, Router)> {
        Ok((stream, router))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    type Opened = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _peer)| stream)
    }

    async fn open(stream: UnixStream, router: Router) -> io::Result<(UnixStream, Router)> {
        Ok((stream, router))
    }
}

/// Serves until `shutdown` completes, then ends within a second whatever the clients do.
///
/// Each connection carries one request. Were they kept open, either side could close one just as the other uses it,
/// the very failure this program is there to find.
pub async fn serve<L: Accept>(listener: L, router: Router, shutdown: impl Future<Output = ()>) {
    let headless = Arc::new(Headless::default());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut told = None;
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            stream = accept(&listener, &mut told), if has_room(connections.len(), &headless) => {
                if connections.len() == MAX_CONNECTIONS {
                    headless.dismiss_first();
                }
                let ticket = headless.enter();
                let opening = L::open(stream, router.clone());
                connections.spawn(connection(opening, ticket, graceful.watcher()));
            }
            Some(_finished) = connections.join_next() => {}
        }
    }
    drop(listener);
    if time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!(connections = connections.len(), "clients were cut off at shutdown");
    }
    connections.shutdown().await;
}

/// Whether another may come: one at most beyond the bound, in place of one that has been dismissed and is about to go.
fn has_room(connections: usize, headless: &Headless) -> bool {
    connections < MAX_CONNECTIONS || connections == MAX_CONNECTIONS && headless.any()
}

/// The next connection; `told` is when an outage was last spoken of.
async fn accept<L: Accept>(listener: &L, told: &mut Option<Instant>) -> L::Stream {
    loop {
        match listener.next().await {
            Ok(stream) => return stream,
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    *told = Some(Instant::now());
                    tracing::warn!(
                        "cannot accept connections: {error}; they wait, and it is tried again and again; for want of \
                         file descriptors, allow the daemon more (LimitNOFILE= of its unit, or `ulimit -n`)"
                    );
                }
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Connections that have not sent a request's head yet, in the order in which they came.
#[derive(Default)]
struct Headless(Mutex<BTreeMap<u64, Arc<Notify>>>);

/// A connection's place among them; dropping it leaves them.
struct Ticket {
    number: u64,
    dismissed: Arc<Notify>,
    headless: Arc<Headless>,
}

impl Headless {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, Arc<Notify>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn any(&self) -> bool {
        self.with(|waiting| !waiting.is_empty())
    }

    fn enter(self: &Arc<Self>) -> Ticket {
        let dismissed = Arc::new(Notify::new());
        let number = self.with(|waiting| {
            let number = waiting.last_key_value().map_or(0, |(last, _)| last + 1);
            waiting.insert(number, dismissed.clone());
            number
        });
        Ticket { number, dismissed, headless: self.clone() }
    }

    fn dismiss_first(&self) {
        if let Some((_, first)) = self.with(BTreeMap::pop_first) {
            first.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.headless.with(|waiting| {
            // The number may have been given anew since the connection was dismissed.
            if waiting.get(&self.number).is_some_and(|own| Arc::ptr_eq(own, &self.dismissed)) {
                waiting.remove(&self.number);
            }
        });
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Send + 'static>(
    opening: impl Future<Output = io::Result<(S, Router)>> + Send + 'static,
    ticket: Ticket,
    graceful: hyper_util::server::graceful::Watcher,
) {
    let dismissed = ticket.dismissed.clone();
    let served = async {
        match time::timeout(HEAD_TIMEOUT, opening).await {
            Ok(Ok((stream, router))) => answer(stream, router, ticket, graceful).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection did not get as far as a request"),
            Err(_) => tracing::debug!("a connection's handshake took too long"),
        }
    };
    tokio::select! {
        () = served => {}
        () = dismissed.notified() => tracing::debug!("a connection without a request made room for another"),
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    router: Router,
    ticket: Ticket,
    graceful: hyper_util::server::graceful::Watcher,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let answers = TowerToHyperService::new(router);
    let ticket = Mutex::new(Some(ticket));
    let service = service_fn(move |request| {
        // The head is there.
        drop(ticket.lock().unwrap_or_else(PoisonError::into_inner).take());
        answers.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = graceful.watch(served).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
