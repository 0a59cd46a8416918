//! Plain connections on loopback, by the hundred; and by processes of any name.

use std::{
    env,
    ffi::OsStr,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::ffi::OsStrExt as _,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use super::PATIENCE;

const HELPER_UPSTREAM: &str = "FINWATCH_HELPER_UPSTREAM";
const HELPER_NAME: &str = "FINWATCH_HELPER_NAME";
const HELPER_REFUSED: &str = "FINWATCH_HELPER_REFUSED";

/// An address on loopback.
pub(crate) fn local(host: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, host), port).into()
}

/// A listener there.
pub(crate) fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).expect("a free port in a namespace of our own")
}

/// A connection to `listener`: the end that connected, the end that accepted.
pub(crate) fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().expect("bound");
    let proxy = TcpStream::connect(address).expect("a listener is there");
    let (upstream, _) = listener.accept().expect("a connection");
    upstream.set_read_timeout(Some(PATIENCE)).expect("an option");
    (proxy, upstream)
}

/// Opens a connection and closes it cleanly.
pub(crate) fn open_and_close(listener: &TcpListener) {
    let (proxy, mut upstream) = pair(listener);
    drop(proxy);
    assert_eq!(upstream.read(&mut [0]).expect("the end of the stream"), 0);
}

/// Opens a connection from another process, of this name, and closes it cleanly.
pub(crate) fn open_and_close_as(name: &[u8], listener: &TcpListener) {
    drop(open_as(name, listener));
}

/// A connection of another process, which closes it cleanly when this is dropped.
pub(crate) struct Held {
    upstream: TcpStream,
    helper: Child,
}

/// Opens a connection from another process of this name.
pub(crate) fn open_as(name: &[u8], listener: &TcpListener) -> Held {
    let address = listener.local_addr().expect("bound");
    let helper = helper_of(name, address).stdin(Stdio::piped()).spawn();
    let helper = helper.expect("the test binary starts again");
    let (upstream, _) = listener.accept().expect("a connection");
    upstream.set_read_timeout(Some(PATIENCE)).expect("an option");
    Held { upstream, helper }
}

/// Lets another process of this name try to connect where nobody listens, and gives its number.
pub(crate) fn refused_as(name: &[u8], address: SocketAddr) -> u32 {
    let mut helper = helper_of(name, address).env(HELPER_REFUSED, "").spawn().expect("it starts again");
    assert!(helper.wait().expect("a child of ours").success());
    helper.id()
}

fn helper_of(name: &[u8], address: SocketAddr) -> Command {
    let mut helper = Command::new("/proc/self/exe");
    helper
        .args(["--exact", "harness::traffic::helper", "--test-threads", "1"])
        .env(HELPER_UPSTREAM, address.to_string())
        .env(HELPER_NAME, OsStr::from_bytes(name))
        .stdout(Stdio::null());
    helper
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.helper.stdin.take());
        assert_eq!(self.upstream.read(&mut [0]).expect("the end of the stream"), 0);
        assert!(self.helper.wait().expect("a child of ours").success());
    }
}

/// Not a test: what [`open_as`] and [`refused_as`] run in another process. Holds the connection until standard input
/// ends.
#[test]
fn helper() {
    let Ok(upstream) = env::var(HELPER_UPSTREAM) else { return };
    let name = env::var_os(HELPER_NAME).expect("set together");
    let leader = format!("/proc/self/task/{}/comm", std::process::id());
    std::fs::write(leader, name.as_bytes()).expect("a process may rename itself");
    let connection = TcpStream::connect(upstream);
    if env::var_os(HELPER_REFUSED).is_some() {
        assert!(connection.is_err(), "nobody listens");
        return;
    }
    let connection = connection.expect("a listener is there");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the end of standard input");
    drop(connection);
}

/// Runs `body` as another user of no group but its own, on a thread of its own: files and sockets made there are that
/// user's.
pub(crate) fn as_user<T: Send>(uid: u32, body: impl FnOnce() -> T + Send) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the bare system call changes the calling thread only; it reads no list, which is empty.
            let status = unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
            assert_eq!(status, 0, "setgroups: {}", std::io::Error::last_os_error());
            // SAFETY: the bare system calls change the calling thread only, and take no pointers.
            let status = unsafe { libc::syscall(libc::SYS_setresgid, uid, uid, uid) };
            assert_eq!(status, 0, "setresgid: {}", std::io::Error::last_os_error());
            // SAFETY: as above.
            let status = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(status, 0, "setresuid: {}", std::io::Error::last_os_error());
            body()
        });
        thread.join().expect("the other user's part succeeds")
    })
}
