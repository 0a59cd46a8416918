//! Holds a daemon at a system call: whenever it makes an iterator over sockets, the kernel asks the test first
//! (`SECCOMP_RET_USER_NOTIF`).

use std::{
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::unistd::Pid;

const BPF_ITER_CREATE: u32 = 33;
/// Where the daemon keeps what the test asks the kernel by.
const DESCRIPTOR: i32 = 100;
const NOTIFICATION_RECEIVE: libc::c_ulong = 0xc050_2100;
const NOTIFICATION_SEND: libc::c_ulong = 0xc018_2101;

/// The kernel's questions.
pub(crate) struct Gate(OwnedFd);

/// A call that waits.
pub(crate) struct Waiting<'a> {
    gate: &'a Gate,
    id: u64,
}

/// Has the daemon's own calls wait from its beginning.
pub(crate) fn set(command: &mut Command) {
    // SAFETY: three system calls on memory of this function's; nothing is allocated.
    unsafe { command.pre_exec(install) };
}

fn install() -> io::Result<()> {
    let statement = |code: u32, k: u32| jump(code, k, 0, 0);
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let number = u32::try_from(libc::SYS_bpf).map_err(io::Error::other)?;
    // `struct seccomp_data`: the call's number, and the lower half of its first argument.
    let mut filter = [
        statement(load, 0),
        jump(equal, number, 0, 3),
        statement(load, 16),
        jump(equal, BPF_ITER_CREATE, 0, 1),
        statement(answer, libc::SECCOMP_RET_USER_NOTIF),
        statement(answer, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel copies the program, which lives on this stack.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    let listener = i32::try_from(listener).map_err(io::Error::other)?;
    // SAFETY: takes no pointers; the copy outlives the program's start.
    if listener < 0 || unsafe { libc::dup2(listener, DESCRIPTOR) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("a code of 16 bits"), jt, jf, k }
}

impl Gate {
    /// The gate of a daemon that was started with [`set`].
    pub(crate) fn of(daemon: Pid) -> Self {
        // SAFETY: takes no pointers.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, daemon.as_raw(), 0) };
        // SAFETY: as above.
        let gate = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, DESCRIPTOR, 0) };
        let [process, gate] = [process, gate].map(|descriptor| {
            assert!(descriptor >= 0, "{}", io::Error::last_os_error());
            // SAFETY: new descriptors that nobody else has.
            unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor).expect("a descriptor")) }
        });
        drop(process);
        Self(gate)
    }

    /// The next call, once it is made; `None` when there will be no more.
    pub(crate) fn next(&self) -> Option<Waiting<'_>> {
        let mut question = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, as it is told. Asked first: on 6.1 the wait for a call of a daemon that was gone did not end.
        let ready = unsafe { libc::poll(&raw mut question, 1, -1) };
        if ready != 1 || question.revents & libc::POLLIN == 0 {
            return None;
        }
        // SAFETY: all zeroes is valid, and what the kernel wants.
        let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes the one struct that it is given.
        let status = unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIFICATION_RECEIVE, &raw mut notification) };
        (status == 0).then_some(Waiting { gate: self, id: notification.id })
    }
}

impl Waiting<'_> {
    /// Lets the call happen.
    pub(crate) fn go_on(self) {
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("a bit of 32");
        let mut response = libc::seccomp_notif_resp { id: self.id, val: 0, error: 0, flags };
        // SAFETY: the kernel reads the one struct that it is given. It fails where the daemon is gone.
        unsafe { libc::ioctl(self.gate.0.as_raw_fd(), NOTIFICATION_SEND, &raw mut response) };
    }
}
