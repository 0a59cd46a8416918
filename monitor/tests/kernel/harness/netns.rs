//! Anonymous network namespaces: each belongs to one thread and is gone when the thread and its sockets are.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `body` on a new thread in a new network namespace with loopback up. The thread has descriptors of its own: those
/// that all threads share are held for a moment by each process that any of them starts, and a socket is closed only with
/// its last descriptor. So no descriptor may leave `body`, or enter it.
pub(crate) fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_FILES).expect("a thread's own descriptors");
                enter_new();
                body()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Moves the calling thread, which must be one of the test's own, into a new network namespace.
pub(crate) fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
    // Before any interface: an address that is still tentative would make the first connection time out.
    sysctl("ipv6/conf/all/accept_dad", "0");
    sysctl("ipv6/conf/default/accept_dad", "0");
    sysctl("ipv6/conf/default/router_solicitations", "0");
    ip("link set lo up");
}

/// Does something on a thread in the process's own namespace.
pub(crate) fn outside<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let own = fs::File::open("/proc/self/ns/net").expect("/proc is mounted");
    let outcome = thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(own, CloneFlags::CLONE_NEWNET).expect("the way back");
            act()
        });
        thread.join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether this process may make namespaces and load programs.
pub(crate) fn permitted() -> bool {
    nix::unistd::geteuid().is_root()
        && thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false)
}

/// Sets `/proc/sys/net/NAME` of the calling thread's namespace.
pub(crate) fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
}

/// Sets it where the kernel has it.
pub(crate) fn sysctl_if_there(name: &str, value: &str) {
    drop(fs::write(format!("/proc/sys/net/{name}"), value));
}

/// Runs `ip` with one command a line.
pub(crate) fn ip(batch: &str) {
    fed(Command::new("ip").args(["-batch", "-"]), batch);
}

/// Runs `nft` with these commands.
pub(crate) fn nft(commands: &str) {
    fed(Command::new("nft").args(["-f", "-"]), commands);
}

fn fed(command: &mut Command, input: &str) {
    let mut child =
        command.stdin(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads its commands");
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{command:?}: {status}:\n{input}");
}
