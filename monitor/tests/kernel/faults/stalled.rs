//! Scrapers that stall, more of them than are served at once: others are served, memory and sockets stay bounded, and
//! the stalled ones are dropped.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::harness::{
    can_run,
    daemon::Daemon,
    metrics::Scrape,
    netns,
    reference::{assert_count, untraced_port},
    traffic::{listen, local, open_and_close},
    until,
};

/// Clients that send nothing, and those that send half a request.
const MUTE: usize = 100;
/// Clients that ask and do not read.
const DEAF: usize = 8;
/// As the server has it.
const SERVED_AT_ONCE: usize = 64;
/// Pairs whose text is longer than what fits between the daemon and a client that does not read.
const PAIRS: u16 = 200;
/// For each client that is served: its buffers, and the text that waits for it.
const MEMORY_EACH: u64 = 512 << 10;
/// After this the daemon has given up all of them: the heads have three seconds, the bodies ten.
const LONG: Duration = Duration::from_mins(1);

/// A client with little room to receive, which has sent this and reads nothing.
fn client(address: SocketAddr, sent: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("an option");
    socket.connect(&address.into()).expect("the kernel takes it");
    let mut client = TcpStream::from(socket);
    client.write_all(sent.as_bytes()).expect("room");
    client
}

/// What else it has open for a moment, files of /proc and namespaces, depends on what the host does.
fn open_sockets(daemon: &Daemon) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid)).expect("it runs");
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid)).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse::<u64>().ok()).expect("its memory") << 10
}

/// A scraper that waits for as long as it takes.
fn patient(daemon: &Daemon) -> Scrape {
    let mut stream = TcpStream::connect(daemon.address).expect("the kernel takes it");
    stream.set_read_timeout(Some(LONG)).expect("an option");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("room");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    Scrape::parse(body)
}

#[test]
fn stalled_scrapers_keep_nobody_out() {
    if !can_run("stalled_scrapers_keep_nobody_out") {
        return;
    }
    let port = untraced_port();
    netns::in_namespace(|| {
        // What a client does not read must not vanish in the kernel's buffers.
        netns::sysctl("ipv4/tcp_wmem", "4096 16384 65536");
        netns::sysctl("core/somaxconn", "4096");
        let daemon = Daemon::isolated(&[]);
        let hosts = 1..=u8::try_from(PAIRS / 2).expect("few");
        let listeners: Vec<_> = hosts.map(|host| listen(local(host, port))).collect();
        listeners.iter().for_each(open_and_close);
        let length = daemon.text().len();
        assert!(length > 256 << 10, "{length} bytes do not fit between the two");
        let (sockets, memory) = (open_sockets(&daemon), resident(&daemon));

        let silent: Vec<_> = (0..MUTE).map(|_| client(daemon.address, "")).collect();
        let halfway: Vec<_> = (0..MUTE).map(|_| client(daemon.address, "GET /met")).collect();
        let deaf: Vec<_> =
            (0..DEAF).map(|_| client(daemon.address, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
        listeners.iter().for_each(open_and_close);
        let (mut most_sockets, mut most_memory) = (0, 0);
        let since = Instant::now();
        let scrape = std::thread::scope(|scope| {
            let scraper = scope.spawn(|| patient(&daemon));
            while !scraper.is_finished() {
                most_sockets = most_sockets.max(open_sockets(&daemon));
                most_memory = most_memory.max(resident(&daemon));
                std::thread::sleep(Duration::from_millis(20));
            }
            scraper.join().expect("it is answered")
        });
        eprintln!(
            "answered after {:?}: {sockets} to {most_sockets} sockets, {memory} to {most_memory} bytes",
            since.elapsed()
        );
        for (family, side) in
            [("opened", "proxy"), ("opened", "upstream"), ("closed", "proxy"), ("closed", "upstream")]
        {
            let count = scrape.sum(&format!("finwatch_connections_{family}_total"), &[("side", side)]);
            assert_count(&format!("{family} side={side}"), count, usize::from(PAIRS));
        }
        // One of netlink may come and go, as those that just make room.
        assert!(
            most_sockets <= sockets + SERVED_AT_ONCE + 8,
            "{sockets} sockets before, {most_sockets} meanwhile"
        );
        let may_take = SERVED_AT_ONCE as u64 * MEMORY_EACH;
        assert!(most_memory <= memory + may_take, "{memory} bytes before, {most_memory} meanwhile");

        // They are still there and do nothing; the daemon has dropped them all.
        let end = Instant::now() + LONG;
        while open_sockets(&daemon) > sockets {
            assert!(Instant::now() < end, "{} sockets before, now {}", sockets, open_sockets(&daemon));
            std::thread::sleep(Duration::from_millis(100));
        }
        until("it answers at once", || Some(daemon.scrape()));
        drop((silent, halfway, deaf));
    });
}
