//! nginx and its pool first, the daemon later.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use crate::harness::{
    PATIENCE, can_run,
    daemon::Daemon,
    lab::QUIET,
    metrics::Side,
    netns,
    reference::untraced_port,
    traffic::{listen, local},
    until,
};

/// Idle connections that nginx keeps.
const POOL: usize = 8;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A running nginx with one process, in the calling thread's namespace; dropping it ends it.
struct Nginx(Child);

impl Nginx {
    fn start(directory: &Path, listen: SocketAddr, upstream: SocketAddr) -> Self {
        let file = directory.join("nginx.conf");
        let text = format!(
            "daemon off; master_process off; user root; pid nginx.pid; error_log error.log info;
            events {{ worker_connections 256; }}
            http {{
                access_log off; client_body_temp_path body; proxy_temp_path proxy;
                fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                upstream test {{ server {upstream} max_fails=0; keepalive 32; keepalive_timeout 60s; }}
                server {{
                    listen {listen};
                    location / {{
                        proxy_pass http://test; proxy_http_version 1.1; proxy_set_header Connection \"\";
                    }}
                }}
            }}"
        );
        fs::write(&file, text).expect("a temporary file");
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "error.log"]);
        let nginx = Self(nginx.stdin(Stdio::null()).spawn().expect("nginx starts"));
        until("nginx listens", || TcpStream::connect(listen).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

fn ask(nginx: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(nginx).expect("nginx listens");
    client.set_read_timeout(Some(PATIENCE)).expect("an option");
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("room to write");
    client
}

/// The next connection to the upstream, with the request that it brings.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("nginx connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut piece).expect("a request");
        assert!(length > 0, "a whole request");
        head.extend(&piece[..length]);
    }
    stream
}

fn assert_answered(mut client: TcpStream) {
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

#[test]
fn pool_of_nginx() {
    if !can_run("pool_of_nginx") {
        return;
    }
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "CI may not skip what needs nginx");
        eprintln!("SKIPPED pool_of_nginx: no nginx here");
        return;
    }
    let [port, front] = [untraced_port(), untraced_port()];
    netns::in_namespace(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = listen(local(1, port));
        let address = local(1, front);
        let _nginx = Nginx::start(directory.path(), address, local(1, port));
        let clients: Vec<_> = (0..POOL).map(|_| ask(address)).collect();
        let mut pool: Vec<_> = (0..POOL).map(|_| accept(&listener)).collect();
        for stream in &mut pool {
            stream.write_all(ANSWER).expect("room to write");
        }
        clients.into_iter().for_each(assert_answered);
        thread::sleep(QUIET);
        let daemon = Daemon::isolated(&[]);
        let last = pool.pop().expect("it was filled");
        drop(pool);
        let upstream = local(1, port).to_string();
        let labels = [("side", "proxy"), ("upstream", upstream.as_str()), ("by", "peer")];
        let closed = |wanted: f64| {
            until("nginx has closed its ends", || {
                let closed = daemon.scrape().sum("finwatch_connections_closed_total", &labels);
                ((closed - wanted).abs() < 0.5).then_some(())
            });
        };
        closed(7.0);
        // The last one is reused, and lost; nginx tries again upon a new connection, and the client notices nothing.
        let client = ask(address);
        last.peek(&mut [0]).expect("the request has come");
        drop(last);
        let mut retried = accept(&listener);
        retried.write_all(ANSWER).expect("room to write");
        assert_answered(client);
        drop(retried);
        closed(8.0);
        let proxy = [
            "ended:peer*7",
            "ended:reset",
            "received:reused_request",
            "lost:no_fin",
            "lost_idle>1",
            "opened",
            "closed:peer",
            "peer_close_idle*8",
        ];
        let accepting = [
            "ended:local*7",
            "ended:reset",
            "sent:unread_data_at_close",
            "opened",
            "closed:local",
            "time_wait*8",
            "local_close_idle*8",
        ];
        until("the pool's end is counted", || {
            (daemon.scrape().sum("finwatch_tracked_connections", &[]) < 0.5).then_some(())
        });
        let scrape = daemon.scrape();
        let mut wrong = scrape.differences(Side::Proxy, &upstream, "nginx", &proxy);
        wrong.extend(scrape.differences(Side::Upstream, &upstream, "127.0.0.1", &accepting));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
