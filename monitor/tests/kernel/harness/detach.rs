//! Takes programs away from a running daemon: it is made to close its own links, so that the kernel detaches them and what
//! happens from then on is missed, as it is when the kernel skips a program.

use std::{collections::HashMap, env, fs, process::Command};

use finwatch::kernel::{
    btf::Btf,
    hooks::{HOOKS, preemptible},
    loader::BTF_PATH,
};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::until;

const HELPER_TARGET: &str = "FINWATCH_HELPER_TARGET";
const HELPER_LINK: &str = "FINWATCH_HELPER_LINK";

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Whether this kernel lets other tasks run in the midst of programs.
pub(crate) fn is_preemptible() -> bool {
    let types = fs::read(BTF_PATH).expect("the kernel's types");
    preemptible(&Btf::parse(&types).expect("types"))
}

/// The programs on a hook on this kernel, in the order in which they run.
pub(crate) fn programs_on(hook: &str) -> Vec<&'static str> {
    let hook = HOOKS.iter().find(|one| one.name == hook).expect("there is one");
    hook.programs(is_preemptible()).collect()
}

/// Those that look at transitions.
pub(crate) fn on_transitions() -> Vec<&'static str> {
    programs_on("inet_sock_set_state")
}

/// Detaches these programs of the daemon `pid`.
pub(crate) fn detach(pid: Pid, programs: &[&str]) {
    let names: HashMap<u32, String> = aya::programs::loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect();
    let wanted = |id: u32| names.get(&id).is_some_and(|name| programs.contains(&name.as_str()));
    let links: Vec<u32> =
        links(pid).into_iter().filter(|(_, program)| wanted(*program)).map(|(link, _)| link).collect();
    assert_eq!(links.len(), programs.len(), "a link each: {links:?}");
    for link in &links {
        // A process of its own: the daemon's parent would take its stops for its end.
        let helper = Command::new("/proc/self/exe")
            .args(["--exact", "harness::detach::helper", "--test-threads", "1"])
            .env(HELPER_TARGET, pid.to_string())
            .env(HELPER_LINK, link.to_string())
            .output();
        let output = helper.expect("the test binary starts again");
        assert!(
            output.status.success(),
            "link {link} is closed: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    until("the links are gone", || {
        (!self::links(pid).iter().any(|(_, program)| wanted(*program))).then_some(())
    });
}

/// The links that a process has open: descriptor and program.
fn links(pid: Pid) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let program = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        let descriptor = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (true, Some(program), Some(descriptor)) = (text.contains("link_type:"), program, descriptor) {
            found.push((descriptor, program));
        }
    }
    found
}

/// Not a test: what [`detach`] runs in another process.
#[test]
fn helper() {
    let Ok(target) = env::var(HELPER_TARGET) else { return };
    let link = env::var(HELPER_LINK).expect("set together").parse().expect("a descriptor");
    close_in(Pid::from_raw(target.parse().expect("a process")), link);
}

/// Stops a process that waits in a system call, has it call close() with that call's own instruction, and lets it go on as
/// if nothing had been. Its code stays as it is: other threads run it meanwhile.
fn close_in(target: Pid, descriptor: u64) {
    ptrace::seize(target, ptrace::Options::empty()).expect("a process that may be traced");
    let registers = until("it waits in a system call", || {
        ptrace::interrupt(target).expect("it is traced");
        next_stop(target, |status| matches!(status, WaitStatus::PtraceEvent(..)));
        let registers = ptrace::getregs(target).expect("it has stopped");
        let before = (registers.rip - SYSCALL.len() as u64) as ptrace::AddressType;
        let code = ptrace::read(target, before).expect("its code").to_ne_bytes();
        if code.starts_with(&SYSCALL) {
            return Some(registers);
        }
        ptrace::cont(target, None).expect("it has stopped");
        None
    });
    let mut call = registers;
    call.rip -= SYSCALL.len() as u64;
    call.rax = libc::SYS_close.cast_unsigned();
    call.rdi = descriptor;
    // What it was doing in the kernel is not begun anew yet.
    call.orig_rax = u64::MAX;
    ptrace::setregs(target, call).expect("it has stopped");
    ptrace::step(target, None).expect("one instruction");
    next_stop(target, |status| matches!(status, WaitStatus::Stopped(_, Signal::SIGTRAP)));
    let after = ptrace::getregs(target).expect("it has stopped");
    ptrace::setregs(target, registers).expect("it has stopped");
    ptrace::detach(target, None).expect("it has stopped");
    assert_eq!(after.rip, registers.rip, "one instruction was run");
    assert_eq!(after.rax.cast_signed(), 0, "close() succeeds");
}

/// Waits until a process stops, which must be so.
fn next_stop(target: Pid, expected: impl FnOnce(&WaitStatus) -> bool) {
    let status = waitpid(target, None).expect("it stops");
    assert!(expected(&status), "{status:?}");
}
