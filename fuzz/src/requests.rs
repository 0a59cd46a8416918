//! What clients ask: the real server behind a Unix socket, asked by one client after the other.

use std::{
    future::pending,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    thread,
};

use finwatch::{
    api::{
        observer::{Observer, Sources},
        routes::{self, Api},
    },
    export::{
        http::{self as pages, App},
        server::serve,
    },
    kernel::listeners::Listeners,
    model::labels::ProcessFilter,
    recorder::Recorder,
    web::{Web, guarded},
};
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Builder};

use crate::support::{Agent, Units, busy_pairs, exporter, levels};

/// Ends a request's head, wherever the input leaves it.
const END: &[u8] = b"\r\n\r\n";
/// The one question whose answer goes on for ever.
const FOLLOW: &[u8] = b"/incidents/follow";
/// Users of the guarded port, with a hash of the lowest cost of the password `b`.
const USERS: &str = "basic_auth_users:\n  a: $2b$04$abcdefghijklmnopqrstuu12f.Pu8ic0A965BfTwGcW6x7Xin9Xgu\n";

/// A running server.
struct Server {
    path: PathBuf,
    _directory: TempDir,
}

impl Server {
    fn start(router: impl FnOnce() -> axum::Router + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("an option");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        thread::spawn(move || {
            runtime.block_on(async {
                let listener = UnixListener::from_std(listener).expect("within a runtime");
                serve(listener, router(), pending()).await;
            });
        });
        Self { path, _directory: directory }
    }

    /// Sends the input with the end of a head, and reads what is answered until the server has closed.
    fn ask(&self, input: &[u8]) -> (Vec<u8>, io::Result<()>) {
        let mut stream = UnixStream::connect(&self.path).expect("it listens");
        // The server may know enough and hang up before it has read all.
        drop(stream.write_all(&[input, END].concat()));
        let follows = input.windows(FOLLOW.len()).any(|window| window == FOLLOW);
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (answer, Ok(())),
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
                Err(error) => return (answer, Err(error)),
            }
            if follows && answer.windows(END.len()).any(|window| window == END) {
                return (answer, Ok(()));
            }
        }
    }

    /// Whatever was asked: an answer that is one, and another client is served.
    fn check(&self, input: &[u8], next: &[u8], good: &str) {
        // Empty lines before a request are none: the server waits for it.
        if input.iter().all(|byte| b"\r\n".contains(byte)) {
            return;
        }
        let (answer, _end) = self.ask(input);
        let head = String::from_utf8_lossy(&answer);
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let known = ["200", "400", "401", "404", "405", "414", "431"];
        assert!(answer.is_empty() || status.is_some_and(|status| known.contains(&status)), "{head:.200}");
        let (healthy, end) = self.ask(next);
        assert!(
            healthy.starts_with(good.as_bytes()),
            "{end:?} after {:?}",
            String::from_utf8_lossy(&healthy)
        );
    }
}

fn app() -> Arc<App> {
    let app = Arc::new(App::starting("tested"));
    app.ready(exporter(busy_pairs(1)));
    app
}

/// A request to the port that serves metrics, open and guarded by a password.
pub fn http(data: &[u8]) {
    static OPEN: LazyLock<Server> = LazyLock::new(|| Server::start(|| pages::router(app())));
    static GUARDED: LazyLock<Server> = LazyLock::new(|| {
        Server::start(|| {
            let web = Web::from_text(Path::new("web.yml"), USERS).expect("a web config");
            guarded(pages::router(app()), Arc::new(web))
        })
    });
    const HEALTHY: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x";
    OPEN.check(data, HEALTHY, "HTTP/1.1 200 ");
    GUARDED.check(data, HEALTHY, "HTTP/1.1 401 ");
}

/// A request to the socket that `triage`, `incidents` and `top` ask.
pub fn api(data: &[u8]) {
    static API: LazyLock<Server> = LazyLock::new(|| {
        Server::start(|| {
            let recorder = Arc::new(Recorder::new(8));
            let observer = Observer::new(Sources {
                pairs: Arc::new(busy_pairs(1)),
                names: Arc::new(Units),
                agent: Arc::new(Agent),
                levels: Some(Arc::new(levels(1))),
                filter: ProcessFilter::default(),
                listeners: Arc::new(Listeners::default()),
                recorder: recorder.clone(),
            });
            let api = Arc::new(Api::default());
            api.ready(Arc::new(observer), recorder);
            routes::router(api)
        })
    });
    API.check(data, b"GET /incidents HTTP/1.1\r\nHost: x", "HTTP/1.1 200 ");
}
