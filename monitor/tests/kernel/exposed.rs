//! What a local user without rights can learn from the daemon and do to it, as docs/security.md tells.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
    time::Duration,
};

use finwatch::api::socket;

use crate::harness::{
    can_run,
    daemon::{Daemon, command, free_address, get},
    netns::in_namespace,
    traffic::{as_user, listen, local, open_and_close},
    until,
};

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;
/// More than are written to at once.
const STALLED: usize = 8;
/// More than are connected at once.
const SILENT: usize = 72;
const METRICS: &[u8] = b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n";

fn refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

/// Root by hand makes the run directory as everybody can enter it: what lies in it is guarded by itself.
fn open_directory(daemon: &Daemon) -> &Path {
    let directory = daemon.directory.path();
    fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("our own directory");
    directory
}

#[test]
fn nobody_reads_metrics_and_nothing_else() {
    if !can_run("nobody_reads_metrics_and_nothing_else") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let directory = open_directory(&daemon);
        assert!(TcpStream::connect(local(1, 1)).is_err(), "nobody listens");
        until("an incident is written", || (!daemon.incidents().is_empty()).then_some(()));
        let (api, lock) = (socket::path(directory), directory.join("finwatch.lock"));
        assert_eq!([mode(&api), mode(&lock), mode(&daemon.incident_file())], [0o660, 0o600, 0o640]);
        as_user(NOBODY, || {
            for path in ["/metrics", "/healthz", "/readyz", "/"] {
                assert_eq!(get(daemon.address, path).map(|(status, _)| status), Some(200), "{path}");
            }
            assert_eq!(get(daemon.address, "/incidents").map(|(status, _)| status), Some(404));
            assert!(refused(UnixStream::connect(&api)), "the API");
            assert!(refused(File::open(daemon.incident_file())), "incidents");
            assert!(refused(File::open(&lock)), "whoever opens the lock can take it");
            assert!(refused(File::create(directory.join("finwatch.sock"))), "the API's place");
        });
    });
}

/// With the API closed, the commands say so, and how it may be used.
#[test]
fn nobodys_commands_are_told_why_not() {
    if !can_run("nobodys_commands_are_told_why_not") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let directory = open_directory(&daemon);
        // Nobody may enter the directory in which tests are built.
        let program = directory.join("finwatch");
        fs::copy(env!("CARGO_BIN_EXE_finwatch"), &program).expect("room for a copy");
        for question in ["triage", "incidents"] {
            let mut asking = Command::new(&program);
            asking.args([question, "--run-dir"]).arg(directory).uid(NOBODY).gid(NOBODY);
            let output = asking.output().expect("finwatch starts");
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(told.contains("may be used by its owner and group only"), "{told}");
        }
    });
}

/// What an older version has left in the run directory is closed as well.
#[test]
fn nobody_keeps_a_daemon_from_starting_by_its_lock() {
    if !can_run("nobody_keeps_a_daemon_from_starting_by_its_lock") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        let lock = open_directory(&daemon).join("finwatch.lock");
        assert!(matches!(File::open(&lock).expect("root's").try_lock(), Err(TryLockError::WouldBlock)));
        assert!(daemon.stop(nix::sys::signal::Signal::SIGTERM).is_some(), "it ends");
        fs::set_permissions(&lock, Permissions::from_mode(0o644)).expect("our own file");
        let next = daemon.successor(&["--netns", "host"]);
        assert_eq!(mode(&lock), 0o600);
        drop(next);
    });
}

/// The port is nobody's until it is taken: a daemon that comes later says so. One that is there keeps its address, but
/// `localhost` may be somebody else's, by IPv6.
#[test]
fn a_port_is_of_whoever_takes_it_first() {
    if !can_run("a_port_is_of_whoever_takes_it_first") {
        return;
    }
    in_namespace(|| {
        let address = free_address();
        let taken = as_user(NOBODY, || TcpListener::bind(address)).expect("a port above 1023");
        let directory = tempfile::tempdir().expect("a directory");
        let mut late = command(address, &["--netns", "host", "--run-dir"]);
        let output = late.arg(directory.path()).output().expect("finwatch starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("the port is in use"), "{told}");
        drop(taken);

        let daemon = Daemon::start_at(address, &["--netns", "host"], |_| ());
        as_user(NOBODY, || {
            for any in ["127.0.0.1", "0.0.0.0", "::"] {
                let stolen = TcpListener::bind((any, address.port()));
                assert!(stolen.is_err_and(|error| error.kind() == ErrorKind::AddrInUse), "{any}");
            }
            TcpListener::bind((Ipv6Addr::LOCALHOST, address.port())).expect("another address");
        });
        assert_eq!(get(daemon.address, "/healthz").map(|(status, _)| status), Some(200));
    });
}

/// Some say nothing, some half a request, and some ask for everything and take nothing: others are served all the same.
#[test]
fn nobody_starves_scrapes() {
    if !can_run("nobody_starves_scrapes") {
        return;
    }
    in_namespace(|| {
        let daemon = Daemon::isolated(&[]);
        // Enough pairs that an answer does not fit into a socket's buffers.
        let listeners: Vec<_> = (30_000..30_200).map(|port| listen(local(1, port))).collect();
        listeners.iter().for_each(open_and_close);
        let connect = |request: &[u8]| {
            let mut stream = TcpStream::connect(daemon.address).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_mins(1))).expect("an option");
            // It may have had to make room already.
            drop(stream.write_all(request));
            stream
        };
        let (stalled, silent): (Vec<_>, Vec<_>) = as_user(NOBODY, || {
            let stalled = (0..STALLED).map(|_| connect(METRICS)).collect();
            (stalled, (0..SILENT).map(|n| connect([&b""[..], b"GET /metr"][n % 2])).collect())
        });
        for _ in 0..3 {
            let mut answer = String::new();
            connect(METRICS).read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.0 200 "), "{answer:.200}");
            assert!(answer.contains("upstream=\"127.0.0.1:30199\""), "all of it");
        }
        // Those that only sat there are cut off.
        for mut stream in silent {
            let mut answer = Vec::new();
            let _end = stream.read_to_end(&mut answer);
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
        drop(stalled);
    });
}
