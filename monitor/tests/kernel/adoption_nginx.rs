//! nginx and its pool first, the daemon later.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::harness::{
    PATIENCE, can_run,
    daemon::Daemon,
    lab::QUIET,
    metrics::Side,
    netns,
    nginx::{self, Nginx},
    reference::untraced_port,
    traffic::{listen, local},
    until,
};

/// Idle connections that nginx keeps.
const POOL: usize = 8;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

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
    if !nginx::is_here("pool_of_nginx") {
        return;
    }
    let [port, front] = [untraced_port(), untraced_port()];
    netns::in_namespace(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = listen(local(1, port));
        let address = local(1, front);
        let http = format!(
            "access_log off;
            upstream test {{ server 127.0.0.1:{port} max_fails=0; keepalive 32; keepalive_timeout 60s; }}
            server {{
                listen {address};
                location / {{
                    proxy_pass http://test; proxy_http_version 1.1; proxy_set_header Connection \"\";
                }}
            }}"
        );
        let _nginx = Nginx::start(directory.path(), address, &http);
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
