//! Requests of a real nginx to a real Node.js: as many as nginx's access log has attempts.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::harness::{
    PATIENCE, can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns,
    nginx::{self, Nginx},
    traffic::local,
    until,
};

const NODE: u16 = 30_000;
const FRONT: u16 = 30_001;
/// nginx closes a connection after so many requests.
const LIMIT: usize = 10;
/// Requests on connections that are kept: four connections are full, the fifth is not.
const KEPT: usize = 45;
/// Requests that have a connection each.
const ALONE: usize = 7;

const SERVER: &str = "require('node:http')
    .createServer((request, response) => { request.resume(); request.on('end', () => response.end('ok')); })
    .listen(Number(process.argv[1]), '127.0.0.1').keepAliveTimeout = 60000;";

/// A running Node.js server; dropping it ends it.
struct Node(Child);

impl Node {
    fn start(address: SocketAddr) -> Self {
        let port = address.port().to_string();
        let mut node = Command::new("node");
        let node = Self(node.args(["-e", SERVER, &port]).stdin(Stdio::null()).spawn().expect("node starts"));
        until("node listens", || TcpStream::connect(address).ok());
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

fn ask(path: &str) {
    let mut client = TcpStream::connect(local(1, FRONT)).expect("nginx listens");
    client.set_read_timeout(Some(PATIENCE)).expect("an option");
    write!(client, "GET {path} HTTP/1.0\r\n\r\n").expect("room to write");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

fn start_nginx(directory: &Path) -> Nginx {
    let http = format!(
        "log_format attempts '$upstream_addr'; access_log attempts.log attempts;
        upstream node {{ server 127.0.0.1:{NODE}; keepalive 4; keepalive_requests {LIMIT}; }}
        server {{
            listen 127.0.0.1:{FRONT};
            proxy_http_version 1.1;
            location /kept {{ proxy_pass http://node; proxy_set_header Connection \"\"; }}
            location /alone {{ proxy_pass http://127.0.0.1:{NODE}; proxy_set_header Connection close; }}
        }}"
    );
    Nginx::start(directory, local(1, FRONT), &http)
}

/// How often nginx's access log says it asked Node.js.
fn attempts(directory: &Path) -> usize {
    let log = fs::read_to_string(directory.join("attempts.log")).expect("an access log");
    log.matches(&format!("127.0.0.1:{NODE}")).count()
}

fn settled(daemon: &Daemon) -> Scrape {
    until("all connections are closed", || {
        let scrape = daemon.scrape();
        (scrape.sum("finwatch_tracked_connections", &[]) < 0.5).then_some(scrape)
    })
}

#[test]
fn a_limit_of_requests_shows() {
    if !can_run("a_limit_of_requests_shows")
        || !nginx::is_here("a_limit_of_requests_shows")
        || !nginx::program_is_here("node", "--version", "a_limit_of_requests_shows")
    {
        return;
    }
    for flag in ["--requests", "--requests=coarse"] {
        netns::in_namespace(|| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let node = Node::start(local(1, NODE));
            let nginx = start_nginx(directory.path());
            let daemon = Daemon::isolated(&[flag]);
            (0..KEPT).for_each(|_| ask("/kept"));
            (0..ALONE).for_each(|_| ask("/alone"));
            assert_eq!(attempts(directory.path()), KEPT + ALONE, "nginx had to try once only");
            drop(nginx);
            let scrape = settled(&daemon);
            drop(node);
            let upstream = local(1, NODE).to_string();
            for (side, proxy) in [("proxy", "nginx"), ("upstream", "127.0.0.1")] {
                let labels = [("side", side), ("proxy", proxy), ("upstream", upstream.as_str())];
                let requests = scrape.sum("finwatch_requests_total", &labels);
                assert!((requests - (KEPT + ALONE) as f64).abs() < 0.5, "{flag}, {side}: {requests}");
                let up_to = |le: &str| {
                    let bucket = [&labels[..], &[("le", le)]].concat();
                    scrape.sum("finwatch_requests_per_connection_bucket", &bucket)
                };
                let carried =
                    [("0", "1"), ("3", "5"), ("9", "10")].map(|(low, high)| up_to(high) - up_to(low));
                let wanted = [ALONE as f64, 1.0, (KEPT / LIMIT) as f64];
                for (carried, wanted) in carried.into_iter().zip(wanted) {
                    assert!((carried - wanted).abs() < 0.5, "{flag}, {side}: {carried}, should be {wanted}");
                }
                let all = scrape.sum("finwatch_requests_per_connection_count", &labels);
                assert!((all - wanted.iter().sum::<f64>()).abs() < 0.5, "{flag}, {side}: {all} connections");
            }
        });
    }
}
